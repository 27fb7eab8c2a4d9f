"""A benchmark's federation under privacy: noise that can be drawn again, noisy numbers, and no floors."""

from contextlib import closing

import numpy as np
import pytest

from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.privacy import read_privacy
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.trainer import Trainer

ASKED = read_privacy("--privacy", "epsilon=8,delta=1e-5,sampling_rate=0.5")


def experiment(method="linear-probe", privacy=ASKED):
    return Experiment(method=method, rounds=2, settings=TrainingSettings(local_steps=2), privacy=privacy)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_noise_and_another_another(pool):
    site = pool.deal(0, None, 1.0).sites[0]

    def trained(seed):
        trainer = Trainer(experiment().plan(seed), pool)
        return trainer.train(site, trainer.initial_shared(), {}, 1)[0]["classifier.weight"]

    assert np.array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))


def test_a_federation_plays_and_tells_noisy_numbers(pool):
    trainer, sites = Trainer(experiment().plan(3), pool), pool.deal(3, None, 1.0).sites
    told = {site.name: trainer.contribution(site).samples for site in sites}
    assert told == {site.name: trainer.contribution(site).samples for site in sites}
    assert any(told[site.name] != len(site.train) for site in sites)
    with closing(Federation(trainer)) as federation:
        federation.play_round(1, sites)
        assert set(federation.shared_head()) == {"classifier.weight", "classifier.bias"}


def test_what_numbers_depend_on_names_the_privacy_where_there_is_one():
    assert "privacy" not in experiment(privacy=type(ASKED)()).description()
    assert experiment().description()["privacy"]["releases"] == 2
    assert experiment("whitened-memory").description()["privacy"]["releases"] == 1


def test_a_method_without_private_statistics_is_refused(pool):
    trainer = Trainer(experiment("whitened-memory").plan(0), pool)
    with pytest.raises(InvalidInputError, match="'whitened-memory' has no private form"):
        trainer.contribution(pool.deal(0, None, 1.0).sites[0])


@pytest.mark.parametrize(
    "text", ["epsilon=-1", "delta=1e-5", "foo=3,epsilon=1", "epsilon=inf", "epsilon", ""]
)
def test_what_is_no_promise_is_refused_in_one_line(text):
    with pytest.raises(InvalidInputError, match=r"epsilon") as refused:
        read_privacy("--privacy", text)
    assert "\n" not in str(refused.value)

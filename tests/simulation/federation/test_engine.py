"""One runner for all benchmarks: who trains on what, which heads count, and what a run is known by."""

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.methods import codec_for, rounds_for
from fedmedclip.simulation.federation.dealing import Dealing, read_fractions
from fedmedclip.simulation.federation.engine import begin
from fedmedclip.simulation.federation.evaluation import share_right
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.targets import Target


def experiment(**changes):
    return Experiment(**{"method": "fedmedclip", "rounds": 3, "floors": NO_FLOORS, **changes})


def play(wanted, pool, folder, score=lambda run: None, seed=0, **options):
    """Play a run and return what `score` said after each round, the heads chosen, and the run."""
    with begin(wanted, pool, seed, folder, **options) as run:
        played = run.play(lambda: score(run), lambda: None)
        names = [None, *(site.name for site in run.sites.sites)]
        shared = {name: played.heads.shared_head(name) for name in names}
        return [entry.score for entry in played.rounds.rounds], shared, played, run


@pytest.mark.slow
def test_federated_sites_share_a_head_and_sites_alone_do_not(pool, tmp_path):
    _, federated, played, _ = play(experiment(), pool, tmp_path)
    assert len({head_digest(head) for head in federated.values()}) == 1
    assert played.rounds.uplink_by_message["Update"] > 0
    _, alone, played, _ = play(experiment(regime="local-only"), pool, tmp_path)
    assert alone.pop(None) is None
    assert len({head_digest(head) for head in alone.values()}) == 3
    assert played.rounds.uplink_by_message == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "method", ["fedmedclip", "linear-probe", pytest.param("whitened-memory", marks=pytest.mark.slow)]
)
def test_pooled_heads_are_those_of_one_site_that_holds_everything(pool, tmp_path, method):
    _, pooled, played, run = play(experiment(method=method, regime="pooled"), pool, tmp_path)
    assert len({head_digest(head) for head in pooled.values()}) == 1
    assert played.rounds.uplink_by_message == played.rounds.downlink_by_message == {}
    parts = (np.sort(np.concatenate([getattr(site, part) for site in run.sites.sites]))
             for part in ("train", "validation", "test"))  # fmt: skip
    whole = type(run.sites.sites[0])("pooled", *parts)
    sites = type(run.sites)((whole,), 0)
    alone = experiment(method=method, regime="local-only")
    _, shared, _, _ = play(alone, pool, tmp_path, sites=sites)
    assert head_digest(shared["pooled"]) == head_digest(pooled[None])


@pytest.mark.parametrize("regime", ["federated", "local-only", "pooled"])
def test_what_the_optimiser_remembers_is_no_part_of_a_head(pool, tmp_path, regime):
    forgets, remembers = (
        play(
            experiment(regime=regime, settings=TrainingSettings(keep_optimizer_state=keep)), pool, tmp_path,
            lambda run: run.learning.private_head("site-0"),
        )[0][-1]
        for keep in (False, True)
    )  # fmt: skip
    assert forgets.keys() == remembers.keys()
    assert head_digest(forgets) != head_digest(remembers)


def test_a_site_alone_is_not_held_back_by_floors_nor_by_whom_the_draw_chooses(pool, tmp_path):
    few = Dealing(sites=8, alpha=0.5)
    free = experiment(method="whitened-memory", regime="local-only", dealing=few)
    bound = experiment(
        method="whitened-memory", regime="local-only", dealing=few, floors=DEFAULT_FLOORS, sites_per_round=2
    )
    assert free.identity == bound.identity
    _, one, _, _ = play(free, pool, tmp_path)
    _, other, _, _ = play(bound, pool, tmp_path)
    assert {name: head and head_digest(head) for name, head in one.items()} == {
        name: head and head_digest(head) for name, head in other.items()
    }


def test_the_best_round_on_validation_images_is_chosen_and_test_images_have_no_say(pool, tmp_path):
    wanted = experiment(rounds=6, select="best-validation", settings=TrainingSettings(shared_learning_rate=1))

    def validation(run):
        found = [
            share_right(
                run.examiner.at_site(run.learning, site.name, pool.embeddings[site.validation]).ensemble,
                pool.labels[site.validation],
            )
            for site in run.sites.sites
        ]
        return float(np.mean(found)), head_digest(run.learning.shared_head())

    scores, heads, played, _ = play(wanted, pool, tmp_path, validation)
    accuracies = [accuracy for accuracy, _ in scores]
    assert len(set(accuracies)) > 1
    assert played.selected == 1 + int(np.argmax(accuracies))
    assert head_digest(heads[None]) == scores[played.selected - 1][1]
    last = msgspec.structs.replace(wanted, select="last")
    _, heads, played, _ = play(last, pool, tmp_path)
    assert (played.selected, head_digest(heads[None])) == (6, scores[-1][1])


def test_without_validation_images_no_round_can_be_chosen(pool, tmp_path):
    wanted = experiment(select="best-validation", dealing=Dealing(fractions=(0.8, 0.0, 0.2)))
    with pytest.raises(InvalidInputError, match="no site has validation images"):
        play(wanted, pool, tmp_path)


def test_a_site_that_is_left_out_trains_nothing(pool, tmp_path):
    _, _, played, run = play(experiment(left_out="site-1"), pool, tmp_path)
    assert [site.name for site in run.training.sites] == ["site-0", "site-2"]
    assert played.rounds.sites_reached == 2
    with pytest.raises(InvalidInputError, match="'site-9' cannot be left out of 3 sites"):
        play(experiment(left_out="site-9"), pool, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "facmic"},
        {"rounds": 4},
        {"settings": TrainingSettings(batch_size=16)},
        {"downlink_codec": "int8"},
        {"rule": "krum"},
        {"weighting": "equal"},
        {"maximum_update_norm": 5.0},
        {"floors": DEFAULT_FLOORS},
        {"target": Target("global_test")},
        {"masked": False},
        {"regime": "pooled"},
        {"dealing": Dealing(sites=3)},
        {"dealing": Dealing(fractions=(0.6, 0.2, 0.2))},
        {"sites_per_round": 2},
        {"left_out": "site-1"},
        {"select": "best-validation"},
    ],
)
def test_whatever_changes_numbers_changes_what_a_run_is_known_by(changes):
    assert experiment(**changes).identity != experiment().identity


def test_what_changes_nothing_keeps_finished_runs():
    assert experiment(rule="weighted_mean").identity != experiment(rule="krum").identity
    assert experiment(rule=experiment().rule_name).identity == experiment().identity
    assert experiment(dealing=Dealing(alpha=1.0)).identity == experiment().identity


@pytest.mark.parametrize(
    "changed", [{"sites": 4}, {"sites": 4, "alpha": 2.0}, {"sites": 4, "within": "parts"}]
)
def test_sites_are_dealt_out_again_with_an_alpha(pool, changed):
    dealt = Dealing(**changed).deal(pool, 0)
    assert len(dealt.sites) + dealt.left_out == 4
    assert sum(len(site.images) for site in dealt.sites) <= 300


def test_parts_have_the_shares_that_were_asked_for(pool):
    for text, shares in (("60/20/20", (0.6, 0.2, 0.2)), ("80/10/10", (0.8, 0.1, 0.1))):
        sites = Dealing(fractions=read_fractions(text)).deal(pool, 0).sites
        for part, share in zip(("train", "validation", "test"), shares, strict=True):
            assert sum(len(getattr(site, part)) for site in sites) == pytest.approx(300 * share, abs=4)


def test_the_usual_per_cents_are_the_default():
    assert read_fractions("70/10/20") == Dealing().fractions


@pytest.mark.parametrize(
    "text", ["", "60/20", "60/20/20/0", "60/20/30", "0/50/50", "80/20/0", "60/x/20", "6e1/20/20", "-60/80/80"]
)
def test_per_cents_that_make_no_parts_are_refused_in_one_line(text):
    with pytest.raises(InvalidInputError, match="such as 60/20/20") as caught:
        read_fractions(text)
    assert "\n" not in str(caught.value)


def test_private_heads_of_a_version_in_one_place_are_of_all_images_there(pool, tmp_path):
    wanted = experiment(method="one-message", rounds=1, regime="pooled")
    with begin(wanted, pool, 0, tmp_path) as run:
        run.play(lambda: None, lambda: None)
        shared, place = run.learning.shared_head(), run.sites.sites
        heads = [run.learning.private_head(site.name) for site in place]
    assert len({head_digest(head) for head in heads}) == 1
    parts = (np.sort(np.concatenate([getattr(site, part) for site in place]))
             for part in ("train", "validation", "test"))  # fmt: skip
    whole = type(place[0])("pooled", *parts)
    assert head_digest(run.trainer.own_head(whole, shared)) == head_digest(heads[0])


def test_a_method_is_played_as_suits_it_unless_somebody_says_otherwise():
    assert (rounds_for("one-message", None, 30), rounds_for("one-message", 7, 30)) == (1, 7)
    assert (rounds_for("fedmedclip", None, 30), codec_for("fedmedclip", None)) == (30, "lowrank")
    assert (codec_for("one-message", None), codec_for("one-message", "int8")) == ("moments", "int8")

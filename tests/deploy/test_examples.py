"""The example configurations of deploy/ and configs/ decode, and are those of the installed command."""

import re
from contextlib import closing

import msgspec
import numpy as np
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.configuration.examples import EXAMPLES
from fedmedclip.simulation.federation.feature_pool import pool_of_file
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.plan import FederationPlan, settings_of
from fedmedclip.simulation.federation.targets import PublishedTarget, Target
from fedmedclip.simulation.federation.trainer import Trainer
from tests import ROOT

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize("name", ["aggregator.toml", "serve.toml", "site.toml"])
def test_the_examples_are_those_of_the_installed_command(name):
    assert (DEPLOY / name).read_text() == (EXAMPLES / name).read_text()


PAPERS = sorted((DEPLOY.parent / "configs" / "papers").glob("*.toml"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """120 images of three classes at three sites, 16 values each, as long as CLIP's embeddings are."""
    draw = np.random.default_rng(0)
    labels = np.arange(120) % 3
    captions = np.linalg.qr(draw.normal(size=(16, 3)))[0].T.astype(np.float32)
    embeddings = 10 * (captions[labels] + 0.3 * draw.normal(size=(120, 16)))
    path = tmp_path_factory.mktemp("pool") / "features.npz"
    np.savez(
        path, embeddings=embeddings.astype(np.float32), labels=labels, sites=np.arange(120) // 3 % 3,
        class_embeddings=captions, logit_scale=100.0,
    )  # fmt: skip
    return pool_of_file(path)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_papers_configurations_are_read_and_train_a_round(path, pool):
    configuration = read_configuration(path, AggregatorConfiguration)
    federation = configuration.federation
    assert federation.method == path.stem
    settings = settings_of(configuration.training, path.stem)
    assert settings.local_steps == {"facmic": 199, "faa-clip": 200}.get(path.stem, 0)
    few = msgspec.structs.replace(settings, local_steps=min(settings.local_steps, 3))
    plan = FederationPlan(
        federation.method, federation.uplink_codec, federation.downlink_codec, federation.rounds,
        federation.seed, few, federation.rule,
        federation.maximum_share, NO_FLOORS, federation.maximum_update_norm, federation.weighting,
    )  # fmt: skip
    sites = pool.deal(plan.seed).sites
    adapts = site_method(plan.method).adapts
    target = PublishedTarget(Target("others"), {"others": pool.embeddings[:40]}) if adapts else None
    with closing(Federation(Trainer(plan, pool, target))) as played:
        before = {name: array.copy() for name, array in played.head.items()}
        played.play_round(1, sites)
        assert any((played.head[name] != before[name]).any() for name in before)
        kept = played.kept_at(sites[0].name)
        steps = {float(array[0]) for name, array in kept.items() if name.endswith(".steps")}
    assert steps == ({3.0} if adapts else set())


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_each_value_of_the_papers_configurations_names_its_source(path):
    lines = path.read_text().splitlines()
    training = [line for line in lines[lines.index("[training]") + 1 :] if line]
    assert len(training) > 8
    assert [line for line in training if not re.search(r"#.* lines? \d+", line)] == []
    assert re.search(r"github.com/\S+ at commit\s(# )?[0-9a-f]{7}", "\n".join(lines))

"""A federation with a method, an aggregation rule and a codec that are not ours: real commands, real broker.

The method is the one in CONTRIBUTING.md, installed as it says there.
"""

import csv
import re
import subprocess
import sys
import time
import tomllib

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.heads.heads_file import load_heads
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.bundle.signature import sign_bundle
from fedmedclip.protocol.heads.heads_signature import heads_signer
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.signature import load_signing_key
from fedmedclip.protocol.trust.pins import own_key, pins
from fedmedclip.simulation.processes.commands import all_ended, running
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)
from tests import ROOT
from tests.distributions import install
from tests.edge_client.conftest import CLASS_NAMES, write_image, write_tiny_bundle
from tests.edge_client.heads.heads_examples import example_data

SITES = ("site-a", "site-b")
DEADLINE_SECONDS = 60.0
RULE = """
import numpy as np

def majority(updates, specification):
    deltas = [delta for _, delta in updates]
    return {
        tensor.name: np.float32(0.25) * np.sign(sum(np.sign(delta[tensor.name]) for delta in deltas))
        for tensor in specification.tensors
    }
"""
CODEC = """
from fedmedclip.protocol.codecs.dense import IntegerCodec
from fedmedclip.protocol.codecs.quantiser import Quantiser

def bytes_of_arrays(name):
    return IntegerCodec(name.name, Quantiser(8), scale_per_array=True)
"""


def section(heading):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder in which somebody's distribution is installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    text = section("To add a method")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (lines,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    groups = tomllib.loads(lines)["project"]["entry-points"]
    module = groups["fedmedclip.methods"]["gate"].partition(":")[0]
    groups["fedmedclip.aggregation_rules"] = {"majority": "somebody:majority"}
    groups["fedmedclip.codecs"] = {"bytes": "somebody:bytes_of_arrays"}
    install(folder, "somebody", {module: source, "somebody": RULE + CODEC}, groups)
    return folder


@pytest.fixture
def installed(outside, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(outside))
    monkeypatch.syspath_prepend(outside)


def fedmedclip(*arguments):
    command = [sys.executable, "-m", "fedmedclip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_aggregator_sites_and_predict(tmp_path, installed, mosquitto, monkeypatch):
    # On one machine, with what this user signs, nothing has to be said about trust.
    monkeypatch.delenv("FEDMEDCLIP_INSECURE")
    bundle = write_tiny_bundle(tmp_path / "bundle").folder
    sign_bundle(bundle, own_key())
    broker = LinkSettings(host=mosquitto.host, port=mosquitto.port)
    commands = {}
    configuration = tmp_path / "aggregator" / "aggregator.toml"
    write_aggregator_configuration(
        configuration, federation="outside", bundle=bundle, method="gate", rounds=2, sites=len(SITES), seed=3,
        broker=broker, codec="bytes",
    )  # fmt: skip
    text = configuration.read_text().replace("[federation]\n", '[federation]\nrule = "majority"\n')
    configuration.write_text(text)
    commands["aggregator"] = ["aggregator", "--config", str(configuration), "--once"]
    for offset, site in enumerate(SITES):
        for label, name in enumerate(CLASS_NAMES):
            for number in range(8):
                path = tmp_path / "data" / site / name / f"{number}.png"
                write_image(path, seed=1000 * label + 100 * offset + number)
        write_site_configuration(
            tmp_path / site / "site.toml", federation="outside", site=site, bundle=bundle,
            data=tmp_path / "data" / site, seed=3, broker=broker, insecure=False, floors=NO_FLOORS,
        )  # fmt: skip
        commands[site] = ["site", "--config", str(tmp_path / site / "site.toml"), "--once"]
    until = time.monotonic() + DEADLINE_SECONDS
    with running(commands, tmp_path / "logs") as started:
        while not all_ended(started):
            assert time.monotonic() < until, f"the federation did not end; logs in {tmp_path / 'logs'}"
            time.sleep(0.05)
    figures = msgspec.json.decode((tmp_path / "site-a" / "evaluation.json").read_bytes())
    assert set(figures) == {"zero_shot", "shared", "private", "ensemble"}
    heads = [load_heads(tmp_path / site / "heads.safetensors", open_bundle(bundle)) for site in SITES]
    states = [SiteState(tmp_path / site / "site.db") for site in SITES]
    (gate, of_the_other) = (np.frombuffer(state.load().shared_head, np.float32) for state in states)
    # Steps of a quarter are the rule's: the mean would move the gate by a few thousandths.
    assert np.abs(gate - 1).max() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(gate, of_the_other)
    assert not np.array_equal(heads[0].private["classifier.weight"], heads[1].private["classifier.weight"])

    keys = {load_signing_key(tmp_path / site / "site.key").public_key for site in SITES}
    assert {heads_signer(tmp_path / site / "heads.safetensors") for site in SITES} == keys
    assert set(pins()) == {own_key().public_key, *keys}
    output = tmp_path / "predictions.csv"
    done = fedmedclip("predict", "--bundle", bundle, "--heads", tmp_path / "site-a" / "heads.safetensors",
                      tmp_path / "data" / "site-a", "--output", output)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader(output.open()))) == 24


@pytest.mark.slow
def test_a_benchmark_compares_what_is_brought_along(tmp_path, installed):
    embeddings, labels, captions = example_data(90, noise=0.3)
    np.savez(
        tmp_path / "features.npz", embeddings=embeddings, labels=labels, sites=np.arange(90) % 3,
        class_embeddings=captions, logit_scale=np.float64(12.7),
    )  # fmt: skip
    done = fedmedclip(
        "bench", "bandwidth", "--features", tmp_path / "features.npz", "--method", "gate", "--rounds", 2,
        "--codecs", "lossless,bytes", "--seeds", 0, "--no-floors", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").open()))
    assert {row["codec"] for row in rows} == {"lossless", "bytes"}


def test_without_the_distribution_one_line_says_what_is_missing(tmp_path):
    done = fedmedclip("demo", "--method", "gate", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert re.fullmatch(r"fedmedclip: unknown method 'gate'.* \(known: .*\)\n", done.stderr)

"""The door for notebooks: the numbers of `bench accuracy`, in tables."""

import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.simulation.accuracy.benchmark import run_accuracy
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.federation.simulate import simulate
from fedmedclip.simulation.federation.source import Source
from tests.edge_client.conftest import CLASS_NAMES, write_image, write_tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and a folder of two sites with 6 images of each class, a global test and a reference set."""
    root = tmp_path_factory.mktemp("simulate")
    write_tiny_bundle(root / "bundle")
    seed = 0
    for site in ("a", "b", "global_test", "server_reference"):
        for name in CLASS_NAMES:
            for number in range(6):
                seed += 1
                write_image(root / "data" / site / name / f"{number}.png", seed=seed)
    return root


@pytest.mark.parametrize("method", ["fedmedclip", "facmic"])
def test_the_numbers_are_those_of_the_accuracy_benchmark(folder, tmp_path, method):
    source = Source(folder / "data", folder / "bundle")
    settings = AccuracySettings(
        tmp_path,
        source,
        methods=method,
        rounds=2,
        seeds="3",
        leave_one_out=False,
        ablations=False,
        floors=False,
    )
    run_accuracy(settings, Console(quiet=True))
    [expected] = json.loads((tmp_path / "accuracy.json").read_text())["methods"]
    found = simulate(str(folder / "data"), folder / "bundle", method=method, rounds=2, seed=3, floors=False)
    so_far = 0
    for row, point in zip(found.rounds, expected["curve"], strict=True):
        so_far += row.uplink_bytes + row.downlink_bytes
        assert (row.ensemble, row.shared) == (point["ensemble"], point["shared"])
        assert row.global_shared == point["global_shared"]
        assert so_far / 2 == pytest.approx(point["bytes_so_far"], abs=0.1)
    assert found.total_bytes == so_far
    scores = expected["scores"]
    for site in found.sites:
        for name, metrics in scores[site.name].items():
            assert getattr(site, name) == metrics["accuracy"]["mean"]
        assert (site.private is None) == (method == "facmic")
    assert found.rounds[-1].zero_shot == scores["sites"]["zero_shot"]["accuracy"]["mean"]
    assert found.rounds[-1].global_zero_shot == scores["global_test"]["zero_shot"]["accuracy"]["mean"]
    assert found.class_names == tuple(CLASS_NAMES)


def test_every_seed_has_its_rows_and_heads(pool):
    told = []
    found = simulate(
        pool, rounds=2, seed=[0, 5], sites=4, floors=False, alpha=50.0, settings={"local_epochs": 2},
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [(row.seed, row.number) for row in found.rounds] == [(0, 1), (0, 2), (5, 1), (5, 2)]
    assert [(row.seed, row.name) for row in found.sites] == [
        (seed, f"site-{number}") for seed in (0, 5) for number in range(4)
    ]
    assert sum(row.train + row.validation + row.test for row in found.sites if row.seed == 0) == 300
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(found.heads[5].private) == {f"site-{number}" for number in range(4)}
    assert found.rounds[0].global_shared is None
    assert head_digest(found.heads[0].shared) != head_digest(found.heads[5].shared)
    for heads in found.heads.values():
        for array in heads.shared.values():
            assert array.dtype == np.float32


def test_computed_features_are_used_again(folder, tmp_path):
    first = simulate(folder / "data", folder / "bundle", rounds=1, floors=False, work=tmp_path / "work")
    stored = (tmp_path / "work" / "features.db").read_bytes()
    again = simulate(folder / "data", folder / "bundle", rounds=1, floors=False, work=tmp_path / "work")
    assert again.rounds == first.rounds
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["features.db"]
    assert (tmp_path / "work" / "features.db").read_bytes() == stored


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "nothing"}, "unknown method 'nothing'"),
        ({"codec": "gzip"}, "gzip"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": []}, "seed is"),
        ({"settings": {"learning_speed": 3}}, "learning_speed"),
        ({"sites": 0}, "0 sites"),
        ({"bundle": "bundle"}, "leave the bundle out"),
        ({"data": "images"}, "give the bundle"),
        ({"data": "missing.npz"}, "missing.npz cannot be read"),
    ],
)
def test_wrong_arguments_are_one_line(pool, changes, words):
    with pytest.raises(InvalidInputError, match=words) as raised:
        simulate(**{"data": pool, **changes})
    assert "\n" not in str(raised.value)


def test_it_is_imported_without_torch():
    module = "fedmedclip.simulation.federation.simulate"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Heads that a method adapts to tested images without their labels, and one round beside many."""

import json

import numpy as np
import pytest
from rich.console import Console

from fedmedclip.simulation.accuracy.benchmark import run_accuracy
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.federation.source import Source

pytestmark = pytest.mark.slow

ROWS = "one-message,local-only:one-message,pooled:one-message,pooled:linear-probe"


@pytest.fixture(scope="module")
def told(pool_file, tmp_path_factory):
    """Rows by label, the page and what was printed; chosen on validation images, with a global test."""
    folder = tmp_path_factory.mktemp("adapted")
    arrays = dict(np.load(pool_file))
    elsewhere = arrays["embeddings"][:60] + 0.3 * arrays["class_embeddings"][0]
    np.savez(
        folder / "features.npz", **arrays, global_embeddings=elsewhere, global_labels=arrays["labels"][:60]
    )
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    settings = AccuracySettings(
        folder / "out", Source(None, None, folder / "features.npz"), ROWS, seeds="0", floors=False,
        leave_one_out=True, ablations=False, select="best-validation",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedmedclip.simulation.accuracy.significance.RESAMPLES", 50)
        patch.setattr("fedmedclip.simulation.accuracy.settings.USUAL_ROUNDS", 2)
        run_accuracy(settings, console)
    content = json.loads((folder / "out" / "accuracy.json").read_text())
    return content, (folder / "out" / "report.md").read_text(), console.export_text()


def test_heads_adapted_to_the_global_test_stand_beside_the_shared_one(told):
    content, page, _ = told
    rows = {row["label"]: row for row in content["methods"]}
    with_global = {label: set(row["scores"]["global_test"]) for label, row in rows.items()}
    assert "adapted" in with_global["one-message"]
    assert "adapted" in with_global["pooled:one-message"]
    assert "adapted" not in with_global["pooled:linear-probe"]
    assert "adapted" not in with_global["local-only:one-message"]
    assert "global, adapted to it" in page
    assert "one-message: adapted" in page
    left_out = {entry["label"]: entry["scores"] for entry in content["leave_one_out"]}
    assert "adapted" in left_out["one-message"]


def test_a_method_that_needs_one_round_has_one_and_its_codec(told):
    content, page, text = told
    rows = {row["label"]: row for row in content["methods"]}
    assert {label: len(row["curve"]) for label, row in rows.items()} == {
        "one-message": 1, "local-only:one-message": 1, "pooled:one-message": 1, "pooled:linear-probe": 2,
    }  # fmt: skip
    assert rows["one-message"]["selected_rounds"] == [1]
    assert "rounds: 1 (linear-probe: 2), codec moments" in page
    assert "rounds: 1 (linear-probe: 2)" in text

"""Newcomers whose images nobody has labelled: which they have, and what becomes of them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.simulation.federation.source import Source
from fedmedclip.simulation.newcomer.benchmark import NewcomerSettings, run_newcomer
from fedmedclip.simulation.newcomer.class_shares import RESAMPLED, resampled, shares_of
from fedmedclip.simulation.newcomer.runs import Newcomers
from fedmedclip.simulation.newcomer.study import Case, Study


def case(labels=0, **changes):
    return Case(**{
        "way": "federated", "method": "one-message", "site": "site-0", "labels": labels, "seed": 0, **changes
    })  # fmt: skip


def nothing():
    """Take no notice of a round."""


@pytest.fixture(scope="module")
def content(features_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("unlabelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedmedclip.simulation.accuracy.significance.RESAMPLES", 50)
        run_newcomer(
            NewcomerSettings(
                out,
                Source(None, None, features_file),
                "one-message",
                "linear-probe",
                "0,1",
                "0",
                codec="lossless",
                rounds=1,
                missing_class=False,
            ),
            Console(quiet=True),
        )
    return json.loads((out / "newcomer.json").read_text()), (out / "newcomer.md").read_text()


@pytest.mark.slow
def test_rows_say_what_was_adapted_and_what_came(content):
    found, page = content
    rows = {(row["method"], row["site"], row["labels_per_class"]): row for row in found["rows"]}
    for labels in (0, 1):
        adapted = rows["one-message", "site-1", labels]
        came = rows["one-message, not adapted", "site-1", labels]
        assert came["accuracy"] == adapted["shared_accuracy"]
        assert adapted["unlabelled"] + sum(adapted["images"].values()) == 74
        assert (adapted["classifier"], came["classifier"], came.get("unlabelled", 0)) == (
            "ensemble", "shared", 0
        )  # fmt: skip
    assert rows["one-message", "global_test", 0]["unlabelled"] == 20
    assert "unlabelled" not in rows["zero-shot", "site-1", 0]
    for heading in ("Images without labels", "Other shares of classes", "(transductive)"):
        assert heading in page


def test_class_shares_are_told_for_adapted_heads_as_they_came_and_zero_shot(content):
    found, _ = content
    told = {(entry["method"], entry["shares"]): entry for entry in found["other_shares"]}
    methods = ("one-message", "one-message, not adapted", "zero-shot")
    assert told.keys() == {(m, s) for m in methods for s in ("natural", "balanced", "dirichlet")}
    point = next(p for p in found["points"] if (p["method"], p["labels_per_class"]) == ("one-message", 0))
    natural = told["one-message", "natural"]
    assert natural["accuracy"] == pytest.approx(point["accuracy"], abs=1e-5)
    balanced = told["zero-shot", "balanced"]
    of_zero_shot = next(p for p in found["points"] if p["method"] == "zero-shot")
    assert balanced["accuracy"] == pytest.approx(of_zero_shot["balanced_accuracy"], abs=1e-5)
    assert told["one-message", "dirichlet"]["runs"] == 15
    assert balanced["below_zero_shot"] == 0


def test_images_without_labels_are_the_rest_also_of_a_missing_class(study):
    everything = study.newcomer(case("all")).train
    for wanted in (case(0), case(2), case("all"), case("all", missing=1)):
        labelled, rest = study.newcomer(wanted).train, study.unlabelled(wanted)
        assert sorted([*labelled, *rest]) == sorted(everything)
    assert set(study.pool.labels[study.unlabelled(case("all", missing=1))]) == {1}


@pytest.mark.parametrize("floors", [None, NO_FLOORS])
def test_images_without_labels_are_used_whether_the_newcomer_sends_or_not(
    study, tmp_path, monkeypatch, floors
):
    chosen = study if floors is None else Study(study.features, "lossless", None, floors=floors)
    wanted = case(8, site="site-1")
    found = Newcomers(chosen, tmp_path).run(wanted, nothing)
    assert found.sends == (floors is not None)
    assert found.unlabelled == 74 - 24
    monkeypatch.setattr(Study, "unlabelled", lambda self, case: np.empty(0, dtype=np.int64))
    assert Newcomers(chosen, tmp_path).run(wanted, nothing).unlabelled == 0


def test_at_the_global_test_its_own_images_are_adapted_to(study, tmp_path):
    chosen = Study(study.features, "lossless", None)
    found = Newcomers(chosen, tmp_path).run(case(site="global_test"), nothing)
    experiment = chosen.experiment("one-message", "federated")
    assert (experiment.rounds, found.classifier, found.unlabelled) == (1, "ensemble", 20)
    assert chosen.experiment("fedmedclip", "federated").rounds == 30
    assert chosen.description()["rounds"] == "30, or as many as the method needs"
    assert Study(study.features, None, None).experiment("one-message", "federated").uplink_codec == "moments"


@given(st.sampled_from(RESAMPLED), st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_images_are_drawn_again_with_the_shares_that_are_asked_for(name, labels, seed):
    labels = np.array(labels)
    images = 100 + np.arange(len(labels))
    shares = shares_of(name, np.unique(labels), 4, "site", seed)
    assert shares.sum() == pytest.approx(1)
    assert (shares[~np.isin(np.arange(4), labels)] == 0).all()
    chosen = resampled(name, images, labels, shares, "site", seed)
    assert len(chosen) == len(images)
    counts = np.bincount(labels[chosen - 100], minlength=4)
    assert np.abs(counts - shares * len(images)).max() < 1
    # Nothing twice before everything once.
    for label in np.unique(labels):
        times = np.bincount(chosen[labels[chosen - 100] == label])
        there = times[images[labels == label][images[labels == label] < len(times)]]
        assert not len(there) or there.max() - there.min() <= 1 or counts[label] < (labels == label).sum()

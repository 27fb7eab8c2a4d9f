"""Who answers at a site: what was best on its own validation split, whatever the federation sends."""

import errno
import logging
from contextlib import closing

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS, AssuranceSettings
from fedmedclip.edge_client.heads.classification import answer, predict, zero_shot
from fedmedclip.edge_client.heads.heads_file import load_heads, save_heads
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.versions.guard import Guard
from fedmedclip.edge_client.versions.recent import RECENT, RecentImages
from fedmedclip.edge_client.versions.rule import DEFAULT_RULE, ActivationRule
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.errors import FullDiskError
from fedmedclip.protocol.messages import Plan
from tests.edge_client.heads.heads_examples import SIZE, example_bundle
from tests.edge_client.versions.version_examples import (
    BEST,
    BUNDLE,
    CAPTIONS,
    EMBEDDINGS,
    LABELS,
    heads,
    shared,
)

VALIDATION = LabelledFeatures(EMBEDDINGS, LABELS)
PLAN = Plan(
    bytes(16), bytes(32), "linear-probe", BUNDLE.digest, SIZE, 3, 1, "lowrank", "lowrank", {},
    1, 1, False, 1000.0, None,
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "heads.safetensors"


@pytest.fixture
def guard(path):
    return Guard(path, BUNDLE, VALIDATION)


def test_a_ruined_version_does_not_answer_and_that_is_said_once(path, guard, caplog):
    caplog.set_level(logging.INFO, "fedmedclip.site")
    assert guard.judge(heads(1, BEST)).version == 1
    assert caplog.text == ""
    for version in (2, 3, 4):
        assert guard.judge(heads(version, -BEST)).version == 1
    assert caplog.text.count("goes on answering") == 1
    assert (
        "version 2 is set aside, version 1 goes on answering: balanced accuracy 0.000 on the 60"
        in caplog.text
    )
    kept = load_heads(path, BUNDLE)
    assert kept.version == 1
    np.testing.assert_array_equal(kept.shared["classifier.weight"], BEST)
    assert kept.judgement.images == 60
    assert kept.judgement.heads > kept.judgement.zero_shot
    assert guard.judge(heads(5, BEST)).version == 5  # recovered: the newer of equals
    guard.judge(heads(6, -BEST))
    assert caplog.text.count("goes on answering") == 2


def test_below_zero_shot_zero_shot_answers(path, guard, caplog):
    guard.judge(heads(1, -CAPTIONS))
    guard.judge(heads(2, -CAPTIONS))
    assert caplog.text.count("zero-shot answers") == 1
    kept = load_heads(path, BUNDLE)
    assert kept.zero_shot_answers
    found, weights = answer(kept, BUNDLE, EMBEDDINGS)
    np.testing.assert_array_equal(found, zero_shot(BUNDLE, EMBEDDINGS))
    assert not weights.any()
    assert not guard.judge(heads(3, CAPTIONS)).zero_shot_answers  # as good as zero-shot is good enough
    found, _ = answer(load_heads(path, BUNDLE), BUNDLE, EMBEDDINGS)
    np.testing.assert_array_equal(found, predict(heads(3, CAPTIONS), BUNDLE, EMBEDDINGS).ensemble)


def test_one_class_called_for_all_is_not_taken_for_good(path):
    """Of 40 images 36 are of one class: plain accuracy would prefer the head that knows only that."""
    rare = np.flatnonzero(LABELS != 0)[:4]
    chosen = np.concatenate([np.repeat(np.flatnonzero(LABELS == 0), 6)[:36], rare])
    guard = Guard(path, BUNDLE, LabelledFeatures(EMBEDDINGS[chosen], LABELS[chosen]))
    guard.judge(heads(1, BEST))
    constant = heads(2, np.zeros_like(BEST))
    constant.shared["classifier.bias"][0] = 1
    assert guard.judge(constant).version == 1


def test_an_earlier_file_counts_by_what_it_is_worth_on_the_split_of_today(path, guard):
    guard.judge(heads(1, BEST))
    turned = Guard(path, BUNDLE, LabelledFeatures(-EMBEDDINGS, LABELS))
    assert turned.judge(heads(2, -BEST)).version == 2


@pytest.mark.parametrize("fault", ["damaged", "of another bundle"])
def test_heads_that_cannot_be_used_are_replaced(path, guard, fault, caplog):
    guard.judge(heads(1, BEST))
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_heads(path, heads(1, BEST), example_bundle(digest=b"\x22" * 32))
    answers = 1 if fault == "damaged" else 2  # of a damaged one there is a copy
    assert guard.judge(heads(2, -BEST)).version == answers
    assert load_heads(path, BUNDLE).version == answers
    words = "version 0:1 is put there" if fault == "damaged" else "the newest heads take its place"
    assert words in caplog.text


def test_without_validation_images_the_newest_answers_and_that_is_said(path, caplog):
    guard = Guard(path, BUNDLE, LabelledFeatures(EMBEDDINGS[:0], LABELS[:0]))
    for version in (1, 2):
        guard.judge(heads(version, -BEST))
    kept = load_heads(path, BUNDLE)
    assert (kept.version, kept.judgement, kept.zero_shot_answers) == (2, None, False)
    assert caplog.text.count("the newest version answers") == 1


def test_what_answers_carries_an_assurance_of_its_own_and_of_the_same_bytes(path, tmp_path):
    training = LabelledFeatures(EMBEDDINGS, LABELS)

    def guard(place, settings=DEFAULT_SETTINGS):
        return Guard(place, BUNDLE, VALIDATION, None, training, settings)

    guard(path).judge(heads(1, BEST))
    first = load_heads(path, BUNDLE).assurance
    assert (first.metadata.images, first.metadata.level, first.metadata.novelty.of) == (60, 0.9, "site")
    # A worse version does not answer, and the assurance stays that of the one that does.
    guard(path).judge(heads(2, -BEST))
    kept = load_heads(path, BUNDLE)
    assert (kept.version, kept.assurance.metadata) == (1, first.metadata)
    # Of a version that takes its place it is another, and that does not depend on what was there.
    guard(path).judge(heads(3, BEST * 2))
    assert load_heads(path, BUNDLE).assurance.metadata.thresholds != first.metadata.thresholds
    guard(tmp_path / "new").judge(heads(3, BEST * 2))
    assert (tmp_path / "new").read_bytes() == path.read_bytes()
    guard(path, AssuranceSettings(level=0.8, kind="aps")).judge(heads(3, BEST * 2))
    assert load_heads(path, BUNDLE).assurance.metadata.kind == "aps"


def versions_of(path):
    return Versions(path.parent).listing()


def test_each_version_is_kept_with_its_figures_what_it_was_compared_with_and_why(path, guard):
    guard.judge(heads(1, BEST), 2, "a1")
    guard.judge(heads(2, -BEST), 2, "a1")
    assert guard.verdict.verdict == "set aside"
    first, second = versions_of(path)
    assert (first.name, first.verdict, first.active, first.comparison) == ("2:1", "activated", True, None)
    assert (second.name, second.active) == ("2:2", False)
    assert second.reason.startswith("worse than version 1: balanced accuracy 0.000 on the 60 images")
    figures = second.figures.voters["ensemble"]
    assert (second.figures.images, second.figures.answers) == ({"validation": 60}, "zero_shot")
    assert sum(images for _, images in figures.sensitivity.values()) == 60
    assert 0 < first.figures.voters["ensemble"].brier < figures.brier <= 2
    found = {test.of: test for test in second.comparison.tests}
    assert set(found) == {"accuracy", "Brier score", *(f"sensitivity for class_{k}" for k in range(4))}
    assert found["accuracy"].better == 0
    assert all(test.p <= test.p_corrected for test in found.values())
    assert (second.comparison.before, second.comparison.against) == (
        first.figures.voters["ensemble"].balanced_accuracy, "2:1",
    )  # fmt: skip
    # Its file can be activated, with an assurance and a judgement of its own.
    Versions(path.parent).activate("2", "x")
    assert load_heads(path, BUNDLE).zero_shot_answers


def test_a_version_that_is_known_is_not_judged_again_unless_the_split_changed(path, guard):
    guard.judge(heads(1, BEST), 1, "a1")
    guard.judge(heads(2, -BEST), 1, "a1")
    before = versions_of(path)
    guard.judge(heads(2, BEST), 1, "a1")
    guard.judge(heads(3, BEST), 1, "a1", is_version=False)
    assert versions_of(path) == before
    # On images of the opposite pattern the one that was set aside is the better.
    turned = Guard(path, BUNDLE, LabelledFeatures(-EMBEDDINGS, LABELS))
    assert turned.judge(heads(2, -BEST), 1, "a1").version == 2
    assert [record.verdict for record in versions_of(path)] == ["activated", "activated"]
    # A later run has a version of the same number.
    assert guard.judge(heads(2, BEST), 2, "b2").version == 2
    assert len(versions_of(path)) == 3


def test_the_heads_of_an_earlier_state_folder_go_on_answering_with_figures_of_their_own(path):
    save_heads(path, heads(7, BEST), BUNDLE)
    guard = Guard(path, BUNDLE, VALIDATION)
    assert guard.judge(heads(8, -BEST), 2, "a1").version == 7
    first, second = versions_of(path)
    assert (first.name, first.verdict, first.active) == ("0:7", "taken over", True)
    assert first.figures.voters["ensemble"].balanced_accuracy > 0.9
    assert (second.verdict, second.comparison.against) == ("set aside", "0:7")


def test_what_the_operator_replaced_is_not_brought_back_and_later_versions_are_compared_with_their_choice(
    path, guard
):
    for version, weight in ((1, CAPTIONS), (2, BEST)):
        guard.judge(heads(version, weight), 1, "a1")
    Versions(path.parent).rollback("x")
    turned = Guard(path, BUNDLE, LabelledFeatures(EMBEDDINGS[:50], LABELS[:50]))
    assert turned.judge(heads(2, BEST), 1, "a1").version == 1
    assert turned.judge(heads(3, CAPTIONS * 0.5), 1, "a1").version in (1, 3)
    assert versions_of(path)[-1].comparison.against == "1:1"
    assert [record.verdict for record in versions_of(path)][1] == "left"


@pytest.mark.parametrize(("activate", "answers"), [("by hand", None), ("always", 2)])
def test_the_operator_may_decide_alone_or_not_at_all(path, activate, answers):
    guard = Guard(path, BUNDLE, VALIDATION, rule=ActivationRule(activate))
    for version, weight in ((1, BEST), (2, -BEST)):
        found = guard.judge(heads(version, weight), 1, "a1")
    assert (found.version if found else None) == answers
    assert path.exists() == (answers is not None)
    if activate == "by hand":
        assert [record.verdict for record in versions_of(path)] == ["waits", "waits"]
        Versions(path.parent).activate("1", "x")
        assert guard.judge(heads(3, BEST), 1, "a1").version == 1
        assert versions_of(path)[-1].comparison.worse == []
        assert versions_of(path)[-1].verdict == "waits"


def test_recent_images_without_labels_keep_out_what_answers_otherwise(path, tmp_path, caplog):
    few = LabelledFeatures(EMBEDDINGS[:0], LABELS[:0])
    guard = Guard(path, BUNDLE, few)
    guard.judge(heads(1, BEST), 1, "a1")
    recent = RecentImages(tmp_path / RECENT, BUNDLE.digest, 1000, 30)
    for embedding in EMBEDDINGS:
        recent.note(embedding)
    recent.save()
    assert guard.judge(heads(2, -BEST), 1, "a1").version == 1
    assert guard.verdict.comparison.shadow.images == 60
    assert "other answers to 60 of 60 recent images, tolerated 25%" in caplog.text
    assert guard.judge(heads(3, BEST * 1.1), 1, "a1").version == 3
    # Where labels show that it is better, it may answer otherwise.
    shown = Guard(path, BUNDLE, VALIDATION)
    Versions(tmp_path).activate("2", "x")
    assert shown.judge(heads(4, BEST), 1, "a1").version == 4
    assert shown.verdict.comparison.shadow.share > 0.25


def test_a_full_disk_is_said_and_leaves_what_was(path, guard, monkeypatch):
    guard.judge(heads(1, BEST), 1, "a1")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(FullDiskError, match="the disk is full"):
            guard.judge(heads(2, BEST), 1, "a1")
    assert path.read_bytes() == before
    assert guard.judge(heads(2, BEST), 1, "a1").version == 2


class Features:
    train = validation = test = VALIDATION
    leak = None


def learner(folder, state, rule=DEFAULT_RULE):
    files = LearnerFiles(folder / "heads.safetensors", folder / "evaluation.json")
    return SiteLearner(
        "site-a", "trial", BUNDLE, Features(), state, files, 1, "method", lambda: (0, 0), activation=rule
    )


def test_training_in_progress_is_not_judged_after_a_restart(tmp_path):
    """A site that is killed has its next private head beside the shared head of before: no version."""
    state = SiteState(tmp_path / "site.db")
    site = learner(tmp_path, state)
    site.installed(PLAN, 0, shared(CAPTIONS), {}, False)
    site.installed(PLAN, 1, shared(BEST), {}, False)
    before = (tmp_path / "heads.safetensors").read_bytes()
    again = learner(tmp_path, state)
    again.installed(PLAN, 1, shared(BEST * 2), {}, False)
    assert (tmp_path / "heads.safetensors").read_bytes() == before
    (tmp_path / "heads.safetensors").unlink()
    again.installed(PLAN, 1, shared(BEST), {}, False)
    assert (tmp_path / "heads.safetensors").read_bytes() == before
    state.close()


def test_what_is_reported_at_the_end_is_of_what_answers(tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedmedclip.site")
    state = SiteState(tmp_path / "site.db")
    site = learner(tmp_path, state)
    for version, weight in enumerate((CAPTIONS, BEST, BEST, -BEST)):
        site.installed(PLAN, version, shared(weight), {}, version == 3)
    assert load_heads(tmp_path / "heads.safetensors", BUNDLE).version == 2
    assert "federation finished at version 3; version 2 answers: accuracy on test" in caplog.text
    assert (site.verdict.name, site.verdict.verdict) == ("1:3", "set aside")
    figures = msgspec.json.decode((tmp_path / "evaluation.json").read_bytes())
    assert figures["ensemble"]["assurance"]["level"] == 0.9
    assert 0.9 <= figures["ensemble"]["assurance"]["coverage"] <= 1
    assert "assurance" not in figures["zero_shot"]
    assert state.journal()[3]["accuracy"]["shared"] < 0.2 < state.journal()[2]["accuracy"]["shared"]
    # A later run begins with an untrained head: what was learnt before goes on answering.
    later = msgspec.structs.replace(PLAN, number=2, identity=bytes(range(16)))
    state.begin(later, b"", b"")
    site.installed(later, 0, shared(CAPTIONS), {}, False)
    assert load_heads(tmp_path / "heads.safetensors", BUNDLE).version == 2
    state.close()


def test_what_is_reported_where_the_operator_has_made_nothing_active_is_zero_shot(tmp_path):
    with closing(SiteState(tmp_path / "site.db")) as state:
        site = learner(tmp_path, state, ActivationRule("by hand"))
        for version, weight in enumerate((CAPTIONS, BEST, BEST, BEST)):
            site.installed(PLAN, version, shared(weight), {}, version == 3)
        assert set(msgspec.json.decode((tmp_path / "evaluation.json").read_bytes())) == {"zero_shot"}
        assert not (tmp_path / "heads.safetensors").exists()
        Versions(tmp_path).activate("2", "x")
        again = learner(tmp_path, state, ActivationRule("by hand"))
        again.installed(PLAN, 3, shared(BEST), {}, True)
        assert "ensemble" in msgspec.json.decode((tmp_path / "evaluation.json").read_bytes())

"""The watch: what it keeps over restarts, months and new heads, and what it says."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.serving.drift import state, watch
from fedmedclip.edge_client.serving.drift.advice import advice_on
from fedmedclip.edge_client.serving.drift.reference import KINDS, DriftReference
from fedmedclip.edge_client.serving.drift.watch import SAVED_EVERY_IMAGES, DriftWatch

SIZE = 8
CENTRE = np.eye(SIZE, dtype=np.float32)[0]
REFERENCE = DriftReference(
    class_names=("mass", "none"),
    mean=CENTRE,
    vectors=0.1 * np.eye(SIZE, dtype=np.float32)[:, 1:4],
    images=1000,
    class_shares=np.array([0.5, 0.5], np.float32),
    calibration_images=1000,
    set_size=1.2,
    unlike=0.01,
)


@dataclass(frozen=True)
class Answered:
    outcome: str
    label: str | None
    prediction_set: tuple[str, ...] | None


class Clinic:
    """Notes images, day after day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.day = date(2026, 11, 2)
        self.generator = np.random.default_rng(0)
        self.watch = DriftWatch(folder, lambda: self.day)
        self.watch.follow("bundle", REFERENCE)

    def restart(self, reference: DriftReference = REFERENCE, bundle: str = "bundle") -> None:
        self.watch = DriftWatch(self.folder, lambda: self.day)
        self.watch.follow(bundle, reference)

    def image(self, shift: float = 0.0, mass: float = 0.5, large: float = 0.2, unlike: float = 0.01) -> None:
        embedding = CENTRE.copy()
        embedding[1:4] += 0.1 * self.generator.standard_normal(3).astype(np.float32)
        embedding[1] += 0.1 * shift
        draw = self.generator.random
        label = "mass" if draw() < mass else "none"
        answered = Answered("answered", label, REFERENCE.class_names if draw() < large else (label,))
        if draw() < unlike:
            answered = Answered("unlike the training images", None, REFERENCE.class_names)
        self.watch.note("0" * 32, embedding, answered)

    def days(self, number: int, images: int = 20, **what: float) -> None:
        for _ in range(number):
            for _ in range(images):
                self.image(**what)
            self.day += timedelta(days=1)


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def test_no_drift_no_alarm(clinic):
    clinic.days(28)
    report = clinic.watch.report()
    assert report.drifted == []
    assert report.advice == []
    assert (report.images, report.days) == (560, 28)
    assert report.lines()[0] == "2026-11: no difference from the training data that counts"
    assert report.training is not None
    assert report.months[0].class_shares["mass"] == pytest.approx(0.5, abs=0.1)
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ({"shift": 3.0}, "embeddings", "measure them with some labelled images"),
        ({"mass": 0.95}, "classes", "another mix of patients"),
        ({"large": 0.9}, "sets", "less sure than in training"),
        ({"unlike": 0.3}, "unlike", "are of another kind"),
    ],
)
def test_each_kind_is_found_and_said(clinic, caplog, what, kind, words):
    clinic.days(20, **what)
    clinic.image()
    report = clinic.watch.report()
    assert report.drifted == [kind]
    assert report.headline() in caplog.text
    assert caplog.text.count("differs from the training data") == 1
    assert words in " ".join(report.advice)
    (found,) = [found for found in report.kinds if found.kind == kind]
    assert found.difference > found.least
    assert found.evidence >= found.alarm_at
    assert any("alarm since 2026-11-" in line for line in report.lines())


def test_fewer_strange_images_than_expected_are_no_trouble(clinic):
    clinic.watch.follow("bundle", replace(REFERENCE, unlike=0.1))
    clinic.days(25, unlike=0.0)
    assert clinic.watch.report().drifted == []


def test_every_combination_has_advice_in_words():
    for chosen in range(1, 1 << len(KINDS)):
        lines = advice_on([kind for number, kind in enumerate(KINDS) if chosen >> number & 1])
        assert lines
        assert "fedmedclip" in " ".join(lines)


def test_a_month_after_an_alarm_begins_with_no_evidence_and_keeps_the_old_figures(clinic):
    clinic.days(29, shift=3.0)
    clinic.days(1)
    report = clinic.watch.report()
    assert report.month == "2026-12"
    assert report.drifted == []
    assert [month.month for month in report.months] == ["2026-11", "2026-12"]
    assert report.months[0].images == 29 * 20
    clinic.days(20, shift=3.0)
    clinic.image()
    assert clinic.watch.report().drifted == ["embeddings"]


def test_a_batch_is_whole_days_and_enough_images(clinic):
    clinic.days(9, images=3)
    clinic.image()
    unlike = clinic.watch.report().kinds[-1]
    assert unlike.images == 24, "two batches of four days, of three images each"


def test_a_restart_goes_on_where_it_was(clinic, tmp_path):
    other = Clinic(tmp_path / "other")
    (tmp_path / "other").mkdir()
    for one in (clinic, other):
        one.days(8, shift=1.0, images=17)
        for _ in range(5):
            one.image()
        if one is clinic:
            one.watch.save_now()
            one.restart()
        one.days(8, shift=1.0, images=17)
    assert clinic.watch.report() == other.watch.report()
    assert (tmp_path / state.FILE).stat().st_mode & 0o077 == 0


def test_a_kill_loses_the_last_images_at_most(clinic):
    clinic.days(1, images=SAVED_EVERY_IMAGES + 7)
    clinic.restart()
    assert clinic.watch.report().images == SAVED_EVERY_IMAGES


def test_new_heads_begin_their_answers_anew_but_not_the_images(clinic):
    clinic.days(10, mass=0.95)
    clinic.image()
    assert clinic.watch.report().drifted == ["classes"]
    newer = replace(REFERENCE, class_shares=np.array([0.95, 0.05], np.float32))
    clinic.watch.follow("bundle", newer)
    by_kind = {found.kind: found for found in clinic.watch.report().kinds}
    assert by_kind["embeddings"].images == 200
    assert by_kind["classes"].images == 0
    clinic.days(10, mass=0.95)
    assert clinic.watch.report().drifted == []


def test_an_alarm_of_the_images_ends_with_heads_that_were_fitted_to_them(clinic):
    clinic.days(12, shift=3.0)
    clinic.image(shift=3.0)
    assert clinic.watch.report().drifted == ["embeddings"]
    mean = clinic.watch._state.months[-1].courses["embeddings"].mean.vector()
    clinic.watch.follow("bundle", replace(REFERENCE, mean=mean.astype(np.float32)))
    clinic.days(12, shift=3.0)
    report = clinic.watch.report()
    assert report.drifted == []
    assert report.kinds[0].images > 240, "the month's images still count"


def test_evidence_that_was_no_alarm_goes_on_with_new_heads(clinic):
    clinic.days(4, shift=2.0)
    clinic.image()
    before = clinic.watch.report().kinds[0].evidence
    assert before > 1
    clinic.watch.follow("bundle", replace(REFERENCE, images=1001))
    assert clinic.watch.report().kinds[0].evidence == before


def test_what_is_too_little_for_a_month_is_found_over_several(clinic):
    found = []
    for _ in range(4):
        clinic.days(7, shift=0.9)
        clinic.day = (clinic.day.replace(day=1) + timedelta(days=32)).replace(day=1)
        clinic.image(shift=0.9)
        found.append(clinic.watch._state.months[-2].courses["embeddings"].alarm is not None)
    assert not found[0]
    assert any(found)


def test_another_bundle_begins_anew(clinic):
    clinic.days(3)
    clinic.watch.save_now()
    clinic.restart(bundle="other")
    assert clinic.watch.report().images == 0


def test_heads_without_a_reference_are_counted_and_that_is_said(clinic):
    clinic.watch.follow("bundle", None)
    clinic.days(2)
    report = clinic.watch.report()
    assert (report.images, report.kinds) == (40, [])
    assert "`fedmedclip calibrate`" in report.headline()


def test_what_is_damaged_is_put_aside(clinic, caplog):
    clinic.days(5)
    clinic.watch.save_now()
    path = clinic.folder / state.FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    clinic.restart()
    assert "is damaged" in caplog.text
    assert clinic.watch.report().images == 0
    assert (clinic.folder / "drift.state.damaged").exists()


def test_a_clock_that_goes_back_ends_nothing(clinic):
    clinic.days(5)
    clinic.day = date(2025, 1, 1)
    clinic.days(3)
    assert [month.month for month in clinic.watch.report().months] == ["2026-11"]
    clinic.day = date(2026, 11, 20)
    clinic.days(3)
    assert clinic.watch.report().images == 220


def test_a_full_disk_is_said_once_and_costs_no_answer(clinic, caplog, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "save", full)
        clinic.days(10)
    assert caplog.text.count("No space left on device") == 1
    clinic.watch.save_now()
    clinic.restart()
    assert clinic.watch.report().images == 200


def test_a_class_that_training_never_predicted_and_odd_embeddings(clinic):
    clinic.watch.follow("bundle", replace(REFERENCE, class_shares=np.array([0.0, 1.0], np.float32)))
    clinic.watch.note("0" * 32, np.zeros(SIZE, np.float32), Answered("answered", "unheard of", None))
    clinic.days(3)
    assert all(np.isfinite(found.difference) for found in clinic.watch.report().kinds)

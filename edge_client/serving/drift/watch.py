"""The running watch for drift: each answered image in, means and evidence kept, a report out.

image -> figures by kind -> the open batch -> (another day, and images enough) -> evidence, the month's means

A batch is one day's images, or several days' while they are few: the images of a study, a patient or a day
are alike, so they count as one observation, however many they are. At most `FALSE_ALARMS_A_YEAR` of the
years without drift have an alarm (`evidence`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.serving.drift.evidence import bet, together
from fedmedclip.edge_client.serving.drift.reference import KINDS, Answered, DriftReference, Kind
from fedmedclip.edge_client.serving.drift.report import DriftReport, report_on
from fedmedclip.edge_client.serving.drift.running_mean import RunningMean, Vector
from fedmedclip.edge_client.serving.drift.state import MOST_MONTHS, Batch, Course, Month, State, load, save
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

IMAGES_IN_A_BATCH = 10
FALSE_ALARMS_A_YEAR = 0.05
ALARM = math.log(len(KINDS) / FALSE_ALARMS_A_YEAR)
"""The logarithm of the evidence that is an alarm: each kind has its share of the false ones."""

SAVED_EVERY_IMAGES = 50
SAVED_EVERY_SECONDS = 60.0


class DriftWatch:
    """Keeps the watch in the folder `state_folder`. For several threads. `today` gives the calendar day.

    Raises OSError where what was kept cannot be read.
    """

    def __init__(self, state_folder: Path, today: Callable[[], date] = date.today) -> None:
        self._folder = state_folder
        self._today = today
        self._lock = threading.Lock()
        self._reference: DriftReference | None = None
        self._state = load(state_folder)
        self._unsaved = 0
        self._saved_at = time.monotonic()
        self._fault = ""

    def follow(self, bundle: str, reference: DriftReference | None) -> None:
        """Compare from now on with this reference: at the start, and when heads change. Quick if the same.

        Other heads give other classes and sets, so this month's means of these begin anew; embeddings are the
        bundle's, so theirs go on. So does the evidence, which may change its measure between two batches:
        only what had come to an alarm begins anew. `bundle` is its digest: with another one, all begins anew.
        """
        with self._lock:
            digest = "" if reference is None else reference.digest
            self._reference = reference
            state = self._state
            if state.bundle != bundle:
                self._state = State(bundle=bundle, reference=digest, since=self._today().isoformat())
            elif state.reference != digest:
                state.reference = digest
                _measure_anew(state)

    def note(self, id: str, embedding: npt.NDArray[np.float32], answered: Answered) -> None:
        """Take in one answered image: its embedding (D,) and its answer. What cannot be saved is said once.

        `id` is the answer's; the queue tells of each once.
        """
        with self._lock:
            figures = _figures(self._reference, embedding, answered)
            day = self._today().isoformat()
            self._add(day, figures)
            self._unsaved += 1
            late = time.monotonic() - self._saved_at >= SAVED_EVERY_SECONDS
            # A full disk is not tried again at every image.
            if late or (self._unsaved >= SAVED_EVERY_IMAGES and not self._fault):
                self._save()

    def report(self) -> DriftReport:
        """Return how this month stands, with the images of the batch that is open."""
        with self._lock:
            return report_on(self._state, self._reference, self._today(), ALARM)

    def save_now(self) -> None:
        """Save what is not saved yet."""
        with self._lock:
            if self._unsaved:
                self._save()

    def _add(self, day: str, figures: Mapping[Kind, Vector]) -> None:
        state = self._state
        if state.open is not None and _is_over(state.open, day):
            self._end(state.open)
            state.open = None
        month = _month(state, day)
        month.images += 1
        state.images += 1
        if month.last_day != day:
            month.days += 1
            month.last_day = day
        if state.open is None:
            state.open = Batch(day, day, directions=self._directions(state))
        batch = state.open
        batch.images += 1
        batch.last_day = max(batch.last_day, day)
        for kind, values in figures.items():
            batch.means.setdefault(kind, RunningMean()).add(values)
            direction = batch.directions.get(kind)
            if direction is not None and self._reference is not None and self._reference.has(kind):
                found = self._reference.along(kind, np.array(direction), values)
                batch.along.setdefault(kind, RunningMean()).add([found])

    def _directions(self, state: State) -> dict[Kind, list[float]]:
        """Return in which direction each kind differs by what came before: this month, or the one before."""
        found: dict[Kind, list[float]] = {}
        if self._reference is None:
            return found
        for kind in KINDS:
            means = [
                course.mean.vector()
                for month in state.months[-2:]
                if (course := month.courses.get(kind)) is not None and course.mean.count
            ]
            if self._reference.has(kind):
                direction = self._reference.direction(kind, means[-1] if means else None)
                if direction is not None:
                    found[kind] = direction.tolist()
        return found

    def _end(self, batch: Batch) -> None:
        month = _month(self._state, batch.day)
        for kind, mean in batch.means.items():
            course = _course(self._state, month, kind)
            course.mean.merge(mean)
            self._state.since_start.setdefault(kind, RunningMean()).merge(mean)
            along = batch.along.get(kind)
            if along is None or self._reference is None:
                continue
            stakes = self._state.stakes(kind)
            for stake in stakes:
                stake.log_money = bet(stake.log_money, along.mean[0], self._reference.least(kind))
            if course.alarm is None and together([stake.log_money for stake in stakes]) >= ALARM:
                course.alarm = batch.day
                log.warning(
                    "drift: %s", report_on(self._state, self._reference, self._today(), ALARM).headline()
                )

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        try:
            save(self._folder, self._state)
        except OSError as error:
            line = f"drift is not saved ({error.strerror}); it is tried again"
            if line != self._fault:
                log.warning("%s: %s", visible(self._folder), line, extra={"event": "drift.not_saved"})
            self._fault = line
        else:
            self._unsaved, self._fault = 0, ""


def _figures(
    reference: DriftReference | None, embedding: npt.NDArray[np.float32], answered: Answered
) -> dict[Kind, Vector]:
    """Return what is looked at of one image, by kind; what it does not have is left out."""
    values = embedding.astype(np.float64)
    figures: dict[Kind, Vector] = {"embeddings": values / max(float(np.linalg.norm(values)), 1e-12)}
    if reference is None:
        return figures
    unlike = answered.outcome != "answered"
    figures["unlike"] = np.array([float(unlike)])
    if not unlike and answered.label in reference.class_names:
        figures["classes"] = np.array([float(name == answered.label) for name in reference.class_names])
    if not unlike and answered.prediction_set is not None:
        figures["sets"] = np.array([float(len(answered.prediction_set))])
    return figures


def _measure_anew(state: State) -> None:
    """Go on with another reference: without what was an alarm, and without other heads' answers."""
    if state.months:
        for kind, course in state.months[-1].courses.items():
            if course.alarm is not None:
                _play_no_longer(state, kind)
                state.months[-1].courses[kind] = Course(mean=course.mean)
            if kind != "embeddings":
                state.months[-1].courses[kind].mean = RunningMean()
    if state.open is not None:
        # Its coordinates are of the reference before: its embeddings still count for the mean.
        state.open.means = {kind: mean for kind, mean in state.open.means.items() if kind == "embeddings"}
        state.open.directions, state.open.along = {}, {}


def _course(state: State, month: Month, kind: Kind) -> Course:
    """Return the course of a month; it begins with a stake of its own, alone where the last had an alarm."""
    if kind not in month.courses:
        before = state.months[-2].courses.get(kind) if len(state.months) > 1 else None
        if before is not None and before.alarm is not None:
            _play_no_longer(state, kind)
        month.courses[kind] = Course()
    return month.courses[kind]


def _play_no_longer(state: State, kind: Kind) -> None:
    for stake in state.stakes(kind):
        stake.live = False


def _is_over(batch: Batch, day: str) -> bool:
    """Whether a batch ends before an image of this day: a clock that went back ends none."""
    return day > batch.last_day and (batch.images >= IMAGES_IN_A_BATCH or day[:7] != batch.last_day[:7])


def _month(state: State, day: str) -> Month:
    """Return the month of a day, the newest one; a clock that went back does not begin one again."""
    if not state.months or state.months[-1].month < day[:7]:
        state.months.append(Month(day[:7]))
        del state.months[:-MOST_MONTHS]
    return state.months[-1]

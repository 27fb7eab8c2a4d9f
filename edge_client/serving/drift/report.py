"""What the watch has found this month, in figures and in words, and what to do about it."""

import math
from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from fedmedclip.edge_client.serving.drift.advice import advice_on
from fedmedclip.edge_client.serving.drift.evidence import together
from fedmedclip.edge_client.serving.drift.reference import KINDS, DriftReference, Kind
from fedmedclip.edge_client.serving.drift.running_mean import RunningMean
from fedmedclip.edge_client.serving.drift.state import Course, Month, State
from fedmedclip.protocol.visible import visible

NAMES: dict[Kind, str] = {
    "embeddings": "how the images look to the encoder",
    "classes": "which classes are predicted",
    "sets": "how many classes cannot be ruled out",
    "unlike": "how many images are unlike the training images",
}


class KindReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One kind: the `difference` of this month's mean, in standard deviations of the training data.

    Differences up to `least` are no drift. `evidence` is the money that a fair gambler has made of 1 by
    betting on more, and `alarm_at` how much is an alarm; `alarm` is the first day of the batch that brought
    it.
    """

    kind: Kind
    images: int
    difference: float
    least: float
    evidence: float
    alarm_at: float
    alarm: str | None = None


class MonthReport(msgspec.Struct, frozen=True):
    """A month by figures; what heads of before gave is left out, so a mean may be of fewer images."""

    month: str
    images: int
    class_shares: dict[str, float]
    set_size: float | None
    unlike: float | None


class DriftReport(msgspec.Struct, frozen=True):
    """How `month` stands against training (None without a reference), and the months before it in figures."""

    month: str
    images: int
    days: int
    kinds: list[KindReport]
    training: MonthReport | None
    since_start: MonthReport
    months: list[MonthReport]
    advice: list[str]

    @property
    def drifted(self) -> list[Kind]:
        """The kinds with an alarm this month."""
        return [kind.kind for kind in self.kinds if kind.alarm is not None]

    @property
    def differences(self) -> dict[str, float]:
        """By kind, how far this month is from training, in standard deviations: for a page of figures."""
        return {found.kind: found.difference for found in self.kinds}

    def headline(self) -> str:
        """Return the main thing in one line."""
        if self.training is None:
            return f"{self.month}: nothing to compare with; `fedmedclip calibrate` writes it into the heads"
        if not self.drifted:
            return f"{self.month}: no difference from the training data that counts"
        return f"{self.month} differs from the training data: " + "; ".join(
            NAMES[kind] for kind in self.drifted
        )

    def lines(self) -> list[str]:
        """Return all of it for a person."""
        lines = [self.headline(), f"  {self.images:,} images on {self.days} days"]
        for found in self.kinds:
            state = (
                f"alarm since {found.alarm}"
                if found.alarm
                else f"evidence {found.evidence:.3g} of {found.alarm_at:.0f}"
            )
            lines.append(
                f"  {found.kind}: {found.difference:.2f} standard deviations from training over "
                f"{found.images:,} images (counts from {found.least:.2f}), {state}"
            )
        lines += [f"  {line}" for line in self.advice]
        before = [] if self.training is None else [self.training]
        lines += [_figures(month) for month in [*before, *self.months, self.since_start]]
        return lines


def report_on(state: State, reference: DriftReference | None, today: date, alarm: float) -> DriftReport:
    """Return the report of the newest month; its figures are of the batches that are over."""
    month = state.months[-1] if state.months else Month(today.isoformat()[:7])
    kinds = [
        _kind(kind, month.courses.get(kind, Course()), state, reference, alarm)
        for kind in KINDS
        if reference is not None and reference.has(kind)
    ]
    names = () if reference is None else reference.class_names
    return DriftReport(
        month=month.month,
        images=month.images,
        days=month.days,
        kinds=kinds,
        training=None if reference is None else _training(reference),
        since_start=_since_start(state, names),
        months=[
            _figures_of(
                found.month,
                found.images,
                {kind: course.mean for kind, course in found.courses.items()},
                names,
            )
            for found in state.months
        ],
        advice=advice_on([found.kind for found in kinds if found.alarm is not None]),
    )


def _kind(kind: Kind, course: Course, state: State, reference: DriftReference, alarm: float) -> KindReport:
    difference = 0.0
    if course.mean.count:
        coordinates = reference.coordinates(kind, course.mean.vector())
        difference = math.sqrt(float(coordinates @ coordinates))
    return KindReport(
        kind=kind,
        images=course.mean.count,
        difference=round(difference, 4),
        least=round(reference.least(kind), 4),
        evidence=math.exp(min(700.0, together([stake.log_money for stake in state.stakes(kind)]))),
        alarm_at=math.exp(alarm),
        alarm=course.alarm,
    )


def _training(reference: DriftReference) -> MonthReport:
    shares = {
        name: round(float(share), 4)
        for name, share in zip(reference.class_names, reference.class_shares, strict=True)
    }
    return MonthReport("training", reference.images, shares, reference.set_size, reference.unlike)


def _month(month: Month, names: Sequence[str]) -> MonthReport:
    means = {kind: course.mean for kind, course in month.courses.items()}
    return _figures_of(month.month, month.images, means, names)


def _since_start(state: State, names: Sequence[str]) -> MonthReport:
    return _figures_of(f"since {state.since}", state.images, state.since_start, names)


def _figures_of(
    title: str, images: int, means: Mapping[Kind, RunningMean], names: Sequence[str]
) -> MonthReport:
    def mean(kind: Kind) -> list[float]:
        return means[kind].mean if kind in means else []

    sets, unlike = mean("sets"), mean("unlike")
    return MonthReport(
        month=title,
        images=images,
        class_shares={name: round(share, 4) for name, share in zip(names, mean("classes"), strict=False)},
        set_size=round(sets[0], 4) if sets else None,
        unlike=round(unlike[0], 4) if unlike else None,
    )


def _figures(month: MonthReport) -> str:
    shares = ", ".join(f"{visible(name)} {share:.0%}" for name, share in month.class_shares.items())
    sets = "" if month.set_size is None else f"; sets of {month.set_size:.2f} classes"
    unlike = "" if month.unlike is None else f"; {month.unlike:.1%} unlike the training images"
    return f"  {month.month}: {month.images:,} images; {shares or 'no batch is over yet'}{sets}{unlike}"

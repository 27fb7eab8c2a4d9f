"""What is recorded of each version that a site keeps: figures, comparison, verdict."""

from typing import Literal

import msgspec

Verdict = Literal["activated", "set aside", "waits", "by hand", "left", "taken over", "not judged"]
"""What became of a version.

`activated` by the rule; `set aside` by it; `waits` for the operator, where nothing is activated but by hand;
`by hand`: the operator made it active; `left`: the operator put another in its place, and the rule does not
bring it back; `taken over`: it was there before versions were kept, or was put there as a file; `not judged`:
its record was lost, and only its heads are left.
"""


class VoterFigures(msgspec.Struct, frozen=True):
    """How good one classifier is on the validation split.

    `brier` is the mean over images of the squared distance between the probabilities and the truth, from 0 to
    2 (Brier 1950), `log_loss` the mean -log of the true class's probability, `calibration_error` the expected
    calibration error. `sensitivity` has for each class that occurs how many of its images are called right,
    and how many there are.
    """

    accuracy: float
    balanced_accuracy: float
    brier: float
    log_loss: float
    calibration_error: float
    sensitivity: dict[str, tuple[int, int]]


class Figures(msgspec.Struct, frozen=True):
    """What a version is worth here: `images` of each part of the site's images, and figures on validation.

    `voters` has zero_shot, shared, private where there is one, ensemble; `answers` names the one whose
    answers count. Without images in the validation split there are no voters.
    """

    images: dict[str, int]
    answers: str
    voters: dict[str, VoterFigures]


class PairedTest(msgspec.Struct, frozen=True):
    """One paired test by group of whether the newer version loses.

    `of` says what was compared: "accuracy", "Brier score", or "sensitivity for CLASS". `better` and `worse`
    count the groups for which it is better and worse, of `groups`. `p` is one-sided; `p_corrected` is after
    Holm's correction over all tests of the comparison.
    """

    of: str
    better: int
    worse: int
    groups: int
    p: float
    p_corrected: float


class Shadow(msgspec.Struct, frozen=True):
    """How many of the recent `images`, which nobody labelled, the newer version answers otherwise."""

    images: int
    changed: int

    @property
    def share(self) -> float:
        """The share that is `changed`."""
        return self.changed / self.images


class Comparison(msgspec.Struct, frozen=True):
    """A new version beside the one that was active then, `against` (its name).

    `balanced_accuracy` and `before` are of their heads, None without validation images; `tests` are against
    `significance`, and `gain` is the one-sided p-value that the newer one's accuracy is better. `worse` has
    in words what speaks against it: it is not worse when that is empty.
    """

    against: str
    images: int
    balanced_accuracy: float | None
    before: float | None
    tolerated_loss: float
    significance: float
    tolerated_changes: float
    tests: list[PairedTest]
    gain: float | None
    shadow: Shadow | None
    worse: list[str]


class VersionRecord(msgspec.Struct, frozen=True):
    """One version that a site keeps.

    `number` counts what was kept here. `run` is 0 where it is not known; `plan` is the run's identity, in
    hexadecimal digits. `made_at` and `decided_at` are seconds since the epoch, `by` says who decided. `file`
    lies in `versions/`, with `bytes` bytes of this `sha256`. `bundle` is the digest of the bundle that the
    heads belong to. `split` and `assured_by` are digests of the validation split on which the figures were
    measured, and of what the file's assurance was made of.
    """

    number: int
    run: int
    version: int
    plan: str
    made_at: float
    method: str
    bundle: str
    file: str
    sha256: str
    bytes: int
    verdict: Verdict
    reason: str
    by: str
    decided_at: float
    split: str = ""
    assured_by: str = ""
    figures: Figures | None = None
    comparison: Comparison | None = None
    active: bool = False

    @property
    def name(self) -> str:
        """What it is called: RUN:VERSION."""
        return f"{self.run}:{self.version}"

    def called(self, beside: "VersionRecord") -> str:
        """Return what it is called where a version of `beside`'s run is talked of."""
        return str(self.version) if self.run == beside.run else self.name

"""Reading for the page which versions a site keeps, and changing which one answers."""

import math
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from fedmedclip.edge_client.page import view as shown
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.versions.records import VersionRecord, VoterFigures
from fedmedclip.edge_client.versions.versions import Versions

# Of a normal distribution: 95 % lie within so many standard deviations.
_DEVIATIONS = 1.96


def versions_reader(state_folder: Path, activate: str) -> Callable[[SiteState, SiteView, float], SiteView]:
    """Return what adds the versions that are kept, and the policy's `activate`."""
    versions = Versions(state_folder)

    def read(state: SiteState, view: SiteView, at: float) -> SiteView:
        kept = [shown_version(record) for record in versions.listing()]
        return replace(view, versions=shown.Versions(kept, activate))

    return read


def shown_version(record: VersionRecord) -> shown.Version:
    """Return a record as the page shows it: the figures of what answers, zero-shot where that does."""
    figures = record.figures
    voters = {} if figures is None else figures.voters
    answering = None if figures is None else voters.get(figures.answers)
    low, high = (None, None) if answering is None else interval(answering)

    def balanced(name: str) -> float | None:
        return voters[name].balanced_accuracy if name in voters else None

    return shown.Version(
        record.name,
        record.run,
        record.version,
        record.made_at,
        record.active,
        record.verdict,
        record.reason,
        record.by,
        0 if figures is None else figures.images.get("validation", 0),
        None if answering is None else answering.balanced_accuracy,
        low,
        high,
        balanced("zero_shot"),
        balanced("shared"),
        balanced("private"),
        None if answering is None else answering.calibration_error,
        figures is not None and figures.answers == "zero_shot",
    )


def interval(figures: VoterFigures) -> tuple[float | None, float | None]:
    """Return an approximate 95 % interval of a balanced accuracy, as if all images were independent.

    Of the mean of the classes' sensitivities, each with two images more, of which one is right (Agresti and
    Caffo 2000): classes of few images, all of them right, are not certain.
    """
    counts = list(figures.sensitivity.values())
    if not counts:
        return None, None
    shares = [((right + 1) / (images + 2), images + 2) for right, images in counts]
    variance = sum(share * (1 - share) / images for share, images in shares) / len(counts) ** 2
    reach = _DEVIATIONS * math.sqrt(variance)
    middle, measured = sum(share for share, _ in shares) / len(counts), figures.balanced_accuracy
    return max(0.0, min(middle - reach, measured)), min(1.0, max(middle + reach, measured))


class Shelf:
    """What the buttons do: `fedmedclip site activate` and `rollback`. `after` is called once one has."""

    def __init__(self, state_folder: Path, after: Callable[[], None]) -> None:
        self._versions = Versions(state_folder)
        self._after = after

    def activate(self, name: str, by: str) -> str:
        """Make the version that is called `name` the active one."""
        record = self._versions.activate(name, by)
        self._after()
        return f"Version {record.version} answers images here now."

    def rollback(self, by: str) -> str:
        """Go back to the version that was active before."""
        record = self._versions.rollback(by)
        self._after()
        return f"Version {record.version} answers images here again."

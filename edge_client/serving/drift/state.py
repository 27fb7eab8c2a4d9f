"""What is kept of the images that were answered: means and counts by calendar month, and no image."""

import logging
from pathlib import Path

import msgspec

from fedmedclip.edge_client.serving.drift.evidence import STAKES
from fedmedclip.edge_client.serving.drift.reference import Kind
from fedmedclip.edge_client.serving.drift.running_mean import RunningMean
from fedmedclip.protocol.database import checksum
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

FILE = "drift.state"
MOST_MONTHS = 36
_VERSION = 1
_CHECKSUM_BYTES = 16


class Batch(msgspec.Struct):
    """The images of the days from `day` to `last_day`, until there are enough. Means are of figures, by kind.

    `directions` were chosen before the first of them; `along` are the means of the coordinates along these.
    """

    day: str
    last_day: str
    images: int = 0
    means: dict[Kind, RunningMean] = {}
    directions: dict[Kind, list[float]] = {}
    along: dict[Kind, RunningMean] = {}


class Course(msgspec.Struct):
    """One kind in one month: the mean of its figures, and the day of an alarm in it.

    `log_money` is that of a stake that was laid at the month's beginning and is played on, in later months,
    too, while it is `live`.
    """

    mean: RunningMean = msgspec.field(default_factory=RunningMean)
    log_money: list[float] = []
    live: bool = True
    alarm: str | None = None


class Month(msgspec.Struct):
    """A calendar month such as "2026-11"; `images` are all that were answered in it."""

    month: str
    images: int = 0
    days: int = 0
    last_day: str = ""
    courses: dict[Kind, Course] = {}


class State(msgspec.Struct):
    """All of it: `bundle` is that of the embeddings, `reference` the digest of what they are compared with.

    `months` are the last ones, `since_start` the means of all images of this bundle.
    """

    bundle: str = ""
    reference: str = ""
    since: str = ""
    images: int = 0
    months: list[Month] = []
    since_start: dict[Kind, RunningMean] = {}
    open: Batch | None = None
    version: int = _VERSION

    def stakes(self, kind: Kind) -> list[Course]:
        """Return the courses of a kind whose stakes are still played, of the last year."""
        courses = (month.courses.get(kind) for month in self.months[-STAKES:])
        return [course for course in courses if course is not None and course.live]


def load(folder: Path) -> State:
    """Return the state in a folder, an empty one where there is none.

    A file that is damaged is put aside, which is said: a service does not stand still for it. Raises OSError.
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return State()
    encoded = content[_CHECKSUM_BYTES:]
    try:
        state = msgspec.msgpack.decode(encoded, type=State)
        whole = checksum(encoded) == content[:_CHECKSUM_BYTES] and state.version == _VERSION
    except MALFORMED:
        whole = False
    if whole:
        return state
    aside = path.with_name(f"{FILE}.damaged")
    path.replace(aside)
    log.warning(
        "%s is damaged, or of another version, and now %s: drift is counted anew from today; restore it from "
        "a backup if there is one", visible(path), aside.name,
    )  # fmt: skip
    return State()


def save(folder: Path, state: State) -> None:
    """Write the state, whole or not at all. Raises OSError."""
    encoded = msgspec.msgpack.encode(state)
    write_new_file(folder / FILE, checksum(encoded) + encoded, private=True, alone=True)

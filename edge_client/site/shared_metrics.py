"""What a site shares with the centre of how good a version is there: a few coarse figures, and its verdict.

    a version is installed and judged -> noted on disk -> said once -> said again when another one is active

Nothing waits for it, and it waits for nothing. It is off where the operator does not share it, and wherever
differential privacy is asked for: figures of single images are in no budget. How coarse the figures are, and
which numbers are left out, is in docs/protocol.md; what they still tell in docs/explanation/privacy.md.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from fedmedclip.edge_client.heads.metrics import Metrics as Measured
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.messages import (
    LONGEST_SOFTWARE,
    MOST_LOG_LOSS,
    MOST_METRICS_OF_A_VERSION,
    STEPS_OF_A_SHARE,
    STEPS_OF_LOG_LOSS,
    Figures,
    Metrics,
    Plan,
)

log = logging.getLogger("fedmedclip.site")

METRICS_SCHEMA = """
CREATE TABLE IF NOT EXISTS shared_metrics (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan_identity BLOB NOT NULL, noted BLOB NOT NULL, said BLOB,
    confirmed INTEGER NOT NULL)
"""

NOT_JUDGED, ACTIVATED, SET_ASIDE, WAITS = range(4)
"""Places in `protocol.messages.VERDICTS`."""
_VERDICTS = {
    "activated": ACTIVATED, "by hand": ACTIVATED, "taken over": ACTIVATED,
    "set aside": SET_ASIDE, "left": SET_ASIDE,
    "waits": WAITS,
}  # fmt: skip
LOOK_AGAIN_SECONDS = 10.0
"""How often it is looked whether another version has become the active one."""


class ActiveVersions(Protocol):
    """What knows which version answers at a site, whoever activated it."""

    def active_version(self, plan: Plan) -> int | None:
        """Return the version of a run with which the site answers; None where it answers with none of it."""


class _Noted(msgspec.Struct, frozen=True):
    """What the newest version's metrics are, what was said last, and whether the broker has that."""

    plan_identity: bytes
    metrics: Metrics
    said: Metrics | None
    confirmed: bool


class SharedMetrics:
    """The metrics of a site's newest version, in the database of its state.

    `policy` says whether they are shared, and which numbers are small; with `own_privacy` the site's operator
    asks for differential privacy, so that none are. `active` is asked which version answers; without it, it
    is the one that was noted.
    """

    def __init__(
        self,
        database: Database,
        policy: PolicySettings,
        software: str,
        *,
        own_privacy: bool = False,
        active: ActiveVersions | None = None,
    ) -> None:
        self._database = database
        self._policy = policy
        self._software = _printable(software)
        self._own_privacy = own_privacy
        self._active = active
        self._look_at = -math.inf
        self._token: int | None = None
        self._noted = self._stored()
        self._handed_over = self._noted is not None and self._noted.confirmed

    def shares(self, plan: Plan) -> bool:
        """Whether anything is shared in the run of a plan."""
        return self._policy.share_metrics and not self._own_privacy and plan.privacy is None

    def note(
        self,
        plan: Plan,
        version: int,
        verdict: str,
        active: int | None,
        images: tuple[int, int, int],
        figures: Mapping[str, Measured],
    ) -> None:
        """Take note of a version that was installed and judged, on disk.

        `verdict` is the site's word for what became of it; of those that the centre does not know it hears
        that the version was not judged. `images` are the numbers of the training, validation and test split,
        `figures` those of each classifier on the validation split. Of what is not shared nothing is noted.
        """
        if not self.shares(plan):
            return
        least = self._policy.smallest_count

        def told(images: int) -> int | None:
            return None if images < least or plan.secure is not None else images

        def shown(classifier: str) -> Figures | None:
            measured = figures.get(classifier)
            return None if measured is None or measured.images < least else coarse(measured, least)

        metrics = Metrics(
            version,
            0,
            active,
            _VERDICTS.get(verdict, NOT_JUDGED),
            told(images[0]),
            told(images[1]),
            told(images[2]),
            zero_shot=shown("zero_shot"),
            shared=shown("shared"),
            private=shown("private"),
            ensemble=shown("ensemble"),
            software=self._software,
        )
        known = self._noted
        same_run = known is not None and known.plan_identity == plan.identity
        said, confirmed = (known.said, known.confirmed) if known is not None and same_run else (None, True)
        self._store(_Noted(plan.identity, metrics, said, confirmed))
        self._look_at = -math.inf

    def due(self, plan: Plan, now: float) -> list[Metrics]:
        """Return what to say now: the newest version's metrics, where they are not what was said last."""
        noted = self._noted
        if noted is None or noted.plan_identity != plan.identity or not self.shares(plan):
            return []
        if self._handed_over and now < self._look_at:
            return []
        self._look_at = now + LOOK_AGAIN_SECONDS
        active = noted.metrics.active if self._active is None else self._active.active_version(plan)
        metrics, said = msgspec.structs.replace(noted.metrics, active=active), noted.said
        if said is not None and said.version == metrics.version:
            if msgspec.structs.replace(said, number=0) == metrics:
                if self._handed_over:
                    return []
                metrics = said
            elif said.number == MOST_METRICS_OF_A_VERSION:
                return []
            else:
                metrics = msgspec.structs.replace(metrics, number=said.number + 1)
        # Before it leaves: another content under the same number would not be believed.
        self._store(msgspec.structs.replace(noted, said=metrics, confirmed=False))
        self._handed_over, self._token = True, None
        return [metrics]

    def handed_over(self, token: int) -> None:
        """Take note of the link's token for what was said last."""
        self._token = token

    def published(self, token: int) -> None:
        """Take note of what the broker has; what it has not is said once more after a restart."""
        if self._noted is not None and token == self._token:
            self._token = None
            self._store(msgspec.structs.replace(self._noted, confirmed=True))

    def _stored(self) -> _Noted | None:
        row = self._database.row("SELECT plan_identity, noted, said, confirmed FROM shared_metrics")
        if row is None:
            return None
        identity, noted, said, confirmed = row
        what = "what is shared of a version"
        try:
            metrics = self._database.decoded(noted, Metrics, what)
            last = None if said is None else self._database.decoded(said, Metrics, what)
        except StorageError as error:
            # Nothing that is trained depends on it, and the next version has its own.
            log.warning("the figures of the newest version are not shared: %s", error)
            return None
        return _Noted(identity, metrics, last, bool(confirmed))

    def _store(self, noted: _Noted) -> None:
        said = None if noted.said is None else msgspec.msgpack.encode(noted.said)
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO shared_metrics VALUES (1, ?, ?, ?, ?)",
                (noted.plan_identity, msgspec.msgpack.encode(noted.metrics), said, noted.confirmed),
            )
        self._noted = noted


def coarse(measured: Measured, least: int) -> Figures:
    """Return figures as they are shared, of a split of at least `least` images."""
    classes = ((row[index], sum(row)) for index, row in enumerate(measured.confusion))
    return Figures(
        _steps(measured.accuracy, STEPS_OF_A_SHARE, STEPS_OF_A_SHARE),
        _steps(pooled_recall(classes, least), STEPS_OF_A_SHARE, STEPS_OF_A_SHARE),
        _steps(measured.expected_calibration_error, STEPS_OF_A_SHARE, STEPS_OF_A_SHARE),
        _steps(measured.log_loss, STEPS_OF_LOG_LOSS, MOST_LOG_LOSS),
    )


def pooled_recall(classes: Iterable[tuple[int, int]], least: int) -> float:
    """Return the mean recall of the classes, in which no recall is of fewer than `least` images.

    Of each class it takes how many images are called right, and how many there are. Classes with fewer images
    count as one together, and where that has too few, with the smallest of the others: with a recall of its
    own, a class of one image would tell what became of that image. All images are in it, so nothing is told
    by difference.
    """
    counted = sorted((images, right) for right, images in classes if images)
    cells = [cell for cell in counted if cell[0] >= least]
    few = [cell for cell in counted if cell[0] < least]
    if few:
        images, right = map(sum, zip(*few, strict=True))
        if images < least and cells:
            smallest = cells.pop(0)
            images, right = images + smallest[0], right + smallest[1]
        cells.append((images, right))
    return sum(right / images for images, right in cells) / len(cells)


def _steps(value: float, steps: int, most: int) -> int:
    return min(most, round(max(0.0, value) * steps)) if math.isfinite(value) else most


def _printable(software: str) -> str:
    return "".join(sign for sign in software if sign.isascii() and sign.isprintable())[:LONGEST_SOFTWARE]

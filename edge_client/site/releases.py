"""What a site has released under its privacy, and the secret that its noise is drawn from.

An entry is stored with the update that it pays for, in one transaction, and is never taken back: whether the
aggregator counts an update or refuses it, it has seen it. A release that is made again is the same bytes
under the same digest, and costs nothing.
"""

import sqlite3
import time
from dataclasses import dataclass

import msgspec

from fedmedclip.edge_client.privacy.accounting import GaussianSteps
from fedmedclip.edge_client.privacy.noise import new_secret
from fedmedclip.protocol.database import Database
from fedmedclip.protocol.messages import PrivacySpent

RELEASES_SCHEMA = """
CREATE TABLE IF NOT EXISTS releases (
    digest BLOB PRIMARY KEY, run INTEGER NOT NULL, round_number INTEGER NOT NULL, steps BLOB NOT NULL,
    images INTEGER NOT NULL, report BLOB NOT NULL, released_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS noise_secret (id INTEGER PRIMARY KEY CHECK (id = 1), secret BLOB NOT NULL)
"""


@dataclass(frozen=True)
class Release:
    """What is told in the update of a round: `steps` say how, `images` is the noisy number told with it.

    `digest` is that of all that it is made of, `run` the number of the plan, `report` what it costs.
    """

    digest: bytes
    run: int
    round_number: int
    steps: tuple[GaussianSteps, ...]
    images: int
    report: PrivacySpent


class Releases:
    """The releases of a site in all runs, in the database of its state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listing(self) -> list[Release]:
        """Return every release, oldest first."""
        rows = self._database.rows(
            "SELECT digest, run, round_number, steps, images, report FROM releases ORDER BY rowid"
        )
        return [
            Release(
                digest,
                run,
                round_number,
                self._database.decoded(steps, tuple[GaussianSteps, ...], "what a release consists of"),
                images,
                self._database.decoded(report, PrivacySpent, "what a release costs"),
            )
            for digest, run, round_number, steps, images, report in rows
        ]

    def secret(self) -> bytes:
        """Return the secret of this site's noise: drawn once, on disk before it is used."""
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO noise_secret VALUES (1, ?)", (new_secret(),))
        return bytes(self._database.row("SELECT secret FROM noise_secret")[0])


def record_release(database: sqlite3.Connection, release: Release) -> None:
    """Record a release inside the transaction that stores its update; one that is known changes nothing."""
    database.execute(
        "INSERT OR IGNORE INTO releases VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            release.digest,
            release.run,
            release.round_number,
            msgspec.msgpack.encode(release.steps),
            release.images,
            msgspec.msgpack.encode(release.report),
            time.time(),
        ),
    )

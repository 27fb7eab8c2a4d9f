"""The file that says which versions there are and which is active: replaced whole, with a checksum in it."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from fedmedclip.protocol.malformed import MALFORMED

FORMAT = 1
FORMERLY_ACTIVE = 8
"""So many steps back can be taken, and so many versions that were active are kept beside the newest."""
_NAME = re.compile(r"(?:(\d{1,18}):)?(\d{1,18})")


class Catalogue(msgspec.Struct):
    """All that is recorded. `history` has the numbers of what was active, in order; the last one is.

    `before` is the digest of the heads file when this was written, empty where there was none: a heads file
    that still has it was to be replaced when somebody pulled the plug. `bundle` is the digest of the site's
    bundle, empty before it was known: heads of another one cannot answer.
    """

    next_number: int = 1
    records: list[VersionRecord] = []
    history: list[int] = []
    before: str = ""
    bundle: str = ""

    @property
    def active(self) -> VersionRecord | None:
        """The version that is active; None before the first."""
        return self.numbered(self.history[-1]) if self.history else None

    @property
    def newest(self) -> VersionRecord | None:
        """The version that came last; None before the first."""
        return self.records[-1] if self.records else None

    def numbered(self, number: int) -> VersionRecord | None:
        """Return the record with this number."""
        return next((record for record in self.records if record.number == number), None)

    def known(self, plan: str, run: int, version: int) -> VersionRecord | None:
        """Return the record of a run's version. Of one whose record was lost nobody knows the plan."""
        for record in reversed(self.records):
            if (record.run, record.version) == (run, version) and record.plan in (plan, ""):
                return record
        return None

    def replace(self, record: VersionRecord) -> None:
        """Put a record in the place of the one with its number."""
        self.records = [record if found.number == record.number else found for found in self.records]

    def add(self, record: VersionRecord) -> VersionRecord:
        """Append a record under the next number."""
        record = msgspec.structs.replace(record, number=self.next_number)
        self.next_number += 1
        self.records.append(record)
        return record

    def activate(self, number: int) -> None:
        """Make a version the active one."""
        if not self.history or self.history[-1] != number:
            self.history.append(number)

    def prune(self, keep: int) -> None:
        """Forget all but the `keep` newest versions and those that were active last."""
        del self.history[: -1 - FORMERLY_ACTIVE]
        kept = {record.number for record in self.records[-keep:]} | set(self.history)
        self.records = [record for record in self.records if record.number in kept]

    def listing(self) -> list[VersionRecord]:
        """Return the records, oldest first, with the active one marked."""
        active = self.active
        return [
            msgspec.structs.replace(record, active=active is not None and record.number == active.number)
            for record in self.records
        ]


class _File(msgspec.Struct):
    format: int
    sha256: str
    content: msgspec.Raw


def encode(catalogue: Catalogue) -> bytes:
    """Return the file's content."""
    content = msgspec.json.encode(catalogue)
    return msgspec.json.encode(_File(FORMAT, hashlib.sha256(content).hexdigest(), msgspec.Raw(content)))


def decode(path: Path, encoded: bytes) -> Catalogue:
    """Return what a file holds. Raises StorageError for one that is damaged or of a later format."""
    try:
        found = msgspec.json.decode(encoded, type=_File)
        if found.format != FORMAT:
            raise StorageError(
                f"{path} is of format {found.format}, this version reads {FORMAT}; update fedmedclip"
            )
        content = bytes(found.content)
        if hashlib.sha256(content).hexdigest() == found.sha256:
            return msgspec.json.decode(content, type=Catalogue)
    except MALFORMED:
        pass
    raise DamagedCatalogueError(f"{path} is damaged: its checksum is not that of its content")


class DamagedCatalogueError(StorageError):
    """The records are lost; the versions' files say what they hold."""


def named(records: Sequence[VersionRecord], name: str) -> VersionRecord:
    """Return the version that a person calls `name`: VERSION of the newest run that has one, or RUN:VERSION.

    Raises InvalidInputError when there is none.
    """
    found = _NAME.fullmatch(name.strip())
    if found is None:
        raise InvalidInputError(f"{name[:40]!r} names no version: it is 7, or 2:7 for that of run 2")
    run, version = found[1], int(found[2])
    for record in sorted(records, key=lambda record: (record.run, record.number), reverse=True):
        if record.version == version and (run is None or record.run == int(run)):
            return record
    kept = ", ".join(record.called(records[-1]) for record in records[-20:]) or "none yet"
    raise InvalidInputError(f"no version {name} is kept here; there are: {kept}")

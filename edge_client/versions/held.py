"""The versions of a site while one holds them: what it reads and records of them."""

import time
from pathlib import Path

from msgspec.structs import replace

from fedmedclip.edge_client.versions.catalogue import Catalogue
from fedmedclip.edge_client.versions.folder import VersionFolder, sha256
from fedmedclip.edge_client.versions.records import Verdict, VersionRecord
from fedmedclip.protocol.errors import InvalidInputError


class HeldVersions:
    """The versions while nobody else changes them. Nothing is on disk before `write`."""

    def __init__(self, folder: VersionFolder, catalogue: Catalogue, *, changed: bool) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.changed = changed
        self._contents: dict[str, bytes] = {}
        content = folder.heads_content()
        self.heads_digest = "" if content is None else sha256(content)
        """Of the heads file, empty where there is none."""

    def write(self) -> None:
        """Put on disk what was changed."""
        if self.changed:
            self.folder.write(self.catalogue, self._contents, self.heads_digest)
            if (active := self.catalogue.active) is not None:
                self.heads_digest = active.sha256
        self._contents.clear()
        self.changed = False

    def path(self, record: VersionRecord) -> Path:
        """Return where a version that is on disk lies."""
        return self.folder.path / record.file

    def fault(self, record: VersionRecord) -> str:
        """Return why a version cannot be made active; empty when it can."""
        bundle = self.catalogue.bundle
        if bundle not in ("", record.bundle):
            return (
                f"version {record.name} belongs to bundle {record.bundle[:12]}, and this site has "
                f"{bundle[:12]} now"
            )
        return "" if record.file in self._contents else self.folder.fault(record)

    def require(self, record: VersionRecord) -> None:
        """Raise InvalidInputError when a version cannot be made active."""
        if fault := self.fault(record):
            raise InvalidInputError(f"{fault}; choose another (fedmedclip site versions)")

    def put(self, record: VersionRecord, content: bytes) -> VersionRecord:
        """Record a version, whose number is 0 when it is new, with the content of its file."""
        digest = sha256(content)
        file = f"{record.run}-{record.version}-{digest[:16]}.safetensors"
        record = replace(record, file=file, sha256=digest, bytes=len(content))
        if record.number == 0:
            record = self.catalogue.add(record)
        self._contents[file] = content
        self.update(record)
        return record

    def update(self, record: VersionRecord) -> None:
        """Record something else of a version."""
        self.catalogue.replace(record)
        self.changed = True

    def decide(self, record: VersionRecord, verdict: Verdict, reason: str, by: str) -> VersionRecord:
        """Record what becomes of a version."""
        record = replace(record, verdict=verdict, reason=reason, by=by, decided_at=time.time())
        self.update(record)
        return record

    def activate(self, record: VersionRecord) -> None:
        """Make a version the active one."""
        self.catalogue.activate(record.number)
        self.changed = True

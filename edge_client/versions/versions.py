"""The versions that a site keeps, and which of them is active: safe against kills, for several processes.

Each version's heads file lies in `versions/` under a name of its own and is never changed; `versions.json`
says what each is worth and which is active; `heads.safetensors` beside the folder is a copy of that one, for
whoever answers. They are written in this order, each whole or not at all, so a kill leaves at most the last
to be done, and the next look does it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from fedmedclip.edge_client.versions.catalogue import Catalogue, named
from fedmedclip.edge_client.versions.folder import CATALOGUE, FOLDER, HEADS, VersionFolder
from fedmedclip.edge_client.versions.held import HeldVersions
from fedmedclip.edge_client.versions.mending import mend, rebuilt
from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.protocol.errors import InvalidInputError

log = logging.getLogger("fedmedclip.site")


class Versions:
    """The versions of a site's state folder; `heads` is the file that is a copy of the active one.

    The site's process, a command and a page may use them at the same time. All raise StorageError where the
    disk fails, FullDiskError where it is full.
    """

    def __init__(self, state: Path, heads: Path | None = None) -> None:
        self._folder = VersionFolder(state / FOLDER, state / HEADS if heads is None else heads)

    @contextmanager
    def held(self, *, thorough: bool = True) -> Iterator[HeldVersions]:
        """Give the versions, mended where a kill left something to do, while nobody else changes them.

        What is changed is on disk when the block ends well; otherwise nothing is. What is not `thorough` is
        quicker, and relies on the heads file alone.
        """
        with self._folder.locked():
            found = self._folder.read()
            catalogue = rebuilt(self._folder) if found is None else found
            held = HeldVersions(self._folder, catalogue, changed=found is None)
            mend(held, thorough=thorough)
            held.write()
            yield held
            held.write()
            self._folder.sweep(held.catalogue)

    def look(self) -> None:
        """Finish what a kill left to be done, and notice a heads file that somebody replaced."""
        if self._folder.in_use:
            with self.held():
                pass

    def listing(self) -> list[VersionRecord]:
        """Return what is kept, oldest first."""
        found = self._folder.read()
        if found is None and self._folder.in_use:
            self.look()
            found = self._folder.read()
        return (found or Catalogue()).listing()

    def active(self) -> VersionRecord | None:
        """Return the version that answers; None before the first."""
        return next((record for record in self.listing() if record.active), None)

    def faults(self) -> dict[str, str]:
        """Return by name which versions cannot be used, and why: their files are read for it."""
        found = {record.name: self._folder.fault(record) for record in self.listing()}
        return {name: fault for name, fault in found.items() if fault}

    def activate(self, name: str, by: str) -> VersionRecord:
        """Make the version that a person calls `name` (`7`, or `RUN:7`) the active one.

        The rule does not bring back by itself what was active until now. Raises InvalidInputError where there
        is no such version, or it cannot be used.
        """
        with self._in_use() as held:
            record, active = named(held.catalogue.records, name), held.catalogue.active
            held.require(record)
            if active is not None and active.number == record.number:
                return replace(record, active=True)
            if active is not None:
                held.decide(active, "left", f"version {record.called(active)} was put in its place", by)
            chosen = held.decide(record, "by hand", "the operator made it active", by)
            held.activate(chosen)
        return replace(chosen, active=True)

    def rollback(self, by: str) -> VersionRecord:
        """Make the version active that was before the one that is; once more, the one before that.

        One that cannot be used is passed over, which the log says. Raises InvalidInputError where none is
        left.
        """
        with self._in_use() as held:
            left = held.catalogue.active
            before = _step_back(held)
            if left is None or before is None:
                raise InvalidInputError(
                    "no version that can be used was active before; choose one: fedmedclip site versions, "
                    "fedmedclip site activate"
                )
            held.decide(left, "left", f"rolled back to version {before.called(left)}", by)
            back = f"rolled back to it from version {left.called(before)}"
            chosen = held.decide(before, "by hand", back, by)
        return replace(chosen, active=True)

    @contextmanager
    def files(self) -> Iterator[dict[str, Path]]:
        """Give the files by their names below the state folder; nobody changes them meanwhile."""
        if not self._folder.in_use:
            yield {}
            return
        with self.held() as held:
            names = (CATALOGUE, *(record.file for record in held.catalogue.records))
            files = {f"{FOLDER}/{name}": self._folder.path / name for name in names}
            files[self._folder.heads.name] = self._folder.heads
            yield {name: path for name, path in files.items() if path.is_file()}

    @contextmanager
    def _in_use(self) -> Iterator[HeldVersions]:
        if not self._folder.in_use:
            raise InvalidInputError(f"{self._folder.path.parent} has no version yet")
        with self.held() as held:
            yield held


def _step_back(held: HeldVersions) -> VersionRecord | None:
    """Go back in the history to what was active before and can be used; None where there is none."""
    history = held.catalogue.history[:-1]
    while history:
        before = held.catalogue.numbered(history[-1])
        if before is not None and not (fault := held.fault(before)):
            held.catalogue.history = history
            return before
        if before is not None:
            log.warning("%s; going further back", fault)
        history.pop()
    return None

"""The folders of a service's state in which files lie: contents that wait, deliveries, what was put aside.

Each file is for its owner only and named by the id of its arrival. One is whole or not there, on disk when
its function returns, and gone when it is no longer needed: it may hold what a header says of a patient.
"""

import errno
import os
import shutil
from collections.abc import Set
from pathlib import Path

from fedmedclip.protocol.errors import FullDiskError
from fedmedclip.protocol.new_files import new_file, sync_folder

FOLDERS = ("incoming", "waiting", "outgoing", "aside")
RESERVED_BYTES = 16 << 20
"""What contents leave free on the disk: else nothing that waits could be answered, and so nothing freed."""


class Spool:
    """The folders below `root`, made where they are missing. Doors write large files into `incoming`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)
        self.incoming = root / "incoming"
        # What a door had not handed over when the process ended: it was not acknowledged.
        for entry in os.scandir(self.incoming):
            Path(entry.path).unlink(missing_ok=True)

    def content(self, id: str, suffix: str = "") -> Path:
        """Return where the content of an arrival lies while it waits."""
        return self.root / "waiting" / f"{id}{suffix}"

    def keep(self, id: str, content: bytes | Path, suffix: str = "") -> None:
        """Store a content. A file in `incoming` is moved. Raises FullDiskError, and OSError for others."""
        target = self.content(id, suffix)
        try:
            self._leave_room(0 if isinstance(content, Path) else len(content))
            if isinstance(content, Path) and content.parent == self.incoming:
                descriptor = os.open(content, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(content, target)
                sync_folder(target.parent)
            elif isinstance(content, Path):
                with content.open("rb") as source, new_file(target, private=True) as file:
                    shutil.copyfileobj(source, file)
            else:
                self._write(target, content)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise _explained(error, target) from error

    def erase(self, id: str, suffix: str = "") -> None:
        """Erase the content of an arrival; nothing happens where it is gone or lies elsewhere."""
        self.content(id, suffix).unlink(missing_ok=True)

    def put_aside(self, id: str, suffix: str = "") -> None:
        """Move the content of an arrival, where it is here, to what was put aside."""
        if (content := self.content(id, suffix)).exists():
            os.replace(content, self.root / "aside" / id)

    def payload(self, id: str, outlet: str) -> Path:
        """Return where lies what an outlet has to deliver."""
        return self.root / "outgoing" / f"{id}.{outlet}"

    def keep_payload(self, id: str, outlet: str, payload: bytes) -> None:
        """Store what an outlet has to deliver. Raises FullDiskError, and OSError for others."""
        target = self.payload(id, outlet)
        try:
            self._write(target, payload)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise _explained(error, target) from error

    def sweep(self, waiting: Set[str], payloads: Set[str], aside: Set[str]) -> int:
        """Erase what no row of the journal names, which a kill left behind; return how many files."""
        swept = 0
        for folder, known in zip(FOLDERS, (frozenset[str](), waiting, payloads, aside), strict=True):
            for entry in os.scandir(self.root / folder):
                if entry.name not in known:
                    Path(entry.path).unlink(missing_ok=True)
                    swept += 1
        return swept

    def erase_aside(self, id: str) -> None:
        """Erase what was put aside."""
        (self.root / "aside" / id).unlink(missing_ok=True)

    def _leave_room(self, size: int) -> None:
        """Raise OSError where a content of this size would take of what is reserved."""
        if shutil.disk_usage(self.root).free < RESERVED_BYTES + size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write(self, target: Path, content: bytes) -> None:
        # Without the detour of `new_file`: no row names it before it is whole, so a part of it is swept.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        sync_folder(target.parent)


def _explained(error: OSError, where: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullDiskError(f"{where.parent}: the disk is full; free some space")
    return error

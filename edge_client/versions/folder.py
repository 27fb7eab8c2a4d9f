"""The folder of versions on disk: one lock, and one order of writing."""

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.edge_client.versions.catalogue import Catalogue, DamagedCatalogueError, decode, encode
from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.protocol.errors import FullDiskError, StorageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file

HEADS = "heads.safetensors"
FOLDER = "versions"
CATALOGUE = "versions.json"
_LOCK = "lock"
_PATIENCE_SECONDS = 60.0
_LOOKS_SECONDS = 0.05
_FILE = re.compile(r"(\d{1,18})-(\d{1,18})-[0-9a-f]{16}\.safetensors")


class VersionFolder:
    """`path` with its versions, and `heads`, the file that is a copy of the active one."""

    def __init__(self, path: Path, heads: Path) -> None:
        self.path = path
        self.heads = heads
        self.catalogue = path / CATALOGUE

    @property
    def in_use(self) -> bool:
        """Whether anything is here: a folder of versions, or heads of before there was one."""
        return self.path.is_dir() or self.heads.exists()

    def read(self) -> Catalogue | None:
        """Return what is recorded; None where nothing is, or where it is damaged."""
        encoded = _read(self.catalogue)
        try:
            return None if encoded is None else decode(self.catalogue, encoded)
        except DamagedCatalogueError:
            return None

    def fault(self, record: VersionRecord) -> str:
        """Return why a version's file cannot be used; empty when it can."""
        path = self.path / record.file
        content = _read(path)
        if content is None:
            return f"version {record.name}: {path} is gone"
        if sha256(content) != record.sha256:
            return f"version {record.name}: {path} is damaged: its checksum is not the recorded one"
        return ""

    def heads_content(self) -> bytes | None:
        """Return what is in the heads file, None where there is none."""
        return _read(self.heads)

    def files(self) -> list[tuple[int, int, Path]]:
        """Return run, version and path of each file of a version, in this order."""
        found = [(match, path) for path in self.path.iterdir() if (match := _FILE.fullmatch(path.name))]
        return sorted((int(match[1]), int(match[2]), path) for match, path in found)

    def is_there(self, record: VersionRecord) -> bool:
        """Whether a version's file is there, of the right size: what is quickly seen."""
        try:
            return os.stat(self.path / record.file).st_size == record.bytes
        except OSError:
            return False

    def write(self, catalogue: Catalogue, contents: Mapping[str, bytes], before: str) -> None:
        """Put on disk the `contents` of versions, by the names of their files; then what is recorded; then
        the active version's heads. `before` is the digest of the heads file now, empty without one.
        """
        for name, content in contents.items():
            self._write(self.path / name, content)
        catalogue.before = before
        self._write(self.catalogue, encode(catalogue))
        active = catalogue.active
        if active is None or active.sha256 == before:
            return
        found = contents.get(active.file)
        if found is None:
            found = _read(self.path / active.file)
            if found is None or sha256(found) != active.sha256:
                raise StorageError(self.fault(active))
        self._write(self.heads, found)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_new_file(path, content, private=True, alone=True)
            self._give_to_owner(path)
        except OSError as error:
            raise _storage_error(path, error) from error

    def _give_to_owner(self, path: Path) -> None:
        """Let a file belong to whom the state folder belongs to: root must not lock the service out."""
        if os.geteuid() == 0:
            owner = os.stat(self.path.parent)
            os.chown(path, owner.st_uid, owner.st_gid)

    def sweep(self, catalogue: Catalogue) -> None:
        """Erase versions that are no longer recorded, and what a kill left half written."""
        kept = {record.file for record in catalogue.records}
        for path in self.path.iterdir():
            if (_FILE.fullmatch(path.name) and path.name not in kept) or path.suffix == ".partial":
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others, of this process too, from changing anything. The end of a process lets go."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, flags, 0o600)
            for made in (self.path, self.path / _LOCK):
                self._give_to_owner(made)
        except OSError as error:
            raise _storage_error(self.path, error) from error
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise StorageError(
                        f"{self.path} has been in use for {_PATIENCE_SECONDS:.0f} s; try again"
                    ) from error
                time.sleep(_LOOKS_SECONDS)
            else:
                return


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        with open_regular_file(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullDiskError(f"{path}: the disk is full; free some space")
    return StorageError(f"{path}: {error.strerror or error}")

"""One settled file of the folder on its way into the queue: copied whole, with the digest of the copy."""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import uuid4

from fedmedclip.edge_client.images.opening import is_image_file
from fedmedclip.edge_client.images.readers.refusal import MAX_FILE_BYTES
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.folder.listing import Found, Stamp
from fedmedclip.edge_client.serving.folder.memory import NO_IMAGE, Memory
from fedmedclip.edge_client.serving.folder.place import Place
from fedmedclip.edge_client.serving.folder.settling import END_BYTES, Settling, lacks_its_end
from fedmedclip.edge_client.serving.folder.trouble import Trouble
from fedmedclip.protocol.errors import FullDiskError, StorageError
from fedmedclip.protocol.visible import visible

PATH = "path"
"""The key of the path in an arrival's context, in which `path_of` reads it."""

_PIECE = 1 << 20
_HEAD_BYTES = 16


@dataclass(frozen=True)
class Taken:
    """A file that was read: the digest of its content, and the arrival, None where nothing is to be answered.

    `copy` is in the queue's folder until the queue has moved it.
    """

    digest: bytes
    arrival: Arrival | None = None
    copy: Path | None = None

    def clear(self) -> None:
        """Remove the copy, where the queue did not take it."""
        if self.copy is not None:
            self.copy.unlink(missing_ok=True)


class Intake:
    """Reads the files of a place; copies go into the folder `incoming`."""

    def __init__(
        self, place: Place, incoming: Path, memory: Memory, settling: Settling, trouble: Trouble
    ) -> None:
        self._place = place
        self._incoming = incoming
        self._memory = memory
        self._settling = settling
        self._trouble = trouble

    def take(self, found: Found) -> Taken | None:
        """Read a file; None when that has to wait, because it changes, is cut off, or cannot be read yet.

        Raises StorageError when the copy cannot be written.
        """
        path, now = self._place.inside(found.path), time.monotonic()
        if path is None:
            return None
        try:
            with _opened(path) as file:
                if _stamp(file) != found.stamp:
                    return None
                if not is_image_file(path):
                    return Taken(NO_IMAGE)
                if _is_cut_off(file, found.stamp.size) and self._settling.may_lack_its_end(found, now):
                    return None
                taken = self._read(file, path, found)
                if _stamp(file) != found.stamp:
                    taken.clear()
                    return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and self._settling.pause(found, now):
                self._trouble.begins(
                    f"file {found.path}",
                    f"{visible(path)} cannot be read ({error.strerror}); it is tried again",
                )
            return None
        self._trouble.ends(f"file {found.path}", f"{visible(path)} can be read")
        return taken

    def _read(self, file: BufferedReader, path: Path, found: Found) -> Taken:
        if found.stamp.size > MAX_FILE_BYTES:
            # Read where it lies: most such files are refused for their size alone.
            digest = hashlib.sha256(repr(found.stamp).encode()).digest()
            return Taken(digest, _arrival(found, digest, path, copy=False))
        known = self._memory.digest(found.path)
        if known is not None and _digest(file) == known:
            return Taken(known)
        copy = self._incoming / uuid4().hex
        try:
            digest = _copied(file, copy)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return Taken(digest, _arrival(found, digest, copy), copy)


def path_of(context: dict[str, str]) -> str:
    """Return the path relative to the folder, as the system has it, of an arrival's context."""
    return os.fsdecode(unquote_to_bytes(context[PATH]))


def _arrival(found: Found, digest: bytes, content: Path, *, copy: bool = True) -> Arrival:
    """The key holds the time: what was there once, was overwritten and is there again, is new again."""
    path = quote_from_bytes(os.fsencode(found.path))
    return Arrival(
        door="folder",
        key=f"folder {path} {found.stamp.modified} {digest.hex()}",
        name=visible(found.path),
        content=content,
        copy=copy,
        suffix=".dcm" if found.path.lower().endswith((".dcm", ".dicom")) else "",
        context={PATH: path},
    )


def _opened(path: Path) -> BufferedReader:
    """Open a file that is no link; a named pipe in its place does not hold up."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _stamp(file: BufferedReader) -> Stamp:
    status = os.fstat(file.fileno())
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def _is_cut_off(file: BufferedReader, size: int) -> bool:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(max(0, size - END_BYTES))
    end = file.read(END_BYTES)
    file.seek(0)
    return lacks_its_end(head, end)


def _digest(file: BufferedReader) -> bytes:
    digest = hashlib.file_digest(file, "sha256").digest()
    file.seek(0)
    return digest


def _copied(file: BufferedReader, target: Path) -> bytes:
    """Copy a file, and return the SHA-256 of the copy. Raises OSError of reading, StorageError of writing."""
    digest = hashlib.sha256()
    descriptor = _written(os.open, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while piece := file.read(_PIECE):
            digest.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[_written(os.write, descriptor, rest) :]
    finally:
        os.close(descriptor)
    return digest.digest()


def _written(write: Callable[..., int], *arguments: object) -> int:
    """Call a function that writes the copy, whose errors are about the queue's disk, not the user's file."""
    try:
        return write(*arguments)
    except OSError as error:
        kind = FullDiskError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"cannot write to the queue's folder ({error.strerror})") from error

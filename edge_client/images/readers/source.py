"""An image file, opened once: its bytes, and the SHA-256 of exactly these bytes."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

MAX_SOURCE_BYTES = 8 * 1024 * 1024 * 1024
# Up to here a file is held in memory; beyond, it is hashed and then read where the pixels are.
_IN_MEMORY = 64 * 1024 * 1024
_HASHED_AT_ONCE = 1 << 20
_HEAD = 352
_REMEMBERED_HASHES = 64


@dataclass(frozen=True)
class Source:
    """`file` is seekable and at its start; `head` are its first bytes; `content_hash` is its SHA-256."""

    file: BinaryIO
    size: int
    head: bytes
    content_hash: bytes


@contextmanager
def open_source(path: Path, *, often: bool = False) -> Iterator[Source]:
    """Open a file for a reader. `often` says that its frames are read one by one: it is hashed once then.

    Raises RefusedFileError when it is no file, or empty, or too large, or changes while it is read.
    """
    file, status = _open_regular_file(path)
    with closing(file):
        if status.st_size <= _IN_MEMORY and not often:
            yield source_of_bytes(_read(file, _IN_MEMORY))
            return
        content_hash = _hash_of(file, _identity(status))
        head = _read(file, _HEAD)
        file.seek(0)
        yield Source(file, status.st_size, head, content_hash)
        if _identity(os.fstat(file.fileno())) != _identity(status):
            raise RefusedFileError("changed while it was read")


def source_of_bytes(content: bytes) -> Source:
    """Return bytes as an opened file. Raises RefusedFileError when there are none."""
    if not content:
        raise RefusedFileError("empty file")
    return Source(io.BytesIO(content), len(content), content[:_HEAD], hashlib.sha256(content).digest())


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file, enough to tell its kind; b"" when it cannot be read or is no file."""
    try:
        file, _ = _open_regular_file(path)
    except RefusedFileError:
        return b""
    with closing(file):
        return file.read(_HEAD)


def _open_regular_file(path: Path) -> tuple[BinaryIO, os.stat_result]:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise RefusedFileError("not a file")
        file = open(descriptor, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise RefusedFileError(_reason_of_system_error(error)) from error
    if status.st_size == 0 or status.st_size > MAX_SOURCE_BYTES:
        file.close()
        raise RefusedFileError("file too large" if status.st_size else "empty file")
    return file, status


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise RefusedFileError(_reason_of_system_error(error)) from error


def _hash_of(file: BinaryIO, identity: tuple[int, ...]) -> bytes:
    """Hash a file from its start and go back there; a file that was hashed lately is known."""
    if (known := _hashes.get(identity)) is None:
        digest = hashlib.sha256()
        while part := _read(file, _HASHED_AT_ONCE):
            digest.update(part)
        file.seek(0)
        known = digest.digest()
        while len(_hashes) >= _REMEMBERED_HASHES:
            # Another thread may take the oldest away at the same moment.
            _hashes.pop(next(iter(_hashes.copy())), None)
        _hashes[identity] = known
    return known


_hashes: dict[tuple[int, ...], bytes] = {}


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _reason_of_system_error(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "missing"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, IsADirectoryError):
        return "not a file"
    if error.errno == errno.ELOOP:
        return "symbolic links in a circle"
    return f"unreadable ({error.strerror})"

"""Files that we write, all of them: whole or not at all; and what is no file, written through.

What a path names decides, here and in `paths.path_fault`:

- nothing yet, or a file: the content is written beside it and takes its place when it is whole, on the disk.
- a link: it is followed, so what it leads to is replaced and the link stays; one to nothing is refused.
- a named pipe, a character device, an open descriptor (/dev/stdout, /dev/fd/N): written through, as it comes.
- anything else, such as a folder or a block device: refused.
"""

import errno
import hashlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from fedmedclip.protocol.paths import descriptor_of, is_stream, kind_of

PRIVATE = 0o600
_LONGEST_PREFIX = 80


@contextmanager
def new_file(path: Path, *, private: bool = False, alone: bool = False) -> Iterator[BinaryIO]:
    """Give the file to write; it is at `path` when the block ends well, and when not, all is as it was.

    A `private` file is for its owner only; another keeps the permissions of the one it replaces. A kill
    leaves a part of the file beside it; where nobody else writes it at the same time, `alone`, the next try
    clears that away. Raises OSError.
    """
    if is_stream(path):
        with _opened_stream(path) as stream:
            yield stream
        return
    target, mode = _target(path)
    # A name of 255 bytes is allowed, and this one is longer than the target's.
    prefix = os.fsdecode(os.fsencode(target.name)[:_LONGEST_PREFIX])
    if alone:
        descriptor, partial = _anew(target.with_name(f".{prefix}.{_mark(target.name)}.partial"))
    else:
        descriptor, partial = tempfile.mkstemp(prefix=f".{prefix}.", suffix=".partial", dir=target.parent)
    try:
        os.fchmod(descriptor, PRIVATE if private else mode)
        os.close(descriptor)
        # Opened by its name, which the file then knows: some have to look at it before it is in place.
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextmanager
def new_text_file(path: Path, *, private: bool = False, errors: str = "strict") -> Iterator[TextIO]:
    """Give a text file in UTF-8 to write, as `new_file` does; line ends are written as they are given."""
    with new_file(path, private=private) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors=errors, newline="")
        try:
            yield text
            text.flush()
        finally:
            # Left to itself, it would close the file before that is on the disk.
            text.detach()


def write_new_file(path: Path, content: bytes, *, private: bool = False, alone: bool = False) -> None:
    """Write the content of a file as `new_file` does. Raises OSError."""
    with new_file(path, private=private, alone=alone) as file:
        file.write(content)


def _target(path: Path) -> tuple[Path, int]:
    """Return the file that is to be replaced or made, with its permissions."""
    target = Path(os.path.realpath(path))
    try:
        status = os.stat(target)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "is a link to what does not exist", str(path)) from None
        return target, 0o666 & ~_umask()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"is {kind_of(status)}, not a file", str(path))
    return target, stat.S_IMODE(status.st_mode)


def _anew(partial: Path) -> tuple[int, str]:
    # What is there may be anybody's, such as a link: it is removed and never written to.
    partial.unlink(missing_ok=True)
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), str(partial)


def _mark(name: str) -> str:
    """Return what tells names with the same beginning apart."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def _opened_stream(path: Path) -> BinaryIO:
    if (descriptor := descriptor_of(path)) is None:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_NOCTTY), "wb")
    if sys.stdout is not None:
        sys.stdout.flush()
    # Opened by its name, a file that the shell opened would be cut, and written to from its start.
    return os.fdopen(os.dup(descriptor), "wb")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

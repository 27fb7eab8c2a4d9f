"""A file of lines that is appended to, and that others may change meanwhile. All raise OSError."""

import errno
import io
import os
import re
import stat
from pathlib import Path

_ID = re.compile(rb'(?:^|[,;\t])"?([0-9a-f]{32})"?\r?$')
_LONGEST_LINE = 1 << 20


def opened(path: Path, flags: int = 0) -> io.FileIO:
    """Open a file to read and append; no link, which would lead out of the folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return io.FileIO(descriptor, "r+")


def append_whole(file: io.FileIO, content: bytes) -> None:
    """Append all of the content, durably, or nothing. Raises OSError."""
    before = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise


def first_line(file: io.FileIO) -> bytes:
    """Return the first line of a file, with its end."""
    file.seek(0)
    reader = io.BufferedReader(file)
    header = reader.readline(_LONGEST_LINE)
    reader.detach()
    return header


def ends_a_line(file: io.FileIO, size: int) -> bool:
    """Whether a file of this size ends with a whole line, or is empty."""
    file.seek(max(0, size - 1))
    return file.read(1) in (b"\n", b"")


def ids_in(file: io.FileIO) -> set[str]:
    """Return the ids that end the lines of a file."""
    file.seek(0)
    reader = io.BufferedReader(file)
    found = {match[1].decode() for line in reader if (match := _ID.search(line.rstrip(b"\n")))}
    reader.detach()
    return found

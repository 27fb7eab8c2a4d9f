"""Paths that people give: whether there is what they name, said with the setting or option that named it."""

import errno
import os
import re
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Literal

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import did_you_mean
from fedmedclip.protocol.visible import is_utf8

PathKind = Literal["bundle", "folder", "file", "file or folder", "new folder", "new file", "output file"]
"""What a path has to name.

A bundle is a folder with a manifest. What is new may be there already, and if not, is made with its folders;
an output file's folder must be there. An output file may also be a stream, which is written through: a named
pipe, a character device or an open descriptor such as /dev/stdout (`new_files`).
"""
_MANIFEST = "manifest.json"
# A folder holds many names, some of them always a little like another.
_LIKENESS_OF_FILES = 0.75
_MOST_LINKS = 40
_READ_AT_ONCE = 1 << 18


def path_fault(path: Path, kind: PathKind) -> str | None:
    """Return what keeps `path` from being of this kind, None when nothing does."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _absent(path, kind)
    except OSError as error:
        return f"cannot be used ({error.strerror}){_in_full(path)}"
    except ValueError:
        return "a path has no NUL character"
    if kind == "output file" and is_stream(path):
        return None if _may(path, kind) else f"cannot be written (permission denied){_in_full(path)}"
    is_folder, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
    wanted = {"bundle": is_folder, "folder": is_folder, "new folder": is_folder}
    if not wanted.get(kind, is_file or (kind == "file or folder" and is_folder)):
        what = kind.removeprefix("new ") if kind != "bundle" else "folder"
        return (
            f"is {kind_of(status)}, not {'an' if what.startswith('output') else 'a'} {what}{_in_full(path)}"
        )
    if kind == "bundle" and not (path / _MANIFEST).exists():
        return f"no bundle, for it has no {_MANIFEST}; `fedmedclip export` writes one{_in_full(path)}"
    if not _may(path, kind):
        return f"cannot be {'read' if _is_read(kind) else 'written'} (permission denied){_in_full(path)}"
    if kind == "output file" and not os.access(folder := Path(os.path.realpath(path)).parent, os.W_OK):
        return f"cannot be replaced, for nothing can be made in {folder} (permission denied)"
    return None


def kind_of(status: os.stat_result) -> str:
    """Return what a path names, in words with their article: "a folder", "a named pipe", "a device", ..."""
    mode = status.st_mode
    names = {
        "a file": stat.S_ISREG,
        "a folder": stat.S_ISDIR,
        "a named pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
    }
    return next((name for name, holds in names.items() if holds(mode)), "a device")


def is_stream(path: Path) -> bool:
    """Whether what is written to a path goes out at once, so that nothing can take its place later."""
    try:
        mode = path.stat().st_mode
    except OSError:
        # A socket that is our standard output cannot be looked at by its name everywhere.
        return descriptor_of(path) is not None
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or descriptor_of(path) is not None


def descriptor_of(path: Path) -> int | None:
    """Return the open descriptor of this process that a path names, as 1 of /dev/stdout; None of a file."""
    own = re.compile(rf"/proc/{os.getpid()}(/task/\d+)?/fd|/dev/fd")
    step = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(step)
        if name.isdecimal() and own.fullmatch(os.path.realpath(folder)):
            return int(name)
        if not os.path.islink(step):
            return None
        step = os.path.join(folder, os.readlink(step))
    return None


def onnx_fault(path: Path) -> str | None:
    """Return why ONNX Runtime cannot open a file there, None when it can: it takes paths in UTF-8 only."""
    return None if is_utf8(str(path)) else "the path is not UTF-8, and ONNX Runtime takes no other; rename it"


def open_regular_file(path: Path) -> BufferedReader:
    """Open a file to read. Raises OSError, also for what is no file: a named pipe would wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind_of(status)}, not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_at_most(file: BufferedReader, most: int) -> bytes:
    """Return what is left of a file, up to so many bytes.

    A single `read` would take memory for as many as may come, however few do.
    """
    pieces = []
    while most > 0 and (piece := file.read(min(most, _READ_AT_ONCE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def checked(option: str, kind: PathKind, advice: str = "") -> Callable[[Path | None], Path | None]:
    """Return the callback of a command-line option that takes a path of this kind.

    It raises InvalidInputError with one line that names the option; `advice` goes behind it.
    """

    def check(path: Path | None) -> Path | None:
        if path is not None and (fault := path_fault(path, kind)):
            raise InvalidInputError(f"{option} {path}: {fault}{advice and f'; {advice}'}")
        return path

    return check


def _absent(path: Path, kind: PathKind) -> str | None:
    if path.is_symlink():
        return f"is a link to what does not exist, {os.readlink(path)!r}"
    if kind in ("new folder", "new file", "output file"):
        folder = next(parent for parent in Path(os.path.abspath(path)).parents if os.path.lexists(parent))
        if not folder.is_dir():
            return f"{folder} is not a folder, so nothing can be made in it"
        if kind == "output file" and folder != Path(os.path.abspath(path)).parent:
            return f"there is no folder {Path(os.path.abspath(path)).parent} to write it to"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"cannot be made in {folder} (permission denied)"
        return None
    what = "folder" if kind == "bundle" else kind
    return f"there is no such {what}{_in_full(path)}{_similar(path)}"


def _similar(path: Path) -> str:
    try:
        beside = os.listdir(path.parent)
    except OSError:
        return ""
    return did_you_mean(path.name, beside, _LIKENESS_OF_FILES)


def _in_full(path: Path) -> str:
    full = os.path.abspath(path)
    return "" if full == str(path) else f" ({full})"


def _is_read(kind: PathKind) -> bool:
    return kind in ("bundle", "folder", "file", "file or folder")


def _may(path: Path, kind: PathKind) -> bool:
    folder = os.X_OK if path.is_dir() else 0
    return os.access(path, (os.R_OK if _is_read(kind) else os.W_OK) | folder)

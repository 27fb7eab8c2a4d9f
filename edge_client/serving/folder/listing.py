"""What lies in a folder now: names and stamps, without opening a file, 100,000 of them in about a second.

Passed over: links, for what they lead to may lie anywhere; hidden files and folders; names that programs give
to files they are still writing; and what the answers are written to.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Names of browsers, of rsync, of file transfers, of editors and of Office.
_UNFINISHED = (
    *(".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp", ".temp", ".swp", ".lock"),
    "~",
)
_ANSWERS = (".json", ".csv")
_PASSED_OVER = (*_UNFINISHED, *_ANSWERS)
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "System Volume Information", "$RECYCLE.BIN"})


class Stamp(NamedTuple):
    """What changes when a file does, told without reading it. Sizes in bytes, times in nanoseconds."""

    size: int
    modified: int
    inode: int


class Found(NamedTuple):
    """A file: its path relative to the folder, as the system has it (PEP 383), and its stamp."""

    path: str
    stamp: Stamp


@dataclass
class Look:
    """How one look at the folder went: what could not be looked at, and whether it had too many files."""

    faults: list[str] = field(default_factory=list)
    seen: int = 0
    too_many: bool = False

    @property
    def complete(self) -> bool:
        """Whether a file that was not found is not there."""
        return not self.faults and not self.too_many


def is_passed_over(name: str) -> bool:
    """Whether a file of this name is not looked at."""
    return name.startswith((".", "~")) or name.lower().endswith(_PASSED_OVER)


def files_in(folder: Path, look: Look, *, recursive: bool, most: int) -> Iterator[Found]:
    """Yield the files of a folder; how it went is written into `look`."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if recursive and not entry.name.startswith(".") and entry.name not in _SYSTEM_FOLDERS:
                            waiting.append(f"{below}{entry.name}/")
                    elif not is_passed_over(entry.name) and (stamp := _stamp(entry)) is not None:
                        if look.seen >= most:
                            look.too_many = True
                            return
                        look.seen += 1
                        yield Found(below + entry.name, stamp)
        except OSError as error:
            # A sub-folder that was removed meanwhile is no fault.
            if below == "" or not isinstance(error, FileNotFoundError):
                look.faults.append(f"{folder / below} cannot be read ({error.strerror})")


def _stamp(entry: "os.DirEntry[str]") -> Stamp | None:
    """Return the stamp of a regular file; None of anything else, or what is gone."""
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)

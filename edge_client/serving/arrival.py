"""What comes in by a door: one file, and what its answer will need."""

from pathlib import Path
from typing import Literal, get_args

import msgspec

Door = Literal["dicom", "http", "folder"]
Suffix = Literal["", ".dcm"]
SUFFIXES: tuple[Suffix, ...] = get_args(Suffix)


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One file on its way in.

    `key` is what makes it the same when it comes again, over all doors, such as "dicom UID DIGEST"; nothing
    is answered twice. `name` is how the door calls it: a SOP Instance UID, "upload", a path relative to the
    watch folder; never what a header says of a patient.

    `content` is its bytes, or a complete file: one in the queue's `incoming` folder is moved in, another is
    copied, or with `copy` off is read where it lies, by a door whose files stay. `context` is what the
    answer's way back needs, such as UIDs. `suffix` is what its name ended with, where a reader may need that
    to tell its kind. With `explain` the answer says which regions carry it.
    """

    door: Door
    key: str
    name: str
    content: bytes | Path
    copy: bool = True
    suffix: Suffix = ""
    context: dict[str, str] = {}
    explain: bool = False


class Accepted(msgspec.Struct, frozen=True):
    """What came in is on disk, under this `id`; `known`: it had come before, and is not answered again."""

    id: str
    known: bool

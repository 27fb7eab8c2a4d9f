"""Addresses of images: a file, or one image in a file, as a path with a part behind '#'.

    scan.dcm              the image that the settings choose
    scan.dcm#frame=3      the third frame, page or slice, counted from 1 as in DICOM
    set.npz#train=000017  an image of a MedMNIST archive, counted from 0 as in numpy

An address is a `Path`, so that it fits wherever a path does: in CSV files, on the command line, in results.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(r"(?P<kind>[a-z]+)=(?P<number>[0-9]{1,9})")


@dataclass(frozen=True)
class Address:
    """`kind` and `number` are what is written behind '#'; None for the file as a whole."""

    file: Path
    kind: str | None = None
    number: int | None = None


def parse_address(path: Path) -> Address:
    """Split an address. A file whose own name has such an ending goes before."""
    name, mark, part = path.name.rpartition("#")
    if not mark or not name or not (match := _PART.fullmatch(part)) or os.path.lexists(path):
        return Address(path)
    return Address(path.with_name(name), match["kind"], int(match["number"]))


def frame_address(file: Path, frame: int) -> Path:
    """Return the address of a frame, counted from 1."""
    return file.with_name(f"{file.name}#frame={frame}")


def archive_address(file: Path, part: str, index: int) -> Path:
    """Return the address of an image of an archive; padded, so that names sort like numbers."""
    return file.with_name(f"{file.name}#{part}={index:06}")

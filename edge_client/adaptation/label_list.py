"""The list of images that a person labels: a CSV of file,label, written with empty labels and read with some.

Files are paths or addresses (`images.readers.address`) from the list's folder, as in the CSV of a data set.
Lines of # may stand before the header; the one that is written names the classes. A spreadsheet may have
saved it with semicolons or tabs.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.images.readers.address import parse_address
from fedmedclip.protocol.csv_cells import path_cell, path_of, text_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import did_you_mean, near_name, quoted
from fedmedclip.protocol.new_files import new_text_file
from fedmedclip.protocol.text_files import read_text_file
from fedmedclip.protocol.visible import visible

_COLUMNS = ("file", "label")
_DELIMITERS = ",;\t"
_LARGEST_BYTES = 1 << 26


@dataclass(frozen=True)
class OwnLabels:
    """Labels int64 (N,) of N images, `NOT_LABELLED` where there is none, and how many rows have none yet."""

    labels: npt.NDArray[np.int64]
    empty: int


def read_labels(path: Path, images: Sequence[Path], class_names: Sequence[str]) -> OwnLabels:
    """Return the labels that a list has for images, given by their paths or addresses.

    A file's label holds for all its frames that have none of their own.

    Raises InvalidInputError with the line that cannot be used: an image that is none of these, a class that
    is none of the bundle's, or two labels for one image.
    """
    rows_of = _rows_of(images)
    found: dict[str, tuple[int, int]] = {}
    empty = 0
    for line, file_name, label in _rows(path):
        where = f"labels {path}, line {line}"
        name = _place(path.parent / path_of(file_name))
        if name not in rows_of:
            near = did_you_mean(Path(name).name, dict.fromkeys(Path(other).name for other in rows_of))
            raise InvalidInputError(f"{where}: {_shown(file_name)} is none of the images given{near}")
        if not label:
            empty += 1
            continue
        number = _class_of(label, class_names, where)
        if found.setdefault(name, (number, line))[0] != number:
            raise InvalidInputError(
                f"{where}: {_shown(file_name)} has another label in line {found[name][1]}; keep one of them"
            )
    labels = np.full(len(images), NOT_LABELLED, dtype=np.int64)
    # Whole files first: what is said of a frame alone goes before.
    for name in sorted(found, key=lambda name: -len(rows_of[name])):
        labels[rows_of[name]] = found[name][0]
    return OwnLabels(labels, empty)


def write_list(path: Path, images: Sequence[Path], class_names: Sequence[str]) -> None:
    """Write a list of images without labels. Raises InvalidInputError where there is a file already."""
    refuse_existing(path)
    with new_text_file(path) as file:
        file.write(f"# label is one of: {', '.join(map(visible, class_names))}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        rows.writerows((path_cell(name_in(path, image)), "") for image in images)


def refuse_existing(path: Path) -> None:
    """Raise InvalidInputError where there is a file: somebody's work may be in it."""
    if os.path.lexists(path):
        raise InvalidInputError(
            f"{path} exists, and may hold labels that somebody has given; choose another name for the list"
        )


def name_in(path: Path, image: Path) -> str:
    """Return the path of an image as a list at `path` has it, with forward slashes."""
    return Path(os.path.relpath(image, path.parent)).as_posix()


def can_be_listed(path: Path, image: Path) -> bool:
    """Whether a line of text can name an image."""
    return name_in(path, image).isprintable()


def _rows_of(images: Sequence[Path]) -> dict[str, list[int]]:
    """Return the rows of each image, by its place and by the place of its file."""
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        for name in {_place(image), _place(parse_address(image).file)}:
            rows.setdefault(name, []).append(row)
    return rows


def _place(image: Path) -> str:
    """Return where an image lies, whatever links lead to its folder."""
    return os.path.join(os.path.realpath(image.parent), image.name)


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Return (line, file, label) of each row below the header."""
    text = read_text_file(path, "labels", _LARGEST_BYTES)
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = next((cells for cells in reader if cells and not cells[0].startswith("#")), [])
            names = [cell.strip().lower() for cell in header]
            if set(_COLUMNS) <= set(names):
                return list(_below(path, reader, [names.index(column) for column in _COLUMNS]))
        except csv.Error as error:
            raise InvalidInputError(
                f"labels {path}, line {reader.line_num}: not valid CSV ({error})"
            ) from error
    raise InvalidInputError(f"labels {path} lacks the columns file,label; `--labels-to` writes such a list")


def _below(path: Path, reader: Any, places: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    for cells in reader:
        if not any(cells):
            continue
        values = [cells[place] if place < len(cells) else "" for place in places]
        if not values[0] or "\0" in values[0]:
            raise InvalidInputError(f"labels {path}, line {reader.line_num}: there is no file for its label")
        yield reader.line_num, values[0], values[1].strip()


def _class_of(label: str, class_names: Sequence[str], where: str) -> int:
    for name in (label, text_of(label)):
        if name in class_names:
            return class_names.index(name)
    near = near_name(label, class_names)
    meant = "" if near is None else f"; did you mean {quoted(near, label)}?"
    raise InvalidInputError(
        f"{where}: {_shown(label)} is no class of the bundle, which has {', '.join(class_names)}{meant}"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")

"""Which images train, which validate, which test: drawn once by content, recorded, and kept.

A byte-identical copy always falls in the part of its original, whatever its name, so that no test image
is ever trained on. The record is a CSV file that a person can read; it outlives restarts, new images and
another seed, because an image that changed its part would spoil every later test figure.
"""

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fedmedclip.protocol.csv_cells import path_cell, path_of, text_cell, text_of
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from fedmedclip.protocol.new_files import new_text_file

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
DEFAULT_FRACTIONS: Mapping[Part, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}

# The order in which the first images of a class fill the parts.
_FILLING_ORDER: tuple[Part, ...] = ("train", "test", "validation")
_COLUMNS = ["sha256", "path", "label", "split"]


@dataclass(frozen=True, order=True)
class ContentLabel:
    """A labelled image by its content: label, name within the data set, SHA-256 of the file (32 bytes)."""

    label: str
    name: str
    content_hash: bytes


def split_images(
    images: Iterable[ContentLabel],
    split_file: Path,
    seed: int,
    fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
) -> dict[bytes, Part]:
    """Return the part of each image by content hash, as far as possible from the record, and update that.

    The record keeps images that are not in `images`, should they come back. A content that occurs more
    than once counts as one image: the first by label and name. Images that are not in the record are
    drawn by `draw_parts`.

    Raises InvalidInputError when the record is damaged (it is never replaced silently, since that could
    turn test images into training images) or `fractions` are unusable; StorageError when the record cannot
    be written.
    """
    present: dict[bytes, ContentLabel] = {}
    for image in sorted(images):
        present.setdefault(image.content_hash, image)
    recorded = read_split(split_file)
    recorded_parts = {content_hash: part for content_hash, (_, part) in recorded.items()}
    parts = draw_parts(present.values(), recorded_parts, seed, fractions)
    updated = recorded | {
        content_hash: (image, parts[content_hash]) for content_hash, image in present.items()
    }
    if updated != recorded:
        write_split(split_file, updated)
    return parts


def draw_parts(
    images: Iterable[ContentLabel],
    recorded_parts: Mapping[bytes, Part],
    seed: int,
    fractions: Mapping[Part, float],
) -> dict[bytes, Part]:
    """Draw a part for each of the distinct images that has none recorded; stratified by label.

    Within a class the images come in the order of SHA-256(seed, content hash), which is random and the
    same whatever the order of `images`. Each goes to the first empty part of train, test, validation, or
    when none is empty to the part that is furthest below its fraction. So without a record a class with
    three distinct images or more is in every part, one with two in train and test.
    """
    _check_fractions(fractions)
    filling_order = [part for part in _FILLING_ORDER if fractions[part] > 0]
    parts: dict[bytes, Part] = {}
    new: list[ContentLabel] = []
    counts: Counter[tuple[str, Part]] = Counter()
    for image in images:
        if image.content_hash in recorded_parts:
            parts[image.content_hash] = recorded_parts[image.content_hash]
            counts[image.label, parts[image.content_hash]] += 1
        else:
            new.append(image)
    for image in sorted(new, key=lambda image: _draw(seed, image.content_hash)):
        label = image.label
        total = 1 + sum(counts[label, part] for part in PARTS)
        # max() and next() take the first of equals, so that ties do not depend on the machine.
        part = next(
            (part for part in filling_order if counts[label, part] == 0),
            max(filling_order, key=lambda part: fractions[part] * total - counts[label, part]),
        )
        parts[image.content_hash] = part
        counts[label, part] += 1
    return parts


def read_split(split_file: Path) -> dict[bytes, tuple[ContentLabel, Part]]:
    """Read a record, {} when there is none.

    Raises InvalidInputError with the line that is damaged, StorageError when the file cannot be read.
    """
    recorded: dict[bytes, tuple[ContentLabel, Part]] = {}
    advice = "restore it from a backup, or delete it to draw a new split (test figures start anew)"
    try:
        # Surrogates carry file names that are not UTF-8 through the file unharmed.
        with split_file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            if next(reader, None) != _COLUMNS:
                raise InvalidInputError(f"split {split_file}, line 1 is not {','.join(_COLUMNS)!r}; {advice}")
            for row in reader:
                if (
                    len(row) != len(_COLUMNS)
                    or row[3] not in PARTS
                    or not re.fullmatch("[0-9a-f]{64}", row[0])
                ):
                    raise InvalidInputError(
                        f"split {split_file}, line {reader.line_num} is damaged; {advice}"
                    )
                content_hash = bytes.fromhex(row[0])
                if content_hash in recorded:
                    raise InvalidInputError(
                        f"split {split_file}, line {reader.line_num} repeats an image; {advice}"
                    )
                recorded[content_hash] = (
                    ContentLabel(text_of(row[2]), path_of(row[1]), content_hash),
                    row[3],
                )
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageError(f"split {split_file} cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise InvalidInputError(f"split {split_file}, line {reader.line_num}: {error}; {advice}") from error
    return recorded


def write_split(split_file: Path, recorded: Mapping[bytes, tuple[ContentLabel, Part]]) -> None:
    """Write a record sorted by label and name, for its owner only, whole or not at all.

    Raises StorageError when it cannot be written, as on a full disk; the old file stays as it was.
    """
    try:
        split_file.parent.mkdir(parents=True, exist_ok=True)
        with new_text_file(split_file, errors="surrogateescape", private=True) as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for image, part in sorted(recorded.values()):
                cells = path_cell(image.name), text_cell(image.label)
                writer.writerow([image.content_hash.hex(), *cells, part])
    except OSError as error:
        raise StorageError(
            f"split {split_file} cannot be written ({error.strerror}); "
            "check the path and the free space, then start again"
        ) from error


def _draw(seed: int, content_hash: bytes) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + content_hash).digest()


def _check_fractions(fractions: Mapping[Part, float]) -> None:
    values = [fractions.get(part, -1.0) for part in PARTS]
    if not all(0 <= value <= 1 for value in values) or not math.isclose(sum(values), 1) or values[0] == 0:
        raise InvalidInputError(
            f"split fractions {dict(fractions)} are not usable; "
            "train, validation and test must sum to 1, and train be above 0"
        )

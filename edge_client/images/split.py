"""Which images train, which validate, which test: drawn once by content and group, recorded, and kept.

A byte-identical copy always falls in the part of its original, whatever its name, and images of one group
(a patient's, or look-alikes) fall in one part, so that nothing like a test image is ever trained on. The
record is a CSV file that a person can read; it outlives restarts, new images and another seed, because an
image that changed its part would spoil every later test figure.
"""

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from fedmedclip.protocol.csv_cells import path_cell, path_of, text_cell, text_of
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from fedmedclip.protocol.new_files import new_text_file

Part = Literal["train", "validation", "test"]
SPLIT_FILE = "split.csv"
PARTS: tuple[Part, ...] = get_args(Part)
DEFAULT_FRACTIONS: Mapping[Part, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}

# The order in which the first groups of a class fill the parts.
_FILLING_ORDER: tuple[Part, ...] = ("train", "test", "validation")
_DRAWS = 16
_MANY_GROUPS = 20_000
"""So many groups are near their shares in any order, and drawing takes long."""
_MISSING = 1.0
"""What a class's missing part weighs beside squared deviations of shares."""
_COLUMNS = ["sha256", "path", "label", "split", "group", "reason"]
_COLUMNS_BEFORE_GROUPS = _COLUMNS[:4]
BY_FILE = "file"
"""The reason in records of before there were groups."""
_BY_SEED = "seed"


@dataclass(frozen=True, order=True)
class ContentLabel:
    """A labelled image by its content: label, name within the data set, SHA-256 of the file (32 bytes).

    `group` names what must stay in one part, and `reason` how that is known; an image without one stands
    alone, and the seed decides about it.
    """

    label: str
    name: str
    content_hash: bytes
    group: str = ""
    reason: str = ""


@dataclass(frozen=True)
class SplitLeak:
    """How many test and validation images have another of their group in training, and of how many.

    `by_file` says that the record is of before there were groups.
    """

    test: int
    tests: int
    validation: int
    validations: int
    by_file: bool

    def line(self, record: str) -> str | None:
        """Return for a person what is wrong with the split that `record` names; None when nothing is."""
        if not self.test and not self.validation:
            return None
        drawn = "was drawn by file" if self.by_file else "was drawn before these groups were known"
        return (
            f"{record} {drawn}: {self.test} of {self.tests} test and {self.validation} of {self.validations} "
            "validation images have a look-alike or another image of their patient in training, so their "
            f"figures are too good; no image is moved: delete {record} to draw a new split by group"
        )


def split_images(
    images: Iterable[ContentLabel],
    split_file: Path,
    seed: int,
    fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
) -> dict[bytes, Part]:
    """Return the part of each image by content hash, as far as possible from the record, and update that.

    The record keeps images that are not in `images`, should they come back; of the others it has the groups
    as they are now, and the reasons as they were when the part was drawn, since no image changes its part
    with its group. A content that occurs more than once counts as one image: the first by label and name.
    Images that are not in the record are drawn by `draw_parts`.

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
    updated = dict(recorded)
    for content_hash, image in present.items():
        if content_hash in recorded:
            image = replace(image, reason=recorded[content_hash][0].reason)
        updated[content_hash] = (image, parts[content_hash])
    if updated != recorded:
        write_split(split_file, updated)
    return parts


def draw_parts(
    images: Iterable[ContentLabel],
    recorded_parts: Mapping[bytes, Part],
    seed: int,
    fractions: Mapping[Part, float],
) -> dict[bytes, Part]:
    """Draw a part for each of the distinct images that has none recorded; by group, stratified by label.

    Groups come in the order of SHA-256(seed, content hash), the least of a group's images, which is random
    and the same whatever the order of `images`. Each goes whole to the part that is furthest below its share
    of the group's classes. While a class would otherwise miss a part, its next group goes to the first of
    train, test, validation that lacks it: so without a record a class of three groups or more is in every
    part, one of two in train and test, unless a group of several classes cannot be in two places. Where
    groups differ in size that is done in `_DRAWS` orders, and the parts nearest to their shares are taken.
    New images of a group that is in the record join it, in training if any of it is there.
    """
    _check_fractions(fractions)
    parts: dict[bytes, Part] = {}
    groups: dict[str, _Group] = {}
    counts: _Counts = Counter()
    totals: Counter[str] = Counter()
    for image in images:
        totals[image.label] += 1
        group = groups.setdefault(image.group or image.content_hash.hex(), _Group())
        if image.content_hash in recorded_parts:
            part = parts[image.content_hash] = recorded_parts[image.content_hash]
            counts[image.label, part] += 1
            group.recorded.add(part)
        else:
            group.members.append(image)
    new: list[_Group] = []
    for group in groups.values():
        if not group.recorded:
            new.append(group)
        elif group.members:
            part = next(part for part in _FILLING_ORDER if part in group.recorded)
            parts |= {image.content_hash: part for image in group.members}
            counts.update((image.label, part) for image in group.members)
    for group, part in _best_draw(new, seed, totals, counts, fractions):
        parts |= {image.content_hash: part for image in group.members}
    return parts


_Counts = Counter[tuple[str, Part]]


@dataclass
class _Group:
    """What stays in one part: its images without a part, and the parts of those that have one."""

    members: list[ContentLabel] = field(default_factory=list)
    recorded: set[Part] = field(default_factory=set)


def _best_draw(
    groups: Sequence[_Group],
    seed: int,
    totals: Counter[str],
    counts: _Counts,
    fractions: Mapping[Part, float],
) -> list[tuple[_Group, Part]]:
    """Return the part of each group, of the draw that comes nearest to the fractions."""
    alike = all(len(group.members) == 1 for group in groups)
    best: list[tuple[_Group, Part]] = []
    least = math.inf
    for attempt in range(1 if alike or len(groups) > _MANY_GROUPS else _DRAWS):
        drawn, error = _draw_groups(groups, seed, attempt, totals, counts.copy(), fractions)
        if error < least:
            best, least = drawn, error
    return best


def _draw_groups(
    groups: Sequence[_Group],
    seed: int,
    attempt: int,
    totals: Counter[str],
    counts: _Counts,
    fractions: Mapping[Part, float],
) -> tuple[list[tuple[_Group, Part]], float]:
    """Return the part of each group, and how far the parts are from their shares; changes `counts`."""
    order = sorted(
        groups, key=lambda group: min(_draw(seed, attempt, image.content_hash) for image in group.members)
    )
    # Sorted, so that sums of floats do not depend on the order of the images.
    labels_of = [Counter(sorted(image.label for image in group.members)) for group in order]
    remaining = Counter(label for labels in labels_of for label in labels)
    filling_order = [part for part in _FILLING_ORDER if fractions[part] > 0]
    drawn: list[tuple[_Group, Part]] = []

    def room(part: Part, labels: Counter[str]) -> float:
        return sum(
            number * (fractions[part] - counts[label, part] / totals[label])
            for label, number in labels.items()
        )

    for group, labels in zip(order, labels_of, strict=True):
        forced: list[Part] = []
        for label in labels:
            empty = [part for part in filling_order if counts[label, part] == 0]
            forced += empty[:1] if remaining[label] <= len(empty) else []
            remaining[label] -= 1
        # max() takes the first of equals, so that ties do not depend on the machine.
        part = forced[0] if forced else max(filling_order, key=partial(room, labels=labels))
        counts.update({(label, part): number for label, number in labels.items()})
        drawn.append((group, part))
    error = 0.0
    for label, total in sorted(totals.items()):
        for part in PARTS:
            error += (counts[label, part] / total - fractions[part]) ** 2
            error += _MISSING * (fractions[part] > 0 and counts[label, part] == 0)
    return drawn, error


def leak_of(images: Iterable[tuple[ContentLabel, Part]]) -> SplitLeak:
    """Return what the groups of images have in training; each content is counted once."""
    distinct = {image.content_hash: (image, part) for image, part in images}.values()
    trained = {image.group for image, part in distinct if part == "train"} - {""}
    counts = Counter(part for _, part in distinct)
    leaking = Counter(part for image, part in distinct if image.group in trained)
    by_file = any(image.reason == BY_FILE for image, _ in distinct)
    return SplitLeak(leaking["test"], counts["test"], leaking["validation"], counts["validation"], by_file)


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
            header = next(reader, None)
            if header is None or header not in (_COLUMNS, _COLUMNS_BEFORE_GROUPS):
                raise InvalidInputError(f"split {split_file}, line 1 is not {','.join(_COLUMNS)!r}; {advice}")
            for row in reader:
                if len(row) != len(header) or row[3] not in PARTS or not re.fullmatch("[0-9a-f]{64}", row[0]):
                    raise InvalidInputError(
                        f"split {split_file}, line {reader.line_num} is damaged; {advice}"
                    )
                content_hash = bytes.fromhex(row[0])
                if content_hash in recorded:
                    raise InvalidInputError(
                        f"split {split_file}, line {reader.line_num} repeats an image; {advice}"
                    )
                group, reason = row[4:] or ("", BY_FILE)
                image = ContentLabel(
                    text_of(row[2]),
                    path_of(row[1]),
                    content_hash,
                    text_of(group),
                    "" if reason == _BY_SEED else text_of(reason),
                )
                recorded[content_hash] = (image, row[3])
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
                why = text_cell(image.group), text_cell(image.reason or _BY_SEED)
                writer.writerow([image.content_hash.hex(), *cells, part, *why])
    except OSError as error:
        raise StorageError(
            f"split {split_file} cannot be written ({error.strerror}); "
            "check the path and the free space, then start again"
        ) from error


def _draw(seed: int, attempt: int, content_hash: bytes) -> bytes:
    again = f"{attempt}:" if attempt else ""
    return hashlib.sha256(f"{seed}:{again}".encode() + content_hash).digest()


def _check_fractions(fractions: Mapping[Part, float]) -> None:
    values = [fractions.get(part, -1.0) for part in PARTS]
    if not all(0 <= value <= 1 for value in values) or not math.isclose(sum(values), 1) or values[0] == 0:
        raise InvalidInputError(
            f"split fractions {dict(fractions)} are not usable; "
            "train, validation and test must sum to 1, and train be above 0"
        )

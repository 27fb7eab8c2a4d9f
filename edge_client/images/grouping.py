"""The group of each image, and from where it is known.

In this order: a column of the site's CSV file, a groups file, the patient (or study) in a DICOM header. Named
or not, images that look alike are joined to one group: a copy of one patient's image under another's name is
the same image still. Names are keyed hashes, because a group's name is often a patient's.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.images.appearance import Appearances
from fedmedclip.edge_client.images.dataset import GROUP_FILE, Dataset, LabelledImage
from fedmedclip.edge_client.images.groups import files_without_image, group_of, read_groups
from fedmedclip.edge_client.images.look_alikes import LARGEST_SHARE, LookAlikes, find_look_alikes, group_rows
from fedmedclip.edge_client.images.opening import PLAIN_SUFFIXES
from fedmedclip.edge_client.images.readers.address import parse_address
from fedmedclip.edge_client.images.readers.dicom_patient import DicomSubject, dicom_subject, keyed_hash

GroupSource = Literal["column", "groups file", "patient", "study", "look-alike", ""]
SOURCES: tuple[GroupSource, ...] = get_args(GroupSource)


@dataclass(frozen=True)
class GroupNaming:
    """What names the groups: a column of a CSV file (None: `group`, if there is one), and a groups file
    (None: `groups.csv` beside the images, if there is one).

    `key` is that of the site's keyed hash; whoever keeps no names, a benchmark, needs none.
    """

    column: str | None = None
    file: Path | None = None
    key: bytes = b""


DEFAULT_NAMING = GroupNaming()


@dataclass(frozen=True)
class NamedGroups:
    """Of N images the hashed name of the group ("" for none), and its source; `notes` are for a person."""

    names: tuple[str, ...]
    sources: tuple[GroupSource, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """The group of each of N images, "" for one that stands alone, and from where that is known.

    `rows` int64 (N,) has the lowest row of each image's group. An image that resemblance alone ties to its
    group has the source "look-alike". `cut_links` counts resemblances that were left out, since together they
    would have chained too many images.
    """

    names: tuple[str, ...]
    sources: tuple[GroupSource, ...]
    rows: npt.NDArray[np.int64]
    look_alikes: LookAlikes
    cut_links: int
    notes: tuple[str, ...]

    def lines(self, labels: Sequence[str]) -> list[str]:
        """Return what there is to say as lines for a person; `labels` are those of the images."""
        return [*_group_lines(self), *_look_alike_lines(self, labels), *self.notes]


def name_groups(dataset: Dataset, images: Sequence[LabelledImage], naming: GroupNaming) -> NamedGroups:
    """Return the groups that the data name for some images of a data set, say those that can be read.

    Raises InvalidInputError for a groups file that cannot be used.
    """
    folder = dataset.source if dataset.source.is_dir() else dataset.source.parent
    file = naming.file or folder / GROUP_FILE
    in_file = read_groups(file) if naming.file is not None or file.exists() else {}
    notes: list[str] = []
    if unknown := files_without_image(in_file, file, folder, dataset.images):
        notes.append(f"{file} names {unknown} files that are no images of {dataset.source}")
    names: list[str] = []
    sources: list[GroupSource] = []
    for image in images:
        found = group_of(image.path, in_file, file) if in_file else ""
        value, source = (image.group, "column") if image.group else (found, "groups file" if found else "")
        names.append(_hashed(naming.key, value) if value else "")
        sources.append(source)  # type: ignore[arg-type]
    subjects = _subjects([image for image, name in zip(images, names, strict=True) if not name], naming.key)
    patients = Counter(subject.patient for subject in subjects.values() if subject.patient)
    told = len(patients) > 1 or len(subjects) <= LARGEST_SHARE * len(images)
    if patients and not told:
        notes.append(f"all {len(subjects)} DICOM files have one PatientID: their groups are studies")
    for row, image in enumerate(images):
        if (subject := subjects.get(parse_address(image.path).file)) is None or names[row]:
            continue
        if subject.patient and told:
            names[row], sources[row] = subject.patient, "patient"
        elif subject.study:
            names[row], sources[row] = subject.study, "study"
    return NamedGroups(tuple(names), tuple(sources), tuple(notes))


def group_images(named: NamedGroups, content_hashes: Sequence[bytes], appearances: Appearances) -> Grouping:
    """Join what is named, one file's frames (images of one content hash), and what looks alike."""
    look_alikes = find_look_alikes(appearances)
    same: list[npt.NDArray[np.int64]] = [numbered(named.names), numbered(content_hashes)]
    rows, cut = group_rows(look_alikes, same)
    members: dict[int, list[int]] = defaultdict(list)
    for row, lowest in enumerate(rows.tolist()):
        members[lowest].append(row)
    names, sources = [""] * len(rows), list(named.sources)
    for group in members.values():
        given = sorted({named.names[row] for row in group} - {""})
        if len(group) == 1 and not given:
            continue
        name = given[0] if given else min(content_hashes[row] for row in group).hex()[:16]
        for row in group:
            names[row] = name
            sources[row] = sources[row] or "look-alike"
    return Grouping(tuple(names), tuple(sources), rows, look_alikes, cut, named.notes)


def _hashed(key: bytes, group: str) -> str:
    return keyed_hash(key, "group", group.encode("utf-8", "surrogateescape"))


def numbered(values: Iterable[str] | Iterable[bytes]) -> npt.NDArray[np.int64]:
    """Return equal numbers, from 0 in the order of the values, for equal values; -1 for an empty one."""
    numbers: dict[str | bytes, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) if value else -1 for value in values], np.int64)


def _subjects(images: Sequence[LabelledImage], key: bytes) -> Mapping[Path, DicomSubject]:
    """Return whose images are in those of the files that are DICOM files."""
    files = dict.fromkeys(parse_address(image.path).file for image in images)
    found = {
        file: dicom_subject(file, key)
        for file in files
        if file.suffix.lower() not in PLAIN_SUFFIXES | {".npz", ".nii", ".gz"}
    }
    return {file: subject for file, subject in found.items() if subject is not None}


def _group_lines(grouping: Grouping) -> list[str]:
    sizes = Counter(grouping.rows.tolist())
    together = [size for size in sizes.values() if size > 1]
    if not together:
        return ["no two images belong together: each is a group of its own"]
    by_source = Counter(grouping.sources)
    sources = ", ".join(f"{source} {by_source[source]}" for source in SOURCES if source and by_source[source])
    largest = max(together)
    lines = [
        f"{len(sizes)} groups, {len(together)} of them of several images, the largest of {largest} (images "
        f"by source: {sources}); a group is always in one part"
    ]
    if 2 * largest > len(grouping.rows):
        lines.append(f"one group has {largest} of {len(grouping.rows)} images: check what names the groups")
    return lines


def _look_alike_lines(grouping: Grouping, labels: Sequence[str]) -> list[str]:
    found, lines = grouping.look_alikes, []
    near = ~found.identical
    for kind, pairs in (
        ("the same pixels in two files", found.pairs[found.identical]),
        ("copies, re-saved or edited", found.pairs[found.copies & near]),
        ("look-alikes, as neighbouring slices are", found.pairs[~found.copies]),
    ):
        if len(pairs):
            across = sum(labels[first] != labels[second] for first, second in pairs.tolist())
            word = "pair" if len(pairs) == 1 else "pairs"
            lines.append(f"{len(pairs)} {word}: {kind}; {across} of them under two labels")
    if grouping.cut_links:
        lines.append(
            f"{grouping.cut_links} weak resemblances left out: with them one group would hold more than a "
            "fifth of the images"
        )
    return lines

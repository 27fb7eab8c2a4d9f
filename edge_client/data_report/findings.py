"""What a data report says, as it is written to JSON: numbers and names, no pixels."""

from typing import Literal, get_args

import msgspec

from fedmedclip.edge_client.images.split import Part

Likeness = Literal["same bytes", "same pixels", "near-copy", "look-alike"]
"""Byte for byte; the same pixels in other bytes, as saved again without loss; the same image re-saved with
loss or edited; such as neighbouring slices of one patient."""

LIKENESSES: tuple[Likeness, ...] = get_args(Likeness)


class PartCount(msgspec.Struct, frozen=True):
    """Images and groups of one class in one part of the split."""

    images: int = 0
    groups: int = 0


class ClassFindings(msgspec.Struct, frozen=True):
    """One class: images that can be read, different files among them, groups, share of all images.

    `parts` is the split that these groups would get, or that the record has.
    """

    name: str
    images: int
    different: int
    groups: int
    share: float
    parts: dict[Part, PartCount]


class Size(msgspec.Struct, frozen=True):
    """Width and height in pixels, as stored."""

    width: int
    height: int


class SizeFindings(msgspec.Struct, frozen=True):
    """The images with the fewest, a median and the most pixels, and how many images have which form."""

    smallest: Size
    median: Size
    largest: Size
    different: int
    forms: dict[str, int]


class SkippedFiles(msgspec.Struct, frozen=True):
    """The files that cannot be read for one reason."""

    reason: str
    count: int
    files: list[str]


class PairFindings(msgspec.Struct, frozen=True):
    """Two images that are alike, by name and class; `correlation` is that of their thumbnails."""

    likeness: Likeness
    first: str
    second: str
    first_class: str
    second_class: str
    correlation: float


class GroupFindings(msgspec.Struct, frozen=True):
    """How many groups there are, and how many of each number of images.

    `sources` counts images by what put them in a group with others or named their group: a column, a groups
    file, the patient or study of a DICOM header, or that they look alike.
    """

    sources: dict[str, int]
    count: int
    largest: int
    sizes: dict[int, int]


class SplitFindings(msgspec.Struct, frozen=True):
    """What a recorded split is worth: images of the test part, and those like a training image."""

    file: str
    unrecorded: int
    test: int
    test_copies_in_training: int
    test_look_alikes_in_training: int
    groups_in_two_parts: int


class DataFindings(msgspec.Struct, frozen=True):
    """All that a report says of one site's data. File names are relative to `data`, in printable characters.

    `across` are pairs under two labels, the likeliest label errors first, `within` those of one class, both
    of at most `assessment.MOST_PAIRS`; `pairs_across` and `pairs_within` count them all by likeness. Equal
    `digest`s are of the same images under the same names, labels and groups.
    """

    data: str
    digest: str
    images: int
    different: int
    classes: list[ClassFindings]
    sizes: SizeFindings
    ignored_files: int
    skipped: list[SkippedFiles]
    groups: GroupFindings
    split_origin: str
    pairs_across: dict[Likeness, int]
    pairs_within: dict[Likeness, int]
    across: list[PairFindings]
    within: list[PairFindings]
    split: SplitFindings | None
    remarks: list[str]

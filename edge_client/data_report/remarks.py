"""What a person should look at, in sentences that say what to do."""

from fedmedclip.edge_client.data_report.findings import DataFindings
from fedmedclip.edge_client.images.split import PARTS
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS

_LEAST_DIFFERENT = 2
_LEAST_GROUPS = len(PARTS)
_UNEQUAL = 10
"""The largest class has so many times the images of the smallest."""


def remarks_on(findings: DataFindings) -> list[str]:
    """Return what to look at, the gravest first."""
    return [
        *_unusable_classes(findings),
        *_label_errors(findings),
        *_split(findings),
        *_unread(findings),
        *_small_classes(findings),
        *_floors(findings),
    ]


def _unusable_classes(findings: DataFindings) -> list[str]:
    present = [found for found in findings.classes if found.images]
    lines = [
        f"class {found.name!r} has {found.different} different image, and a site needs "
        f"{_LEAST_DIFFERENT}: add images, or remove the class"
        for found in present
        if found.different < _LEAST_DIFFERENT
    ]
    if len(present) == 1:
        lines.append(f"all images are of class {present[0].name!r}: nothing tells it from others here")
    if absent := [repr(found.name) for found in findings.classes if not found.images]:
        lines.append(f"no image of {', '.join(absent)} can be read: nothing about that is learned here")
    return lines


def _label_errors(findings: DataFindings) -> list[str]:
    copies = sum(count for likeness, count in findings.pairs_across.items() if likeness != "look-alike")
    look_alikes = findings.pairs_across.get("look-alike", 0)
    lines = []
    if copies:
        lines.append(
            f"{_pairs(copies)} one image under two labels: one of the labels is wrong; look at each, and "
            "correct or remove it"
        )
    if look_alikes:
        lines.append(
            f"{_pairs(look_alikes)} images that look alike under two labels: two patients, or a wrong label; "
            "look at each"
        )
    return lines


def _split(findings: DataFindings) -> list[str]:
    split = findings.split
    if split is None:
        return []
    lines = []
    if alike := split.test_copies_in_training + split.test_look_alikes_in_training:
        lines.append(
            f"{alike} of the {split.test} test images of {split.file} look like training images: figures on "
            "them flatter; a new split keeps them together"
        )
    if split.unrecorded:
        lines.append(f"{split.unrecorded} images are not in {split.file} yet; the site draws their part")
    return lines


def _unread(findings: DataFindings) -> list[str]:
    if not (count := sum(found.count for found in findings.skipped)):
        return []
    return [f"{count} image files cannot be read and are skipped; the table says why"]


def _small_classes(findings: DataFindings) -> list[str]:
    present = [found for found in findings.classes if found.images]
    lines = [
        f"class {found.name!r} has {found.groups} group{'s' * (found.groups != 1)}, so it cannot be in "
        "training, validation and test at once; it needs images that are not like these"
        for found in present
        if found.groups < _LEAST_GROUPS
    ]
    if len(present) > 1:
        largest, smallest = (choose(present, key=lambda one: one.images) for choose in (max, min))
        if largest.images >= _UNEQUAL * smallest.images:
            lines.append(
                f"class {largest.name!r} has {largest.images} images and {smallest.name!r} "
                f"{smallest.images}: look at the balanced accuracy, not at the accuracy alone"
            )
    return lines


def _floors(findings: DataFindings) -> list[str]:
    training = sum(found.parts["train"].images for found in findings.classes)
    if training >= DEFAULT_FLOORS.least_images:
        return []
    return [
        f"a site with these has {training} training images and sends no update: the usual floor is "
        f"{DEFAULT_FLOORS.least_images} ([privacy] least_images)"
    ]


def _pairs(count: int) -> str:
    return "1 pair is" if count == 1 else f"{count} pairs are"

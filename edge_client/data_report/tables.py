"""A data report on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.data_report.findings import (
    LIKENESSES,
    ClassFindings,
    DataFindings,
    Likeness,
    Size,
)
from fedmedclip.edge_client.images.split import PARTS, Part

_PAIRS_SHOWN = 20
_SKIPPED_SHOWN = 3


def print_findings(findings: DataFindings) -> None:
    """Print tables of classes, look-alikes and skipped files, and what to look at."""
    console = Console(markup=False, highlight=False)
    # Lines that a program reads are not broken.
    unbroken = not console.is_terminal
    console.print(f"{findings.images} images of {findings.data}", soft_wrap=unbroken)
    console.print(_classes(findings))
    for line in lines_of(findings):
        console.print(line, soft_wrap=unbroken)
    if findings.across:
        console.print(_pairs(findings))
    if findings.skipped:
        console.print(_skipped(findings))
    for remark in findings.remarks:
        console.print(f"- {remark}", style="yellow", soft_wrap=unbroken)


def lines_of(findings: DataFindings) -> list[str]:
    """Return sizes, forms, look-alikes, groups and the split's worth, each as one line."""
    sizes, groups = findings.sizes, findings.groups
    sources = ", ".join(f"{source} {count} images" for source, count in groups.sources.items())
    forms = ", ".join(f"{count} {form}" for form, count in sizes.forms.items())
    lines = [
        f"sizes: {_size(sizes.smallest)} to {_size(sizes.largest)}, median {_size(sizes.median)}, "
        f"{sizes.different} different",
        f"stored as: {forms}",
        f"files: {findings.images} images read, {sum(found.count for found in findings.skipped)} skipped, "
        f"{findings.ignored_files} that are no images by name ignored",
        f"alike in one class: {likenesses(findings.pairs_within)}",
        f"alike in two classes: {likenesses(findings.pairs_across)}",
        f"groups: {groups.count}; {group_sizes(groups.sizes)}",
        f"grouped by: {sources or 'nothing; each image is a group of its own'}",
    ]
    if split := findings.split:
        lines.append(
            f"{split.file}: of {split.test} test images {split.test_copies_in_training} have a copy in "
            f"training and {split.test_look_alikes_in_training} more a look-alike; "
            f"{split.groups_in_two_parts} groups are in two parts"
        )
    return lines


def likenesses(pairs: Mapping[Likeness, int]) -> str:
    """Return counts of pairs such as "3 pairs (1 same file, 2 near-copy)", or "none"."""
    if not (count := sum(pairs.values())):
        return "none"
    kinds = ", ".join(f"{number} {likeness}" for likeness, number in pairs.items())
    return f"{count} pair{'s' * (count != 1)} ({kinds})"


def group_sizes(sizes: Mapping[int, int]) -> str:
    """Return how many groups have 1, 2, 3 to 5, 6 to 10 and more images."""
    found = []
    for low, high in ((1, 1), (2, 2), (3, 5), (6, 10), (11, None)):
        number = sum(count for size, count in sizes.items() if low <= size and (high is None or size <= high))
        if number:
            words = f"{low}" if low == high else f"{low} to {high}" if high else f"{low} or more"
            found.append(f"{number} of {words}")
    largest = max(sizes, default=0)
    return f"{', '.join(found)} image{'s' * (largest != 1)}, the largest {largest}"


def part_words(found: ClassFindings, part: Part) -> str:
    """Return the images and groups of a class in a part, such as "17 / 8"."""
    return f"{found.parts[part].images} / {found.parts[part].groups}"


def _size(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _classes(findings: DataFindings) -> Table:
    table = Table()
    table.add_column("class", overflow="fold", min_width=16)
    for heading in ("images", "differ", "groups", "share", "train", "valid.", "test"):
        table.add_column(heading, justify="right")
    for found in findings.classes:
        parts = (part_words(found, part) for part in PARTS)
        table.add_row(
            found.name,
            str(found.images),
            str(found.different),
            str(found.groups),
            f"{found.share:.1%}",
            *parts,
        )
    words = "as recorded" if findings.split else "as a new split would have it"
    table.caption = f"training, validation, test: images / groups, {words}"
    return table


def _pairs(findings: DataFindings) -> Table:
    table = Table(title="Alike, and under two labels: likely label errors")
    for heading in ("one", "other"):
        table.add_column(heading, overflow="fold")
    table.add_column("how", overflow="fold")
    for pair in findings.across[:_PAIRS_SHOWN]:
        table.add_row(pair.first, pair.second, how_alike(pair.likeness, pair.correlation))
    if (more := sum(findings.pairs_across.values()) - _PAIRS_SHOWN) > 0:
        table.caption = f"{more} more with --json or --out"
    return table


def how_alike(likeness: Likeness, correlation: float) -> str:
    """Return the likeness of a pair, of those that differ with the correlation of their thumbnails."""
    return f"{likeness}, {correlation:.3f}" if likeness in LIKENESSES[2:] else likeness


def _skipped(findings: DataFindings) -> Table:
    table = Table(title="Skipped")
    table.add_column("why")
    table.add_column("files", justify="right")
    table.add_column("such as", overflow="fold")
    for found in findings.skipped:
        table.add_row(found.reason, str(found.count), "\n".join(found.files[:_SKIPPED_SHOWN]))
    return table

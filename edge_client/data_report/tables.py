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
    console.print(_split(findings))
    for line in lines_of(findings):
        console.print(line, soft_wrap=unbroken)
    for line in _pairs(findings) if findings.across else ():
        console.print(line, soft_wrap=unbroken)
    if findings.skipped:
        console.print(_skipped(findings))
    console.print()
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


def split_words(findings: DataFindings) -> str:
    """Return what the numbers of a split are, and where it is from."""
    return f"images / groups, {findings.split_origin}"


def _classes(findings: DataFindings) -> Table:
    table = Table()
    table.add_column("class", overflow="fold")
    for heading in ("images", "different", "groups", "share"):
        table.add_column(heading, justify="right")
    for found in findings.classes:
        numbers = (found.images, found.different, found.groups)
        table.add_row(found.name, *map(str, numbers), f"{found.share:.1%}")
    return table


def _split(findings: DataFindings) -> Table:
    table = Table(title=f"Split: {split_words(findings)}")
    table.add_column("class", overflow="fold")
    for part in PARTS:
        table.add_column(part, justify="right")
    for found in findings.classes:
        table.add_row(found.name, *(part_words(found, part) for part in PARTS))
    return table


def _pairs(findings: DataFindings) -> list[str]:
    """Return lines, not a table: names stay whole, to be copied."""
    lines = ["", title_across(findings)]
    for pair in findings.across[:_PAIRS_SHOWN]:
        lines.append(f"  {how_alike(pair.likeness, pair.correlation)}: {pair.first} and {pair.second}")
    if (more := sum(findings.pairs_across.values()) - _PAIRS_SHOWN) > 0:
        lines.append(f"  {more} more with --json or --out")
    return lines


def title_across(findings: DataFindings) -> str:
    """Return what pairs under two labels are: copies are surer than look-alikes."""
    copies = findings.pairs_across.keys() - {"look-alike"}
    return f"Alike, and under two labels: {'likely' if copies else 'possible'} label errors"


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

"""The means and findings as tables: of plain cells, for a page and for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as ConsoleTable

from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.accuracy.document import Figure, Heading, Item, Table, Text, to_markdown
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.accuracy.verdict import MARK
from fedmedclip.simulation.newcomer.class_shares import DRAWS
from fedmedclip.simulation.newcomer.content import Content
from fedmedclip.simulation.newcomer.findings import Finding
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.results import NOT_ADAPTED, SHARED_ALONE, Missing, OtherShares, Point


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, what there is to know to read its table, and the table."""

    heading: str
    words: str
    table: Table


def sections(content: Content) -> list[Section]:
    """Return everything that `newcomer.json` says as tables; those without rows are left out."""
    accuracy = [(point, point.accuracy, point.accuracy_std) for point in content.points]
    balanced = [(point, point.balanced_accuracy, point.balanced_accuracy_std) for point in content.points]
    best = "the best that the hospital has without the others, chosen on these very images"
    found = [
        Section(
            "Accuracy", "In %, by the newcomer's labelled images per class.", _by_labels(content, accuracy)
        ),
        Section("Balanced accuracy", "In %, each class counting alike.", _by_labels(content, balanced)),
        Section(
            "Images without labels",
            "How many each newcomer has beside the labelled ones, mean over the seeds: its other training "
            f"images. {_and(_adapting(content))} adapts to them, without looking at any label. Elsewhere "
            "these are the tested images themselves, as a new site would have them (transductive).",
            _unlabelled(content),
        ),
        Section("Paired tests", f"Beside {best}.", _findings(content, content.findings)),
        Section("Elsewhere", "Images of no hospital, by whoever has no labels there.", _elsewhere(content)),
        Section(
            "Elsewhere, paired tests", "Beside zero-shot.", _findings(content, content.elsewhere_findings)
        ),
        Section(
            "Other shares of classes",
            "Accuracy in % without any label, where the classes of the newcomer's images have other shares: "
            f"as they are there, each alike, and {DRAWS} times at each hospital drawn evenly from all shares "
            "(Dirichlet, concentration 1). Images without labels are drawn again with these shares, test "
            "images weighted by them. Below zero-shot: in how many of the runs.",
            _other_shares(content),
        ),
        Section(
            "Missing classes",
            "How many % of a class's images are recognised that the newcomer has never seen.",
            _missing(content),
        ),
        Section(
            "Missing classes, paired tests",
            "Images of such classes only, all together.",
            _missing_findings(content),
        ),
    ]
    return [section for section in found if section.table.rows]


def page(content: Content, command: str, figure: Figure) -> str:
    """Return the whole report as Markdown."""
    items: list[Item] = [Text(command, code=True), *(Text(line, lead=True) for line in verdicts(content))]
    items += [*map(Text, _notes(content)), figure]
    for section in sections(content):
        items += [Heading(section.heading), Text(section.words), section.table]
    return to_markdown("What a federation gives a newcomer", items)


def verdicts(content: Content) -> list[str]:
    """Return a sentence for each federated method: at which numbers of labelled images joining pays."""
    sentences = []
    for method in content.methods:
        of_method = [finding for finding in content.findings if finding.method == method]
        words = [
            f"{word} with {_and([str(finding.labels_per_class) for finding in chosen])}"
            for word in ("better", "worse", _NOTHING_SHOWN)
            if (chosen := [finding for finding in of_method if in_words(finding.comparison) == word])
        ]
        if words:
            sentences.append(
                f"{_marked(content, method)}, beside the best that the hospital has without the others: "
                f"{'; '.join(words)} labelled images per class."
            )
    return sentences


_NOTHING_SHOWN = "no difference shown"


def in_words(comparison: Comparison) -> str:
    """Return what may be said of a comparison."""
    if not comparison.significant:
        return _NOTHING_SHOWN
    return "better" if comparison.difference > 0 else "worse"


def print_tables(console: Console, content: Content) -> None:
    """Print what a person wants to know first, without deviations: they are in the page."""
    shown = {"Accuracy", "Elsewhere", "Missing classes"}
    for section in (section for section in sections(content) if section.heading in shown):
        printed = ConsoleTable(
            title=f"{section.heading}: {section.words}",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, heading in enumerate(section.table.headings):
            printed.add_column(
                escape(visible(heading)),
                justify="left" if number == 0 else "right",
                no_wrap=number == 0,
                overflow="fold",
            )
        for row in section.table.rows:
            printed.add_row(*(escape(visible(cell.partition(" ±")[0])) for cell in row))
        console.print(printed)
    for line in [*verdicts(content), *_notes(content)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _notes(content: Content) -> list[str]:
    lines = [
        f"Means over {_count(len(content.sites), 'hospital')} and {_count(len(content.seeds), 'seed')}, with "
        "their standard deviation; paired tests by group over all seeds, Holm over the numbers of labelled "
        "images; better and worse only where p < 0.05. Whoever has no training answers by zero-shot."
    ]
    if content.chosen_here:
        lines.append(f"{MARK}: constants or settings chosen on {content.data_set}.")
    return lines


def _by_labels(content: Content, points: Sequence[tuple[Point, float, float]]) -> Table:
    labels = list(dict.fromkeys(point.labels_per_class for point, _, _ in points))
    cells = {
        (point.method, point.labels_per_class): f"{100 * mean:.1f} ± {100 * std:.1f}"
        for point, mean, std in points
    }
    return Table(
        ["method", *map(str, labels)],
        [
            [_marked(content, method), *(cells.get((method, number), "") for number in labels)]
            for method in dict.fromkeys(point.method for point, _, _ in points)
        ],
    )


def _findings(content: Content, findings: Sequence[Finding]) -> Table:
    return Table(
        [
            "method",
            "labels per class",
            "beside",
            "points (95 %)",
            "p",
            "",
            "balanced, points (95 %)",
            "p",
            "",
        ],
        [
            [
                _marked(content, finding.method),
                str(finding.labels_per_class),
                finding.other,
                *_compared(finding.comparison),
                *_compared(finding.balanced),
            ]
            for finding in findings
        ],
        words=3,
    )


def _compared(found: Comparison) -> list[str]:
    points = f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return [points, f"{found.p_corrected:.2g}", in_words(found)]


def _elsewhere(content: Content) -> Table:
    return Table(
        ["method", "accuracy %", "balanced accuracy %"],
        [
            [
                _marked(content, point.method),
                f"{100 * point.accuracy:.1f} ± {100 * point.accuracy_std:.1f}",
                f"{100 * point.balanced_accuracy:.1f} ± {100 * point.balanced_accuracy_std:.1f}",
            ]
            for point in content.elsewhere_points
        ],
    )


def _adapting(content: Content) -> list[str]:
    return list(dict.fromkeys(row.method for row in content.rows if row.unlabelled and ":" not in row.method))


def _unlabelled(content: Content) -> Table:
    labels = list(dict.fromkeys(point.labels_per_class for point in content.points))
    found: dict[tuple[str, Labels], list[int]] = {}
    for row in content.rows:
        if row.method in _adapting(content)[:1]:
            found.setdefault((row.site, row.labels_per_class), []).append(row.unlabelled)
    return Table(
        ["newcomer", *map(str, labels)],
        [
            [site, *(f"{fmean(found[site, n]):.0f}" if (site, n) in found else "" for n in labels)]
            for site in dict.fromkeys(site for site, _ in found)
        ],
    )


def _other_shares(content: Content) -> Table:
    kinds = list(dict.fromkeys(entry.shares for entry in content.other_shares))
    by_key = {(entry.method, entry.shares): entry for entry in content.other_shares}
    return Table(
        ["method", *(heading for kind in kinds for heading in (kind, "lowest", "below zero-shot"))],
        [
            [
                _marked(content, method),
                *(cell for kind in kinds for cell in _shares_cells(by_key[method, kind])),
            ]
            for method in dict.fromkeys(entry.method for entry in content.other_shares)
        ],
    )


def _shares_cells(found: OtherShares) -> list[str]:
    mean = f"{100 * found.accuracy:.1f} ± {100 * found.accuracy_std:.1f}"
    return [mean, f"{100 * found.lowest:.1f}", f"{found.below_zero_shot} of {found.runs}"]


def _missing(content: Content) -> Table:
    found = content.missing_classes
    classes = sorted({entry.missing_class for entry in found})
    by_key: dict[tuple[str, Labels, str], Missing] = {
        (entry.method, entry.labels_per_class, entry.missing_class): entry for entry in found
    }
    rows = []
    for method, labels in dict.fromkeys((entry.method, entry.labels_per_class) for entry in found):
        of_method = [entry for name in classes if (entry := by_key.get((method, labels, name)))]
        cells = [
            f"{100 * entry.recall:.1f} ± {100 * entry.recall_std:.1f}"
            if (entry := by_key.get((method, labels, name)))
            else ""
            for name in classes
        ]
        accuracy = sum(entry.accuracy for entry in of_method) / len(of_method)
        rows.append([_marked(content, method), str(labels), *cells, f"{100 * accuracy:.1f}"])
    return Table(["method", "labels per class", *classes, "all images"], rows)


def _missing_findings(content: Content) -> Table:
    return Table(
        ["method", "beside", "points (95 %)", "p", ""],
        [
            [_marked(content, finding.method), finding.other, *_compared(finding.comparison)]
            for finding in content.missing_class_findings
        ],
        words=2,
    )


def _marked(content: Content, name: str) -> str:
    """Return a method's name, marked where its constants were chosen on this data."""
    method = name.removesuffix(SHARED_ALONE).removesuffix(NOT_ADAPTED).rpartition(":")[2]
    return f"{name} {MARK}" if method in content.chosen_here else name


def _and(words: Sequence[str]) -> str:
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"

"""From answers to rows: means over sites and seeds, and paired tests by group against one of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.one_shot.play import CONSTANT
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.document import Heading, Item, Table, Text, to_markdown
from fedmedclip.simulation.accuracy.significance import Comparison, compare, holm
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.report import in_words
from fedmedclip.simulation.newcomer.study import FEDERATED, Case, Study

MEMBERS, ELSEWHERE = "members' own test", "global test"


class Key(msgspec.Struct, frozen=True):
    """What tells an answer from others: the row, and whose test images they are."""

    contender: str
    site: str
    labels: Labels
    seed: int

    @property
    def case(self) -> Case:
        """The case, for any method."""
        return Case(FEDERATED, "", self.site, self.labels, self.seed)

    @property
    def place(self) -> str:
        """The column."""
        if self.site == GLOBAL_TEST:
            return ELSEWHERE
        return MEMBERS if self.labels == "all" else f"left out, {self.labels} labels"


class Run(msgspec.Struct, frozen=True):
    """What a contender called the test images of a case, in their order, and how it sent what it needed."""

    key: Key
    answers: list[int]
    uplink_bytes: int
    sent_as: str
    rounds: int


class Cell(msgspec.Struct, frozen=True):
    """Accuracy (0 to 1) in one column: mean and standard deviation over sites and seeds.

    `comparison` is with the reference on the same images, None for the reference itself.
    """

    accuracy: float
    accuracy_std: float
    runs: int
    comparison: Comparison | None = None


class Row(msgspec.Struct, frozen=True):
    """A contender: what a site sends, in how many rounds, how often as what, and the cells by column."""

    contender: str
    uplink_bytes: int
    rounds: int
    sent_as: dict[str, int]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Evidence:
    """All runs, and the study whose images they are of."""

    study: Study
    runs: Mapping[Key, Run]

    def right(self, key: Key) -> npt.NDArray[np.bool_]:
        """Return which test images (n,) are called rightly."""
        answers = np.array(self.runs[key].answers)
        right: npt.NDArray[np.bool_] = answers == self.study.test(key.case).labels
        return right


def make_rows(evidence: Evidence, reference: str) -> list[Row]:
    """Return a row for each contender; p-values are corrected (Holm) over all rows of a column."""
    keys: dict[tuple[str, str], list[Key]] = {}
    for key in sorted(evidence.runs, key=lambda key: (key.seed, key.site)):
        keys.setdefault((key.contender, key.place), []).append(key)
    contenders = list(dict.fromkeys(key.contender for key in evidence.runs))
    places = sorted({place for _, place in keys}, key=_order)
    comparisons = {
        place: holm(
            {
                contender: _compared(evidence, keys[contender, place], keys[reference, place])
                for contender in contenders
                if contender != reference
            }
        )
        for place in places
    }
    rows = []
    for contender in contenders:
        runs = [run for key, run in evidence.runs.items() if key.contender == contender]
        cells = {
            place: _cell(evidence, keys[contender, place], comparisons[place].get(contender))
            for place in places
        }
        largest = max(run.uplink_bytes for run in runs)
        rows.append(
            Row(contender, largest, runs[0].rounds, dict(Counter(run.sent_as for run in runs)), cells)
        )
    return rows


def accuracy_table(rows: Sequence[Row]) -> Table:
    """Return accuracies in %."""
    places = list(rows[0].cells)
    return Table(
        ["", "bytes up per site", "rounds", *(f"{place} %" for place in places)],
        [
            [
                row.contender,
                f"{row.uplink_bytes:,}",
                str(row.rounds),
                *(_accuracy(row.cells[place]) for place in places),
            ]
            for row in rows
        ],
    )


def message_table(rows: Sequence[Row]) -> Table:
    """Return how often each setting of a peer was used, constants aside."""
    cells = []
    for row in rows:
        settings: Counter[str] = Counter()
        for words, times in row.sent_as.items():
            setting, _, constant = words.partition(CONSTANT)
            settings[setting] += times if constant else 0
        used = [f"{setting} ({times})" for setting, times in settings.most_common() if times]
        if used:
            cells.append([row.contender, "; ".join(used)])
    return Table(["", "sent as"], cells, words=2)


def paired_table(rows: Sequence[Row], reference: str) -> Table:
    """Return what may be said of each row beside the reference."""
    cells = [
        [
            row.contender,
            place,
            f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})",
            f"{found.p_corrected:.2g}",
            in_words(found),
        ]
        for row in rows
        if row.contender != reference
        for place, cell in row.cells.items()
        if (found := cell.comparison) is not None
    ]
    return Table(["", "on", "points (95 %)", "p", ""], cells, words=2)


def page(rows: Sequence[Row], reference: str, command: str) -> str:
    """Return the tables as Markdown."""
    items: list[Item] = [
        Text(command, code=True),
        Heading("Accuracy"),
        Text(
            "Mean and standard deviation over the sites and seeds. Bytes are those of the largest message "
            "of a site, and of the product's methods what a site's updates take over all rounds, on average."
        ),
        accuracy_table(rows),
        Heading("Messages"),
        Text("How the peers' statistics were sent, and in how many of the federations."),
        message_table(rows),
        Heading("Paired tests"),
        Text(f"Beside {reference}, on the same images, by group."),
        paired_table(rows, reference),
    ]
    return to_markdown("One message", items)


def _accuracy(cell: Cell) -> str:
    return f"{100 * cell.accuracy:.1f} ± {100 * cell.accuracy_std:.1f}"


def _compared(evidence: Evidence, keys: Sequence[Key], others: Sequence[Key]) -> Comparison:
    """Compare two contenders on the same images; sites and seeds come in the same order."""
    first = keys[0]
    return compare(
        np.concatenate([evidence.right(key) for key in keys]),
        np.concatenate([evidence.right(key) for key in others]),
        np.concatenate([evidence.study.groups(key.case) for key in keys]),
        derive_seed(0, purpose=f"bootstrap one-shot {first.contender} {first.place}"),
    )


def _cell(evidence: Evidence, keys: Sequence[Key], comparison: Comparison | None) -> Cell:
    accuracies = [float(evidence.right(key).mean()) for key in keys]
    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    return Cell(round(fmean(accuracies), 6), round(spread, 6), len(accuracies), comparison)


def _order(place: str) -> tuple[bool, bool, int, str]:
    """Members come first, then newcomers with ever more labels, then images of no site."""
    return place == ELSEWHERE, place != MEMBERS, len(place), place

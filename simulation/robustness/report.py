"""The summaries as tables: Markdown for a page, and a grid of numbers for a terminal."""

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.robustness.attacks import NO_ATTACK
from fedmedclip.simulation.robustness.results import (
    LAST_ROUNDS,
    MOST_COST,
    MOST_LOST,
    Row,
    Summary,
    Verdict,
)
from fedmedclip.simulation.robustness.runs import ALONE

Grid = dict[tuple[str, str], Summary]
"""The summaries of a method and a number of sites, by rule and attack."""


def grids(summaries: Sequence[Summary]) -> dict[tuple[str, int], Grid]:
    """Return a grid for each method and number of sites."""
    found: dict[tuple[str, int], Grid] = {}
    for summary in summaries:
        grid = found.setdefault((summary.method, summary.sites), {})
        grid[summary.rule, summary.attack] = summary
    return found


def names_of(grid: Grid) -> tuple[list[str], list[str]]:
    """Return the rules and the attacks of a grid, each once, in their order; `none` is no attack."""
    rules = list(dict.fromkeys(rule for rule, _ in grid))
    return rules, [name for name in dict.fromkeys(attack for _, attack in grid) if name != NO_ATTACK]


def print_tables(
    console: Console,
    summaries: Sequence[Summary],
    found: Sequence[Verdict],
    attackers: int,
    rounds_of: Callable[[str], int],
) -> None:
    """Print a table for each method and number of sites, and what is to be said of each rule."""
    for (method, sites), grid in grids(summaries).items():
        rules, attacks = names_of(grid)
        hostile = f"{attackers} of {sites} sites hostile"
        title = f"{method}, {hostile}, {rounds_of(method)} rounds: points less the clean run"
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("rule", overflow="fold", max_width=22)
        for heading in ("clean\n%", "cost", *(name.replace("-", "\n") for name in attacks)):
            table.add_column(heading, justify="right", no_wrap=True)
        for rule in rules:
            table.add_row(visible(rule), *_cells(grid, rule, attacks, _points))
        console.print(table)
    console.print(
        "shared head, mean over the honest sites, each on its own test images, and over the last "
        f"{LAST_ROUNDS} rounds and all seeds; cost: less the plain mean, no one hostile; !: some run stopped",
        style="dim", highlight=False,
    )  # fmt: skip
    for verdict in found:
        console.print(in_words(verdict), highlight=False, markup=False, soft_wrap=True)


def in_words(verdict: Verdict) -> str:
    """Return the sentence about a rule."""
    withstands = "within" if verdict.withstands else "not within"
    is_cheap = "within" if verdict.is_cheap else "not within"
    return (
        f"{verdict.method}, {verdict.sites} sites, {verdict.rule}: worst attack {verdict.worst_attack} "
        f"{verdict.lost.in_points()} points, {withstands} {100 * MOST_LOST:g}; cost where no one is hostile "
        f"{verdict.cost.in_points()} points, {is_cheap} {100 * MOST_COST:g}"
    )


def to_markdown(
    rows: Sequence[Row], summaries: Sequence[Summary], found: Sequence[Verdict], command: str, attackers: int
) -> str:
    """Return the report: every table with intervals, and the sentences."""
    lines = ["# Robustness report", "", f"    {command}", ""]
    for (method, sites), grid in grids(summaries).items():
        rules, attacks = names_of(grid)
        of_grid = [row for row in rows if (row.method, row.sites) == (method, sites)]
        lines += [
            f"## {method}, {sites} sites, {attackers} hostile",
            "",
            _references(of_grid),
            "",
            *_table(
                ["rule", "clean %", "cost", *attacks],
                [[f"`{rule}`", *_cells(grid, rule, attacks, _points_with_interval)] for rule in rules],
            ),
            "",
            *(f"- {in_words(v)}." for v in found if (v.method, v.sites) == (method, sites)),
            "",
        ]
    stopped = sorted(
        {f"{row.rule} under {row.attack}, seed {row.seed}: {row.stopped}" for row in rows if row.stopped}
    )
    if stopped:
        lines += ["## Runs that stopped", "", *(f"- {visible(line)}" for line in stopped), ""]
    return "\n".join(lines)


def _references(rows: Sequence[Row]) -> str:
    clean = {row.seed: row for row in rows if row.attack == NO_ATTACK}.values()

    def percent(name: str) -> str:
        return f"{100 * sum(getattr(row, name) for row in clean) / len(clean):.1f} %"

    return (
        f"Where no one is hostile, over all sites: plain mean {percent('mean_accuracy')}, {ALONE} "
        f"{percent('local_accuracy')}, zero-shot {percent('zero_shot_accuracy')}."
    )


def _cells(grid: Grid, rule: str, attacks: Sequence[str], shown: Callable[[Summary], str]) -> list[str]:
    clean = grid[rule, NO_ATTACK]
    attacked = [shown(grid[rule, attack]) for attack in attacks]
    return [f"{100 * clean.accuracy:.1f}{'!' * bool(clean.stopped)}", shown(clean), *attacked]


def _points(summary: Summary) -> str:
    return f"{100 * summary.lost.mean:+.1f}{'!' * bool(summary.stopped)}"


def _points_with_interval(summary: Summary) -> str:
    return f"{summary.lost.in_points()}{' !' * bool(summary.stopped)}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]

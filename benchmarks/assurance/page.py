"""The figures as tables of Markdown, each under its heading."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_ANSWERS = (
    "method", "images", "accuracy, %", "answered, %", "accuracy of these, %", "of these with one class, %",
    "errors caught, %", "by no answer, %", "right answers questioned, %", "AURC",
)  # fmt: skip
_SHARES = (
    "accuracy", "answered", "accuracy_of_answered", "accuracy_of_one_class", "errors_caught",
    "unlike_of_errors", "right_questioned",
)  # fmt: skip


def page(content: Row) -> str:
    """Return all tables of what was measured; intervals of 95 % are over patients."""
    coverage = content["coverage"]
    parts = [
        _coverage(method, [row for row in coverage if row["method"] == method])
        for method in dict.fromkeys(row["method"] for row in coverage)
    ]
    answers = [
        [row["method"], row["place"], *(_percent(row[name]) for name in _SHARES), f"{row['aurc']:.3f}"]
        for row in content["selection"]
    ]
    unlike = [
        [row["method"], row["kind"], _percent(row["unlike"]), f"{row['auroc']:.3f}"]
        for row in content["unlike"]
    ]
    parts.append(_table("Answers", _ANSWERS, answers))
    parts.append(_table("Unlike", ("method", "images", "called unlike, %", "AUROC"), unlike))
    if rows := content["candidates"]:
        cells = [
            [value if isinstance(value, str) else f"{value:.3f}" for value in row.values()] for row in rows
        ]
        parts.append(
            _table("Candidates", [{"mean": "mean AUROC"}.get(name, name) for name in rows[0]], cells)
        )
    return "\n".join(parts)


def _coverage(method: str, rows: Sequence[Row]) -> str:
    """Return a table of a method: a row for each place and way to make sets, a column for each level."""
    levels = sorted({row["level"] for row in rows})
    columns = ["images", "sets", *(f"hold the class at {level:g}, %" for level in levels)]
    columns += [f"worst class at {level:g}, %" for level in levels]
    columns += [f"classes in a set at {level:g}" for level in levels]
    by_way: dict[tuple[str, str], dict[float, Row]] = {}
    for row in rows:
        way = row["place"], f"{row['kind']}{', by class' if row['class_conditional'] else ''}"
        by_way.setdefault(way, {})[row["level"]] = row
    cells = [
        [
            *way,
            *(_percent(found[level]["coverage"]) for level in levels),
            *(f"{100 * found[level]['worst_class']:.1f}" for level in levels),
            *(f"{found[level]['set_size']['mean']:.2f}" for level in levels),
        ]
        for way, found in sorted(by_way.items())
    ]
    return _table(f"Coverage {method}", columns, cells)


def _percent(share: Mapping[str, float]) -> str:
    return f"{100 * share['mean']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def _table(heading: str, columns: Iterable[str], rows: Iterable[list[str]]) -> str:
    names = list(columns)
    lines = [f"## {heading}", "", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])

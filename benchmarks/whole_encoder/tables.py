"""The tables of the page on whole encoders, in Markdown."""

from collections.abc import Sequence
from statistics import fmean

from benchmarks.whole_encoder.comparisons import SITES, Versus
from benchmarks.whole_encoder.results import Row, figure
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.accuracy.verdict import MARK


def accuracy_table(rows: Sequence[Row], chosen_here: Sequence[str]) -> str:
    """Return a line for each method: accuracies in %, mean and standard deviation over its seeds.

    Methods whose constants were chosen on this data, `chosen_here`, have a mark.
    """
    lines = [
        "| method | seeds | rounds | sites % | sites, balanced % | global test % | best round: sites % "
        "| best round: global % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, of_method in _by_method(rows):
        last, best = [row.last for row in of_method], [row.best for row in of_method if row.best]
        cells = [
            f"{method} {MARK}" if method in chosen_here else method,
            str(len(of_method)),
            ", ".join(str(number) for number in sorted({one.round for one in last})),
            str(figure([one.sites for one in last])),
            str(figure([one.balanced for one in last])),
            _figure([one.global_test for one in last]),
            str(figure([one.sites for one in best])) if best else "",
            _figure([one.global_test for one in best]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Return a line for each method: bytes and seconds of a round at a site."""
    lines = [
        "| method | bytes up | bytes down | up in float16 | float16 + zstd | seconds | processor seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method, of_method in _by_method(rows):
        last = of_method[-1]
        smaller = [last.smaller.get(form) for form in ("float16", "float16+zstd")]
        cells = [
            method,
            f"{fmean(row.uplink_bytes for row in of_method):,.0f}",
            f"{fmean(row.downlink_bytes for row in of_method):,.0f}",
            *("" if size is None else f"{size:,}" for size in smaller),
            f"{fmean(row.wall_seconds for row in of_method):.3g}",
            f"{fmean(row.processor_seconds for row in of_method):.3g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison_table(found: Sequence[Versus]) -> str:
    """Return a line for each comparison, in points over the images of all its seeds."""
    lines = [
        "| method | against | on | in | difference | 95 % interval | groups better, worse | p | p after Holm "
        "| finding |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for one in found:
        comparison = one.found
        cells = [
            one.method,
            one.reference,
            "the sites' tests" if one.test_set == SITES else "the global test",
            one.metric,
            f"{100 * comparison.difference:+.1f}",
            f"{100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}",
            f"{comparison.better}, {comparison.worse}",
            f"{comparison.p:.2g}",
            f"{comparison.p_corrected:.2g}",
            _finding(comparison),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _finding(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not shown to differ"
    return "better" if comparison.difference > 0 else "worse"


def _by_method(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    methods = dict.fromkeys(row.method for row in rows)
    return [(method, [row for row in rows if row.method == method]) for method in methods]


def _figure(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return str(figure(known)) if known else ""

"""The rows as tables that fit a terminal of 80 columns: what travels, what it gives and what it costs."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich import box
from rich.console import Console
from rich.table import Table

from fedmedclip.simulation.bandwidth.results import PAPERS, UNCOMPRESSED, Row
from fedmedclip.simulation.differences import Difference

_NONE: Mapping[str, Difference] = MappingProxyType({})


def print_rows(
    console: Console,
    rows: Sequence[Row],
    link: str,
    target: str,
    losses: Mapping[str, Difference] = _NONE,
    global_losses: Mapping[str, Difference] = _NONE,
) -> None:
    """Print one line per codec in each table; `target` says what "rounds" waits for, `link` is in words.

    `losses` are the codecs' differences to the uncompressed one, `global_losses` those on the global test.
    """
    console.print(_bytes_table(rows))
    console.print(_accuracy_table(rows))
    if losses:
        console.print(_loss_table(rows, losses, global_losses))
    console.print(
        "total: of all rounds; limit: order-0 entropy of an update's payload; "
        f"s: seconds of a round on {link}, training not counted; less: than {PAPERS}",
        highlight=False,
        style="dim",
    )
    console.print(
        f"rounds: to {target}; accuracy ± standard deviation between seeds; points less {UNCOMPRESSED} ± the "
        "95 % interval of their mean (Student's t over the seeds); encode, decode: ms",
        highlight=False,
        style="dim",
    )


def _bytes_table(rows: Sequence[Row]) -> Table:
    papers = next((row for row in rows if row.codec == PAPERS), None)
    headings = ["up", "down", "total kB", "limit", "s"]
    if papers is not None:
        headings.append("less")
    table = _table("Bytes per site and round, envelopes included", headings)
    for row in rows:
        cells = [
            f"{row.uplink_bytes_per_round:,.0f}",
            f"{row.downlink_bytes_per_round:,.0f}",
            f"{row.total_bytes_per_site / 1000:,.0f}",
            f"{row.entropy_limit_bytes:,.0f}",
            f"{row.seconds_on_link:,.1f}",
        ]
        if papers is not None:
            cells.append(f"{papers.bytes_per_round / row.bytes_per_round:,.1f} x")
        table.add_row(row.codec, *cells)
    return table


def _accuracy_table(rows: Sequence[Row]) -> Table:
    with_global = any(row.accuracy_global is not None for row in rows)
    headings = ["accuracy %", *(["global %"] if with_global else []), "rounds", "encode", "decode"]
    table = _table("Accuracy of the shared head", headings)
    for row in rows:
        cells = [f"{100 * row.accuracy:.1f} ± {100 * row.accuracy_std:.1f}"]
        if with_global:
            cells.append("" if row.accuracy_global is None else f"{100 * row.accuracy_global:.1f}")
        cells.append("-" if row.rounds_to_target is None else str(row.rounds_to_target))
        table.add_row(row.codec, *cells, f"{row.encode_ms:.1f}", f"{row.decode_ms:.1f}")
    return table


def _loss_table(
    rows: Sequence[Row], losses: Mapping[str, Difference], global_losses: Mapping[str, Difference]
) -> Table:
    headings = ["sites", *(["global test"] if global_losses else [])]
    table = _table(f"Points less {UNCOMPRESSED}", headings)
    for row in rows:
        if row.codec != UNCOMPRESSED:
            cells = [of_codec[row.codec].in_points() for of_codec in (losses, global_losses) if of_codec]
            table.add_row(row.codec, *cells)
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("codec", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table

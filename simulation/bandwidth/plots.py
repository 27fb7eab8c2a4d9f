"""Accuracy against bytes, and learning curves, as SVG and PNG that a black-and-white print keeps readable."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedmedclip.simulation.bandwidth.loss import difference_to_uncompressed
from fedmedclip.simulation.bandwidth.results import UNCOMPRESSED, Row, mean_curve
from fedmedclip.simulation.bandwidth.runs import Run
from fedmedclip.simulation.differences import Difference
from fedmedclip.simulation.figure_files import plain_style, save

_MARKERS = "osD^vP*Xh<>p"
_LINES = ("-", "--", "-.", ":")


def draw(folder: Path, rows: Sequence[Row], runs: Mapping[str, Sequence[Run]]) -> list[Path]:
    """Write `accuracy-against-bytes` and `learning-curves`, each `.svg` and `.png`; return the paths.

    Bars are the spread of the difference to the uncompressed run of the same seed, where there is one: the
    accuracies' own spread comes from the splits, which move all codecs together.
    """
    plain_style()
    return [
        *_draw_accuracy_against_bytes(folder, rows, difference_to_uncompressed(runs)),
        *_draw_curves(folder, runs),
    ]


def _draw_accuracy_against_bytes(
    folder: Path, rows: Sequence[Row], differences: Mapping[str, Difference]
) -> list[Path]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    sizes = [row.bytes_per_round for row in rows]
    axes.set_xlim(min(sizes) / 2, max(sizes) * 4)
    for index, row in enumerate(rows):
        x, y = row.bytes_per_round, 100 * row.accuracy
        spread = differences[row.codec].std if differences else row.accuracy_std
        axes.errorbar(
            x, y, yerr=100 * spread, fmt=_MARKERS[index % len(_MARKERS)], markersize=8,
            color="black", markerfacecolor="white", capsize=3, elinewidth=0.8,
        )  # fmt: skip
        # Labels alternate above and below, so that neighbours do not cover each other.
        above = index % 2 == 0
        axes.annotate(
            row.codec, (x, y), xytext=(6, 9 if above else -9), textcoords="offset points",
            va="bottom" if above else "top",
        )  # fmt: skip
        if row.codec == UNCOMPRESSED:
            axes.axhline(y, color="grey", linewidth=0.8, linestyle="--", zorder=0)
    axes.margins(y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("bytes per site and round, both directions, envelopes included")
    bars = "difference to lossless" if differences else "accuracy between seeds"
    axes.set_ylabel("accuracy of the shared head, %")
    axes.set_title(f"bars: standard deviation of the {bars}", fontsize=9, loc="right")
    axes.grid(visible=True, which="major", linewidth=0.3)
    return save(figure, folder / "accuracy-against-bytes")


def _draw_curves(folder: Path, runs: Mapping[str, Sequence[Run]]) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, (codec, of_seeds) in enumerate(runs.items()):
        curve = mean_curve(of_seeds)
        axes.plot(
            range(1, len(curve) + 1), [100 * value for value in curve], label=codec,
            color=str(0.15 * (index % 4)), linestyle=_LINES[index % len(_LINES)],
            marker=_MARKERS[index % len(_MARKERS)], markevery=max(1, len(curve) // 10),
            markerfacecolor="white", linewidth=1.0,
        )  # fmt: skip
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy of the shared head, %")
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(frameon=False)
    return save(figure, folder / "learning-curves")

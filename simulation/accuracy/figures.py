"""The report's figures as SVG. Colour is never alone: markers, line styles or numbers say the same."""

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmedclip.simulation.accuracy.document import Figure
from fedmedclip.simulation.accuracy.evidence import SITES
from fedmedclip.simulation.accuracy.results import MethodResult, TestSet
from fedmedclip.simulation.accuracy.scores import THRESHOLDS
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

# Okabe and Ito 2008, "Color universal design"; yellow is left out, it is too pale on paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*Xh<>p"
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_IN_WORDS = {SITES: "the sites' tests", GLOBAL_TEST: "the global test"}
_CLASSIFIER = {SITES: "ensemble", GLOBAL_TEST: "shared head"}
_PANELS_PER_ROW = 4


def draw(folder: Path, results: Sequence[MethodResult], class_names: Sequence[str]) -> list[Figure]:
    """Write every figure into `folder` as SVG and return them. The same results give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({
        "svg.hashsalt": "fedmedclip", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.linewidth": 0.3, "legend.frameon": False,
    })  # fmt: skip
    figures = [
        _save(folder, "accuracy-against-bytes", "Accuracy against bytes", _AGAINST_BYTES, _bytes(results)),
        _save(folder, "learning-curves", "Learning curves", _CURVES, _curves(results)),
    ]
    for test_set in _test_sets(results):
        where, ending = _IN_WORDS[test_set], test_set.replace("_", "-")
        panels = {
            "reliability": _panels(results, test_set, ("ece", "calibration error"), _reliability),
            "decision": _decision(results, test_set),
            "confusion": _panels(
                results, test_set, ("accuracy", "accuracy"), partial(_confusion, class_names=class_names)
            ),
        }
        figures += [
            _save(folder, f"{kind}-{ending}", f"{_TITLES[kind]} {where}", _CAPTIONS[kind], drawing)
            for kind, drawing in panels.items()
        ]
    return figures


_AGAINST_BYTES = (
    "Bytes per site and round in both directions, envelopes included, joining spread over the rounds. "
    "Methods that send nothing stand at the left edge. Bars: standard deviation between seeds."
)
_CURVES = "Left: ensemble, mean over the sites' tests. Right: shared head. Mean over the seeds."
_TITLES = {
    "reliability": "Reliability on",
    "decision": "Decision curves on",
    "confusion": "Confusion on",
}
_CAPTIONS = {
    "reliability": "Accuracy of the predictions against their confidence, ten bins; the size of a marker "
    "grows with its bin's images. On the diagonal confidence is honest, below it there is too much of it. "
    "All seeds together.",
    "decision": "Net benefit (Vickers and Elkin 2006) of acting where the predicted risk reaches the "
    "threshold: true positives per image, less false positives at the exchange rate of the threshold.",
    "confusion": "Rows: true class; columns: what it was called. Shares of the row, all seeds together.",
}


def _test_sets(results: Sequence[MethodResult]) -> list[str]:
    return [name for name in (SITES, GLOBAL_TEST) if any(name in result.pooled for result in results)]


def _with_answers(results: Sequence[MethodResult], test_set: str) -> list[tuple[int, MethodResult]]:
    """Return the methods that answer on a test set, with their numbers: a style is a method's everywhere."""
    return [(index, result) for index, result in enumerate(results) if test_set in result.pooled]


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index % len(_LINES)],
        "markerfacecolor": "white",
        "linewidth": 1.1,
        "markersize": 5,
    }


def _bytes(results: Sequence[MethodResult]) -> "Drawing":
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    test_sets = _test_sets(results)
    drawing, all_axes = _grid(len(test_sets), 4.6, 3.4)
    sent = [result.bytes_per_round for result in results if result.bytes_per_round > 0] or [1.0]
    edge = min(sent) / 3
    for axes, test_set in zip(all_axes, test_sets, strict=True):
        axes.set_xscale("log")
        for index, result in _with_answers(results, test_set):
            found = result.headline(test_set)
            assert found is not None
            axes.errorbar(
                max(result.bytes_per_round, edge), 100 * found.mean, yerr=100 * found.std, capsize=2,
                elinewidth=0.5, label=result.label, **{**_style(index), "linestyle": "none", "markersize": 7},
            )  # fmt: skip
        axes.set_xlim(edge / 1.5, max(sent) * 2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(unit="B", sep=" "))
        axes.set_xlabel("bytes per site and round")
        axes.set_ylabel(f"accuracy, {_CLASSIFIER[test_set]}, %")
        axes.set_title(_IN_WORDS[test_set], fontsize=9)
    _legend(drawing, all_axes[0])
    return drawing


def _curves(results: Sequence[MethodResult]) -> "Drawing":
    with_global = GLOBAL_TEST in _test_sets(results)
    drawing, all_axes = _grid(2 if with_global else 1, 4.6, 3.4)
    for index, result in enumerate(results):
        rounds = range(1, len(result.curve) + 1)
        style = {**_style(index), "markevery": max(1, len(rounds) // 8)}
        all_axes[0].plot(
            rounds, [100 * point.ensemble for point in result.curve], label=result.label, **style
        )
        on_global = [100 * p.global_shared for p in result.curve if p.global_shared is not None]
        if on_global:
            all_axes[1].plot(rounds, on_global, **style)
    for axes, title in zip(all_axes, _IN_WORDS.values(), strict=False):
        axes.set_xlabel("round")
        axes.set_ylabel("accuracy, %")
        axes.set_title(title, fontsize=9)
    _legend(drawing, all_axes[0])
    return drawing


def _decision(results: Sequence[MethodResult], test_set: str) -> "Drawing":
    curves = [
        (index, result.label, result.pooled[test_set].decision)
        for index, result in _with_answers(results, test_set)
    ]
    panels = curves[0][2]
    drawing, all_axes = _grid(len(panels), 6.4 if len(panels) == 1 else 3.2, 3.6)
    for panel, axes in enumerate(all_axes):
        for index, label, of_result in curves:
            style = {**_style(index), "markevery": (index % 6, 8), "markersize": 4}
            axes.plot(THRESHOLDS, of_result[panel].net_benefit, label=label, **style)
        everyone = panels[panel].everyone
        axes.plot(THRESHOLDS, everyone, color="grey", linewidth=0.8, label="act on everyone")
        axes.axhline(0, color="grey", linewidth=0.8, linestyle=":", label="act on no one")
        axes.set_ylim(-0.1, max(everyone) * 1.1)
        axes.set_xlabel("threshold probability")
        axes.set_ylabel("net benefit")
        axes.set_title(panels[panel].finding, fontsize=9)
    _legend(drawing, all_axes[0])
    return drawing


def _panels(
    results: Sequence[MethodResult],
    test_set: str,
    title: tuple[str, str],
    draw_one: Callable[["Axes", TestSet], None],
) -> "Drawing":
    """Draw one panel per method; `title` is a metric and its name."""
    chosen = _with_answers(results, test_set)
    drawing, all_axes = _grid(len(chosen), 2.2, 2.3)
    metric, name = title
    for axes, (_, result) in zip(all_axes, chosen, strict=True):
        draw_one(axes, result.pooled[test_set])
        found = result.headline(test_set, metric)
        assert found is not None
        axes.set_title(f"{result.label}\n{name} {found.mean:.3f}", fontsize=8)
    return drawing


def _reliability(axes: "Axes", found: TestSet) -> None:
    total = sum(bin_.images for bin_ in found.reliability)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    x, y = [bin_.confidence for bin_ in found.reliability], [bin_.accuracy for bin_ in found.reliability]
    axes.plot(x, y, color=_COLOURS[0], linewidth=1)
    sizes = [8 + 120 * bin_.images / total for bin_ in found.reliability]
    axes.scatter(x, y, s=sizes, facecolor="white", edgecolor=_COLOURS[0], zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_aspect("equal")


def _confusion(axes: "Axes", found: TestSet, class_names: Sequence[str]) -> None:
    shares = [[count / max(1, sum(row)) for count in row] for row in found.confusion]
    # A raster would be heavier than these few cells.
    axes.pcolormesh(shares, cmap="Greys", vmin=0, vmax=1, edgecolor="0.7", linewidth=0.3)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            axes.text(
                column + 0.5, row + 0.5, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                color="white" if value > 0.55 else "black",
            )  # fmt: skip
    short = [name.split("_")[0][:10] for name in class_names]
    if len(set(short)) < len(short):
        short = [name[:10] for name in class_names]
    middles = [index + 0.5 for index in range(len(short))]
    axes.set_xticks(middles, short, rotation=45, ha="right", fontsize=6)
    axes.set_yticks(middles, short, fontsize=6)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_aspect("equal")


def _grid(panels: int, width: float, height: float) -> tuple["Drawing", list["Axes"]]:
    from matplotlib.figure import Figure as Drawing

    columns = min(panels, _PANELS_PER_ROW)
    rows = ceil(panels / columns)
    drawing = Drawing(figsize=(width * columns, height * rows), layout="constrained")
    cells = drawing.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in cells[panels:]:
        unused.set_axis_off()
    return drawing, cells[:panels]


def _legend(drawing: "Drawing", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)


def _save(folder: Path, name: str, title: str, caption: str, drawing: "Drawing") -> Figure:
    path = folder / f"{name}.svg"
    drawing.savefig(path, metadata={"Date": None})
    return Figure(path, title, caption)

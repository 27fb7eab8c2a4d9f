"""Why should my hospital join? What is right of its own images, by how many of them somebody has labelled."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.figure_files import plain_style, save
from fedmedclip.simulation.newcomer.content import Content
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.results import Point
from fedmedclip.simulation.newcomer.study import LOCAL_ONLY, POOLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Line(NamedTuple):
    """What is drawn: its name for people, a point for each number of labelled images, and how it looks."""

    name: str
    points: list[Point]
    colour: str
    dashes: str
    marker: str
    bold: bool


def draw(folder: Path, content: Content) -> list[Path]:
    """Write `newcomer.svg` and `.png`; return the paths."""
    from matplotlib.figure import Figure

    plain_style()
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    labels = list(dict.fromkeys(point.labels_per_class for point in content.points))
    for number, line in enumerate(lines(content)):
        _draw_line(axes, line, labels, shift=0.05 * (number - 1.5))
    axes.set_xticks(range(len(labels)), [str(number) for number in labels])
    axes.set_xlabel("labelled images per class that your hospital brings")
    axes.set_ylabel("your own test images called rightly, %")
    axes.set_title("Why join? What the others' training gives your hospital", fontsize=11, loc="left")
    axes.grid(visible=True, axis="y", linewidth=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8,
                  frameon=False)  # fmt: skip
    return save(figure, folder / "newcomer")


def caption(content: Content) -> str:
    """Return what there is to know to read the plot."""
    return (
        f"Accuracy on the newcomer's own test images, mean over {len(content.sites)} hospitals that join "
        f"in turn and {len(content.seeds)} seeds; bars: 95 % interval (bootstrap over groups). Alone, and in "
        "one place: at each number of labels the best of the methods trained so, chosen in hindsight."
    )


def lines(content: Content) -> list[Line]:
    """Return the lines: the first federated method, and the best on average where that is another."""
    methods = content.methods[:1]
    if content.methods:
        best = max(content.methods, key=lambda method: _mean(_of(content.points, method)))
        methods = list(dict.fromkeys([*methods, best]))
    found = [
        Line(
            "all hospitals' images in one place", _best(content.points, POOLED), "0.55", ":", "^", bold=False
        ),
        *(
            Line(f"in the federation: {method}", _of(content.points, method), colour, "-", marker, bold=True)
            for method, colour, marker in zip(methods, ("#0b5fa5", "#c2571a"), ("o", "s"), strict=False)
        ),
        Line("alone, on your own labels", _best(content.points, LOCAL_ONLY), "black", "--", "D", bold=False),
        Line("nobody trains (zero-shot)", _of(content.points, ZERO_SHOT), "0.4", "-.", "", bold=False),
    ]  # fmt: skip
    return [line for line in found if line.points]


def _draw_line(axes: "Axes", line: Line, labels: Sequence[Labels], shift: float) -> None:
    places = [labels.index(point.labels_per_class) + shift for point in line.points]
    means = [100 * point.accuracy for point in line.points]
    bars = [
        [100 * (point.accuracy - point.low) for point in line.points],
        [100 * (point.high - point.accuracy) for point in line.points],
    ]
    axes.errorbar(
        places, means, yerr=bars, label=line.name, color=line.colour, linestyle=line.dashes,
        marker=line.marker, markerfacecolor="white", markersize=6, linewidth=2.0 if line.bold else 1.1,
        elinewidth=0.7, capsize=2,
    )  # fmt: skip


def _of(points: Sequence[Point], method: str) -> list[Point]:
    return [point for point in points if point.method == method]


def _best(points: Sequence[Point], way: str) -> list[Point]:
    """Return at each number of labelled images the best of the methods that are trained in this way."""
    best: dict[Labels, Point] = {}
    for point in points:
        if point.method.startswith(f"{way}:"):
            before = best.get(point.labels_per_class)
            if before is None or point.accuracy > before.accuracy:
                best[point.labels_per_class] = point
    return list(best.values())


def _mean(points: Sequence[Point]) -> float:
    return sum(point.accuracy for point in points) / len(points)

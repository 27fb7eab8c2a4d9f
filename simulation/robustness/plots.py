"""What each attack takes from each rule: a grid of numbers, whose shades only help to find the worst."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedmedclip.simulation.figure_files import plain_style, save
from fedmedclip.simulation.robustness.attacks import NO_ATTACK
from fedmedclip.simulation.robustness.report import Grid, grids, names_of
from fedmedclip.simulation.robustness.results import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARKEST_POINTS = 30.0


def draw(folder: Path, summaries: Sequence[Summary]) -> list[Path]:
    """Write `robustness.svg` and `.png`, a panel for each method and number of sites; return the paths."""
    from matplotlib.figure import Figure

    plain_style()
    panels = grids(summaries)
    heights = [1.2 + 0.3 * len(names_of(grid)[0]) for grid in panels.values()]
    figure = Figure(figsize=(9.0, sum(heights)), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, ((method, sites), grid) in zip(all_axes, panels.items(), strict=True):
        _draw_grid(axes, grid)
        axes.set_title(f"{method}, {sites} sites", fontsize=10, loc="left")
    figure.suptitle("accuracy of the honest sites' shared head, points less the clean run", fontsize=10)
    return save(figure, folder / "robustness")


def _draw_grid(axes: "Axes", grid: Grid) -> None:
    rules, attacks = names_of(grid)
    columns = [NO_ATTACK, *attacks]
    lost = [[100 * grid[rule, attack].lost.mean for attack in columns] for rule in rules]
    axes.imshow(lost, cmap="gray", vmin=-_DARKEST_POINTS, vmax=0, aspect="auto")
    for y, of_rule in enumerate(lost):
        for x, points in enumerate(of_rule):
            dark = points < -_DARKEST_POINTS / 2
            axes.text(x, y, f"{points:+.1f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), ["none, less\nthe mean", *attacks])
    axes.set_yticks(range(len(rules)), rules)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

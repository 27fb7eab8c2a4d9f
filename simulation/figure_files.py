"""How figures look and how they are written: as SVG and PNG, the same bytes for the same results."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plain_style() -> None:
    """Draw without a display, and so that two runs write the same SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "fedmedclip", "font.size": 10, "axes.spines.top": False,
                         "axes.spines.right": False})  # fmt: skip


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write a figure as `.svg` and `.png` and return the paths."""
    paths = [stem.with_suffix(ending) for ending in (".svg", ".png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths

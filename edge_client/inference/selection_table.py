"""What prediction sets and withheld answers are worth, on the terminal."""

from rich.table import Table

from fedmedclip.edge_client.heads.selective import SelectiveFigures
from fedmedclip.protocol.visible import visible


def assurance_table(figures: SelectiveFigures) -> Table:
    """Return the figures as a table of two columns; what there is none of is "-"."""
    table = Table(title=f"Prediction sets of level {figures.level:g}, and images that get no answer")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right")
    caught = f"errors caught, of {figures.errors}: no answer, or more than one class"
    rows = [
        ("sets that hold the true class", figures.coverage),
        ("of images that are answered", figures.coverage_of_answered),
        *((f"of {visible(name)}", share) for name, share in figures.coverage_by_class.items()),
        ("classes in a set", figures.mean_set_size),
        ("of images that are answered, classes", figures.mean_set_size_of_answered),
        ("unlike the training images, no answer", 1 - figures.answered),
        ("accuracy of what is answered", figures.accuracy_of_answered),
        (caught, figures.errors_caught),
        ("right answers that are questioned so", figures.right_questioned),
        ("area under the risk-coverage curve", figures.aurc),
    ]
    for name, value in rows:
        table.add_row(name, "-" if value is None else f"{value:.3f}")
    return table

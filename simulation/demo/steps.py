"""How far the demo is: a bar for each step on a terminal, a line every 30 s where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedmedclip.protocol.progress import Report, progress_lines

Move = Callable[[int, int], None]
"""Takes how much of a step is done, of how much."""


class Steps:
    """Begins one step after the other; those before are done."""

    def __init__(self, progress: Progress, lines: Report | None) -> None:
        self._progress = progress
        self._lines = lines

    def begin(self, description: str, total: int | None = 1) -> Move:
        """Show a step with its total, None where that is not known yet; return what moves it."""
        task = self._progress.add_task(description, total=total)

        def move(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)
            if self._lines is not None:
                self._lines(done, total if total > 1 else 0, description)

        if self._lines is not None:
            self._lines(0, total if total and total > 1 else 0, description)
        return move


@contextmanager
def shown_steps(console: Console) -> Iterator[Steps]:
    """Give the steps of a demo, shown on the console while they go on."""
    columns = (
        TextColumn("{task.description:<44}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        if console.is_terminal:
            yield Steps(progress, None)
        else:
            with progress_lines("the demo begins") as lines:
                yield Steps(progress, lines)

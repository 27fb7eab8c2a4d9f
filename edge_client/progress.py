"""Progress for a person: a bar on a terminal, and a line every 30 s elsewhere and where the log is JSON."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedmedclip.protocol.console import logs_json
from fedmedclip.protocol.progress import Report, progress_lines
from fedmedclip.protocol.visible import visible


@contextmanager
def progress_bar(description: str) -> Iterator[Report]:
    """Give a function (done, total, what) that moves the bar; without a total yet it only shows life."""
    if not sys.stderr.isatty() or logs_json():
        with progress_lines(description) as report:
            yield report
        return
    # Takes a tenth of a second to import, which a service and a pipe need not wait for.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)
        shown = description

        def move(done: int, total: int, what: str = "") -> None:
            nonlocal shown
            shown = what or shown
            progress.update(task, completed=done, total=total or None, description=visible(shown))

        yield move

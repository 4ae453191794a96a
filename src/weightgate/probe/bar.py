"""How far a snapshot is, on standard error: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from weightgate.probe.snapshot import Observer, Progress

_PLAIN_EVERY_SECONDS = 15.0


@contextmanager
def progress_bar(name: str) -> Iterator[Observer]:
    """Yield an observer that draws; `name` stands before the bar."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _line_now_and_then(name, console)
        return
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=4,
        transient=True,
    ) as bars:
        task = bars.add_task(name, total=None, failed="")

        def draw(progress: Progress) -> None:
            failed = f"{progress.failed:,} failed" if progress.failed else ""
            bars.update(task, completed=progress.answered, total=progress.total, failed=failed)

        yield draw


def _line_now_and_then(name: str, console: Console) -> Observer:
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY_SECONDS:
            last = time.monotonic()
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            console.print(f"{name}: {progress.answered:,} of {progress.total:,}{failed}", markup=False)

    return say

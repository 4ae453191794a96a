"""How a running build looks: a bar per stage in the terminal, or one JSON line per event for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from weightgate.build.events import Observer, Progressed

JSON_EVERY_SECONDS = 1.0
PLAIN_EVERY_SECONDS = 15.0
"""Where there is no terminal to draw a bar in, such as a log file, a line this often."""

_MIN_COUNT_WIDTH = 9
"""Letters of "steps done/all steps" that are shown however narrow the terminal is."""

_MARKS = {"passed": "[green]✓[/]", "waived": "[yellow]~[/]", "failed": "[red]✗[/]", "not measured": "[red]?[/]"}


@contextmanager
def observer_for(as_json: bool, is_main: bool) -> Iterator[Observer]:
    """An observer for the terminal, or for machines: JSON lines on standard error, the result on standard output.

    Of several processes only the main one speaks.
    """
    if not is_main:
        yield Observer()
        return
    if as_json:
        yield JsonObserver()
        return
    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description:>12}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=_MIN_COUNT_WIDTH)),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=4,
    ) as bars:
        yield TerminalObserver(bars)


class TerminalObserver(Observer):
    """One bar per stage with loss, tokens per second and time left; gate verdicts below it."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}
        self.last_line = time.monotonic()

    def note(self, text: str) -> None:
        self.bars.console.print(f"[dim]{escape(text)}[/]")

    def stage_started(self, name: str, kind: str, steps: int, resumed_at: int) -> None:
        if resumed_at:
            self.note(f"{name}: going on after step {resumed_at} of {steps}")
        self.tasks[name] = self.bars.add_task(name, total=steps, completed=resumed_at, figures="")

    def stage_progress(self, name: str, progress: Progressed) -> None:
        shown = [f"{key} {progress.metrics[key]:.3f}" for key in ("loss", "score", "kl") if key in progress.metrics]
        shown.append(f"{progress.tokens_per_second:,.0f} tokens/s")
        figures = "  ".join(shown)
        self.bars.update(self.tasks[name], completed=progress.step, figures=figures)
        now = time.monotonic()
        if not self.bars.console.is_terminal and now - self.last_line >= PLAIN_EVERY_SECONDS:
            self.last_line = now
            left = f"{progress.seconds_left:,.0f} s left"
            self.bars.console.print(f"{name} {progress.step}/{progress.steps}  {figures}  {left}")

    def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
        how = "unchanged, not rebuilt" if reused else f"built in {seconds:.0f} s"
        self.bars.console.print(f"[bold]{name}[/] {checkpoint[3:15]} {how}")

    def stage_judged(self, name: str, verdicts: list[dict[str, Any]], passed: bool) -> None:
        for verdict in verdicts:
            told = escape(f"{verdict['condition']}: {verdict['reason']}")
            self.bars.console.print(f"  {_MARKS[verdict['status']]} {told}")
        if not verdicts:
            self.bars.console.print("  [yellow]no gate at this boundary[/]")


class JsonObserver(Observer):
    """One JSON object a line on standard error; progress at most once a second."""

    def __init__(self) -> None:
        self.last_progress = 0.0

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def stage_started(self, name: str, kind: str, steps: int, resumed_at: int) -> None:
        self._say("stage started", stage=name, kind=kind, steps=steps, resumed_at=resumed_at)

    def stage_progress(self, name: str, progress: Progressed) -> None:
        now = time.monotonic()
        if now - self.last_progress >= JSON_EVERY_SECONDS or progress.step == progress.steps:
            self.last_progress = now
            self._say("progress", stage=name, **vars(progress))

    def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
        self._say("stage finished", stage=name, checkpoint=checkpoint, seconds=seconds, reused=reused)

    def stage_judged(self, name: str, verdicts: list[dict[str, Any]], passed: bool) -> None:
        self._say("stage judged", stage=name, verdicts=verdicts, passed=passed)

    def _say(self, event: str, **fields: Any) -> None:
        sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stderr.flush()

"""The worker's side of a measurement: do a window of updates when asked, then wait for the next request.

A worker warms up once, says it is ready and sleeps. Each line on its standard input asks for one window, and a last one
for the end; each reply is one JSON line. So contenders take turns window by window without paying for imports and
compilation every time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO


class Pacer:
    """Counts updates and speaks to the runner. Make it before anything can print to standard output."""

    def __init__(self, *, warmup: int, steps: int) -> None:
        self.warmup = warmup
        self.steps = steps
        self.done = 0
        self.tokens = 0.0
        self.wall = self.cpu = 0.0
        self.replies = _private_stdout()

    @property
    def measuring(self) -> bool:
        """Whether the update in progress belongs to a window."""
        return self.done >= self.warmup

    def update_done(self, tokens: float = 0.0) -> None:
        """Note the end of one update that processed `tokens` tokens; at the end of a window, report and wait."""
        if self.measuring:
            self.tokens += tokens
        self.done += 1
        measured = self.done - self.warmup
        if measured < 0 or measured % self.steps:
            return
        if measured == 0:
            self.say(ready=True)
        else:
            seconds, cpu_seconds = time.perf_counter() - self.wall, time.process_time() - self.cpu
            self.say(seconds=seconds, cpu_seconds=cpu_seconds, updates=self.steps, tokens=self.tokens)
        # After the last window too: ending the run would disturb the last windows of the others.
        self._wait()

    def say(self, **fields: Any) -> None:
        """Send one JSON line to the runner."""
        self.replies.write(json.dumps(fields) + "\n")
        self.replies.flush()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit("the runner is gone")
        self.tokens = 0.0
        self.cpu = time.process_time()
        self.wall = time.perf_counter()


def _private_stdout() -> TextIO:
    """The real standard output; whatever else prints there goes to standard error from now on."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept

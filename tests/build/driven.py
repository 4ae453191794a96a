"""The test's end of `build_driver`: start builds and follow their events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from eventually import LIMIT_SECONDS

DRIVER = Path(__file__).with_name("build_driver.py")


@dataclass(kw_only=True)
class Run:
    """One build in a child: what it said so far, and how it ended (negative: by that signal)."""

    pid: int
    driver: Driver
    events: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None

    def follow(self) -> Iterator[dict[str, Any]]:
        """Yield events until the child is gone."""
        while self.code is None:
            event = self.driver.read()
            if event.get("driver") == "ended":
                self.code = int(event["code"])
                return
            self.events.append(event)
            yield event

    def wait(self) -> int:
        """Let it run to its end and return the exit code."""
        for _ in self.follow():
            pass
        assert self.code is not None
        return self.code

    def seconds_between_steps(self) -> dict[str, float]:
        """Median time from one finished step of a stage to the next."""
        times: dict[str, list[float]] = {}
        for event in self.events:
            if event.get("event") == "progress":
                times.setdefault(event["stage"], []).append(event["read_at"])
        return {stage: median(b - a for a, b in pairwise(each)) for stage, each in times.items()}

    @property
    def last_stage(self) -> str:
        """Stage of the last step that was told."""
        return next(event["stage"] for event in reversed(self.events) if event.get("event") == "progress")

    @property
    def outcome(self) -> dict[str, Any]:
        """The result that `build --json` prints."""
        return next(event for event in self.events if "checkpoints" in event)


class Driver:
    """A running `build_driver`."""

    def __init__(self) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def start(self, *arguments: str | Path, fault: str | None = None, ends: dict[str, Any] | None = None) -> Run:
        """Run the command line in a fork, with a fault and an end of `build_driver`."""
        order = {"arguments": [str(each) for each in arguments], "fault": fault, "ends": ends}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        held: list[dict[str, Any]] = []
        while (event := self.read()).get("driver") != "started":
            held.append(event)
        return Run(pid=int(event["pid"]), driver=self, events=held)

    def read(self) -> dict[str, Any]:
        """The next line as an object; other text is kept as {"text": ...}."""
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).strip():
            assert line, "the driver is gone"
        try:
            event = json.loads(line)
        except ValueError:
            return {"text": line}
        return event | {"read_at": time.monotonic()} if isinstance(event, dict) else {"text": line}

    def close(self) -> None:
        """End the driver."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

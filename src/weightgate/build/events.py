"""What a build tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Observer:
    """Receives a build's events; this one ignores them. The terminal and the JSON stream override what they show."""

    def note(self, text: str) -> None:
        """Say something in passing, such as what is being prepared."""

    def stage_started(self, name: str, kind: str, steps: int, resumed_at: int) -> None:
        """Announce a stage that is about to train; `resumed_at` is 0 for a fresh start."""

    def stage_progress(self, name: str, progress: Progressed) -> None:
        """Report one finished step."""

    def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
        """Report a published checkpoint; `reused` when it was there already."""

    def stage_judged(self, name: str, verdicts: list[dict[str, Any]], passed: bool) -> None:
        """Report the gate verdicts of a stage."""


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """One finished training step."""

    step: int
    steps: int
    metrics: dict[str, float]
    tokens_per_second: float
    seconds_left: float

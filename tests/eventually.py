"""Waiting for what another thread or process does, however long that takes on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_SECONDS = 240.0
"""Far beyond what anything here needs, so that only what would never happen runs into it."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds; `what` names it where it never does."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)

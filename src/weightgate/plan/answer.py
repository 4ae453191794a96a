"""What a question to the planner gives: numbers for machines, and a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightgate.report.page import Page


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. `numbers` is plain data with every interval; the page's headline is one plain sentence."""

    numbers: Mapping[str, Any]
    page: Page

    def to_json(self) -> dict[str, Any]:
        """Return plain data; numbers that are not finite, such as the compute to reach the impossible, become None."""
        return {"numbers": _finite(self.numbers), "page": self.page.to_json()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

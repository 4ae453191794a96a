"""What a question to the planner gives: numbers for machines, and a page for people."""

from __future__ import annotations

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
        """Return plain data."""
        return {"numbers": dict(self.numbers), "page": self.page.to_json()}

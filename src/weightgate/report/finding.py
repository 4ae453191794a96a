"""A finding: one sentence a reader can act on, how bad it is, and the rows that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Severity = Literal["pass", "note", "warn", "fail"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From harmless to harmful."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Args:
        severity: "pass", "note", "warn" or "fail".
        headline: one sentence with its number and interval.
        detail: why it matters and what to do, in plain text; `backticks` mark commands.
        evidence: rows of plain text, such as prompts that show it; rows may differ in length.
    """

    severity: Severity
    headline: str
    detail: str = ""
    evidence: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return {
            "severity": self.severity,
            "headline": self.headline,
            "detail": self.detail,
            "evidence": [list(row) for row in self.evidence],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Finding:
        """Read what `to_json` wrote. Raises `ValueError` for a severity that is not one."""
        if data["severity"] not in SEVERITIES:
            raise ValueError(f"severity {data['severity']!r} is none of {', '.join(SEVERITIES)}")
        return Finding(
            severity=data["severity"],
            headline=data["headline"],
            detail=data.get("detail", ""),
            evidence=tuple(tuple(row) for row in data.get("evidence", ())),
        )


def worst(severities: tuple[Severity, ...]) -> Severity:
    """Return the most harmful of them, "pass" for none."""
    return max(severities, key=SEVERITIES.index, default="pass")

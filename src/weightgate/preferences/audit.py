"""The audit: everything that is measured of one set of votes, and the findings in the order of their weight."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from weightgate.preferences.agreement import Agreement, agreement_of
from weightgate.preferences.annotators import Annotator, roster_of
from weightgate.preferences.bias import Style, style_of
from weightgate.preferences.contradictions import Contradictions, contradictions_of
from weightgate.preferences.coverage import Coverage, coverage_of
from weightgate.preferences.description import Description, describe
from weightgate.preferences.noise import Noise, noise_of
from weightgate.preferences.specification import Line, scopes_of, specification_of
from weightgate.preferences.table import Table, table_of
from weightgate.preferences.votes import Preferences, Vote

SCHEMA = 1

READ_VOTES = 200_000
"""Votes whose texts are read for drivers, topics and noise; faults, pairs and annotators are always those of all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What one set of votes teaches, and what is wrong with it.

    `every` holds all usable votes: annotators and contradictions are about its rows. `table` holds those whose texts
    were read, which everything else is about: all of them up to `READ_VOTES`, of more those of prompts drawn by a
    checksum. Lines are those of the file.
    """

    preferences: Preferences
    table: Table
    every: Table
    description: Description
    agreement: Agreement
    roster: tuple[Annotator, ...]
    contradictions: Contradictions
    style: Style
    noise: Noise
    coverage: Coverage
    specification: tuple[Line, ...]

    @cached_property
    def lines(self) -> list[int]:
        """Line of the file of every row."""
        return [vote.line for vote in self.table.votes]

    @cached_property
    def every_lines(self) -> list[int]:
        """Line of the file of every row of `every`."""
        return self.lines if self.every is self.table else [vote.line for vote in self.every.votes]

    @property
    def faults(self) -> Counter[str]:
        """How often each kind of fault occurs."""
        return Counter(fault.kind for fault in self.preferences.faults)

    @property
    def unusable(self) -> int:
        """Rows of the file that nothing is inferred from."""
        return len({fault.line for fault in self.preferences.faults if fault.blocks})

    def to_json(self) -> dict[str, Any]:
        """Return everything measured as plain data; findings are added by `verdict.audit_json`."""
        faults: dict[str, list[dict[str, Any]]] = {}
        for fault in self.preferences.faults:
            faults.setdefault(fault.kind, []).append({"line": fault.line, "detail": fault.detail})
        return {
            "schema": SCHEMA,
            "data": self.preferences.described(),
            "rows": self.preferences.rows,
            "usable": len(self.every),
            "read": len(self.table),
            "unusable": self.unusable,
            "faults": faults,
            "description": self.description.to_json(),
            "agreement": self.agreement.to_json(),
            "annotators": [one.to_json() for one in self.roster],
            "contradictions": self.contradictions.to_json(self.every_lines),
            "style": self.style.to_json(),
            "noise": self.noise.to_json(self.lines),
            "coverage": self.coverage.to_json(self.lines),
            "specification": [line.to_json(self.lines) for line in self.specification],
        }


def audit(preferences: Preferences, *, others: Mapping[str, Mapping[str, str]] | None = None) -> Audit:
    """Measure everything.

    Args:
        others: prompts of test sets and suites that the votes must not have seen: see `coverage.coverage_of`.
    """
    usable = preferences.usable
    read = _drawn(usable)
    table = table_of(read)
    every = table if len(read) == len(usable) else table_of(usable, look=False)
    coverage = coverage_of(table, others or {})
    return Audit(
        preferences=preferences,
        table=table,
        every=every,
        description=describe(preferences.votes),
        agreement=agreement_of(every),
        roster=roster_of(every),
        contradictions=contradictions_of(every),
        style=style_of(table),
        noise=noise_of(table),
        coverage=coverage,
        specification=specification_of(table, scopes_of(table, coverage.topic, coverage.names)),
    )


def _drawn(votes: list[Vote]) -> list[Vote]:
    """All votes, or about `READ_VOTES` of them: whole prompts, drawn by their checksum."""
    if len(votes) <= READ_VOTES:
        return votes
    share = READ_VOTES / len(votes) * 2**32
    return [vote for vote in votes if zlib.crc32(vote.prompt.encode("utf-8", "replace")) < share]

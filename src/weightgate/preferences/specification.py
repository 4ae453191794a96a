"""What the votes teach, line by line: in which scope which manner wins, how often, how surely, and in which rows.

A scope is everything, a topic of the prompts, or a category of the file. A line says "no evidence" rather than nothing
where too few pairs speak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.bias import WORDS, clustered_share
from weightgate.preferences.drivers import LENGTH, NAMES, REFUSAL
from weightgate.preferences.logistic import Ints, cluster_sums, two_sided
from weightgate.preferences.table import Table
from weightgate.stats import Estimate, Measurement, benjamini_hochberg

Verdict = Literal["prefers", "prefers not", "no clear preference", "no evidence"]

CLEAR: tuple[Verdict, ...] = ("prefers", "prefers not")

LEAST_PAIRS = 10
"""Pairs that differ in a driver, below which a line says "no evidence"."""

ALPHA = 0.01
SHOWN_ROWS = 20
_MOST_CATEGORIES = 30
_SCOPED = (REFUSAL, LENGTH)
"""Drivers that get a line in every topic and category; the others have one line about everything."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scope:
    """A part of the votes: `kind` is "everything", "topic" or "category", `rows` which votes are in it."""

    kind: Literal["everything", "topic", "category"]
    name: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line.

    `share` is how often the answer that has the driver wins, `shift` the mean difference of the driver between winner
    and loser in standard deviations of the driver, `rows` the rows that speak for the verdict, the clearest first.
    """

    scope: str
    kind: str
    driver: str
    pairs: int
    share: Measurement
    shift: float
    adjusted_p: float
    verdict: Verdict
    rows: tuple[int, ...]

    @property
    def words(self) -> str:
        """The line as a sentence with its numbers."""
        if self.verdict == "no evidence":
            return f"{self.headline}: {self.pairs} pairs"
        share = self.share_as_said
        assert isinstance(share, Estimate)
        numbers = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of {self.pairs:,} pairs"
        if self.verdict == "no clear preference":
            return f"{self.headline}: {WORDS[self.driver]} wins {numbers}"
        return f"{self.headline}: {numbers}" + (f", {self.shift:+.2f} sd" if self.driver == LENGTH else "")

    @property
    def headline(self) -> str:
        """The line without its numbers."""
        where = "" if self.kind == "everything" else f" on {self.scope}"
        if self.verdict not in CLEAR:
            return f"{self.verdict} about {_short(self.driver)}{where}"
        return f"{_PREFERS[self.driver][self.verdict == 'prefers not']}{where}"

    @property
    def share_as_said(self) -> Measurement:
        """The share of pairs that went the way the line says: of a line that prefers not, those that the trait lost."""
        if self.verdict != "prefers not" or not isinstance(self.share, Estimate):
            return self.share
        value, low, high = 1 - self.share.value, 1 - self.share.high, 1 - self.share.low
        return replace(self.share, value=value, low=low, high=high)

    def to_json(self, lines: Sequence[int]) -> dict[str, Any]:
        """Return plain data with lines of the file in the place of rows."""
        plain = {**vars(self), "share": self.share.to_json(), "rows": [lines[row] for row in self.rows]}
        return {**plain, "words": self.words}


_PREFERS = {
    LENGTH: ("prefers longer answers", "prefers shorter answers"),
    REFUSAL: ("prefers refusal", "prefers an answer over a refusal"),
    "hedging": ("prefers hedged answers", "prefers answers that do not hedge"),
    "list": ("prefers lists", "prefers answers without lists"),
    "emphasis": ("prefers bold text and headers", "prefers answers without bold text and headers"),
    "code": ("prefers code", "prefers answers without code"),
    "flattery": ("prefers flattery", "prefers answers that do not flatter"),
    "first-person": ("prefers answers that say I", "prefers answers that do not say I"),
    "question": ("prefers answers that ask back", "prefers answers that do not ask back"),
    "offer": ("prefers a closing offer of help", "prefers answers without a closing offer of help"),
    "digits": ("prefers answers with numbers", "prefers answers without numbers"),
    "other-language": ("prefers answers in another language", "prefers answers in the prompt's language"),
}


def _short(driver: str) -> str:
    return {LENGTH: "length", REFUSAL: "refusing", "other-language": "language", "first-person": "saying I"}.get(
        driver, driver
    )


def scopes_of(table: Table, topics: NDArray[np.int32], names: Sequence[str]) -> list[Scope]:
    """Everything, every topic, and every category where there are 2 to 30."""
    scopes = [Scope(kind="everything", name="everything", rows=np.ones(len(table), dtype=bool))]
    if len(names) > 1:
        scopes += [Scope(kind="topic", name=name, rows=topics == number) for number, name in enumerate(names)]
    if 2 <= len(table.categories) <= _MOST_CATEGORIES:
        scopes += [
            Scope(kind="category", name=name or "no category", rows=table.category == number)
            for number, name in enumerate(table.categories)
        ]
    return scopes


def specification_of(table: Table, scopes: Sequence[Scope], signs: Ints | None = None) -> tuple[Line, ...]:
    """The lines of every scope, corrected over all of them.

    Args:
        signs: 1 where the first answer is to count as the winner, -1 the second, 0 neither; by default the votes'.
            A reward model's scores make the same specification of the model.
    """
    signs = table.sign if signs is None else signs
    drafts = [draft for scope in scopes for draft in _drafts(table, scope, signs)]
    tested = [draft for draft in drafts if draft.pairs >= LEAST_PAIRS]
    adjusted = iter(benjamini_hochberg([draft.adjusted_p for draft in tested]))
    return tuple(_decided(draft, next(adjusted)) if draft.pairs >= LEAST_PAIRS else draft for draft in drafts)


def _drafts(table: Table, scope: Scope, signs: Ints) -> Iterator[Line]:
    for driver in NAMES if scope.kind == "everything" else _SCOPED:
        column = table.values[:, :, NAMES.index(driver)].astype(np.float64)
        moved = (column[:, 0] - column[:, 1]) * signs
        rows = np.flatnonzero(scope.rows & (moved != 0))
        wins = (moved[rows] > 0).astype(np.float64)
        spread = float(column[scope.rows].std()) or 1.0
        yield Line(
            scope=scope.name,
            kind=scope.kind,
            driver=driver,
            pairs=len(rows),
            share=clustered_share(wins, table.prompt[rows]),
            shift=float(moved[scope.rows & (signs != 0)].mean()) / spread if len(rows) else 0.0,
            adjusted_p=_half_test(wins, table.prompt[rows]),
            verdict="no evidence",
            rows=_clearest(rows, moved[rows], bool(len(rows)) and float(wins.mean()) >= 0.5),
        )


def _half_test(wins: NDArray[np.float64], prompts: Ints) -> float:
    """Score test that the share is one half, with votes of one prompt hanging together."""
    if not len(wins):
        return 1.0
    sums = cluster_sums((wins - 0.5)[:, None], prompts)[:, 0]
    return two_sided(float(sums.sum()), float(np.sqrt(sums @ sums)))


def _clearest(rows: NDArray[np.intp], moved: NDArray[np.float64], positive: bool) -> tuple[int, ...]:
    speaking = moved > 0 if positive else moved < 0
    order = np.argsort(-np.abs(moved[speaking]), kind="stable")[:SHOWN_ROWS]
    return tuple(int(row) for row in rows[speaking][order])


def _decided(line: Line, adjusted_p: float) -> Line:
    assert isinstance(line.share, Estimate)
    sure = adjusted_p <= ALPHA
    verdict: Verdict = "no clear preference"
    if sure:
        verdict = "prefers" if line.share.value > 0.5 else "prefers not"
    return replace(line, adjusted_p=adjusted_p, verdict=verdict)

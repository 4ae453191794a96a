"""Plain counts over every row with two readable answers, also those that nothing is inferred from.

These are the numbers that others print about a set, so they must not depend on what this program finds fault with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.preferences.logistic import fit_slopes, half_width
from weightgate.preferences.votes import Vote
from weightgate.stats import Estimate, Measurement, Unmeasured, proportion


@dataclass(frozen=True, kw_only=True)
class Description:
    """Lengths in characters of chosen and rejected answers, over the votes that name a winner."""

    rows: int
    ties: int
    longer_wins: Measurement
    longer_wins_of_all: float
    equal_lengths: int
    mean_chosen: float
    mean_rejected: float
    length_slope: Measurement
    repeated_prompts: int
    turns_mean: float
    turns_most: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        measured = {"longer_wins": self.longer_wins.to_json(), "length_slope": self.length_slope.to_json()}
        return {**vars(self), **measured, "unit": "characters"}


def describe(votes: Sequence[Vote]) -> Description:
    """Count. The slope is of log1p characters, per standard deviation of its difference, length alone."""
    decided = [vote for vote in votes if vote.sign]
    lengths = np.array([(len(vote.chosen), len(vote.rejected)) for vote in decided], dtype=np.int64).reshape(-1, 2)
    longer, equal = int((lengths[:, 0] > lengths[:, 1]).sum()), int((lengths[:, 0] == lengths[:, 1]).sum())
    turns = np.array([1 + vote.prompt.count("\n\nuser: ") for vote in votes] or [0])
    means = lengths.mean(axis=0) if len(lengths) else np.zeros(2)
    return Description(
        rows=len(votes),
        ties=len(votes) - len(decided),
        longer_wins=proportion(longer, len(decided) - equal),
        longer_wins_of_all=longer / max(len(decided), 1),
        equal_lengths=equal,
        mean_chosen=float(means[0]),
        mean_rejected=float(means[1]),
        length_slope=_slope(lengths),
        repeated_prompts=len(votes) - len({vote.prompt for vote in votes}),
        turns_mean=float(turns.mean()),
        turns_most=int(turns.max()),
    )


def _slope(lengths: np.ndarray) -> Measurement:
    difference = np.log1p(lengths[:, 0]) - np.log1p(lengths[:, 1])
    spread = float(difference.std()) if len(difference) else 0.0
    if spread == 0:
        return Unmeasured(reason="no two answers of a pair differ in length")
    rows = np.arange(len(difference), dtype=np.int64)
    value, error = fit_slopes(difference[:, None] / spread, rows, ridge=1e-6).contrast(np.ones(1))
    half = half_width(error)
    return Estimate(
        value=value, low=value - half, high=value + half, n=len(difference), unit="logits per SD", method="logistic"
    )

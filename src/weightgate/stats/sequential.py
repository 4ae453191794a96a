"""Tests that may be looked at as often as one likes: e-processes.

An e-process has expectation at most 1 at any stopping time while nothing has changed, so it ever reaches 1 / alpha
with probability at most alpha (Ville 1939). It is evidence: 20 means that a bettor against "no change" who started with
1 has 20.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BETS = (0.1, 0.2, 0.4, 0.6, 0.8)
POWERS = (0.1, 0.3, 0.5, 0.7)
START_RATE = 0.02
"""A change is thought to come about once in 50 looks."""


@dataclass(kw_only=True)
class BettingProcess:
    """Evidence that paired differences in -1..1 have another mean than 0.

    Ten bettors, five on a rise and five on a fall, each stake a fixed share `BETS` of what they have: a difference d
    multiplies their wealth by 1 + lambda d, or 1 - lambda d. The evidence is the mean of their wealths (Waudby-Smith &
    Ramdas 2024, section 4.3, with a fixed grid). Holds for differences whose mean, given all before, is 0; with
    `tolerance` also for any mean up to so far from 0, as lambda (d - tolerance) then takes the place of lambda d.

    That condition fails when one noisy baseline answers every later look: its luck stays in each difference. Then each
    look gets a process of its own, and `SpendingProcess` adds the looks up.
    """

    tolerance: float = 0.0
    log_wealths: list[float] = field(default_factory=lambda: [0.0] * (2 * len(BETS)))
    seen: int = 0
    largest: float = 1.0

    def update(self, differences: Iterable[float]) -> float:
        """Take differences in their order and return the evidence after the last one.

        Raises `ValueError` for a difference outside -1..1, and then takes none.
        """
        values = np.asarray(list(differences), dtype=np.float64)
        if not (np.abs(values) <= 1).all():
            raise ValueError("a difference is outside -1..1")
        if values.size:
            bets = np.asarray(BETS)[:, None]
            rise = np.log1p(bets * (values - self.tolerance)).cumsum(axis=1)
            fall = np.log1p(bets * (-values - self.tolerance)).cumsum(axis=1)
            path = np.concatenate([rise, fall]) + np.asarray(self.log_wealths)[:, None]
            self.log_wealths = path[:, -1].tolist()
            self.seen += values.size
            self.largest = max(self.largest, float(_log_mean(path).max()))
        return self.evidence

    @property
    def evidence(self) -> float:
        """The mean of the wealths, an e-value; infinite where it is beyond a float."""
        return float(_log_mean(np.asarray(self.log_wealths)[:, None])[0])

    def to_json(self) -> dict[str, Any]:
        """Return plain data, so that a watch goes on after a restart; `from_json` reads it back."""
        return {**vars(self), "log_wealths": list(self.log_wealths)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> BettingProcess:
        """Read what `to_json` wrote. Raises `ValueError` for another number of wealths."""
        if len(data["log_wealths"]) != 2 * len(BETS):
            raise ValueError(f"{len(data['log_wealths'])} wealths instead of {2 * len(BETS)}")
        return BettingProcess(**data)


def _log_mean(log_wealths: np.ndarray) -> np.ndarray:
    """exp of log mean over the first axis: (bettors, steps) -> (steps,)."""
    top = log_wealths.max(axis=0)
    with np.errstate(over="ignore"):
        mean: np.ndarray = np.exp(top + np.log(np.exp(log_wealths - top).mean(axis=0)))
    return mean


def betting_evidence(differences: Sequence[float], *, tolerance: float = 0.0) -> float:
    """Evidence of one look: an e-value of paired differences in -1..1, one for each prompt."""
    return BettingProcess(tolerance=tolerance).update(differences)


@dataclass(kw_only=True)
class SpendingProcess:
    """Adds up the e-values of looks that may depend on one another in any way, such as on one baseline.

    Look t counts with the share 1 / (t (t + 1)) of a whole of 1, so the sum has expectation at most 1 however many
    looks there are and however they hang together; it never falls, so it crosses 1 / alpha at most with probability
    alpha (Markov). The price is that evidence of a late look must be larger: by t^2.
    """

    looks: int = 0
    evidence: float = 0.0

    def update(self, e_value: float) -> float:
        """Take the e-value of the next look and return the sum. Raises `ValueError` for one below 0."""
        if not e_value >= 0:
            raise ValueError(f"the e-value {e_value} is below 0")
        self.looks += 1
        self.evidence += e_value / (self.looks * (self.looks + 1))
        return self.evidence

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `SpendingProcess(**data)` reads it back."""
        return dict(vars(self))


def rank_p_value(observed: float, earlier: Sequence[float], tie_break: float) -> float:
    """Conformal p-value of an observation among earlier ones: uniform, and independent of all p-values before it.

    (#larger + u (#equal + 1)) / (n + 1), with u in 0..1 drawn by the caller (Vovk, Gammerman & Shafer 2005, eq. 2.20).
    Small where the observation is large. Since they are independent, e-values made of them multiply: see
    `ConformalProcess`.
    """
    if not 0 <= tie_break <= 1:
        raise ValueError(f"the tie break {tie_break} is outside 0..1")
    values = np.asarray(earlier, dtype=np.float64)
    return float(((values > observed).sum() + tie_break * ((values == observed).sum() + 1)) / (values.size + 1))


@dataclass(kw_only=True)
class ConformalProcess:
    """Evidence that a stream of scores is no longer exchangeable because later scores are too large.

    Each score is ranked among all before it, and bettors multiply their stake by k p^(k-1), one for each k of `POWERS`
    (power martingales; Vovk, Nouretdinov & Gammerman 2003). A change may come at any look, so at each one the share
    `START_RATE` of the stake that still waits begins to bet: a mixture over the time of the change. The evidence is
    what all of them and the waiting stake are worth together, 1 before the first look.
    """

    scores: list[float] = field(default_factory=list)
    betting: list[float] = field(default_factory=lambda: [0.0] * len(POWERS))
    waiting: float = 1.0

    def update(self, score: float, tie_break: float) -> float:
        """Take the next score and return the evidence. `tie_break`: drawn uniformly from 0..1 for this score.

        Raises `ValueError` for a score that is not finite.
        """
        if not math.isfinite(score):
            raise ValueError(f"the score {score} is not finite")
        p_value = max(rank_p_value(score, self.scores, tie_break), 1e-12)
        self.scores.append(score)
        starting = self.waiting * START_RATE / len(POWERS)
        self.waiting *= 1 - START_RATE
        self.betting = [
            (stake + starting) * power * p_value ** (power - 1)
            for stake, power in zip(self.betting, POWERS, strict=True)
        ]
        return self.evidence

    @property
    def evidence(self) -> float:
        """What every stake is worth together: an e-value."""
        return sum(self.betting) + self.waiting

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `ConformalProcess(**data)` reads it back."""
        return {**vars(self), "scores": list(self.scores), "betting": list(self.betting)}


@dataclass(kw_only=True)
class ChangeProcess:
    """Evidence that independent uniform p-values became small, or large, at some look nobody knows.

    At each look a share of the stake that still waits begins to bet, half of it on small p-values and half on large
    ones, with the power martingales of `ConformalProcess`. After look t the share 1 / (1 + log2(t + 1)) still waits: a
    prior over the look of the change whose tail is so heavy that a change at look 500 costs only 10 nats. Every bet
    has expectation 1, so the evidence ever reaches 1 / alpha with probability at most alpha.
    """

    looks: int = 0
    on_small: list[float] = field(default_factory=lambda: [0.0] * len(POWERS))
    on_large: list[float] = field(default_factory=lambda: [0.0] * len(POWERS))

    def update(self, p_value: float) -> float:
        """Take the p-value of the next look and return the evidence. Raises `ValueError` unless 0 < p < 1."""
        if not 0 < p_value < 1:
            raise ValueError(f"the p-value {p_value} is not between 0 and 1")
        starting = (self.waiting - _waiting(self.looks + 1)) / (2 * len(POWERS))
        self.looks += 1
        self.on_small = _bet(self.on_small, starting, p_value)
        self.on_large = _bet(self.on_large, starting, 1 - p_value)
        return self.evidence

    @property
    def waiting(self) -> float:
        """The share of the stake that does not bet yet."""
        return _waiting(self.looks)

    @property
    def evidence(self) -> float:
        """What every stake is worth together: an e-value, 1 before the first look."""
        return sum(self.on_small) + sum(self.on_large) + self.waiting

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `ChangeProcess(**data)` reads it back."""
        return {"looks": self.looks, "on_small": list(self.on_small), "on_large": list(self.on_large)}


def _waiting(looks: int) -> float:
    return 1 / (1 + math.log2(looks + 1))


def _bet(stakes: Sequence[float], starting: float, p_value: float) -> list[float]:
    """Multiply each stake, with what now starts, by k p^(k-1); wealth is bounded so that it stays a number."""
    return [
        min((stake + starting) * power * p_value ** (power - 1), 1e200)
        for stake, power in zip(stakes, POWERS, strict=True)
    ]

"""Over-optimisation of a reward model: gold reward against the distance to the reference.

Gao, Schulman & Hilton 2022 (arXiv 2210.10760), eq. 1 and 2, with d = sqrt(KL(policy || reference)) in nats:

    best-of-n: R(d) = d (a - b d)        PPO: R(d) = d (a - b ln d), R(0) = 0

The paper tabulates no coefficients. For PPO a third party read some off its figures, by size of the reward model
(`READ_OFF`); for best-of-n there are none, and a and b are fitted to one's own runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Search = Literal["best-of-n", "ppo"]
SEARCHES: tuple[Search, ...] = get_args(Search)

READ_OFF_A = 0.38
READ_OFF: tuple[tuple[float, float], ...] = ((12e6, 0.167), (300e6, 0.124), (3e9, 0.118))
"""Parameters of the reward model and b of PPO, a being about 0.38 for all: a third party's reading of the paper's
figures (policy 1.2B, gold model 6B, 90,000 comparisons)."""

READING_ERROR = 0.05
"""Assumed relative error (95 %) of a and of b as read off a figure, independent of each other: nobody states one."""

SIZES = (3e6, 3e9)
"""Reward models of the paper, parameters."""

LEAST_COMPARISONS, PAPERS_COMPARISONS = 2_000, 90_000
"""Below the first the paper's reward models were hardly better than chance; all curves are of the second."""

_HALVINGS = 60


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Gold reward over distance: a and b are scalars, or arrays of one shape, one entry a draw."""

    a: Any
    b: Any
    search: Search

    def gold(self, kl: Any) -> Any:
        """Gold reward at a KL of `kl` nats a completion; 0 at 0."""
        distance = np.sqrt(kl)
        if self.search == "best-of-n":
            return distance * (self.a - self.b * distance)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(distance > 0, distance * (self.a - self.b * np.log(distance)), 0.0)

    @property
    def peak_kl(self) -> Any:
        """KL in nats beyond which gold reward falls: d* = a / (2 b), or exp(a / b - 1) for PPO (derived).

        Infinite where b is not positive: gold reward rises without end.
        """
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = np.asarray(self.a / np.asarray(self.b, dtype=np.float64))
            turn = np.maximum(ratio, 0.0) / 2 if self.search == "best-of-n" else np.exp(ratio - 1)
            return np.where(np.asarray(self.b) > 0, turn**2, np.inf)

    @property
    def peak_gold(self) -> Any:
        """Gold reward there: a^2 / (4 b), or b d* for PPO (derived); infinite where there is no peak.

        Both are b d*^power, the power being 2 for best-of-n and 1 for PPO.
        """
        power = 1.0 if self.search == "best-of-n" else 0.5
        with np.errstate(invalid="ignore", over="ignore"):
            return np.where(np.asarray(self.b) > 0, self.b * self.peak_kl**power, np.inf)


def kl_share(share: float, search: Search) -> float:
    """KL at which `share` of the peak's gold reward is reached, over the KL of the peak; the same for every a and b.

    With u = d / d*, R / R* is u (2 - u) for best-of-n and u (1 - ln u) for PPO (derived), so nine tenths are there at
    0.47 and 0.35 of the KL. Raises `ValueError` for a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of the peak lies between 0 and 1, not at {share:g}")
    if search == "best-of-n":
        return (1 - math.sqrt(1 - share)) ** 2
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * (1 - math.log(middle)) < share else (low, middle)
    return high**2


def b_by_size(parameters: float) -> tuple[float, float]:
    """b of PPO for a reward model of this size: by interpolation, and on the straight line through all three.

    Both in ln N, in which the paper says that coefficients vary about linearly; held at the ends of what was read off.
    """
    sizes, values = np.array(READ_OFF).T
    at = float(np.log(np.clip(parameters, sizes[0], sizes[-1])))
    slope, start = np.polyfit(np.log(sizes), values, 1)
    return float(np.interp(at, np.log(sizes), values)), float(start + slope * at)


def read_off_curve(parameters: float) -> Curve:
    """PPO's curve for a reward model of this size."""
    return Curve(a=READ_OFF_A, b=b_by_size(parameters)[0], search="ppo")


def read_off_draws(parameters: float, *, draws: int, seed: int = 0) -> Curve:
    """Curves within the doubt: either way to go from size to b, times normal reading errors."""
    rng = np.random.default_rng(seed)
    b = rng.choice(np.array(b_by_size(parameters)), size=draws)
    errors = 1 + READING_ERROR * rng.standard_normal((2, draws)) / 1.96
    return Curve(a=READ_OFF_A * errors[0], b=b * errors[1], search="ppo")


def best_of_n_kl(n: int) -> float:
    """ln n - (n - 1) / n nats, an upper bound (Beirami et al. 2024, arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n


def n_for_kl(kl: float) -> int:
    """Largest n whose `best_of_n_kl` stays within `kl` nats."""
    low, high = 1, 2
    while best_of_n_kl(high) <= kl:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if best_of_n_kl(middle) <= kl else (low, middle)
    return low

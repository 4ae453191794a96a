"""Over-optimisation of a reward model: gold reward against the distance to the reference.

Gao, Schulman & Hilton 2022 (arXiv 2210.10760), eq. 1 and 2, with d = sqrt(KL(policy || reference)) in nats:

    best-of-n: R(d) = d (a - b d)        PPO: R(d) = d (a - b ln d), R(0) = 0

No coefficients are tabulated in the paper: a and b are fitted to one's own runs.
"""

from __future__ import annotations

import math
from typing import Literal

Search = Literal["best-of-n", "ppo"]


def gold_reward(kl: float, *, a: float, b: float, search: Search) -> float:
    """Gold reward at a KL of `kl` nats a completion."""
    distance = math.sqrt(kl)
    if distance == 0:
        return 0.0
    return distance * (a - b * (distance if search == "best-of-n" else math.log(distance)))


def peak_kl(*, a: float, b: float, search: Search) -> float:
    """KL in nats beyond which gold reward falls: d* = a / (2 b), or exp(a / b - 1) for PPO (derived)."""
    distance = a / (2 * b) if search == "best-of-n" else math.exp(a / b - 1)
    return distance**2


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

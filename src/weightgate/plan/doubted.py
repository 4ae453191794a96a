"""A number with the range that its stated doubt allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.plan.spread import interval

_AS_GOOD_AS_INFINITE = 1e300


@dataclass(frozen=True, kw_only=True)
class Doubted:
    """A value, and the lowest and highest it may as well be; either may be infinite."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Doubted:
        """Scale all three."""
        return Doubted(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def to_json(self) -> dict[str, float]:
        """Return plain data."""
        return dict(vars(self))

    def ends(self, spell: Callable[[float], str]) -> str:
        """Say the range; one of its ends where both are spelt alike."""
        low, high = spell(self.low), spell(self.high)
        return low if low == high else f"{low} to {high}"


def doubted(value: Any, draws: Any) -> Doubted:
    """A value with the 95 % range of `draws`, which always holds it; draws may be infinite."""
    low, high = (
        end if end < _AS_GOOD_AS_INFINITE else float("inf")
        for end in interval(np.minimum(draws, np.finfo(np.float64).max))
    )
    return Doubted(value=float(value), low=min(low, float(value)), high=max(high, float(value)))

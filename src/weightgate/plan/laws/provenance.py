"""Where a law's constants come from, and how far they may be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Source of a law.

    Fields:
        source: paper, section or repository.
        corpus: the text whose loss it predicts; losses on other texts or tokenizers are not comparable.
        counts: which parameters its N counts.
        flops: smallest and largest training compute of the runs behind it; (0, inf) where that is not stated.
        doubt: what is known to be wrong with it, or was not verified; empty if nothing is.
        superseded: why ranges leave it out; empty if they do not.
    """

    source: str
    corpus: str
    counts: str
    flops: tuple[float, float] = (0.0, math.inf)
    doubt: str = ""
    superseded: str = ""

    def decades_beyond(self, flops: float) -> float:
        """Decades of compute by which `flops` lies outside the runs behind the law; 0 inside them."""
        low, high = self.flops
        if flops > high:
            return math.log10(flops / high)
        return math.log10(low / flops) if flops < low else 0.0

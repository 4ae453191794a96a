"""A number from a law with its doubt: the range over the published laws, and the law's own bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.plan.laws.loss import LOSS_LAWS, Constants, LossLaw
from weightgate.stats import LEVEL


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value of one law, its range over several, and its bootstrap interval where the law has draws.

    The range over laws says what the choice of law is worth, the bootstrap what the runs behind this one are.
    """

    value: float
    law: str
    over_laws: tuple[float, float]
    num_laws: int
    bootstrap: tuple[float, float] | None

    @property
    def low(self) -> float:
        """The lower end of both."""
        return min(self.over_laws[0], *(self.bootstrap or self.over_laws))

    @property
    def high(self) -> float:
        """The upper end of both."""
        return max(self.over_laws[1], *(self.bootstrap or self.over_laws))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "value": self.value,
            "law": self.law,
            "over_laws": list(self.over_laws),
            "num_laws": self.num_laws,
            "bootstrap_95": list(self.bootstrap) if self.bootstrap else None,
        }

    def described(self, spell: Callable[[float], str]) -> str:
        """Say value and both intervals: "3.1B [2.4B, 4.1B over 7 laws; 2.6B, 3.7B by bootstrap]"."""
        laws = f"{spell(self.over_laws[0])}, {spell(self.over_laws[1])} over {self.num_laws} laws"
        own = f"; {spell(self.bootstrap[0])}, {spell(self.bootstrap[1])} by bootstrap" if self.bootstrap else ""
        return f"{spell(self.value)} [{laws}{own}]"


def counted_laws(law: LossLaw) -> list[LossLaw]:
    """The laws that ranges count: `law` and every published one that is not superseded.

    A law in another unit than nats per token, such as one fitted to one's own builds, stands alone.
    """
    if law.unit != "nats/token":
        return [law]
    return [law, *(other for other in LOSS_LAWS if other.name != law.name and not other.provenance.superseded)]


def spread(law: LossLaw, of: Callable[[Constants], Any], *, more: tuple[float, ...] = ()) -> Spread:
    """Evaluate `of` on the law, on every law that counts, and on the law's draws.

    Args:
        of: from constants, scalars or arrays, to a number for each.
        more: values of laws that are no loss laws, to be counted in the range.
    """
    laws = counted_laws(law)
    values = [float(of(each.constants)) for each in laws] + list(more)
    finite = [value for value in values if np.isfinite(value)] or [float("nan")]
    return Spread(
        value=values[0],
        law=law.name,
        over_laws=(min(finite), max(finite)),
        num_laws=len(values),
        bootstrap=interval(of(law.draws)) if law.draws is not None else None,
    )


def interval(draws: Any, *, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap draws."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

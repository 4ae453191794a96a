"""From loss to tasks, and from years to parameters: the error law of Gadre et al., and the densing trend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ErrorLaw:
    """Err(L) = eps - k exp(-gamma L): mean top-1 error of many tasks from the loss (Gadre et al. 2024, eq. 5)."""

    eps: float
    k: float
    gamma: float

    def error(self, loss: float) -> float:
        """Mean error, a share, at a C4 loss in nats per token."""
        return self.eps - self.k * math.exp(-self.gamma * loss)


GADRE_ERRORS: Mapping[str, ErrorLaw] = {
    "c4": ErrorLaw(eps=0.7589, k=1.2885, gamma=0.9722),
    "redpajama": ErrorLaw(eps=0.7609, k=1.3229, gamma=0.8907),
    "refinedweb": ErrorLaw(eps=0.7677, k=1.1281, gamma=0.8215),
}
"""46 tasks, by training corpus; refitted to the six runs of the default fit of mlfoundations/scaling."""

DENSITY_GROWTH_PER_DAY = 0.0073
"""ln of the best density, a day: Xiao et al. 2024 (arXiv 2412.04315v2), R2 0.912."""

EARLIER_GROWTH_PER_DAY = 0.0048
"""The same before ChatGPT."""


def densing_factor(days: float, *, growth: float = DENSITY_GROWTH_PER_DAY) -> float:
    """How many times fewer parameters the best open model of the same scores has after so many days.

    ln rho_max = growth x t + constant; it doubles in about 95 days. The first version and the abstracts print 3.3
    months, the journal 3.5: a trend over published models, no law of training.
    """
    return math.exp(growth * days)

"""Which form forecasts best: fit the runs of less compute, and see how far off the runs of more compute are.

Residuals inside the data understate the error outside it by factors, and no form is best everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.fitting import fit
from weightgate.plan.fit.forms import FORMS, Floats, Form
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import Constants

SHARES = (0.1, 0.2, 0.3)
"""Shares of the runs, those of most compute, that are held out in turn. The first one chooses the form, since it leaves
the most to fit and is nearest to what will be forecast; all of them tell how large errors are, and how they grow."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How one form did: ln forecast - ln measured of the held-out runs of each share, the smallest share first.

    `beyond` is the decades of compute by which each run lies beyond the largest one that was fitted.
    """

    form: Form
    errors: tuple[Floats, ...]
    beyond: tuple[Floats, ...]

    @property
    def error(self) -> float:
        """Mean absolute error where the fewest were held out, a share of the loss: what forms are compared by."""
        return float(np.mean(np.abs(np.expm1(self.errors[0]))))

    @property
    def bias(self) -> float:
        """Mean error there; negative is too optimistic."""
        return float(np.mean(np.expm1(self.errors[0])))


def split(runs: Runs, share: float) -> tuple[Runs, Runs]:
    """Cut into the runs of less compute and the `share` of most; at least one run is held out."""
    order = np.argsort(runs.flops, kind="stable")
    held = max(1, round(share * len(order)))
    return runs.where(order[:-held]), runs.where(order[-held:])


def log_errors(constants: Constants, runs: Runs) -> Floats:
    """ln forecast - ln measured."""
    return np.asarray(np.log(constants.loss(runs.parameters, runs.tokens) / runs.loss))


def compare(runs: Runs, forms: Sequence[Form] = FORMS) -> tuple[HeldOut, ...]:
    """Hold out for every form that the fitted part has runs enough for; the best forecaster first."""
    results = []
    for form in forms:
        halves = [split(runs, share) for share in SHARES]
        parts = [(fitted, held) for fitted, held in halves if len(fitted) > form.num_free]
        if parts:
            errors = tuple(log_errors(fit(fitted, form).constants, held) for fitted, held in parts)
            beyond = tuple(np.log10(held.flops / fitted.flops.max()) for fitted, held in parts)
            results.append(HeldOut(form=form, errors=errors, beyond=beyond))
    return tuple(sorted(results, key=lambda result: result.error))

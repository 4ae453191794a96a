"""Profile of a forecast: how much worse the runs are explained if the loss there were another one.

A bootstrap sample of n runs holds about 0.63 n different ones. One that holds no more than the form has constants is
gone through exactly, by constants that may be anything, and a few such refits move the end of an interval to anything.
A profile uses all runs every time. The loss y at the forecast is held, all constants are at their best, and the signed
square root of the objective's rise is compared with Student's t of n - p degrees of freedom, n runs and p constants:

    tau^2 = (n - p) (exp(deviance / n) - 1),    deviance = 2 (lnL(best) - lnL(y))

which under Gaussian errors is the profile t of Bates & Watts 1988 (section 6.1.2), there (S(y) - S) / s^2. The
likelihood is that of `profile`, so that an outlier weighs as it does in the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.fitting import Fit, frame_of
from weightgate.plan.fit.forms import Floats, Form, log_loss
from weightgate.plan.fit.polish import huber, polish
from weightgate.plan.fit.profile import coordinates_of, log_likelihood
from weightgate.plan.fit.runs import Runs
from weightgate.plan.fit.start import starts

MOST_EMPTY = 0.01
"""Share of bootstrap samples without a run to spare above which a profile takes the bootstrap's place."""

_HELD = 1e4
"""Weight of the run that holds the forecast: its residual becomes a thousandth of what the others' are."""

_STEPS = np.concatenate([-np.geomspace(2.56, 0.0025, 21), [0.0], np.geomspace(0.0025, 2.56, 21)])
"""Losses that are tried, as ln loss less the estimate's."""


@dataclass(frozen=True, kw_only=True)
class ForecastProfile:
    """Signed roots `tau` at each of `log_losses`, both rising; `freedom` is the degrees of freedom of t."""

    log_losses: Floats
    tau: Floats
    freedom: int

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """ln loss, (count,), as the profile and t say it is spread; beyond what was tried, the end of it."""
        return np.asarray(np.interp(rng.standard_t(self.freedom, size=count), self.tau, self.log_losses))


def too_few_to_resample(runs: Runs, form: Form) -> bool:
    """Whether too many bootstrap samples hold no more different runs than the form has constants."""
    return share_without_spare(len(runs), form.num_free) > MOST_EMPTY


def share_without_spare(n: int, constants: int) -> float:
    """Share of samples of n out of n, with replacement, that hold at most `constants` different ones."""
    held = np.zeros(n + 1)
    held[0] = 1.0
    different = np.arange(n + 1)
    for _ in range(n):
        new = held * (n - different) / n
        held = held * different / n + np.concatenate([[0.0], new[:-1]])
    return float(held[: constants + 1].sum())


def forecast_profile(runs: Runs, fitted: Fit, parameters: float, tokens: float) -> ForecastProfile:
    """Profile of the loss of one run that was not made. Needs more runs than the form has constants."""
    frame, n = frame_of(runs), len(runs)
    estimate = float(np.log(fitted.constants.loss(parameters, tokens)))
    tried = estimate + _STEPS
    at_n = np.concatenate([frame.n, np.full(len(tried), np.log(parameters) - frame.n0)])
    at_d = np.concatenate([frame.d, np.full(len(tried), np.log(tokens) - frame.d0)])
    losses = np.concatenate([frame.loss, np.exp(tried)])
    weights = np.concatenate([np.ones((len(tried), n)), _HELD * np.eye(len(tried))], axis=1)
    begun = [np.tile(coordinates_of(fitted.constants, frame.n0, frame.d0), (len(tried), 1))]
    begun += starts(fitted.form, at_n, at_d, losses, weights)
    least = np.full(len(tried), np.inf)
    for start in begun:
        constants = polish(fitted.form, start, at_n, at_d, losses, weights).constants
        residuals = log_loss(constants, frame.n, frame.d) - np.log(frame.loss)
        least = np.minimum(least, huber(residuals).sum(axis=1))
    lowest = min(fitted.objective, float(least.min()))
    falls = np.array([log_likelihood(lowest, n) - log_likelihood(float(each), n) for each in least])
    freedom = n - fitted.form.num_free
    roots = np.sqrt(freedom * np.expm1(2 * np.maximum(falls, 0.0) / n))
    return ForecastProfile(log_losses=tried, tau=_rising(roots), freedom=freedom)


def _rising(roots: Floats) -> Floats:
    """Signed, and made to rise outwards: a fit that stopped early looks worse than it is, never better."""
    middle = len(roots) // 2
    upper = np.minimum.accumulate(roots[: middle - 1 : -1])[::-1]
    lower = np.minimum.accumulate(roots[: middle + 1])
    return np.concatenate([-lower[:-1], [0.0], upper[1:]])

"""How long a larger build of the same recipe takes, from the builds there are.

    seconds = D (o + t N^(2/3) + 6 N / R)

o: seconds a token that grows with nothing (data, optimizer calls, the start of small kernels). t: of what touches every
activation once and multiplies nothing (norms, residuals, gates, rotary embedding): its work is layers x width, which is
N^(2/3) where depth and width grow together. R: FLOP/s of the machine at its best, 6 N FLOPs a token. Throughput rises
with size, as every table of utilisation shows; a flat rate from the smallest build would be far too pessimistic, one
from the largest too optimistic.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from weightgate.plan.fit.forms import Floats
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.stats import LEVEL, Estimate, Measurement, Unmeasured

_LEAST_TIMED = 3
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a token, by what they grow with: nothing, N^(2/3), and N."""

    seconds_per_token: float
    seconds_per_activation: float
    seconds_per_flop: float

    def seconds(self, parameters: float, tokens: float) -> float:
        """Seconds of training."""
        each = (self.seconds_per_token, self.seconds_per_activation, self.seconds_per_flop)
        return tokens * float(_terms(np.array([parameters]))[0] @ each)


def fit_timing(parameters: Floats, tokens: Floats, seconds: Floats) -> Timing:
    """Least squares of the relative error, no constant below 0, and no more of them than there are sizes.

    The least of all that obey is that of the terms it uses fitted alone (Lawson and Hanson 1974, chapter 23), so each
    choice of terms is tried.
    """
    relative = _terms(parameters) * (tokens / seconds)[:, None]
    best, least = np.zeros(relative.shape[1]), np.inf
    for count in range(1, min(relative.shape[1], len(set(parameters))) + 1):
        for chosen in map(list, combinations(range(relative.shape[1]), count)):
            values, *_ = np.linalg.lstsq(relative[:, chosen], np.ones(len(seconds)), rcond=None)
            error = float(np.sum((relative[:, chosen] @ values - 1) ** 2))
            if (values >= 0).all() and error < least:
                best, least = np.zeros(relative.shape[1]), error
                best[chosen] = values
    per_token, per_activation, per_flop = best.tolist()
    return Timing(seconds_per_token=per_token, seconds_per_activation=per_activation, seconds_per_flop=per_flop)


def _terms(parameters: Floats) -> Floats:
    """What seconds a token are made of, (runs, 3)."""
    return np.stack([np.ones_like(parameters), parameters ** (2 / 3), SIX * parameters], axis=1)


def forecast_seconds(runs: Runs, parameters: float, tokens: float, *, seed: int = 0) -> Measurement:
    """Forecast the training time of a build; its interval draws the timed runs again.

    Unmeasured with the reason where fewer than three runs were timed, or all are of one size.
    """
    timed = np.flatnonzero(np.isfinite(runs.seconds) & (runs.seconds > 0))
    if len(timed) < _LEAST_TIMED or len(set(runs.parameters[timed])) < 2:
        return Unmeasured(reason=f"{len(timed)} timed runs; at least {_LEAST_TIMED} of two sizes are needed")
    columns = runs.parameters[timed], runs.tokens[timed], runs.seconds[timed]
    value = fit_timing(*columns).seconds(parameters, tokens)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        picked = rng.integers(0, len(timed), size=len(timed))
        if len(set(columns[0][picked])) > 1:
            drawn.append(fit_timing(*(column[picked] for column in columns)).seconds(parameters, tokens))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=value,
        low=min(value, float(low)),
        high=max(value, float(high)),
        n=len(timed),
        unit="seconds",
        method="bootstrap over builds",
    )

"""How long a larger build of the same recipe takes, from the builds there are.

    seconds = D (o + f / R)

o: seconds a token that no arithmetic explains (data, optimizer calls, small kernels), f: training FLOPs a token, taken
as 6 N, R: FLOP/s of the machine at its best. Throughput rises with size, as every table of utilisation shows; a flat
rate from the smallest build would be far too pessimistic, one from the largest too optimistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.forms import Floats
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.stats import LEVEL, Estimate, Measurement, Unmeasured

_LEAST_TIMED = 3
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a token, and seconds a FLOP."""

    seconds_per_token: float
    seconds_per_flop: float

    def seconds(self, parameters: float, tokens: float) -> float:
        """Seconds of training."""
        return tokens * (self.seconds_per_token + SIX * parameters * self.seconds_per_flop)


def fit_timing(parameters: Floats, tokens: Floats, seconds: Floats) -> Timing:
    """Least squares of the relative error, both constants at least 0."""
    relative = np.stack([tokens / seconds, SIX * parameters * tokens / seconds])
    target = np.ones(len(seconds))
    both, *_ = np.linalg.lstsq(relative.T, target, rcond=None)
    if (both >= 0).all():
        return Timing(seconds_per_token=float(both[0]), seconds_per_flop=float(both[1]))
    alone = [float(row @ target / (row @ row)) for row in relative]
    errors = [float(np.sum((value * row - target) ** 2)) for value, row in zip(alone, relative, strict=True)]
    if errors[0] < errors[1]:
        return Timing(seconds_per_token=alone[0], seconds_per_flop=0.0)
    return Timing(seconds_per_token=0.0, seconds_per_flop=alone[1])


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

"""Forecasts of runs that were not made, with intervals that know of extrapolation.

The bootstrap of one form says how well its constants are known, and nothing about the form being wrong. So a forecast
is drawn in three steps: a form among those that did nearly as well as the best when the largest runs were held out, its
loss by its bootstrap (where the runs are too few to be drawn again, by its profile: `prediction`), and an error among
those it made on the held-out runs, of either sign and larger the further out the forecast lies. How often the intervals
hold: benchmarks/results/scaling_forecasts.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from weightgate.plan.fit.fitting import bootstrap, fit
from weightgate.plan.fit.forms import Floats, Form
from weightgate.plan.fit.holdout import HeldOut
from weightgate.plan.fit.prediction import forecast_profile, too_few_to_resample
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import Constants

LEVEL = 0.9
NEARLY_AS_GOOD = 1.3
"""Forms whose held-out error is at most this many times the best one's take part in an interval."""

_ERRORS_OF_A_DRAW = 10
_LEAST_DISTANCE = 0.05
"""Decades of compute; below this, held-out runs are no further out than the fitted ones."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Loss at some parameters and tokens, with its interval at `LEVEL`; arrays of one length."""

    parameters: Floats
    tokens: Floats
    value: Floats
    low: Floats
    high: Floats


def nearly_as_good(compared: Sequence[HeldOut]) -> list[HeldOut]:
    """The forms that take part in an interval, the best first."""
    return [each for each in compared if each.error <= NEARLY_AS_GOOD * compared[0].error]


def refits(runs: Runs, compared: Sequence[HeldOut], *, draws: int, seed: int = 0) -> dict[str, Constants]:
    """Bootstrap constants of every form that takes part, by its name."""
    taking_part = nearly_as_good(compared)
    return {each.form.name: _finite(bootstrap(runs, each.form, draws=draws, seed=seed)) for each in taking_part}


def _finite(drawn: Constants) -> Constants:
    """Leave out refits that ran away: an exponent of a hundred, and a constant beyond what a float holds."""
    columns = {column.name: np.asarray(getattr(drawn, column.name)) for column in fields(drawn)}
    kept = np.all([np.isfinite(column) for column in columns.values()], axis=0)
    return replace(drawn, **{name: column[kept] for name, column in columns.items() if column.ndim})


def forecast(
    runs: Runs,
    compared: Sequence[HeldOut],
    drawn: Mapping[str, Constants],
    parameters: Floats,
    tokens: Floats,
    *,
    seed: int = 0,
) -> Forecast:
    """Forecast the loss of runs of `parameters` on `tokens`, arrays of one length.

    Args:
        compared: what `holdout.compare` found on `runs`.
        drawn: what `refits` returned for them.
    """
    rng, logs = np.random.default_rng(seed), []
    beyond = np.log10(SIX * parameters * tokens / runs.flops.max())
    for each in nearly_as_good(compared):
        own = np.repeat(_by_form(runs, each.form, drawn, parameters, tokens, rng), _ERRORS_OF_A_DRAW, axis=1)
        errors = rng.choice(np.concatenate(each.errors), size=own.shape[1]) * rng.choice((-1.0, 1.0), size=own.shape[1])
        logs.append(own + _growth(each, beyond)[:, None] * errors)
    best = fit(runs, compared[0].form).constants
    low, high = np.exp(np.quantile(np.concatenate(logs, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1))
    value = np.asarray(best.loss(parameters, tokens))
    return Forecast(parameters=parameters, tokens=tokens, value=value, low=low, high=high)


def _by_form(
    runs: Runs, form: Form, drawn: Mapping[str, Constants], parameters: Floats, tokens: Floats, rng: np.random.Generator
) -> Floats:
    """ln loss by one form, its constants in doubt: (points, draws)."""
    constants = drawn[form.name]
    if not too_few_to_resample(runs, form):
        return np.asarray(np.log(constants.loss(parameters[:, None], tokens[:, None])))
    fitted, count = fit(runs, form), np.size(constants.A)
    points = zip(parameters.tolist(), tokens.tolist(), strict=True)
    return np.stack([forecast_profile(runs, fitted, *point).draw(count, rng) for point in points])


def _growth(held_out: HeldOut, beyond: Floats) -> Floats:
    """How much larger errors are taken to be than those seen: the square root of the distance over the usual one."""
    usual = max(float(np.median(np.concatenate(held_out.beyond))), _LEAST_DISTANCE)
    return np.sqrt(np.maximum(beyond / usual, 1.0))

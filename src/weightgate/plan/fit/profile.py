"""Profile likelihood: how far one constant may move while all others make up for it.

Minimising a sum of Huber's losses rho is maximum likelihood under the density exp(-rho(r) / s) / Z(s) of the log
residuals, of an unknown scale s (Huber 1964). For a constant held at some value, let S be the sum at the best of all
others; twice the fall of the log-likelihood below its maximum is chi-squared with one degree of freedom (Wilks 1938).
It is scaled by (n - p) / n for n runs and p constants, since with few runs the scale is underestimated. Unlike a
bootstrap a profile cannot be fooled by refits that stop early, and it shows where the data say nothing: it is flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weightgate.plan.fit.fitting import Fit, frame_of
from weightgate.plan.fit.forms import NAMES, Floats, Form
from weightgate.plan.fit.polish import HUBER_DELTA, polish
from weightgate.plan.fit.runs import Runs
from weightgate.plan.fit.start import starts
from weightgate.plan.laws.loss import Constants

CHI_SQUARED_95 = 3.841458820694124
"""Quantile of chi-squared with one degree of freedom at 95 %."""

COORDINATES = {"E": "e", "alpha": "alpha", "beta": "beta", "k": "l"}
"""Constants that a form moves freely, by their name in `forms`; A and B hang on the exponents and are left out."""

_COARSE, _FINE = 19, 8
_FACTOR = 8.0
"""Exponents are followed from the estimate divided by this to the estimate times this."""

_MOST_ROUNDS, _STEEP = 6, 0.5
"""Cells in which the deviance changes by more than this share of the quantile are cut again, so often at most."""

_NO_FLOOR = 1e-13
"""E that stands for 0; its logarithm is that of forms without E."""

_SCALES = np.geomspace(1e-9, 1e3, 1200)
"""Scales s over delta squared at which the likelihood is looked for: residuals of a thousandth of delta and more."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A constant's interval at 95 % by its likelihood.

    Fields:
        low, high: where the deviance crosses `CHI_SQUARED_95`; the end of what was looked at where it does not.
        open_low, open_high: whether the data allow whatever lies beyond that end.
        points: (value, deviance), rising in value.
    """

    name: str
    low: float
    high: float
    open_low: bool
    open_high: bool
    points: tuple[tuple[float, float], ...]


def profiles(runs: Runs, fitted: Fit) -> dict[str, Profile]:
    """Profile of every constant of the form that is free by itself, by name."""
    return {
        name: profile(runs, fitted, name) for name, coordinate in COORDINATES.items() if coordinate in fitted.form.free
    }


def profile(runs: Runs, fitted: Fit, name: str) -> Profile:
    """Profile of one constant, a key of `COORDINATES` that is free in the fitted form."""
    estimate = float(getattr(fitted.constants, name))
    coarse = _range(name, estimate, runs)
    values = np.unique(np.concatenate([coarse, [estimate]]))
    found = deviances(runs, fitted, name, values)
    for _ in range(_MOST_ROUNDS):
        coarse_cells = _crossings(values, found)
        if not coarse_cells:
            break
        more = np.concatenate([np.linspace(*cell, _FINE)[1:-1] for cell in coarse_cells])
        values, found = np.concatenate([values, more]), np.concatenate([found, deviances(runs, fitted, name, more)])
        order = np.argsort(values)
        values, found = values[order], found[order]
    inside = np.flatnonzero(found <= CHI_SQUARED_95)
    first, last = int(inside[0]), int(inside[-1])
    return Profile(
        name=name,
        low=_crossing(values, found, first, first - 1),
        high=_crossing(values, found, last, last + 1),
        open_low=first == 0,
        open_high=last == len(values) - 1,
        points=tuple(zip(values.tolist(), found.tolist(), strict=True)),
    )


def deviances(runs: Runs, fitted: Fit, name: str, values: Floats) -> Floats:
    """Twice the fall of the log-likelihood with the constant held at each value, (values,); 0 at the estimate."""
    best = _least(runs, fitted, COORDINATES[name], values)
    lowest = min(fitted.objective, float(best.min()))
    free = len(runs) - fitted.form.num_free
    falls = np.array([log_likelihood(lowest, len(runs)) - log_likelihood(float(each), len(runs)) for each in best])
    return np.asarray(2 * np.maximum(falls, 0.0) * max(free, 1) / len(runs))


def _range(name: str, estimate: float, runs: Runs) -> Floats:
    """Values to look at: of E everything from nothing to just below the smallest loss."""
    if name == "E":
        return np.concatenate([[_NO_FLOOR], float(runs.loss.min()) * np.linspace(0, 0.999, _COARSE)[1:]])
    return estimate * np.geomspace(1 / _FACTOR, _FACTOR, _COARSE)


def _least(runs: Runs, fitted: Fit, coordinate: str, values: Floats) -> Floats:
    """Smallest objective with the constant held at each value, (values,), from the estimate and from the grid."""
    frame, form = frame_of(runs), _held(fitted.form, coordinate)
    held = values if coordinate in ("alpha", "beta") else np.log(values)
    begun = [coordinates_of(fitted.constants, frame.n0, frame.d0)]
    begun.append(starts(fitted.form, frame.n, frame.d, frame.loss, np.ones((1, len(runs))))[0][0])
    columns = [coordinate] + [follower for leader, follower in fitted.form.tied if leader == coordinate]
    objectives = []
    for start in begun:
        at = np.tile(start, (len(values), 1))
        for column in columns:
            at[:, NAMES.index(column)] = held
        weights = np.ones((len(values), len(runs)))
        objectives.append(polish(form, at, frame.n, frame.d, frame.loss, weights).objective)
    return np.asarray(np.min(objectives, axis=0))


def _held(form: Form, coordinate: str) -> Form:
    """The form with one constant, and whatever follows it, no longer free."""
    tied = tuple(pair for pair in form.tied if pair[0] != coordinate)
    return replace(form, free=tuple(name for name in form.free if name != coordinate), tied=tied)


def coordinates_of(constants: Constants, n0: float, d0: float) -> Floats:
    """Constants in the coordinates of `forms`, (6,)."""
    a = math.log(constants.A) - constants.alpha * n0
    b = math.log(constants.B) - constants.beta * d0
    return np.array([a, b, math.log(constants.E), constants.alpha, constants.beta, math.log(constants.k)])


def log_likelihood(objective: float, n: int) -> float:
    """Largest log-likelihood over the scale, of n residuals whose losses sum to `objective`.

    Z = sqrt(2 pi s) erf(delta / sqrt(2 s)) + 2 (s / delta) exp(-delta^2 / (2 s)).
    """
    scales = _SCALES * HUBER_DELTA**2
    inside = np.sqrt(2 * np.pi * scales) * _ERF
    outside = 2 * scales / HUBER_DELTA * np.exp(-(HUBER_DELTA**2) / (2 * scales))
    return float(np.max(-objective / scales - n * np.log(inside + outside)))


_ERF = np.array([math.erf(1 / math.sqrt(2 * scale)) for scale in _SCALES])


def _crossings(values: Floats, found: Floats) -> Sequence[tuple[float, float]]:
    """Neighbours between which the deviance crosses, and so steeply that the place is not known well."""
    inside = found <= CHI_SQUARED_95
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    steep = [edge for edge in edges if np.abs(found[edge + 1] - found[edge]) > _STEEP * CHI_SQUARED_95]
    return [(float(values[edge]), float(values[edge + 1])) for edge in steep]


def _crossing(values: Floats, found: Floats, inside: int, outside: int) -> float:
    """Value between two neighbours at which the deviance's square root, which is nearly linear, crosses."""
    if not 0 <= outside < len(values):
        return float(values[inside])
    low, high = math.sqrt(found[inside]), math.sqrt(found[outside])
    share = (math.sqrt(CHI_SQUARED_95) - low) / (high - low)
    return float(values[inside] + share * (values[outside] - values[inside]))

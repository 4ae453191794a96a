"""Where a fit starts: exponents on a grid, and for each pair of them the best amplitudes (variable projection).

For given exponents the parametric form is linear in E, A and B, so only two dimensions have to be searched (Golub &
Pereyra 1973), and those are well conditioned: 1.3 at the optimum of Epoch's points, against 2e13 for all five raw
constants. What is minimised is the squared relative error, whose minimum lies near that of the logarithms.
"""

from __future__ import annotations

import numpy as np

from weightgate.plan.fit.forms import Floats, Form

EXPONENTS = np.linspace(0.05, 1.2, 32)
_EXPONENT_FACTORS = (1.0, 0.6, 1.6)
_POWERS = (0.6, 1.0, 0.35)
_KAPLAN_POWERS = (0.12, 0.06, 0.25, 0.03)
_SMALLEST = 1e-4
"""Least share of the mean loss that a term starts with, so that its logarithm exists."""


def starts(form: Form, n: Floats, d: Floats, loss: Floats, weights: Floats) -> list[Floats]:
    """Starting constants of every fit, several of them, the best bets first: each (fits, 6), in `forms`' coordinates.

    Args:
        n, d: centred ln N and ln D of the runs.
        loss: nats, (runs,).
        weights: of each run in each fit, (fits, runs).
    """
    if "e" not in form.free:
        return [_kaplan_start(power, loss, weights) for power in _KAPLAN_POWERS]
    projected = _projected(n, d, loss, weights, tied=bool(form.tied))
    if "l" not in form.free:
        return [_with_exponents(projected, factor) for factor in _EXPONENT_FACTORS]
    return [_with_power(projected, power) for power in _POWERS]


def _with_exponents(constants: Floats, factor: float) -> Floats:
    """Turn the slopes about the centre of the runs, where the amplitudes hold."""
    found = constants.copy()
    found[:, 3:5] *= factor
    return found


def _with_power(constants: Floats, power: float) -> Floats:
    """Put the reducible part under a power without moving its size at the centre or its slopes much."""
    found = constants.copy()
    found[:, 5] = np.log(power)
    found[:, 3:5] /= power
    reducible = np.logaddexp(constants[:, 0], constants[:, 1])
    found[:, :2] += (reducible / power - reducible)[:, None]
    return found


def _kaplan_start(power: float, loss: Floats, weights: Floats) -> Floats:
    centre = np.log(weights @ loss / weights.sum(axis=1)) / power - np.log(2.0)
    found = np.zeros((len(weights), 6))
    found[:, 0] = found[:, 1] = centre
    found[:, 2], found[:, 3], found[:, 4], found[:, 5] = -30.0, 0.8, 1.0, np.log(power)
    return found


def _projected(n: Floats, d: Floats, loss: Floats, weights: Floats, *, tied: bool) -> Floats:
    """Best cell of the grid for every fit, (fits, 6)."""
    if tied:
        alphas = betas = EXPONENTS
    else:
        alphas, betas = np.repeat(EXPONENTS, len(EXPONENTS)), np.tile(EXPONENTS, len(EXPONENTS))
    amplitudes, error = _amplitudes(np.exp(-np.outer(alphas, n)), np.exp(-np.outer(betas, d)), loss, weights)
    best = np.argmin(error, axis=1)
    chosen = amplitudes[:, np.arange(len(weights)), best]
    floor = _SMALLEST * (weights @ loss / weights.sum(axis=1))
    logs = np.log(np.maximum(chosen, floor))
    return np.stack([logs[1], logs[2], logs[0], alphas[best], betas[best], np.zeros(len(weights))], axis=1)


def _amplitudes(x: Floats, y: Floats, loss: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """E, A, B >= 0 of least weighted squares for each cell, (3, fits, cells), and the squared error, (fits, cells).

    The normal equations are solved in closed form. Where E would be negative it is 0; cells in which A or B would be
    are given up. x, y: (cells, runs).
    """
    relative = weights / loss**2
    one = relative.sum(axis=1, keepdims=True)
    sx, sy, sxy = relative @ x.T, relative @ y.T, relative @ (x * y).T
    sxx, syy = relative @ (x * x).T, relative @ (y * y).T
    target = relative * loss
    t1, tx, ty = target.sum(axis=1, keepdims=True), target @ x.T, target @ y.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Centred by the column of ones, the system is 2 x 2.
        cxx, cyy, cxy = sxx - sx * sx / one, syy - sy * sy / one, sxy - sx * sy / one
        cx, cy = tx - sx * t1 / one, ty - sy * t1 / one
        determinant = cxx * cyy - cxy * cxy
        first, second = (cyy * cx - cxy * cy) / determinant, (cxx * cy - cxy * cx) / determinant
        constant = (t1 - first * sx - second * sy) / one
        plain = sxx * syy - sxy * sxy
        alone = (syy * tx - sxy * ty) / plain, (sxx * ty - sxy * tx) / plain
        no_floor = constant < 0
        first, second = np.where(no_floor, alone[0], first), np.where(no_floor, alone[1], second)
        constant = np.where(no_floor, 0.0, constant)
        error = -(constant * t1 + first * tx + second * ty)
    usable = (first > 0) & (second > 0) & np.isfinite(error)
    return np.stack([constant, first, second]), np.where(usable, error, np.inf)

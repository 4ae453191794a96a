"""Minimising Huber's loss of log residuals, for many fits at once.

    sum over runs of w * Huber_delta(ln L^ - ln L)         (Hoffmann et al. 2022, eq. 3, delta = 1e-3)

With delta below most residuals this is nearly the sum of absolute errors, on which quasi-Newton methods with default
tolerances stop early: that is what happened to the published constants (Besiroglu et al. 2024). Here delta shrinks from
`DELTAS[0]` to the last one, and at each Newton's method runs with the second derivative's eigenvalues made positive
(Nocedal & Wright 2006, section 3.4) and a damping that grows when a step does not descend. Both the step and the rule
for stopping are free of the objective's scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.forms import Floats, Form, curvature, log_loss, predict

DELTAS = (0.1, 0.02, 0.005, 0.002, 1e-3)
HUBER_DELTA = DELTAS[-1]
_ROUGH_STEPS, _MOST_STEPS = 6, 200
_STILL = 1e-13
"""A predicted decrease of the objective below this share of it ends a fit."""
_SHRINK, _GROW, _LEAST_DAMPING, _MOST_DAMPING = 0.2, 4.0, 1e-14, 1e8
_FLAT = 1e-14


@dataclass(frozen=True, kw_only=True)
class Polished:
    """Fits at their minimum: constants (fits, 6), objective (fits,), and whether each came to rest (fits,)."""

    constants: Floats
    objective: Floats
    settled: np.ndarray


def huber(residuals: Floats, delta: float = HUBER_DELTA) -> Floats:
    """r^2/2 inside delta, delta (|r| - delta/2) outside (Huber 1964)."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * residuals**2, delta * (size - 0.5 * delta))


def objective(constants: Floats, n: Floats, d: Floats, target: Floats, weights: Floats, delta: float) -> Floats:
    """Weighted sum of Huber's loss of each fit, (fits,)."""
    return np.asarray((weights * huber(log_loss(constants, n, d) - target, delta)).sum(axis=1))


def polish(form: Form, start: Floats, n: Floats, d: Floats, loss: Floats, weights: Floats) -> Polished:
    """Minimise from `start`, (fits, 6). Other arguments as in `start.starts`."""
    constants, target = start, np.log(loss)
    for delta in DELTAS[:-1]:
        constants = _newton(form, constants, n, d, target, weights, delta, _ROUGH_STEPS).constants
    return _newton(form, constants, n, d, target, weights, HUBER_DELTA, _MOST_STEPS)


def _newton(
    form: Form, start: Floats, n: Floats, d: Floats, target: Floats, weights: Floats, delta: float, most: int
) -> Polished:
    spread, constants = form.spread(), start.copy()
    value = objective(constants, n, d, target, weights, delta)
    damping, settled = np.full(len(start), 1e-3), np.zeros(len(start), dtype=bool)
    for _ in range(most):
        active = np.flatnonzero(~settled)
        if not active.size:
            break
        step, promised = _step(constants[active], spread, n, d, target, weights[active], delta, damping[active])
        tried = constants[active] + step
        with np.errstate(over="ignore", invalid="ignore"):
            reached = objective(tried, n, d, target, weights[active], delta)
        better = reached < value[active]
        constants[active[better]], value[active[better]] = tried[better], reached[better]
        damping[active] = np.clip(damping[active] * np.where(better, _SHRINK, _GROW), _LEAST_DAMPING, None)
        done = (promised <= _STILL * value[active]) | (damping[active] > _MOST_DAMPING)
        settled[active[done]] = True
    return Polished(constants=constants, objective=value, settled=settled)


def _step(
    constants: Floats,
    spread: Floats,
    n: Floats,
    d: Floats,
    target: Floats,
    weights: Floats,
    delta: float,
    damping: Floats,
) -> tuple[Floats, Floats]:
    """Newton's step in all six constants, (fits, 6), and the decrease that the quadratic model promises, (fits,)."""
    predicted = predict(constants, n, d)
    residuals = predicted.log_loss - target
    pull = weights * np.clip(residuals, -delta, delta)
    gradient = np.einsum("fcr,fr->fc", predicted.gradient, pull) @ spread
    inside = weights * (np.abs(residuals) <= delta)
    second = (predicted.gradient * inside[:, None]) @ predicted.gradient.transpose(0, 2, 1)
    second = spread.T @ (second + curvature(predicted, pull)) @ spread
    values, vectors = np.linalg.eigh(second)
    sizes = np.abs(values)
    largest = sizes.max(axis=1, keepdims=True)
    sizes = np.maximum(sizes, _FLAT * largest) + damping[:, None] * largest
    along = np.einsum("fpq,fp->fq", vectors, gradient)
    step = -np.einsum("fpq,fq->fp", vectors, along / sizes)
    return step @ spread.T, 0.5 * (along**2 / sizes).sum(axis=1)

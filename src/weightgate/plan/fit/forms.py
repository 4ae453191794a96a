"""The forms that are fitted, as choices of which constants are free, and their residuals with two derivatives.

Every form is a restriction of one law (`laws.loss`), written in logarithms so that all numbers are of one size:

    ln L = LSE(kappa LSE(a - alpha n, b - beta d), e)

n, d: ln N and ln D less their means; a = ln A, b = ln B, e = ln E, kappa = exp(l) = k; LSE(x, y) = ln(e^x + e^y). A
form's free values `free` give all six as `base + spread @ free`. Axes: fits (draws of a bootstrap), runs, constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NAMES = ("a", "b", "e", "alpha", "beta", "l")
_NOTHING = -30.0
"""ln E of a form without E: e^-30 nats."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form: `free` of the six constants may move, `tied` pairs share one value, the rest stay at `fixed`."""

    name: str
    says: str
    free: tuple[str, ...]
    tied: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, float], ...] = ()

    @property
    def num_free(self) -> int:
        """Number of free constants: at least as many runs are needed, and more to say anything."""
        return len(self.free)

    def base(self) -> Floats:
        """The six constants with the free ones at 0, (6,)."""
        fixed = dict(self.fixed)
        return np.array([fixed.get(name, 0.0) for name in NAMES])

    def spread(self) -> Floats:
        """What each free value adds to each constant, (6, free)."""
        matrix = np.zeros((len(NAMES), len(self.free)))
        for column, name in enumerate(self.free):
            matrix[NAMES.index(name), column] = 1.0
        for leader, follower in self.tied:
            matrix[NAMES.index(follower), self.free.index(leader)] = 1.0
        return matrix


TIED = Form(
    name="tied",
    says="one exponent for parameters and tokens (Gadre et al. 2024)",
    free=("a", "b", "e", "alpha"),
    tied=(("alpha", "beta"),),
)
CHINCHILLA = Form(
    name="chinchilla",
    says="an exponent each (Hoffmann et al. 2022)",
    free=("a", "b", "e", "alpha", "beta"),
)
COUPLED = Form(
    name="coupled",
    says="both terms under one power (arXiv 2608.07222)",
    free=("a", "b", "e", "alpha", "beta", "l"),
)
KAPLAN = Form(
    name="kaplan",
    says="nothing irreducible, tokens under one power with parameters (Kaplan et al. 2020, eq. 1.5)",
    free=("a", "b", "alpha", "l"),
    fixed=(("e", _NOTHING), ("beta", 1.0)),
)
FORMS = (TIED, CHINCHILLA, COUPLED, KAPLAN)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Predictions of fits at runs, and what their derivatives are made of.

    Fields:
        log_loss: (fits, runs).
        gradient: of `log_loss` by the six constants, (fits, 6, runs).
        inner, outer: the vectors whose outer products make the second derivative, (fits, 6, runs), with their
            weights `inner_weight` and `outer_weight`, (fits, runs).
        share: weight of the reducible part, (fits, runs); `reducible` its ln before the power, `slope` its gradient.
    """

    log_loss: Floats
    gradient: Floats
    inner: Floats
    inner_weight: Floats
    outer: Floats
    outer_weight: Floats
    share: Floats
    reducible: Floats
    slope: Floats
    kappa: Floats


def log_loss(constants: Floats, n: Floats, d: Floats) -> Floats:
    """ln L of each fit at each run: constants (fits, 6); n, d (runs,); returns (fits, runs)."""
    a, b, e, alpha, beta, log_power = (column[:, None] for column in constants.T)
    return np.asarray(np.logaddexp(np.exp(log_power) * np.logaddexp(a - alpha * n, b - beta * d), e))


def predict(constants: Floats, n: Floats, d: Floats) -> Predicted:
    """ln L with what Newton's method needs; shapes as in `log_loss`."""
    a, b, e, alpha, beta, log_power = (column[:, None] for column in constants.T)
    kappa = np.exp(log_power)
    first, second = a - alpha * n, b - beta * d
    reducible = np.logaddexp(first, second)
    value = np.logaddexp(kappa * reducible, e)
    part, share = np.exp(first - reducible), np.exp(kappa * reducible - value)
    zero = np.zeros_like(value)
    slope = np.stack([part, 1 - part, zero, -n * part, -d * (1 - part), zero], axis=1)
    powered = kappa[:, None] * slope
    powered[:, 5] = kappa * reducible
    outer = powered.copy()
    outer[:, 2] -= 1.0
    gradient = share[:, None] * powered
    gradient[:, 2] += 1 - share
    ones = np.ones_like(value)
    return Predicted(
        log_loss=value,
        gradient=gradient,
        inner=np.stack([ones, -ones, zero, -n * ones, d * ones, zero], axis=1),
        inner_weight=share * kappa * part * (1 - part),
        outer=outer,
        outer_weight=share * (1 - share),
        share=share,
        reducible=reducible,
        slope=slope,
        kappa=kappa,
    )


def curvature(predicted: Predicted, weights: Floats) -> Floats:
    """Sum over runs of weights x second derivative of ln L by the constants: (fits, runs) -> (fits, 6, 6)."""
    total = _outer_sum(predicted.inner, weights * predicted.inner_weight)
    total += _outer_sum(predicted.outer, weights * predicted.outer_weight)
    power = weights * predicted.share * predicted.kappa
    cross = np.einsum("fr,fcr->fc", power, predicted.slope)
    total[:, 5, :] += cross
    total[:, :, 5] += cross
    total[:, 5, 5] += (power * predicted.reducible).sum(axis=1)
    return total


def _outer_sum(vectors: Floats, weights: Floats) -> Floats:
    """Sum over runs of weight x vector x vector^T: (fits, 6, runs), (fits, runs) -> (fits, 6, 6)."""
    return np.asarray((vectors * weights[:, None]) @ vectors.transpose(0, 2, 1))

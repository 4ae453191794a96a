"""Logistic models of who wins a pair: no intercept, because turning a pair around must turn its probability around.

The chance that the better answer wins is sigmoid(beta . z) with z = phi(chosen) - phi(rejected) (Bradley & Terry 1952).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.stats import LEVEL

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.signedinteger[Any]]

_NEWTON_STEPS = 50
_MEMORY = 8
"""Pairs of steps that L-BFGS keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slopes:
    """Coefficients of z and how far each cluster of pairs pulls at them.

    `beta` is (k), `covariance` (k, k) and robust to votes of one prompt hanging together. `influence` is (clusters, k)
    for the clusters named by `clusters`, so that fits on overlapping votes can be compared.
    """

    beta: Floats
    covariance: Floats
    clusters: Ints
    influence: Floats

    def contrast(self, weights: Floats) -> tuple[float, float]:
        """(value, standard error) of weights . beta."""
        return float(weights @ self.beta), math.sqrt(max(float(weights @ self.covariance @ weights), 0.0))


def sigmoid(logits: NDArray[Any]) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))), dtype=np.float64)


def fit_slopes(differences: Floats, clusters: Ints, *, ridge: float = 1e-3) -> Slopes:
    """Fit a few slopes by Newton's method.

    Args:
        differences: (n, k), chosen minus rejected.
        clusters: the prompt of each pair; the covariance is the sandwich over them (Liang & Zeger 1986).
        ridge: weight of |beta|^2 / 2 for each pair, so that a driver that always wins keeps a finite slope.
    """
    n, k = differences.shape
    beta = np.zeros(k)
    penalty = ridge * max(n, 1) * np.eye(k)
    for _ in range(_NEWTON_STEPS):
        wins = sigmoid(differences @ beta)
        gradient = differences.T @ (1 - wins) - penalty @ beta
        curvature = (differences * (wins * (1 - wins))[:, None]).T @ differences + penalty
        step = np.linalg.solve(curvature, gradient)
        beta = beta + step / max(1.0, float(np.abs(step).max(initial=0.0)) / 4)
        if float(np.abs(step).max(initial=0.0)) < 1e-9:
            break
    scores = differences * (1 - sigmoid(differences @ beta))[:, None]
    names, number = np.unique(clusters, return_inverse=True)
    pull = _sums(scores, number.reshape(-1)) @ np.linalg.inv(curvature)
    groups = len(names)
    covariance = pull.T @ pull * (groups / max(groups - 1, 1))
    return Slopes(beta=beta, covariance=covariance, clusters=names, influence=pull)


def cluster_sums(rows: Floats, clusters: Ints) -> Floats:
    """Sums of the rows (n, k) of each cluster: (clusters, k)."""
    _, number = np.unique(clusters, return_inverse=True)
    return _sums(rows, number.reshape(-1))


def _sums(rows: Floats, number: NDArray[np.intp]) -> Floats:
    return np.stack([np.bincount(number, weights=column) for column in rows.T], axis=1) if rows.size else rows[:0]


def two_sided(value: float, error: float) -> float:
    """Two-sided normal p-value of value / error."""
    return 1.0 if error <= 0 else 2 * NormalDist().cdf(-abs(value) / error)


def half_width(error: float) -> float:
    """Half of the interval at `LEVEL` around a normal estimate."""
    return NormalDist().inv_cdf((1 + LEVEL) / 2) * error


def auc(margins: Floats) -> float:
    """Area under the curve of a model that says which of two answers wins, from logits of the true winner.

    Every pair counts in both orders, so it is the chance that a winner's logit exceeds a loser's: P(s_i > -s_j).
    """
    if margins.size == 0:
        return 0.5
    losers = np.sort(-margins)
    below = np.searchsorted(losers, margins, side="left") + np.searchsorted(losers, margins, side="right")
    return float(below.sum() / (2 * margins.size**2))


def minimise(value_and_gradient: Callable[[Floats], tuple[float, Floats]], start: Floats, *, steps: int) -> Floats:
    """Minimise a smooth function with L-BFGS (Nocedal & Wright 2006, algorithms 7.4 and 7.5; Armijo line search)."""
    x = start.copy()
    value, gradient = value_and_gradient(x)
    moves: list[tuple[Floats, Floats]] = []
    for _ in range(steps):
        direction = -_inverse_times(gradient, moves)
        slope = float(direction @ gradient)
        size = 1.0 if moves else 1.0 / max(1.0, float(np.linalg.norm(gradient)))
        while True:
            trial = x + size * direction
            trial_value, trial_gradient = value_and_gradient(trial)
            if trial_value <= value + 1e-4 * size * slope or size < 1e-10:
                break
            size /= 2
        move, change = trial - x, trial_gradient - gradient
        x, gain = trial, value - trial_value
        value, gradient = trial_value, trial_gradient
        if float(move @ change) > 1e-12:
            moves = [*moves, (move, change)][-_MEMORY:]
        if gain <= 1e-4 * max(1.0, abs(value)):
            break
    return x


def _inverse_times(gradient: Floats, moves: list[tuple[Floats, Floats]]) -> Floats:
    """The two-loop recursion: about the inverse Hessian times the gradient."""
    q = gradient.copy()
    shares = []
    for move, change in reversed(moves):
        share = float(move @ q) / float(move @ change)
        shares.append(share)
        q -= share * change
    if moves:
        move, change = moves[-1]
        q *= float(move @ change) / float(change @ change)
    for (move, change), share in zip(moves, reversed(shares), strict=True):
        q += move * (share - float(change @ q) / float(move @ change))
    return q

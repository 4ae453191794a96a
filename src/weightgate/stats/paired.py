"""Two targets on the same prompts: is the difference real, how large is it, and how large one would have been seen?

The unit of observation is the prompt. Samples and phrasings of one prompt are averaged first (`cluster_means`):
standard errors that treat them as independent can be a third of the true ones (arXiv 2411.00640).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from weightgate.stats.estimates import LEVEL, Estimate, Unmeasured

PERMUTATION_DRAWS = 9_999
_EXACT_UP_TO = 13
"""2^13 sign patterns are fewer than `PERMUTATION_DRAWS`, so all are tried."""

_BLOCK_CELLS = 4_000_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Outcome of a two-sided paired test.

    `rose` and `fell` count the pairs whose difference is above and below 0; `n` counts all pairs.
    """

    p_value: float
    rose: int
    fell: int
    n: int
    method: str


def sign_test(differences: Sequence[float]) -> PairedTest:
    """Test whether differences are as often above 0 as below.

    p = min(1, 2 P(X <= min(rose, fell))), X ~ Binomial(rose + fell, 1/2), exactly. Of differences in {-1, 0, 1} this is
    McNemar's exact test (McNemar 1947; Edwards 1948), and ties say nothing either way.
    """
    values = np.asarray(differences, dtype=np.float64)
    rose, fell = int((values > 0).sum()), int((values < 0).sum())
    return PairedTest(
        p_value=_two_sided_binomial(min(rose, fell), rose + fell), rose=rose, fell=fell, n=values.size, method="sign"
    )


def mcnemar(after: Sequence[bool], before: Sequence[bool]) -> PairedTest:
    """Exact McNemar test of paired yes/no outcomes. Raises `ValueError` for sides of different length."""
    return sign_test([float(a) - float(b) for a, b in zip(after, before, strict=True)])


def _two_sided_binomial(smaller: int, n: int) -> float:
    """min(1, 2 P(X <= smaller)) for n fair coins, in whole numbers."""
    term, total = 1, 1
    for k in range(smaller):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, float(2 * total / 2**n))


def permutation_test(differences: Sequence[float], *, seed: int = 0, draws: int = PERMUTATION_DRAWS) -> PairedTest:
    """Test whether differences are symmetric around 0, by flipping their signs (Fisher 1935, section 21).

    The statistic is |sum|. Up to 13 differences that are not 0 every pattern of signs is tried; beyond, p = (1 + hits)
    / (1 + draws), which never understates (Phipson & Smyth 2010, eq. 2). Raises `ValueError` for non-finite values.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite")
    moved = values[values != 0]
    observed = abs(moved.sum()) * (1 - 1e-12)
    if moved.size <= _EXACT_UP_TO:
        patterns = 1 - 2.0 * ((np.arange(2**moved.size)[:, None] >> np.arange(moved.size)) & 1)
        p_value, method = float((np.abs(patterns @ moved) >= observed).mean()), "permutation, exact"
    else:
        sums = flipped_sums(moved[:, None], seed=seed, draws=draws)[:, 0]
        p_value, method = (1 + int((np.abs(sums) >= observed).sum())) / (1 + draws), "permutation"
    return PairedTest(
        p_value=p_value, rose=int((values > 0).sum()), fell=int((values < 0).sum()), n=values.size, method=method
    )


def flipped_sums(values: Floats, *, seed: int, draws: int) -> Floats:
    """Column sums of `values` (n, columns) under random signs of its rows: (draws, columns)."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // max(1, len(values)))
    sums = []
    for start in range(0, draws, block):
        size = (min(block, draws - start), len(values))
        sums.append((rng.integers(0, 2, size=size, dtype=np.int8) * 2.0 - 1.0) @ values)
    return np.concatenate(sums)


def effect_size(differences: Sequence[float]) -> float:
    """Cohen's d_z: mean over standard deviation of the differences (Cohen 1988, section 2.3.5).

    0 where all are 0; infinite, with the sign of the mean, where all are equal and not 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    centre = float(values.mean()) if values.size else 0.0
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    if spread > 1e-12 * abs(centre):
        return centre / spread
    return 0.0 if centre == 0 else math.copysign(math.inf, centre)


def smallest_effect_seen(n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The |d_z| that a two-sided paired test of n prompts finds with this power (normal approximation)."""
    return _z_sum(alpha, power) / math.sqrt(n) if n > 0 else math.inf


def prompts_needed(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """How many prompts a paired test needs to find an effect of this d_z; None for an effect of 0."""
    return None if effect == 0 else max(2, math.ceil((_z_sum(alpha, power) / abs(effect)) ** 2))


def effect_behind(p_value: float, n: int) -> float:
    """The |d_z| with which a two-sided paired test of n prompts gives this p (normal approximation). 0 for p = 1."""
    return NormalDist().inv_cdf(1 - p_value / 2) / math.sqrt(n)


def _z_sum(alpha: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)


def cluster_means(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Mean of the values of each cluster, clusters in the order in which they first occur."""
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    return [sum(group) / len(group) for group in groups.values()]


@dataclass(frozen=True, kw_only=True)
class Conditioned:
    """What is left of a mean difference when the covariates do not differ: the intercept of a regression on them."""

    effect: Estimate
    p_value: float


def conditioned_difference(
    differences: Sequence[float], covariates: Sequence[Sequence[float]], *, unit: str, seed: int = 0
) -> Conditioned | Unmeasured:
    """Regress paired differences on the paired differences of covariates, and estimate the intercept.

    Args:
        differences: one for each prompt, such as of a score.
        covariates: for each covariate, such as log-length or format compliance, one difference for each prompt.

    The interval has heteroscedasticity-consistent errors HC3 (MacKinnon & White 1985); p flips the signs of the
    residuals of the model without intercept (Freedman & Lane 1983; Winkler et al. 2014). `Unmeasured` where prompts
    are too few or covariates leave the intercept undetermined.
    """
    y = np.asarray(differences, dtype=np.float64)
    moving = [column for column in np.asarray(covariates, dtype=np.float64).reshape(-1, y.size) if column.any()]
    slopes = np.column_stack(moving) if moving else np.zeros((y.size, 0))
    design = np.column_stack([np.ones(y.size), slopes])
    if y.size < design.shape[1] + 3:
        return Unmeasured(reason=f"{y.size} prompts cannot be conditioned on {slopes.shape[1]} covariates")
    inverse = np.linalg.pinv(design)
    reach = inverse[0]
    if abs(reach.sum() - 1) > 1e-6 or (slopes.size and np.abs(reach @ slopes).max() > 1e-6):
        return Unmeasured(reason="the covariates differ by the same amount everywhere")
    intercept = float(reach @ y)
    residuals = y - design @ (inverse @ y)
    leverage = np.minimum(np.einsum("ij,ji->i", design, inverse), 1 - 1e-9)
    error = math.sqrt(float((reach**2) @ (residuals / (1 - leverage)) ** 2))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    effect = Estimate(
        value=intercept, low=intercept - half, high=intercept + half, n=y.size, unit=unit, method="regression, HC3"
    )
    null_residuals = y - slopes @ (np.linalg.pinv(slopes) @ y) if slopes.size else y
    return Conditioned(effect=effect, p_value=permutation_test((reach * null_residuals).tolist(), seed=seed).p_value)

"""Many comparisons at once: false discovery rate over axes and slices, from p-values and from e-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name")


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; rejecting those <= q keeps the false discovery rate at q.

    Benjamini & Hochberg (1995), for tests that are independent or positively dependent.
    """
    return _step_up(p_values, 1.0)


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold under any dependence (Benjamini & Yekutieli 2001, theorem 1.3)."""
    return _step_up(p_values, sum(1 / k for k in range(1, len(p_values) + 1)))


def weighted_benjamini_hochberg(p_values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Adjusted p-values where a hypothesis of twice the weight is given twice the level.

    Benjamini-Hochberg on p / w, the weights above 0 and scaled to a mean of 1 (Genovese, Roeder & Wasserman 2006).
    """
    scaled = np.asarray(weights, dtype=np.float64) / max(1e-300, float(np.sum(weights))) * len(weights)
    return benjamini_hochberg([min(1.0, p / weight) for p, weight in zip(p_values, scaled, strict=True)])


def _step_up(p_values: Sequence[float], factor: float) -> list[float]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.size == 0:
        return []
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a p-value is outside 0..1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * factor * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in adjusted]


def e_benjamini_hochberg(e_values: Mapping[Name, float], *, alpha: float) -> set[Name]:
    """Names whose e-values are rejected at false discovery rate `alpha`, whatever their dependence.

    The k largest, for the largest k with e_(k) >= m / (k alpha) (Wang & Ramdas 2022, definition 1).
    """
    ranked = sorted(e_values.items(), key=lambda item: -item[1])
    kept = 0
    for k, (_, value) in enumerate(ranked, start=1):
        if value >= len(ranked) / (k * alpha):
            kept = k
    return {name for name, _ in ranked[:kept]}


def e_from_p(p_value: float) -> float:
    """An e-value from a p-value: (1 - p + p ln p) / (p ln^2 p), the mixture of k p^(k-1) over k (Vovk & Wang 2021).

    Its expectation under the null is 1. Raises `ValueError` unless 0 < p <= 1.
    """
    if not 0 < p_value <= 1:
        raise ValueError(f"the p-value {p_value} is outside 0..1")
    log_p = math.log(p_value)
    if log_p > -1e-3:  # the formula is 0 / 0 at p = 1; this is its series there
        return 0.5 - log_p / 6
    return (1 - p_value + p_value * log_p) / (p_value * log_p * log_p)

"""Estimates with their doubt, and the tests that compare them.

An `Estimate` never travels without its interval and n. Intervals are two-sided at `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
_Z = 1.959963984540054
"""Standard normal quantile at 0.975, for two-sided 95 % intervals."""

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number, its interval at `LEVEL`, and how many independent observations it rests on.

    `unit` is a word such as "share", "nats", "bits/byte", "words"; `method` names the interval.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str
    method: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return dict(vars(self))

    @staticmethod
    def from_json(data: dict[str, Any]) -> Estimate:
        """Read what `to_json` wrote."""
        return Estimate(**data)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit} (n={self.n})"


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """A measurement that could not be made, and why. A gate on it has not passed."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data, told apart from an `Estimate` by its only key."""
        return {"unmeasured": self.reason}


Measurement = Estimate | Unmeasured


def measurement_from_json(data: dict[str, Any]) -> Measurement:
    """Read an `Estimate` or an `Unmeasured` from its JSON form."""
    if "unmeasured" in data:
        return Unmeasured(reason=data["unmeasured"])
    return Estimate.from_json(data)


def proportion(successes: int, n: int, *, unit: str = "share") -> Estimate | Unmeasured:
    """Estimate a share with the Wilson score interval (Wilson 1927, eq. for p at both roots).

    Returns `Unmeasured` for n = 0. Raises `ValueError` unless 0 <= successes <= n.
    """
    if n == 0:
        return Unmeasured(reason="no observations")
    if not 0 <= successes <= n:
        raise ValueError(f"successes {successes} outside 0..{n}")
    share = successes / n
    z2 = _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Estimate(
        value=share,
        low=max(0.0, centre - half) if successes else 0.0,
        high=min(1.0, centre + half) if successes < n else 1.0,
        n=n,
        unit=unit,
        method="wilson",
    )


def mean(values: Sequence[float], *, unit: str, seed: int = 0) -> Estimate | Unmeasured:
    """Estimate a mean with a percentile bootstrap over the observations (Efron 1979)."""
    return ratio(values, [1.0] * len(values), unit=unit, seed=seed)


def ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, unit: str, seed: int = 0
) -> Estimate | Unmeasured:
    """Estimate sum(numerators) / sum(denominators), resampling the pairs together.

    This is the form of bits per byte: nats and bytes are summed over documents before dividing.
    Returns `Unmeasured` for no observations, a non-finite one, or denominators that sum to nothing.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.size == 0:
        return Unmeasured(reason="no observations")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        return Unmeasured(reason="a non-finite observation")
    if bottom.sum() <= 0:
        return Unmeasured(reason="denominators sum to zero")
    value = float(top.sum() / bottom.sum())
    draws = _bootstrap_ratio(top, bottom, seed)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if draws.size else (value, value)
    return Estimate(value=value, low=float(low), high=float(high), n=top.size, unit=unit, method="bootstrap")


def paired_difference(
    after: Sequence[float], before: Sequence[float], *, unit: str, seed: int = 0
) -> Estimate | Unmeasured:
    """Estimate mean(after - before) over pairs, with a bootstrap over the pairs.

    Raises `ValueError` when the two sides are not the same length: pairing by position is the caller's duty.
    """
    if len(after) != len(before):
        raise ValueError(f"{len(after)} observations cannot be paired with {len(before)}")
    return mean([a - b for a, b in zip(after, before, strict=True)], unit=unit, seed=seed)


def correlation(x: Sequence[float], y: Sequence[float]) -> Estimate | Unmeasured:
    """Estimate Pearson's r with Fisher's z interval (Fisher 1921)."""
    n = len(x)
    if n < 4 or len(y) != n:
        return Unmeasured(reason=f"a correlation needs at least 4 pairs, found {min(n, len(y))}")
    if np.std(x) == 0 or np.std(y) == 0:
        return Unmeasured(reason="one side of the correlation is constant")
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))
    z = math.atanh(max(min(r, 1 - 1e-12), -1 + 1e-12))
    half = _Z / math.sqrt(n - 3)
    return Estimate(
        value=r, low=math.tanh(z - half), high=math.tanh(z + half), n=n, unit="correlation", method="fisher-z"
    )


def _bootstrap_ratio(top: np.ndarray, bottom: np.ndarray, seed: int) -> np.ndarray:
    """Draw `BOOTSTRAP_DRAWS` resampled ratios, in blocks so that memory stays below about 64 MB."""
    if top.size < 2:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // top.size)
    is_mean = bool((bottom == 1).all())
    draws: list[np.ndarray] = []
    for start in range(0, BOOTSTRAP_DRAWS, block):
        picks = rng.integers(0, top.size, size=(min(block, BOOTSTRAP_DRAWS - start), top.size))
        sums = np.full(len(picks), float(top.size)) if is_mean else bottom[picks].sum(axis=1)
        draws.append(top[picks].sum(axis=1)[sums > 0] / sums[sums > 0])
    return np.concatenate(draws)

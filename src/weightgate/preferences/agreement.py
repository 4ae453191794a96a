"""Do annotators agree beyond chance? Krippendorff's alpha, Cohen's and Fleiss' kappa, and the noise that follows.

All are nominal over the outcomes "one text wins", "the other wins", "tie", of the unordered pair: two annotators who
saw the answers in different order still agree. Ties are an outcome of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.bias import clustered_share
from weightgate.preferences.table import Table
from weightgate.stats import LEVEL, Estimate, Measurement, Unmeasured

Counts = NDArray[np.float64]
_DRAWS = 500
_LEAST_SHARED = 15


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far annotators agree.

    `raw` is the share of agreeing pairs of votes on one item; `noise` the flip rate that this implies for two equally
    good annotators, `ceiling` the accuracy that no model can exceed against one such vote; `cohen` the kappas of pairs
    of annotators with enough items in common; `fleiss` only where every item has as many votes.
    """

    items: int
    votes: int
    alpha: Measurement
    raw: Measurement
    fleiss: Measurement
    noise: Measurement
    cohen: tuple[tuple[str, str, int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        names = ("alpha", "raw", "fleiss", "noise")
        measured = {name: getattr(self, name).to_json() for name in names}
        cohen = [{"annotators": [a, b], "items": n, "kappa": kappa} for a, b, n, kappa in self.cohen]
        return {"items": self.items, "votes": self.votes, **measured, "cohen": cohen, "ties": "an outcome of their own"}


def agreement_of(table: Table) -> Agreement:
    """Measure agreement on the items that several votes judged."""
    counts, prompts = _counts(table)
    several = counts.sum(axis=1) >= 2
    counts, prompts = counts[several], prompts[several]
    reason = Unmeasured(reason="no pair of answers was judged by two votes")
    if not len(counts):
        return Agreement(items=0, votes=0, alpha=reason, raw=reason, fleiss=reason, noise=reason, cohen=())
    raw = _raw(counts, prompts)
    return Agreement(
        items=len(counts),
        votes=int(counts.sum()),
        alpha=_alpha_interval(counts, prompts),
        raw=raw,
        fleiss=fleiss_kappa(counts),
        noise=_noise(raw),
        cohen=tuple(_cohen(table)),
    )


def krippendorff_alpha(counts: Counts) -> float:
    """Nominal alpha (Krippendorff 2011) of how often each class was given to each unit: (units, classes).

    Units with one value say nothing and count nothing. NaN where there are fewer than two values, 1 where all values
    are of one class.
    """
    sizes = counts.sum(axis=1)
    counts, sizes = counts[sizes >= 2], sizes[sizes >= 2]
    totals = counts.sum(axis=0)
    n = totals.sum()
    if n < 2:
        return math.nan
    agreeing = (counts * (counts - 1) / (sizes - 1)[:, None]).sum()
    expected = n * n - (totals**2).sum()
    if expected == 0:
        return 1.0
    return float(1 - (n - 1) * (n - agreeing) / expected)


def fleiss_kappa(counts: Counts) -> Measurement:
    """Fleiss' kappa (1971, eq. 1 to 5) with its value as the interval: alpha carries the doubt."""
    sizes = counts.sum(axis=1)
    if len(set(sizes.tolist())) != 1:
        return Unmeasured(reason="not every pair of answers has as many votes, which Fleiss' kappa needs")
    m = float(sizes[0])
    observed = float(((counts**2).sum(axis=1) - m).sum() / (len(counts) * m * (m - 1)))
    shares = counts.sum(axis=0) / counts.sum()
    expected = float((shares**2).sum())
    if expected == 1:
        return Unmeasured(reason="all votes are the same")
    kappa = (observed - expected) / (1 - expected)
    return Estimate(value=kappa, low=kappa, high=kappa, n=len(counts), unit="kappa", method="no interval")


def cohen_kappa(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Cohen's kappa (1960) of two annotators' outcomes on the same items; NaN where chance alone would agree fully."""
    classes = np.union1d(one, other)
    observed = float((one == other).mean())
    expected = sum(float((one == value).mean() * (other == value).mean()) for value in classes)
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def _counts(table: Table) -> tuple[Counts, NDArray[np.int32]]:
    """How often each outcome was given to each item (items, 3), and the prompt of each item."""
    items = int(table.item.max(initial=-1)) + 1
    flat = table.item * 3 + (table.agreed + 1)
    prompts = np.zeros(items, dtype=np.int32)
    prompts[table.item] = table.prompt
    return np.bincount(flat, minlength=3 * items).reshape(items, 3).astype(np.float64), prompts


def _alpha_interval(counts: Counts, prompts: NDArray[np.int32]) -> Measurement:
    """Alpha with a percentile bootstrap over prompts.

    Which text of an item counts as the first is arbitrary, so classes are made alike: each item counts in both orders.
    """
    mirrored = np.concatenate([counts, counts[:, ::-1]])
    value = krippendorff_alpha(mirrored)
    _, number = np.unique(prompts, return_inverse=True)
    groups = int(number.max()) + 1
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS if len(counts) <= 50_000 else 50):
        weights = np.bincount(rng.integers(0, groups, groups), minlength=groups)[number.reshape(-1)]
        draws.append(_weighted_alpha(mirrored, np.concatenate([weights, weights])))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=value, low=float(low), high=float(high), n=len(counts), unit="alpha", method="bootstrap by prompt"
    )


def _weighted_alpha(counts: Counts, weights: NDArray[np.intp]) -> float:
    sizes = counts.sum(axis=1)
    totals = (counts * weights[:, None]).sum(axis=0)
    n = totals.sum()
    agreeing = ((counts * (counts - 1)).sum(axis=1) / (sizes - 1) * weights).sum()
    expected = n * n - (totals**2).sum()
    return 1.0 if expected == 0 else float(1 - (n - 1) * (n - agreeing) / expected)


def _raw(counts: Counts, prompts: NDArray[np.int32]) -> Measurement:
    """Share of agreeing pairs of votes, the mean over items."""
    sizes = counts.sum(axis=1)
    return clustered_share((counts * (counts - 1)).sum(axis=1) / (sizes * (sizes - 1)), prompts)


def _noise(raw: Measurement) -> Measurement:
    """The flip rate e with raw agreement (1 - e)^2 + e^2: e = (1 - sqrt(2 raw - 1)) / 2."""
    if isinstance(raw, Unmeasured) or raw.value <= 0.5:
        return Unmeasured(reason="two votes on one item agree no more often than coins")
    ends = [(1 - math.sqrt(max(0.0, 2 * share - 1))) / 2 for share in (raw.value, raw.high, raw.low)]
    return Estimate(value=ends[0], low=ends[1], high=ends[2], n=raw.n, unit="share", method="from raw agreement")


def _cohen(table: Table, most: int = 45) -> list[tuple[str, str, int, float]]:
    """Kappa of each pair of annotators with enough items in common, of the `most` busiest pairs at the most."""
    votes: dict[int, dict[int, int]] = {}
    for annotator, item, outcome in zip(
        table.annotator.tolist(), table.item.tolist(), table.agreed.tolist(), strict=True
    ):
        if annotator >= 0:
            votes.setdefault(annotator, {})[item] = outcome
    busiest = sorted(votes, key=lambda annotator: -len(votes[annotator]))[:40]
    found = []
    for one, other in combinations(sorted(busiest), 2):
        shared = votes[one].keys() & votes[other].keys()
        if len(shared) >= _LEAST_SHARED:
            sides = [np.array([votes[who][item] for item in shared], dtype=np.int32) for who in (one, other)]
            kappa = cohen_kappa(np.concatenate([sides[0], -sides[0]]), np.concatenate([sides[1], -sides[1]]))
            found.append((table.annotators[one], table.annotators[other], len(shared), kappa))
    return sorted(found, key=lambda row: -row[2])[:most]

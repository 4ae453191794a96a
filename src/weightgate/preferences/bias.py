"""What predicts the winner without reading: each driver alone, and at equal length and manners.

Alone: among the pairs in which exactly one answer has it, how often that one won. At equal length: the slope of a
logistic model of all drivers together, in which the length enters twice, as a step (longer or not) and on a log scale,
because judges who go by length go by either. Intervals and tests let votes of one prompt hang together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.content import folds_of
from weightgate.preferences.drivers import DRIVERS, LENGTH, NAMES, POSITION
from weightgate.preferences.logistic import Floats, Slopes, auc, fit_slopes, half_width, sigmoid, two_sided
from weightgate.preferences.table import Table
from weightgate.stats import Estimate, Measurement, Unmeasured, benjamini_hochberg

LEAST_PAIRS = 30
"""A driver in which fewer pairs differ is left out: nothing could be said of it at equal length."""

ALPHA = 0.01
LEAST_POINTS = 0.03
"""A bias is reported when its adjusted p is at most `ALPHA` and both its shares lie so far on one side of one half."""

WORDS: Mapping[str, str] = {driver.name: driver.words for driver in DRIVERS} | {POSITION: "the answer shown first"}
"""Name of a driver -> what an answer is called that has it."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One driver: how often the answer that has it wins.

    `pairs` are those in which the driver differs. `alone` is the plain share, `equal` the share at equal length and
    manners; `adjusted_p` tests whether the latter is one half, corrected over the drivers.
    """

    driver: str
    pairs: int
    alone: Measurement
    equal: Measurement
    adjusted_p: float = 1.0
    reported: bool = False

    @property
    def words(self) -> str:
        """What an answer that has it is called."""
        return WORDS[self.driver]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        measured = {"alone": self.alone.to_json(), "equal": self.equal.to_json()}
        return {**vars(self), **measured, "words": self.words}


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Differences of the drivers, winner minus loser: (n, columns), with the contrast that speaks for each driver."""

    columns: Floats
    names: tuple[str, ...]
    contrasts: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the drivers say together: their effects, and how well they foretell the winner of pairs they never saw."""

    effects: tuple[Effect, ...]
    pairs: int
    accuracy: Measurement
    auc: Measurement
    length_slope: Measurement

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "pairs": self.pairs,
            "accuracy": self.accuracy.to_json(),
            "auc": self.auc.to_json(),
            "length_slope": self.length_slope.to_json(),
            "effects": [effect.to_json() for effect in self.effects],
        }


def style_of(table: Table) -> Style:
    """Measure every driver on the decided votes."""
    kept = np.flatnonzero(table.decided)
    design = design_of(table, kept)
    clusters = table.prompt[kept]
    nothing = Unmeasured(reason="no vote names a winner whose answer differs in any driver")
    if not design.names:
        return Style(effects=(), pairs=len(kept), accuracy=nothing, auc=nothing, length_slope=nothing)
    slopes = fit_slopes(design.columns, clusters)
    effects = [_effect(table, kept, name, slopes, design) for name in design.contrasts]
    margins = _held_out_margins(design.columns, folds_of(clusters))
    return Style(
        effects=_judged(effects, slopes, design),
        pairs=len(kept),
        accuracy=clustered_share((margins > 0) + 0.5 * (margins == 0), clusters),
        auc=Estimate(**_auc_interval(margins, clusters)),
        length_slope=_length_slope(table, kept),
    )


def design_of(table: Table, kept: NDArray[np.intp], names: tuple[str, ...] | None = None) -> Design:
    """Differences of the drivers that differ in enough of the kept votes, or of exactly those that are named."""
    found: dict[str, Floats] = {}
    for name in (*NAMES, POSITION):
        column = difference_of(table, name)[kept]
        wanted = name in names if names is not None else np.count_nonzero(column) >= LEAST_PAIRS
        if wanted and (names is not None or name != POSITION or np.abs(column).sum() > 0):
            found[name] = column
    contrasts = {}
    columns: list[Floats] = []
    for name, column in found.items():
        spread = typical_length_gap(column) if name == LENGTH else 1.0
        own = [np.sign(column), column / spread] if name == LENGTH else [column]
        contrasts[name] = np.arange(len(columns), len(columns) + len(own))
        columns += own
    total = len(columns)
    return Design(
        columns=np.stack(columns, axis=1) if columns else np.zeros((len(kept), 0)),
        names=tuple(found),
        contrasts={name: np.isin(np.arange(total), at).astype(np.float64) for name, at in contrasts.items()},
    )


def typical_length_gap(column: Floats) -> float:
    """Median size of the differences in log length that are not 0; the length effect is told for such a pair."""
    moved = np.abs(column[column != 0])
    return float(np.median(moved)) if moved.size else 1.0


def difference_of(table: Table, name: str) -> Floats:
    """A driver, or the position, of the winner minus that of the loser."""
    if name == POSITION:
        return np.asarray(table.shown * np.where(table.sign < 0, -1, 1), dtype=np.float64)
    return table.difference(name)


def _effect(table: Table, kept: NDArray[np.intp], name: str, slopes: Slopes, design: Design) -> Effect:
    moved = np.sign(difference_of(table, name)[kept])
    pairs = int(np.count_nonzero(moved))
    value, error = slopes.contrast(design.contrasts[name])
    ends = sigmoid(np.array([value - half_width(error), value, value + half_width(error)]))
    equal = Estimate(
        value=float(ends[1]),
        low=float(ends[0]),
        high=float(ends[2]),
        n=pairs,
        unit="share",
        method="logistic, by prompt",
    )
    inside = moved != 0
    alone = clustered_share((moved[inside] > 0).astype(np.float64), table.prompt[kept][inside])
    return Effect(driver=name, pairs=pairs, alone=alone, equal=equal)


def _judged(effects: list[Effect], slopes: Slopes, design: Design) -> tuple[Effect, ...]:
    """Correct over the drivers, and report those that are sure and not tiny, alone as well as at equal manners."""
    p_values = [two_sided(*slopes.contrast(design.contrasts[effect.driver])) for effect in effects]
    judged = []
    for effect, p in zip(effects, benjamini_hochberg(p_values), strict=True):
        leads = [_lead(effect.alone), _lead(effect.equal)]
        reported = p <= ALPHA and (min(leads) >= LEAST_POINTS or max(leads) <= -LEAST_POINTS)
        judged.append(replace(effect, adjusted_p=p, reported=reported))
    return tuple(judged)


def _lead(share: Measurement) -> float:
    return share.value - 0.5 if isinstance(share, Estimate) else 0.0


def _held_out_margins(columns: Floats, folds: NDArray[np.int32]) -> Floats:
    margins = np.zeros(len(columns))
    for fold in np.unique(folds):
        inside = folds == fold
        margins[inside] = (
            columns[inside] @ fit_slopes(columns[~inside], np.arange(int((~inside).sum()), dtype=np.int32)).beta
        )
    return margins


def clustered_share(values: Floats, clusters: NDArray[np.int32]) -> Measurement:
    """Mean of values in 0..1 whose interval lets the values of one cluster hang together.

    The interval is Wilson's (1927) with n divided by the design effect of the clusters (Kish 1965, section 5.4).
    """
    n = len(values)
    if n == 0:
        return Unmeasured(reason="no observations")
    share = float(values.mean())
    _, number = np.unique(clusters, return_inverse=True)
    sums = np.bincount(number.reshape(-1), weights=values - share)
    plain = n * share * (1 - share)
    effect = max(1.0, float(sums @ sums) / plain) if plain > 0 else 1.0
    z = half_width(1.0)
    size = n / effect
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * float(np.sqrt(share * (1 - share) / size + z * z / (4 * size * size)))
    return Estimate(
        value=share,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
        n=n,
        unit="share",
        method="wilson, by prompt",
    )


def _auc_interval(margins: Floats, clusters: NDArray[np.int32], draws: int = 200) -> dict[str, Any]:
    """The area under the curve with a bootstrap over prompts, of at most 20,000 pairs."""
    value = auc(margins)
    rng = np.random.default_rng(0)
    names, number = np.unique(clusters, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(names) + 1))
    draws = draws if len(margins) <= 20_000 else 20
    found = []
    for _ in range(draws):
        picked = rng.integers(0, len(names), len(names))
        lengths = starts[picked + 1] - starts[picked]
        at = np.repeat(starts[picked] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(
            lengths.sum()
        )
        found.append(auc(margins[order[at]]))
    error = float(np.std(found))
    return {
        "value": value,
        "low": max(0.0, value - half_width(error)),
        "high": min(1.0, value + half_width(error)),
        "n": len(margins),
        "unit": "AUC",
        "method": "bootstrap by prompt",
    }


def _length_slope(table: Table, kept: NDArray[np.intp]) -> Measurement:
    """Bradley-Terry slope per standard deviation of the difference in log1p characters, length alone."""
    column = table.difference(LENGTH)[kept]
    spread = float(column.std())
    if spread == 0:
        return Unmeasured(reason="all answers of a pair are equally long")
    value, error = fit_slopes(column[:, None] / spread, table.prompt[kept]).contrast(np.ones(1))
    return Estimate(
        value=value,
        low=value - half_width(error),
        high=value + half_width(error),
        n=len(kept),
        unit="logits per SD",
        method="logistic, by prompt",
    )

"""What two recordings show, as one vector of named numbers: the input of the triage.

Every number is the same whichever side comes first, so the triage cannot learn an order that a user may not keep.
| name | from |
|---|---|
| `shift.<style>` | mean difference over prompts in standard deviations of the differences (Cohen's d_z) |
| `beyond.<style>` | the same at equal length: the intercept of a regression on the difference of log-length |
| `along.<style>` | correlation over prompts: do both sides write long, list or hedge on the same prompts? |
| `length.*` | distance of the two length distributions, and of their tails; spread of the per-prompt ratio, its tilt |
| `spread.<style>` | |logarithm| of the ratio of the two sides' spreads over prompts: does one side vary more? |
| `same.*`, `other.*`, `layout.same`, `*.distance` | `weightgate.diff.agreement` |

Shifts enter as the square root of their size: that 0 became 0.1 says more than that 1.0 became 1.1.
"""

from __future__ import annotations

import numpy as np

from weightgate.diff.agreement import AGREEMENT_FEATURES
from weightgate.diff.features import STYLE_FEATURES

_LENGTH = STYLE_FEATURES.index("words")
_SPREAD_FEATURES = ("words", "type_token", "words_per_sentence", "lines", "characters_per_word")
_SPREAD_COLUMNS = [STYLE_FEATURES.index(name) for name in _SPREAD_FEATURES]
_LEAST_SPREAD = 0.02
_SHIFT_CAP = 3.0
"""Differences that are the same on every prompt have no spread; beyond so many deviations more says nothing."""

EVIDENCE: tuple[str, ...] = (
    *(f"shift.{name}" for name in STYLE_FEATURES),
    *(f"beyond.{name}" for name in STYLE_FEATURES),
    *(f"along.{name}" for name in STYLE_FEATURES),
    "length.distance",
    "length.spread",
    "length.one_sided",
    "length.top",
    "length.bottom",
    "length.longest",
    "length.tilt",
    *(f"spread.{name}" for name in _SPREAD_FEATURES),
    *AGREEMENT_FEATURES,
)
"""Names of the evidence, in the order in which the triage model reads it."""


def evidence(style_a: np.ndarray, style_b: np.ndarray, agreed: dict[str, float]) -> dict[str, float]:
    """Return the evidence of two sides, paired by row.

    `style_a` and `style_b` are (prompts, features) as `style_matrix` returns them, averaged over the samples of a
    prompt; `agreed` is what `agreement` returns. Raises `ValueError` where the shapes differ.
    """
    if style_a.shape != style_b.shape:
        raise ValueError(f"{style_a.shape} answers cannot be paired with {style_b.shape}")
    length_a, length_b = style_a[:, _LENGTH], style_b[:, _LENGTH]
    values = (
        *np.sqrt(np.abs(standardised_shift(style_b - style_a))),
        *np.sqrt(np.abs(shift_at_equal_length(style_b - style_a))),
        *correlation_by_column(style_a, style_b),
        _cumulative_distance(length_a, length_b),
        float(np.std(length_b - length_a)),
        float(abs(np.mean(np.sign(length_b - length_a)))),
        *_tails(length_a, length_b),
        _tilt(length_a, length_b),
        *_spreads(style_a, style_b),
        *(agreed[name] for name in AGREEMENT_FEATURES),
    )
    return dict(zip(EVIDENCE, map(float, values), strict=True))


def _tails(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """How far the 95th and 5th percentiles move against the median, and the 95th at all: a limit cuts the longest."""
    low, middle, high = np.quantile(b, (0.05, 0.5, 0.95)) - np.quantile(a, (0.05, 0.5, 0.95))
    return abs(high - middle), abs(low - middle), abs(high)


def _tilt(a: np.ndarray, b: np.ndarray) -> float:
    """|correlation| of the difference of lengths with their mean: an order to be brief shortens long answers most."""
    return float(abs(correlation_by_column((b - a)[:, None], (a + b)[:, None])[0]))


def _spreads(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = (side[:, _SPREAD_COLUMNS].std(axis=0) + _LEAST_SPREAD for side in (a, b))
    apart: np.ndarray = np.abs(np.log(right) - np.log(left))
    return apart


def standardised_shift(differences: np.ndarray) -> np.ndarray:
    """Return mean over standard deviation of each column of (prompts, features), within -3..3; 0 for no difference."""
    mean, spread = differences.mean(axis=0), differences.std(axis=0)
    moved = np.abs(mean) > 1e-12
    ratio = np.where(moved, mean / np.where(spread > 1e-12, spread, 1e-12), 0.0)
    return np.clip(ratio, -_SHIFT_CAP, _SHIFT_CAP)


def shift_at_equal_length(differences: np.ndarray) -> np.ndarray:
    """Return what is left of each column's shift where both answers are equally long, in residual deviations.

    The intercept of an ordinary regression of the column on the difference of log-length; 0 for length itself.
    """
    longer = differences[:, _LENGTH]
    design = np.column_stack([np.ones(len(longer)), longer])
    coefficients = np.linalg.pinv(design) @ differences
    spread = (differences - design @ coefficients).std(axis=0)
    intercept = np.where(np.abs(coefficients[0]) > 1e-9, coefficients[0], 0.0)
    ratio = np.where(intercept != 0, intercept / np.where(spread > 1e-9, spread, 1e-9), 0.0)
    ratio[_LENGTH] = 0.0
    return np.clip(ratio, -_SHIFT_CAP, _SHIFT_CAP)


def correlation_by_column(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Pearson's r of each column of two (prompts, features) arrays; 0 where a side is constant."""
    left, right = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    return np.where(scale > 1e-12, (left * right).sum(axis=0) / np.where(scale > 1e-12, scale, 1.0), 0.0)


def _cumulative_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of the two empirical distribution functions (Kolmogorov-Smirnov statistic)."""
    points = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (a, b)]
    return float(np.max(np.abs(below[0] - below[1])))

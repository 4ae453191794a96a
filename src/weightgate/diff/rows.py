"""One row for each thing that two recordings can differ in: its effect, its doubt, and what explains it.

| kind | name | values, one for each prompt |
|---|---|---|
| axis | `<axis>.<metric>` | mean score of the checks with that metric |
| topic | `<axis>.<topic>.<metric>` | the same for one topic |
| diversity | `<axis>.diversity` | expectation-adjusted distinct bigrams among the samples of a prompt |
| style | `style.<feature>` | `weightgate.diff.features`, mean over the samples |

Scores are conditioned twice. Read leniently, the right answer anywhere in the completion counts, whatever wraps it: a
score that moves only when read strictly is a change of format. At equal length, what is left when both answers are
equally long is tested: a score that moves only with length is a change of length.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from weightgate.diff.features import STYLE_FEATURES
from weightgate.diff.pairing import Pair
from weightgate.probe.measure import expectation_adjusted_distinct
from weightgate.probe.probes import Check
from weightgate.probe.scorers import score
from weightgate.stats import (
    Conditioned,
    Estimate,
    PairedTest,
    Unmeasured,
    cluster_means,
    conditioned_difference,
    effect_size,
    paired_difference,
    permutation_test,
    sign_test,
)
from weightgate.stats.paired import PERMUTATION_DRAWS, flipped_sums

Kind = Literal["axis", "topic", "diversity", "style"]
LEAST_PROMPTS = 5
"""Fewer prompts cannot reach 0.05 two-sided, whatever they say, so such a row is left out."""

_LENGTH = STYLE_FEATURES.index("words")
_STRICT = frozenset({"equals", "starts"})
_SHORTENS = frozenset({"refuses", "answers"})
"""Declining makes an answer short, not the other way round, so length explains none of it."""

_POSSIBLE_BIGRAMS = 10_000
_HALF = 0.5
"""An explanation must take away at least half of the effect."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One difference. `effect` is after minus before, a mean over prompts; `size` the same in deviations (d_z).

    `adjusted_p` is corrected over all rows of the comparison. `lenient` is the effect under lenient
    reading and `conditioned` that at equal length, where they apply; `explained_by` says which of them takes the effect
    away. `differences` are (prompts of this row,), `positions` which pairs they belong to.
    """

    name: str
    kind: Kind
    before: float
    after: float
    effect: Estimate
    size: float
    test: PairedTest
    adjusted_p: float = 1.0
    changed: bool = False
    lenient: Estimate | None = None
    conditioned: Conditioned | None = None
    explained_by: Literal["", "format", "length"] = ""
    differences: tuple[float, ...] = ()
    positions: tuple[int, ...] = ()

    @property
    def is_headline(self) -> bool:
        """Whether the row is a whole axis rather than a slice of one or a trait of style."""
        return self.kind in ("axis", "diversity")

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the single differences."""
        return {
            "name": self.name,
            "kind": self.kind,
            "before": self.before,
            "after": self.after,
            "effect": self.effect.to_json(),
            "size": self.size if math.isfinite(self.size) else None,
            "p_value": self.test.p_value,
            "adjusted_p": self.adjusted_p,
            "rose": self.test.rose,
            "fell": self.test.fell,
            "changed": self.changed,
            "lenient": self.lenient.to_json() if self.lenient else None,
            "at_equal_length": self.conditioned.effect.to_json() if self.conditioned else None,
            "explained_by": self.explained_by,
        }


@dataclass(frozen=True, kw_only=True)
class _Values:
    """Strict and lenient values of one row, before and after, and the pairs they belong to."""

    positions: list[int]
    before: list[float]
    after: list[float]
    lenient_before: list[float]
    lenient_after: list[float]
    types: set[str]

    @staticmethod
    def empty() -> _Values:
        return _Values(positions=[], before=[], after=[], lenient_before=[], lenient_after=[], types=set())


def score_rows(pairs: Sequence[Pair], longer: np.ndarray, *, alpha: float, seed: int) -> Iterator[Row]:
    """Yield the rows of scored checks and of diversity; `longer` (pairs,) is the difference of log-length."""
    for (kind, name), values in _score_values(pairs).items():
        if len(values.positions) >= LEAST_PROMPTS:
            yield _explained(_score_row(kind, name, values, pairs, longer, seed), alpha)
    yield from _diversity_rows(pairs, seed)


def style_rows(before: np.ndarray, after: np.ndarray, *, seed: int) -> list[Row]:
    """Return one row for each style feature that differs anywhere. Both sides are (pairs, features)."""
    differences = after - before
    moving = np.flatnonzero(differences.any(axis=0))
    if len(differences) < LEAST_PROMPTS or not len(moving):
        return []
    scaled = differences[:, moving] / np.sqrt((differences[:, moving] ** 2).sum(axis=0))
    drawn = flipped_sums(scaled, seed=seed, draws=PERMUTATION_DRAWS)
    p_values = _permutation_p(np.abs(scaled.sum(axis=0)), np.abs(drawn))
    return [
        _style_row(STYLE_FEATURES[at], before[:, at], after[:, at], float(p))
        for at, p in zip(moving, p_values, strict=True)
    ]


def _permutation_p(observed: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(1 + hits) / (1 + draws) for each column (Phipson & Smyth 2010, eq. 2)."""
    hits: np.ndarray = (1 + (drawn >= observed * (1 - 1e-9)).sum(axis=0)) / (1 + len(drawn))
    return hits


def _style_row(name: str, before: np.ndarray, after: np.ndarray, p_value: float) -> Row:
    column = after - before
    return Row(
        name=f"style.{name}",
        kind="style",
        before=float(before.mean()),
        after=float(after.mean()),
        effect=_normal_interval(column),
        size=effect_size(column.tolist()),
        test=PairedTest(
            p_value=p_value,
            rose=int((column > 0).sum()),
            fell=int((column < 0).sum()),
            n=len(column),
            method="permutation",
        ),
        differences=tuple(column.tolist()),
        positions=tuple(range(len(column))),
    )


def _normal_interval(column: np.ndarray) -> Estimate:
    """Mean with +- 1.96 standard errors: dozens of columns over thousands of prompts are too many to bootstrap."""
    centre, half = float(column.mean()), 1.96 * float(column.std(ddof=1)) / math.sqrt(len(column))
    return Estimate(
        value=centre, low=centre - half, high=centre + half, n=len(column), unit="difference", method="normal"
    )


def _score_values(pairs: Sequence[Pair]) -> dict[tuple[Kind, str], _Values]:
    found: dict[tuple[Kind, str], _Values] = defaultdict(_Values.empty)
    for position, pair in enumerate(pairs):
        for check in pair.probe.checks:
            strict = [_mean_score(check, texts) for texts in (pair.before, pair.after)]
            wide = lenient_check(check)
            lenient = [_mean_score(wide, texts) for texts in (pair.before, pair.after)] if wide else strict
            axis, topic = pair.probe.axis, pair.probe.topic
            names: tuple[tuple[Kind, str], ...] = (
                ("axis", f"{axis}.{check.metric}"),
                ("topic", f"{axis}.{topic}.{check.metric}"),
            )
            for key in names:
                values = found[key]
                values.types.add(check.type)
                values.positions.append(position)
                values.before.append(strict[0])
                values.after.append(strict[1])
                values.lenient_before.append(lenient[0])
                values.lenient_after.append(lenient[1])
    return _without_only_slices(found)


def _without_only_slices(found: dict[tuple[Kind, str], _Values]) -> dict[tuple[Kind, str], _Values]:
    """Drop topics that hold all prompts of their axis: the same row twice would count twice in the correction."""
    whole = {tuple(values.positions) for (kind, _), values in found.items() if kind == "axis"}
    return {key: values for key, values in found.items() if key[0] == "axis" or tuple(values.positions) not in whole}


def lenient_check(check: Check) -> Check | None:
    """The same check with the answer allowed anywhere in the completion; None where it is lenient already."""
    return replace(check, type="contains") if check.type in _STRICT else None


def _mean_score(check: Check, texts: Sequence[str]) -> float:
    return sum(score(check, text) for text in texts) / len(texts)


def _score_row(kind: Kind, name: str, values: _Values, pairs: Sequence[Pair], longer: np.ndarray, seed: int) -> Row:
    questions = [pairs[at].question for at in values.positions]
    differences = cluster_means(np.subtract(values.after, values.before).tolist(), questions)
    lenient = cluster_means(np.subtract(values.lenient_after, values.lenient_before).tolist(), questions)
    lengths = cluster_means(longer[values.positions].tolist(), questions)
    conditioned = (
        None if values.types & _SHORTENS else conditioned_difference(differences, [lengths], unit="share", seed=seed)
    )
    return Row(
        name=name,
        kind=kind,
        before=float(np.mean(values.before)),
        after=float(np.mean(values.after)),
        effect=_estimated(differences, seed),
        size=effect_size(differences),
        test=tested(differences, seed),
        lenient=_estimated(lenient, seed) if lenient != differences else None,
        conditioned=conditioned if isinstance(conditioned, Conditioned) else None,
        differences=tuple(np.subtract(values.after, values.before).tolist()),
        positions=tuple(values.positions),
    )


def tested(differences: Sequence[float], seed: int) -> PairedTest:
    """Exact McNemar where every difference is -1, 0 or 1, else the sign-flip permutation test."""
    if all(value in (-1.0, 0.0, 1.0) for value in differences):
        return sign_test(differences)
    return permutation_test(differences, seed=seed)


def _estimated(differences: Sequence[float], seed: int) -> Estimate:
    found = paired_difference(differences, [0.0] * len(differences), unit="share", seed=seed)
    if isinstance(found, Unmeasured):
        raise ValueError(found.reason)
    return found


def _explained(row: Row, alpha: float) -> Row:
    """Name what takes the effect away; the row's own significance is decided later, over all rows."""
    if row.lenient is not None and _is_gone(row.lenient, row.effect):
        return replace(row, explained_by="format")
    if row.conditioned and row.conditioned.p_value > alpha and _is_gone(row.conditioned.effect, row.effect):
        return replace(row, explained_by="length")
    return row


def _is_gone(left: Estimate, whole: Estimate) -> bool:
    return left.low <= 0 <= left.high and abs(left.value) <= _HALF * abs(whole.value)


def _diversity_rows(pairs: Sequence[Pair], seed: int) -> Iterator[Row]:
    """Diversity is a property of each prompt: pooled over prompts it can rise while every prompt collapses."""
    by_axis: dict[str, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        if len(pair.before) >= 2:
            by_axis[pair.probe.axis].append(position)
    for axis, positions in by_axis.items():
        if len(positions) >= LEAST_PROMPTS:
            before = [_diversity(pairs[at].before) for at in positions]
            after = [_diversity(pairs[at].after) for at in positions]
            differences = np.subtract(after, before).tolist()
            yield Row(
                name=f"{axis}.diversity",
                kind="diversity",
                before=float(np.mean(before)),
                after=float(np.mean(after)),
                effect=_estimated(differences, seed),
                size=effect_size(differences),
                test=tested(differences, seed),
                differences=tuple(differences),
                positions=tuple(positions),
            )


def _diversity(texts: Sequence[str]) -> float:
    return expectation_adjusted_distinct(texts, _POSSIBLE_BIGRAMS)

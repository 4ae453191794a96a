"""Who judges how well: Dawid and Skene's error rates, skill and left/right bias, drift, and hurry.

Ties name no winner and are left out here; how many there were stands in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.logistic import Floats, Ints, fit_slopes, half_width, sigmoid, two_sided
from weightgate.preferences.table import Table
from weightgate.stats import Estimate, Measurement, Unmeasured, benjamini_hochberg

LEAST_SHARED = 15
"""Votes on items that others judged too, below which nothing is said of an annotator."""

_ROUNDS = 60
_SMOOTH = 0.5
_ALPHA = 0.01
_LEAST_GAP = 0.08
_LEAST_TIMED = 80
_HURRY = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Consensus:
    """What the votes on each item amount to once annotators are weighed.

    `truth` is the probability, per item, that its first text wins; `errors` the error rate of each annotator,
    `trust` the log-odds that a vote of theirs carries.
    """

    truth: Floats
    errors: Floats
    trust: Floats


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One annotator.

    Args:
        error_rate: share of votes against the truth that all votes together imply.
        agreement: share of votes that agree with the others' weighed vote on the same item.
        skill: slope of the noisy Bradley-Terry model on the others' log-odds, 1 for somebody as sure as they are.
        first_bias: how often they would take the answer shown first between two that are equally good.
        differs: whether the agreement lies below everybody else's beyond chance.
        drift: p-value of a change of their agreement over time, corrected over annotators.
        seconds: median time of a vote.
    """

    name: str
    votes: int
    shared: int
    error_rate: Measurement
    agreement: Measurement
    skill: Measurement
    first_bias: Measurement
    adjusted_p: float = 1.0
    differs: bool = False
    drift: float = 1.0
    seconds: float | None = None
    hurried: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        names = ("error_rate", "agreement", "skill", "first_bias")
        return {**vars(self), **{name: getattr(self, name).to_json() for name in names}}


def dawid_skene(
    items: Ints, annotators: Ints, labels: Ints, classes: int, *, rounds: int = _ROUNDS
) -> tuple[Floats, Floats]:
    """Estimate truths and confusion matrices by expectation maximisation (Dawid & Skene 1979, eq. 2.3 to 2.5).

    Args:
        items, annotators, labels: one entry for each vote, numbered from 0.

    Returns the probabilities of the classes of each item (items, classes) and of the labels that each annotator gives
    to each true class (annotators, true class, label). Starts from vote shares; counts are smoothed by 0.5.
    """
    num_items, num_annotators = int(items.max()) + 1, int(annotators.max()) + 1
    truth = np.zeros((num_items, classes))
    np.add.at(truth, (items, labels), 1.0)
    truth /= truth.sum(axis=1, keepdims=True)
    confusion = np.zeros((num_annotators, classes, classes))
    for _ in range(rounds):
        confusion = np.full((num_annotators, classes, classes), _SMOOTH)
        for label in range(classes):
            given = labels == label
            np.add.at(confusion[:, :, label], annotators[given], truth[items[given]])
        confusion /= confusion.sum(axis=2, keepdims=True)
        logits = np.tile(np.log(truth.mean(axis=0) + 1e-12), (num_items, 1))
        np.add.at(logits, items, np.log(confusion[annotators, :, labels]))
        truth = np.exp(logits - logits.max(axis=1, keepdims=True))
        truth /= truth.sum(axis=1, keepdims=True)
    return truth, confusion


def consensus_of(items: Ints, annotators: Ints, outcomes: Ints, num_annotators: int) -> Consensus:
    """Dawid and Skene's model with one error rate for each annotator.

    Which text of an item counts as the first is arbitrary, so both classes have the same errors and the same prior
    (the "one-coin" model; Zhang et al. 2014, arXiv 1406.3824, section 3). `outcomes` are 1 and -1.
    """
    num_items = int(items.max(initial=-1)) + 1
    truth = sigmoid(np.bincount(items, weights=outcomes, minlength=num_items).astype(np.float64))
    votes = np.bincount(annotators, minlength=num_annotators)
    errors = trust = np.zeros(num_annotators)
    for _ in range(_ROUNDS):
        wrong = np.where(outcomes > 0, 1 - truth[items], truth[items])
        errors = (np.bincount(annotators, weights=wrong, minlength=num_annotators) + _SMOOTH) / (votes + 2 * _SMOOTH)
        trust = np.log((1 - errors) / errors)
        truth = sigmoid(np.bincount(items, weights=outcomes * trust[annotators], minlength=num_items))
    return Consensus(truth=truth, errors=errors, trust=trust)


def roster_of(table: Table) -> tuple[Annotator, ...]:
    """Describe every recorded annotator, the busiest first."""
    kept = np.flatnonzero(table.decided & (table.annotator >= 0))
    if not len(kept):
        return ()
    items, who, outcome = table.item[kept], table.annotator[kept], table.agreed[kept]
    consensus = consensus_of(items, who, outcome, len(table.annotators))
    sizes = np.bincount(items, minlength=len(consensus.truth))
    shared = sizes[items] >= 2
    others = _log_odds_of_others(consensus, items, who, outcome)
    agrees = 0.5 * (1 + np.sign(others) * outcome)
    times = np.array([vote.time if vote.time is not None else np.nan for vote in table.votes])[kept]
    order = np.argsort(who, kind="stable")
    starts = np.searchsorted(who[order], np.arange(len(table.annotators) + 1))
    found = []
    for number, name in enumerate(table.annotators):
        mine = order[starts[number] : starts[number + 1]]
        rows = mine[shared[mine]]
        first, bias = _noisy_bradley_terry(others[rows] * table.turned[kept][rows], table, kept[rows])
        found.append(
            Annotator(
                name=name,
                votes=len(mine),
                shared=len(rows),
                error_rate=_error_rate(consensus, items[rows], outcome[rows]),
                agreement=_share(agrees[rows]),
                skill=first,
                first_bias=bias,
                drift=_drift(agrees[rows], times[rows]),
                seconds=_seconds(table, kept[mine]),
            )
        )
    return _compared(found, table.annotators, who, agrees, shared)


def _log_odds_of_others(consensus: Consensus, items: Ints, who: Ints, outcome: Ints) -> Floats:
    """What everybody else's votes say about a vote's item, as log-odds for its first text."""
    own = outcome * consensus.trust[who]
    return np.asarray(np.bincount(items, weights=own, minlength=len(consensus.truth))[items] - own)


def _error_rate(consensus: Consensus, items: Ints, outcome: Ints) -> Measurement:
    """Mean posterior probability of being wrong; the interval adds the doubt about the truth to that of the sample."""
    if len(items) < LEAST_SHARED:
        return Unmeasured(reason=f"{len(items)} votes on pairs that others judged; {LEAST_SHARED} are needed")
    wrong = np.where(outcome > 0, 1 - consensus.truth[items], consensus.truth[items])
    value = float(wrong.mean())
    error = float(np.sqrt((value * (1 - value) + (wrong * (1 - wrong)).mean()) / len(items)))
    return Estimate(
        value=value,
        low=max(0.0, value - half_width(error)),
        high=min(1.0, value + half_width(error)),
        n=len(items),
        unit="share",
        method="Dawid-Skene",
    )


def _share(agrees: Floats) -> Measurement:
    if len(agrees) < LEAST_SHARED:
        return Unmeasured(reason=f"{len(agrees)} votes on pairs that others judged; {LEAST_SHARED} are needed")
    value = float(agrees.mean())
    half = half_width(float(np.sqrt(value * (1 - value) / len(agrees))))
    return Estimate(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        n=len(agrees),
        unit="share",
        method="normal",
    )


def _noisy_bradley_terry(quality: Floats, table: Table, rows: NDArray[np.intp]) -> tuple[Measurement, Measurement]:
    """Skill and left/right bias: P(first wins) = sigmoid(skill quality + bias shown), quality: the others' log-odds.

    The form is that of crowd-kit's noisy Bradley-Terry (Bugakova et al. 2019) with what the others say in the place of
    free scores of the answers.
    """
    if len(rows) < 2 * LEAST_SHARED:
        nothing = Unmeasured(reason=f"{len(rows)} votes on pairs that others judged; {2 * LEAST_SHARED} are needed")
        return nothing, nothing
    shown = table.shown[rows].astype(np.float64)
    columns = [quality] + ([shown] if np.any(shown) else [])
    design = np.stack(columns, axis=1) * table.sign[rows][:, None]
    slopes = fit_slopes(design, table.prompt[rows])
    skill, error = slopes.contrast(np.eye(len(columns))[0])
    found = Estimate(
        value=skill,
        low=skill - half_width(error),
        high=skill + half_width(error),
        n=len(rows),
        unit="slope",
        method="noisy Bradley-Terry",
    )
    if len(columns) == 1:
        return found, Unmeasured(reason="the file does not tell which answer was shown first")
    bias, error = slopes.contrast(np.eye(2)[1])
    ends = sigmoid(np.array([bias - half_width(error), bias, bias + half_width(error)]))
    return found, Estimate(
        value=float(ends[1]),
        low=float(ends[0]),
        high=float(ends[2]),
        n=len(rows),
        unit="share",
        method="noisy Bradley-Terry",
    )


def _compared(
    found: Sequence[Annotator], names: Sequence[str], who: Ints, agrees: Floats, shared: NDArray[np.bool_]
) -> tuple[Annotator, ...]:
    """Compare each with all others together, and correct over annotators."""
    tested = [one for one in found if isinstance(one.agreement, Estimate)]
    p_values = []
    gaps = []
    total, wins = int(shared.sum()), float(agrees[shared].sum())
    for one in tested:
        mine = agrees[shared & (who == names.index(one.name))]
        rest, rest_wins = total - len(mine), wins - float(mine.sum())
        pooled = wins / total
        gap = float(mine.mean()) - (rest_wins / rest if rest else float(mine.mean()))
        error = float(np.sqrt(pooled * (1 - pooled) * (1 / len(mine) + 1 / max(rest, 1))))
        gaps.append(gap)
        p_values.append(two_sided(gap, error))
    adjusted = dict(zip((one.name for one in tested), benjamini_hochberg(p_values), strict=True))
    gap_of = dict(zip((one.name for one in tested), gaps, strict=True))
    drifts = benjamini_hochberg([one.drift for one in found])
    usual = float(np.median([one.seconds for one in found if one.seconds is not None] or [0.0]))
    judged = [
        replace(
            one,
            adjusted_p=adjusted.get(one.name, 1.0),
            differs=adjusted.get(one.name, 1.0) <= _ALPHA and gap_of.get(one.name, 0.0) <= -_LEAST_GAP,
            drift=drift,
            hurried=one.seconds is not None and one.votes >= LEAST_SHARED and one.seconds < _HURRY * usual,
        )
        for one, drift in zip(found, drifts, strict=True)
    ]
    return tuple(sorted(judged, key=lambda one: -one.votes))


def _seconds(table: Table, rows: NDArray[np.intp]) -> float | None:
    """Median recorded duration; without one, the median time between votes at most ten minutes apart."""
    recorded = [seconds for row in rows if (seconds := table.votes[row].seconds) is not None]
    if recorded:
        return float(np.median(recorded))
    times = sorted(time for row in rows if (time := table.votes[row].time) is not None)
    gaps = np.diff(times)
    gaps = gaps[gaps <= 600]
    return float(np.median(gaps)) if len(gaps) >= LEAST_SHARED else None


def _drift(agrees: Floats, times: Floats) -> float:
    """p-value that agreement changed at some time: largest cumulative sum against 999 shuffles (Taylor 2000)."""
    known = np.isfinite(times)
    if known.sum() < _LEAST_TIMED:
        return 1.0
    series = agrees[known][np.argsort(times[known], kind="stable")]
    centred = series - series.mean()
    observed = float(np.abs(np.cumsum(centred)).max())
    rng = np.random.default_rng(0)
    draws = 999
    hits = sum(float(np.abs(np.cumsum(rng.permutation(centred))).max()) >= observed for _ in range(draws))
    return (1 + hits) / (1 + draws)

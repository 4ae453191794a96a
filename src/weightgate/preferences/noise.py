"""Which rows are likely mislabelled, and how many there may be.

Two witnesses that have not seen the row: what the words of the answers say, from a model fitted on votes of other
prompts (confident learning; Northcutt, Jiang & Chuang 2021), and what other annotators said of the same two answers.
Nothing here knows the truth. Where most pairs have several votes, their number follows from how these agree. Elsewhere
the model's own errors look like mislabelled rows, so it is an interval whose upper end blames every disagreement
on the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.annotators import consensus_of
from weightgate.preferences.content import content_of, cross_fit, folds_of, relied_on
from weightgate.preferences.logistic import Floats, auc, half_width, sigmoid
from weightgate.preferences.table import Table
from weightgate.stats import Estimate, Measurement, Unmeasured, proportion

LIMIT = 10_000
"""Votes that the model of words is fitted on and asked about; of more, those of prompts drawn by a fixed seed."""

LEAST_VOTES = 200
LEAST_AUC = 0.7
"""Below this the model of words is too often wrong itself to accuse anybody."""

SURE = 0.8
"""Posterior probability from which a row is listed as likely mislabelled."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A row that is likely mislabelled.

    `probability` is that its label is wrong; `words` the model's probability for the label as given, NaN where it was
    not asked; `votes_for` and `votes_against` count the other votes on the same two answers.
    """

    row: int
    probability: float
    words: float
    votes_for: int
    votes_against: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """Likely mislabelled rows, the likeliest first, and the share of all rows that may be.

    `auc` is of the model of words on prompts it never saw; `margins` its logits that the first answer of `rows` wins.
    """

    suspects: tuple[Suspect, ...]
    share: Measurement
    auc: Measurement
    examined: int
    rows: NDArray[np.intp]
    margins: Floats
    wrong: Floats

    def to_json(self, lines: list[int]) -> dict[str, Any]:
        """Return plain data with lines in the place of rows."""
        suspects = [
            {
                "line": lines[one.row],
                "probability": round(one.probability, 4),
                "words": None if np.isnan(one.words) else round(one.words, 4),
                "votes_for": one.votes_for,
                "votes_against": one.votes_against,
            }
            for one in self.suspects
        ]
        return {
            "examined": self.examined,
            "share": self.share.to_json(),
            "auc": self.auc.to_json(),
            "suspects": suspects,
        }


def noise_of(table: Table) -> Noise:
    """Judge every decided vote, or `LIMIT` of them, by both witnesses."""
    rows = _examined(table)
    margins = _word_margins(table, rows)
    own = margins * table.sign[rows]
    skill = _skill(own)
    trusted = isinstance(skill, Estimate) and skill.value >= LEAST_AUC
    prior = _sharpened(own) if trusted else np.zeros(len(rows))
    others, votes_for, votes_against = _other_votes(table, rows)
    wrong = sigmoid(-(prior + others))
    unheard = (votes_for + votes_against == 0) & (not trusted)
    wrong[unheard] = 0.0
    sure = np.flatnonzero(wrong >= SURE)
    ranked = sure[np.argsort(-wrong[sure], kind="stable")]
    words = sigmoid(own) if trusted else np.full(len(rows), np.nan)
    suspects = tuple(
        Suspect(
            row=int(rows[at]),
            probability=float(wrong[at]),
            words=float(words[at]),
            votes_for=int(votes_for[at]),
            votes_against=int(votes_against[at]),
        )
        for at in ranked
    )
    share: Measurement = Unmeasured(
        reason=f"the words foretell the winner with an AUC below {LEAST_AUC}, too little to tell wrong labels from the "
        "model's own errors, and most pairs were judged once"
    )
    if (votes_for + votes_against > 0).mean() > 0.5:
        share = _share_of_votes(table, rows)
    elif trusted:
        share = _share_by_words(own, suspects)
    return Noise(suspects=suspects, share=share, auc=skill, examined=len(rows), rows=rows, margins=margins, wrong=wrong)


def _examined(table: Table) -> NDArray[np.intp]:
    rows = np.flatnonzero(table.decided)
    if len(rows) <= LIMIT:
        return rows
    order = np.random.default_rng(0).permutation(int(table.prompt.max()) + 1)[table.prompt[rows]]
    return np.sort(rows[np.argsort(order, kind="stable")[:LIMIT]])


def _word_margins(table: Table, rows: NDArray[np.intp]) -> Floats:
    if len(rows) < LEAST_VOTES:
        return np.zeros(len(rows))
    dense = (table.values[rows, 0] - table.values[rows, 1]).astype(np.float64)
    dense /= np.maximum(dense.std(axis=0), 1e-6)
    targets = (table.sign[rows] > 0).astype(np.float64)
    folds = folds_of(table.prompt[rows])
    words, repeated = content_of(table, rows)
    margins = cross_fit(words, np.concatenate([dense, repeated], axis=1), targets, folds)
    return relied_on(table, rows, margins, targets, folds)


def _skill(own: Floats) -> Measurement:
    if not np.any(own):
        return Unmeasured(reason=f"fewer than {LEAST_VOTES} votes name a winner")
    value = auc(own)
    half = 1.96 * float(np.sqrt(value * (1 - value) / len(own)))
    return Estimate(
        value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=len(own), unit="AUC", method="normal"
    )


def _sharpened(own: Floats) -> Floats:
    """Logits of the true label from logits of the noisy one, once the noise that the model implies is taken out.

    With flip rate e, P(label) = e + (1 - 2e) P(truth). e is what confident learning counts: labels whose opposite is as
    likely as labels of the model's choice are on average (Northcutt et al. 2021, eq. 1 to 3, with both classes alike).
    """
    flipped = _confident_share(own)
    truth = np.clip((sigmoid(own) - flipped) / max(1 - 2 * flipped, 0.1), 0.01, 0.99)
    return np.asarray(np.log(truth / (1 - truth)))


def _confident_share(own: Floats) -> float:
    given = sigmoid(own)
    threshold = float(given.mean())
    wrong, right = int((1 - given >= threshold).sum()), int((given >= threshold).sum())
    return min(0.45, wrong / max(wrong + right, 1))


def _other_votes(table: Table, rows: NDArray[np.intp]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Log-odds that other votes on the same two answers give each row's label, and how many stand on each side."""
    every = np.flatnonzero(table.decided)
    items, outcome = table.item[every], table.agreed[every]
    who = np.where(table.annotator[every] >= 0, table.annotator[every], len(table.annotators))
    consensus = consensus_of(items, who, outcome, len(table.annotators) + 1)
    weighed = outcome * consensus.trust[who]
    size = int(table.item.max()) + 1
    total = np.bincount(items, weights=weighed, minlength=size)
    first = np.bincount(items[outcome > 0], minlength=size)
    second = np.bincount(items[outcome < 0], minlength=size)
    own = np.zeros(len(table))
    own[every] = weighed
    agreed = table.agreed[rows]
    for_label = np.where(agreed > 0, first[table.item[rows]], second[table.item[rows]]) - 1
    against = np.where(agreed > 0, second[table.item[rows]], first[table.item[rows]])
    return (total[table.item[rows]] - own[rows]) * agreed, for_label, against


def _share_of_votes(table: Table, rows: NDArray[np.intp]) -> Measurement:
    """Share of votes against what all votes on the same answers amount to, by Dawid and Skene's model."""
    who = np.where(table.annotator[rows] >= 0, table.annotator[rows], len(table.annotators))
    consensus = consensus_of(table.item[rows], who, table.agreed[rows], len(table.annotators) + 1)
    truth = consensus.truth[table.item[rows]]
    wrong = np.where(table.agreed[rows] > 0, 1 - truth, truth)
    value = float(wrong.mean())
    half = half_width(float(np.sqrt((value * (1 - value) + (wrong * (1 - wrong)).mean()) / len(wrong))))
    return Estimate(
        value=value, low=max(0.0, value - half), high=value + half, n=len(wrong), unit="share", method="Dawid-Skene"
    )


def _share_by_words(own: Floats, suspects: Sequence[Suspect]) -> Measurement:
    """What confident learning counts; at least the listed rows, at most all the model misses."""
    failing = proportion(int((own < 0).sum()), len(own))
    listed = proportion(round(sum(one.probability for one in suspects)), len(own))
    assert isinstance(failing, Estimate)
    assert isinstance(listed, Estimate)
    value = min(_confident_share(own), failing.value)
    return Estimate(
        value=value,
        low=min(value, listed.low),
        high=failing.high,
        n=len(own),
        unit="share",
        method="confident learning, bounded",
    )

"""What the words of an answer say about who wins: a hashed bag of words, of word pairs, and of words with the prompt's.

A sparse logistic model without intercept, cross-fitted by prompt: no vote is judged by a model that saw a vote on the
same prompt. Its margins find likely mislabelled rows and stand in for a second opinion where a pair has one vote, as
far as the model can be relied on where the prompt lies (`relied_on`).
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.logistic import Floats, Ints, minimise, sigmoid
from weightgate.preferences.table import Table

BUCKETS = 1 << 16
FOLDS = 5
PENALTY = 3.0
"""Weight of |w|^2 / 2: chosen on the built-in world and on HH, where 0.3 to 3 differ by less than .01 in AUC."""

_STEPS = 40
_ANSWER_WORDS, _CROSSED_ANSWER_WORDS, _CROSSED_PROMPT_WORDS = 150, 24, 12
_GATE_PENALTY, _GATE_WORDS, _LEAST_GATE_COUNT, _GATE_SHIFT = 1.0, 60, 5, 31_337
"""Of the second model, which says how far the first can be relied on: its penalty, words read of a prompt, how often a
word must occur, and how far apart the columns of the two margins lie. Chosen on seeds that no result is told of."""

_FUNCTION_WORDS = (
    "a an the i you he she it we they me my your is are was were be do does did to of in on at for with and or but that"
    " this how what can if so not no der die das ein eine und ist ich du zu in auf mit"
)
_SKIPPED = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"\w+")

Hashes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparse:
    """Rows of a sparse matrix: row i holds `columns[starts[i]:starts[i + 1]]` with `weights`, of `width`."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    weights: NDArray[np.float32]
    width: int = BUCKETS

    def times(self, vector: Floats, rows: Ints) -> Floats:
        """The product of the given rows with a vector: (rows)."""
        flat, lengths = self._flat(rows)
        return _row_sums(vector[self.columns[flat]] * self.weights[flat], lengths)

    def transposed_times(self, values: Floats, rows: Ints) -> Floats:
        """The product of the transposed rows with one value each: (width)."""
        flat, lengths = self._flat(rows)
        spread = np.repeat(values, lengths) * self.weights[flat]
        return np.bincount(self.columns[flat], weights=spread, minlength=self.width).astype(np.float64)

    def picked(self, rows: Ints) -> Sparse:
        """The given rows as a matrix of their own."""
        flat, lengths = self._flat(rows)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Sparse(starts=starts, columns=self.columns[flat], weights=self.weights[flat], width=self.width)

    def narrowed(self) -> tuple[Sparse, Ints]:
        """The matrix without its empty columns, and which columns are left."""
        used, columns = np.unique(self.columns, return_inverse=True)
        return replace(self, columns=columns.reshape(-1).astype(np.int32), width=len(used)), used

    def _flat(self, rows: Ints) -> tuple[NDArray[np.int64] | slice, NDArray[np.int64]]:
        lengths = np.diff(self.starts)
        if len(rows) == len(lengths):
            return slice(None), lengths
        lengths = lengths[rows]
        offsets = np.repeat(self.starts[rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return offsets + np.arange(int(lengths.sum())), lengths


def _row_sums(values: Floats, lengths: NDArray[np.int64]) -> Floats:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.cumsum(lengths)
    return np.asarray(total[ends] - total[ends - lengths])


def content_of(table: Table, rows: Ints) -> tuple[Sparse, Floats]:
    """Words of the first answer minus words of the second, for the given rows of the table.

    Beside them (rows, 1): of how many more words of the prompt the first answer repeats, in standard deviations.
    """
    hashed: dict[str, Hashes] = {}
    columns, weights, starts = array("i"), array("f"), array("q", [0])
    repeated = np.zeros((len(rows), 1))
    for at, row in enumerate(rows):
        vote = table.votes[row]
        asked = [word for word in _WORD.findall(vote.asked.lower()) if word not in _SKIPPED]
        prompt = _hashed(asked[-_CROSSED_PROMPT_WORDS:])
        for text, sign in ((vote.first, 1.0), (vote.second, -1.0)):
            if text not in hashed:
                hashed[text] = _hashed(_WORD.findall(text.lower())[:_ANSWER_WORDS])
            repeated[at] += sign * int(np.isin(prompt, hashed[text]).sum())
            for part in _parts(prompt, hashed[text]):
                columns.frombytes(part.astype(np.int32).tobytes())
                weights.extend([sign / math.sqrt(max(1, len(part)))] * len(part))
        starts.append(len(columns))
    repeated /= max(float(repeated.std()), 1e-6)
    return _sparse(starts, columns, weights), repeated


def _sparse(starts: Sequence[int], columns: Sequence[int], weights: Sequence[float]) -> Sparse:
    return Sparse(
        starts=np.array(starts, dtype=np.int64),
        columns=np.array(columns, dtype=np.int32),
        weights=np.array(weights, dtype=np.float32),
    )


def _hashed(words: Sequence[str]) -> Hashes:
    return np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in words], dtype=np.int64)


def _parts(prompt: Hashes, said: Hashes) -> tuple[Hashes, Hashes, Hashes]:
    """Columns of the answer's words, of its pairs of words, and of its opening's words with the prompt's."""
    return (
        np.unique(said % BUCKETS),
        np.unique((said[:-1] * 31 + said[1:] * 17 + 7) % BUCKETS),
        np.unique((prompt[:, None] * 1_000_003 + said[None, :_CROSSED_ANSWER_WORDS] * 8191 + 3) % BUCKETS),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ContentModel:
    """Weights of the hashed words and of the dense columns."""

    words: Floats
    dense: Floats


def fit(content: Sparse, dense: Floats, targets: Floats, rows: Ints, penalty: float = PENALTY) -> ContentModel:
    """Fit on the given rows.

    Args:
        dense: (all rows, k) further columns, first minus second, on about unit scale.
        targets: (all rows) probability, 0..1, that the first answer wins.
        penalty: weight of |w|^2 / 2, over the whole sum of losses.
    """
    inside, used = content.picked(rows).narrowed()
    every = np.arange(len(rows), dtype=np.int32)
    columns, wanted = dense[rows], targets[rows]

    def loss(x: Floats) -> tuple[float, Floats]:
        words, rest = x[: len(used)], x[len(used) :]
        logits = inside.times(words, every) + columns @ rest
        value = float((np.logaddexp(0.0, logits) - wanted * logits).sum() + penalty * (x @ x) / 2)
        wrong = sigmoid(logits) - wanted
        gradient = np.concatenate([inside.transposed_times(wrong, every), columns.T @ wrong])
        return value, gradient + penalty * x

    found = minimise(loss, np.zeros(len(used) + dense.shape[1]), steps=_STEPS)
    words = np.zeros(content.width)
    words[used] = found[: len(used)]
    return ContentModel(words=words, dense=found[len(used) :])


def folds_of(prompts: Ints, folds: int = FOLDS) -> Ints:
    """A fold for every row, the same for all rows of a prompt, spread by a fixed permutation of the prompts."""
    names, number = np.unique(prompts, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return np.asarray(order[number.reshape(-1)] % folds, dtype=np.int32)


def cross_fit(content: Sparse, dense: Floats, targets: Floats, folds: Ints, penalty: float = PENALTY) -> Floats:
    """Margins of every row from a model fitted on the other folds: what the words say, what the rest says (rows, 2)."""
    margins = np.zeros((len(folds), 2))
    for fold in np.unique(folds):
        inside, outside = (np.flatnonzero(where).astype(np.int32) for where in (folds == fold, folds != fold))
        model = fit(content, dense, targets, outside, penalty)
        margins[inside, 0] = content.times(model.words, inside)
        margins[inside, 1] = dense[inside] @ model.dense
    return margins


def relied_on(table: Table, rows: Ints, margins: Floats, targets: Floats, folds: Ints) -> Floats:
    """Cross-fitted logits that the first answer wins, each as sure as the model deserves where its prompt lies: (rows).

    A second model of the same kind over the same folds: logit = sum over both margins of margin (a + b . words of the
    prompt). What votes on like prompts bear out stays; where the first model guesses, as about facts that occur once,
    little is left.
    """
    asked = [_WORD.findall(table.votes[row].asked.lower())[-_GATE_WORDS:] for row in rows]
    common = Counter(word for words in asked for word in set(words))
    columns, weights, starts = array("i"), array("f"), array("q", [0])
    for words, both in zip(asked, margins.tolist(), strict=True):
        known = _hashed([word for word in dict.fromkeys(words) if common[word] >= _LEAST_GATE_COUNT])
        for number, margin in enumerate(both):
            columns.extend(((known + number * _GATE_SHIFT) % BUCKETS).tolist())
            weights.extend([margin / math.sqrt(max(1, len(known)))] * len(known))
        starts.append(len(columns))
    gated = _sparse(starts, columns, weights)
    return np.asarray(cross_fit(gated, margins, targets, folds, _GATE_PENALTY).sum(axis=1))

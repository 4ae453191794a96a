"""Votes as columns: who judged which pair of which prompt how, and what differs between the two answers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.drivers import DRIVERS, NAMES, language, see
from weightgate.preferences.logistic import Floats, Ints
from weightgate.preferences.votes import Vote


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Votes as columns, all of length n; row i is `votes[i]`.

    Args:
        sign: 1 where the first answer won, -1 the second, 0 a tie.
        prompt, item: number of the prompt, and of the unordered pair of answers under it.
        turned: -1 where the first answer is the item's second in the order of texts, else 1. `sign * turned` is
            therefore the same for two votes that agree, whatever order they saw.
        annotator: index into `annotators`, -1 where none is recorded.
        shown: 1 where the first answer was shown first, -1 where the second was, 0 where unknown.
        category: index into `categories`.
        values: float32 (n, 2, drivers): the drivers of the first and of the second answer.
        characters: int64 (n, 2): lengths of the answers.
    """

    votes: Sequence[Vote]
    sign: Ints
    prompt: Ints
    item: Ints
    turned: Ints
    annotator: Ints
    annotators: tuple[str, ...]
    shown: Ints
    category: Ints
    categories: tuple[str, ...]
    values: NDArray[np.float32]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.votes)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Which votes name a winner."""
        return np.not_equal(self.sign, 0)

    @property
    def agreed(self) -> Ints:
        """1 where the item's first text won, -1 where its second did, 0 for a tie."""
        return self.sign * self.turned

    def first(self, count: int) -> Table:
        """The first so many votes."""
        columns = ("sign", "prompt", "item", "turned", "annotator", "shown", "category", "values", "characters")
        return replace(self, votes=self.votes[:count], **{name: getattr(self, name)[:count] for name in columns})

    def difference(self, name: str) -> Floats:
        """Driver of the winner minus that of the loser; for a tie, first minus second."""
        column = self.values[:, :, NAMES.index(name)].astype(np.float64)
        return np.where(self.sign < 0, -1.0, 1.0) * (column[:, 0] - column[:, 1])


def table_of(votes: Sequence[Vote], *, look: bool = True) -> Table:
    """Number prompts, pairs, annotators and categories, and look at every distinct answer once.

    Without `look` all drivers are 0: enough for what only counts votes.
    """
    texts, answer = _numbered(text for vote in votes for text in (vote.first, vote.second))
    answers = np.array(answer, dtype=np.int64).reshape(-1, 2)
    _, prompts = _numbered(vote.prompt for vote in votes)
    turned = np.where(answers[:, 0] <= answers[:, 1], 1, -1)
    low, high = answers.min(axis=1), answers.max(axis=1)
    prompt = np.array(prompts, dtype=np.int32)
    _, items = np.unique(np.stack([prompt, low, high], axis=1), axis=0, return_inverse=True)
    annotators, annotator = _numbered(vote.annotator or "" for vote in votes)
    recorded = np.array([name != "" for name in annotators], dtype=bool)
    order = np.cumsum(recorded) - 1
    categories, category = _numbered(vote.category for vote in votes)
    seen = see(texts if look else ())
    values = seen.values[answers] if look else np.zeros((len(votes), 2, len(DRIVERS)), dtype=np.float32)
    if look:
        values[:, :, -1] = _other_language(votes, answers, seen.languages)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    sides = {"first": 1, "second": -1, None: 0}
    return Table(
        votes=votes,
        sign=np.array([vote.sign for vote in votes], dtype=np.int32),
        prompt=prompt,
        item=items.reshape(-1).astype(np.int32),
        turned=turned.astype(np.int32),
        annotator=np.where(recorded, order, -1)[np.array(annotator, dtype=np.int64)].astype(np.int32),
        annotators=tuple(name for name in annotators if name),
        shown=np.array([sides[vote.shown] for vote in votes], dtype=np.int32),
        category=np.array(category, dtype=np.int32),
        categories=tuple(categories),
        values=values,
        characters=lengths[answers],
    )


def joined(one: Sequence[Vote], other: Sequence[Vote]) -> tuple[Table, NDArray[np.bool_]]:
    """Both sets in one table, and which of its rows belong to the second."""
    table = table_of([*one, *other])
    return table, np.arange(len(table)) >= len(one)


def _numbered(values: Iterable[str]) -> tuple[list[str], list[int]]:
    """(distinct values in the order of their first occurrence, the number of each value)."""
    numbers: dict[Hashable, int] = {}
    numbered = [numbers.setdefault(value, len(numbers)) for value in values]
    return [str(value) for value in numbers], numbered


def _other_language(votes: Sequence[Vote], answers: NDArray[np.int64], languages: Sequence[str]) -> NDArray[np.float32]:
    """1 where the language of an answer and that of what was asked can both be told and differ: (n, 2)."""
    asked: dict[str, str] = {}
    found = np.zeros((len(votes), 2), dtype=np.float32)
    for row, vote in enumerate(votes):
        if vote.asked not in asked:
            asked[vote.asked] = language(vote.asked)
        for side in (0, 1):
            told = languages[answers[row, side]]
            found[row, side] = float(bool(told and asked[vote.asked]) and told != asked[vote.asked])
    return found


assert DRIVERS[-1].name == "other-language", "the last column is filled here"

"""Votes that cannot all be right: duplicates, one pair judged both ways, circles, and twins judged oppositely."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from weightgate.preferences.drivers import REFUSAL
from weightgate.preferences.similarity import near_duplicates
from weightgate.preferences.table import Table

EXACT_ANSWERS = 12
"""Answers of one prompt up to which the fewest votes of a circle are found exactly, by dynamic programming."""

NEAR_LIMIT = 50_000
"""Distinct prompts that are searched for near-duplicates; of more, the first so many."""

_NULL_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Opposed:
    """A pair of answers judged both ways: rows of the votes for each, the minority first."""

    fewer: tuple[int, ...]
    more: tuple[int, ...]
    same_annotator: bool


@dataclass(frozen=True, kw_only=True)
class Circle:
    """A prompt whose answers beat each other in a circle; `remove` are rows of the fewest votes that break all of them.

    `exact` is False where there were too many answers to search all orders, and a greedy order was taken.
    """

    rows: tuple[int, ...]
    remove: tuple[int, ...]
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Two prompts that are nearly the same, one with a vote for refusing and one with a vote for answering."""

    refusing: int
    answering: int
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """All of them, as rows of the table.

    `cyclic_share` is the share of closed triads (three answers, each pair judged) that run in a circle; `null_share`
    what the same triads show when every vote is a coin.
    """

    duplicates: tuple[tuple[int, ...], ...]
    opposed: tuple[Opposed, ...]
    circles: tuple[Circle, ...]
    twins: tuple[Twins, ...]
    triads: int
    cyclic_share: float
    null_share: float

    def to_json(self, lines: Sequence[int]) -> dict[str, Any]:
        """Return plain data with lines in the place of rows."""

        def told(rows: Iterable[int]) -> list[int]:
            return [lines[row] for row in rows]

        return {
            "duplicates": [told(rows) for rows in self.duplicates],
            "opposed": [
                {"fewer": told(one.fewer), "more": told(one.more), "same_annotator": one.same_annotator}
                for one in self.opposed
            ],
            "circles": [
                {"lines": told(one.rows), "remove": told(one.remove), "exact": one.exact} for one in self.circles
            ],
            "twins": [[lines[one.refusing], lines[one.answering], round(one.similarity, 3)] for one in self.twins],
            "triads": self.triads,
            "cyclic_share": self.cyclic_share,
            "null_share": self.null_share,
        }


def contradictions_of(table: Table) -> Contradictions:
    """Find every contradiction among the usable votes."""
    groups = _groups(table.item)
    tournaments = _tournaments(table)
    triads, cyclic, null = _triads(tournaments)
    return Contradictions(
        duplicates=tuple(_duplicates(table, groups)),
        opposed=tuple(_opposed(table, groups)),
        circles=tuple(found for edges in tournaments for found in _circle(edges)),
        twins=tuple(_twins(table)),
        triads=triads,
        cyclic_share=cyclic,
        null_share=null,
    )


def _groups(numbers: np.ndarray) -> list[list[int]]:
    """Rows of every number that more than one row has."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    return [order[start : start + size].tolist() for start, size in zip(starts, sizes, strict=True) if size > 1]


def _duplicates(table: Table, groups: Sequence[Sequence[int]]) -> Iterable[tuple[int, ...]]:
    """The same judgement by the same annotator more than once; without annotators, any repeated judgement."""
    for rows in groups:
        same: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in rows:
            same[int(table.annotator[row]), int(table.agreed[row])].append(row)
        yield from (tuple(found) for found in same.values() if len(found) > 1)


def _opposed(table: Table, groups: Sequence[Sequence[int]]) -> Iterable[Opposed]:
    for rows in groups:
        sides = {sign: [row for row in rows if table.agreed[row] == sign] for sign in (1, -1)}
        if sides[1] and sides[-1]:
            fewer, more = sorted(sides.values(), key=len)
            who = [{int(table.annotator[row]) for row in side} - {-1} for side in (fewer, more)]
            yield Opposed(fewer=tuple(fewer), more=tuple(more), same_annotator=bool(who[0] & who[1]))


Edges = Mapping[tuple[int, int], tuple[int, ...]]
"""(winner, loser), answers by number, -> rows of the votes in the majority's direction."""


def _tournaments(table: Table) -> list[Edges]:
    """The majority's direction between every two answers of each prompt with three answers or more."""
    names: dict[str, int] = {}
    by_prompt: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    busy = np.bincount(table.prompt, minlength=1)
    for row in np.flatnonzero(table.decided & (busy[table.prompt] >= 3)).tolist():
        vote = table.votes[row]
        winner, loser = (names.setdefault(text, len(names)) for text in (vote.chosen, vote.rejected))
        by_prompt[int(table.prompt[row])][winner, loser].append(row)
    found: list[Edges] = []
    for votes in by_prompt.values():
        edges = {pair: tuple(rows) for pair, rows in votes.items() if len(rows) > len(votes.get(pair[::-1], ()))}
        if len({answer for pair in edges for answer in pair}) >= 3:
            found.append(edges)
    return found


def _circle(edges: Edges) -> list[Circle]:
    """The circles of one prompt and the fewest votes to remove; none where its answers can be put in an order."""
    core = _core(edges)
    if not core:
        return []
    answers = sorted({answer for pair in core for answer in pair})
    exact = len(answers) <= EXACT_ANSWERS
    order = _best_order(answers, core) if exact else _greedy_order(answers, core)
    place = {answer: position for position, answer in enumerate(order)}
    against = [row for (winner, loser), rows in core.items() if place[winner] > place[loser] for row in rows]
    return [
        Circle(rows=tuple(sorted(row for rows in core.values() for row in rows)), remove=tuple(against), exact=exact)
    ]


def _core(edges: Edges) -> Edges:
    """The edges left after answers that only win or only lose are taken away again and again: those of circles."""
    left = dict(edges)
    while True:
        winners, losers = {pair[0] for pair in left}, {pair[1] for pair in left}
        kept = {pair: rows for pair, rows in left.items() if pair[0] in losers and pair[1] in winners}
        if len(kept) == len(left):
            return left
        left = kept


def _best_order(answers: Sequence[int], edges: Edges) -> list[int]:
    """The order with the fewest votes against it, over all subsets (Lawler 1964, minimum feedback arc set)."""
    number = {answer: position for position, answer in enumerate(answers)}
    n = len(answers)
    # cost[i][j]: votes lost by placing i before j, which are those that say j beats i.
    cost = [[0] * n for _ in range(n)]
    for (winner, loser), rows in edges.items():
        cost[number[loser]][number[winner]] = len(rows)
    best = [0] + [1 << 60] * ((1 << n) - 1)
    last = [0] * (1 << n)
    for chosen in range(1, 1 << n):
        for i in range(n):
            if chosen >> i & 1:
                before = chosen & ~(1 << i)
                lost = best[before] + sum(cost[j][i] for j in range(n) if before >> j & 1)
                if lost < best[chosen]:
                    best[chosen], last[chosen] = lost, i
    order, left = [], (1 << n) - 1
    while left:
        order.append(answers[last[left]])
        left &= ~(1 << last[left])
    return order[::-1]


def _greedy_order(answers: Sequence[int], edges: Edges) -> list[int]:
    """Answers by votes won minus votes lost."""
    balance: Counter[int] = Counter()
    for (winner, loser), rows in edges.items():
        balance[winner] += len(rows)
        balance[loser] -= len(rows)
    return sorted(answers, key=lambda answer: -balance[answer])


def _triads(tournaments: Sequence[Edges]) -> tuple[int, float, float]:
    """(closed triads, the cyclic share of them, the share that coins would give in the same triads)."""
    triads: list[tuple[int, int, int]] = []
    signs: list[int] = []
    for edges in tournaments:
        direction = {}
        for winner, loser in edges:
            pair, sign = ((winner, loser), 1) if winner < loser else ((loser, winner), -1)
            direction[pair] = len(signs)
            signs.append(sign)
        answers = sorted({answer for pair in direction for answer in pair})[:40]
        for a, b, c in combinations(answers, 3):
            if (a, b) in direction and (b, c) in direction and (a, c) in direction:
                triads.append((direction[a, b], direction[b, c], direction[a, c]))
    if not triads:
        return 0, 0.0, 0.0
    where = np.array(triads)
    rng = np.random.default_rng(0)
    coins = [_cyclic_share(rng.choice([-1, 1], len(signs)), where) for _ in range(_NULL_DRAWS)]
    return len(triads), _cyclic_share(np.array(signs), where), float(np.mean(coins))


def _cyclic_share(signs: np.ndarray, triads: np.ndarray) -> float:
    ab, bc, ac = (signs[triads[:, side]] for side in range(3))
    return float(((ab == bc) & (ab != ac)).mean())


def _twins(table: Table) -> Iterable[Twins]:
    """Near-duplicate prompts, of which one has a vote for the refusal and one for the answer."""
    refusals = np.sign(table.difference(REFUSAL)).astype(int) * table.decided
    speaking: dict[int, dict[int, int]] = defaultdict(dict)
    for row in np.flatnonzero(refusals).tolist():
        speaking[int(table.prompt[row])].setdefault(int(refusals[row]), row)
    prompts = list(speaking)[:NEAR_LIMIT]
    texts = [table.votes[next(iter(speaking[prompt].values()))].asked for prompt in prompts]
    for pair in near_duplicates(texts):
        one, other = speaking[prompts[pair.one]], speaking[prompts[pair.other]]
        if 1 in one and -1 in other and -1 not in one:
            yield Twins(refusing=one[1], answering=other[-1], similarity=pair.similarity)
        elif -1 in one and 1 in other and -1 not in other:
            yield Twins(refusing=other[1], answering=one[-1], similarity=pair.similarity)

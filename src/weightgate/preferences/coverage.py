"""Which prompts the votes cover: topics, where refusals were judged, thin regions, and leaks into tests and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.bias import clustered_share
from weightgate.preferences.drivers import NAMES, REFUSAL
from weightgate.preferences.similarity import near_duplicates
from weightgate.preferences.table import Table
from weightgate.preferences.topics import topics_of
from weightgate.stats import Measurement

THIN_PAIRS = 20
NEAR_LIMIT = 20_000
"""Prompts up to which near copies are sought in a test set or suite; exact ones are sought among all."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """One topic.

    `refusing` and `answering` count the pairs with one refusal in which it won and lost: prompts that the votes hold
    to be worth refusing, and not worth it. `share` is how often the refusal won.
    """

    name: str
    prompts: int
    pairs: int
    refusing: int
    answering: int
    share: Measurement
    thin: bool
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A prompt of the votes that stands, exactly or nearly, among those of a test set or a suite."""

    row: int
    kind: Literal["exact", "near"]
    other: str
    where: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """Regions, the topic of every row, and leaks."""

    regions: tuple[Region, ...]
    topic: NDArray[np.int32]
    names: tuple[str, ...]
    leaks: tuple[Leak, ...]

    def to_json(self, lines: Sequence[int]) -> dict[str, Any]:
        """Return plain data with lines in the place of rows."""
        regions = [
            {**vars(one), "share": one.share.to_json(), "rows": [lines[row] for row in one.rows]}
            for one in self.regions
        ]
        leaks = [{"line": lines[one.row], "kind": one.kind, "of": one.other, "where": one.where} for one in self.leaks]
        return {"regions": regions, "leaks": leaks}


def coverage_of(table: Table, others: Mapping[str, Mapping[str, str]]) -> Coverage:
    """Sort the prompts into topics and look for them in other sets.

    Args:
        others: name of a test set or suite -> its prompts (last user turns) -> where each stands.
    """
    _, first, number = np.unique(table.prompt, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    topics = topics_of([table.votes[row].asked for row in first])
    topic = topics.of[number]
    column = table.values[:, :, NAMES.index(REFUSAL)]
    refused = np.sign(column[:, 0] - column[:, 1]).astype(np.int64) * table.sign
    regions = tuple(_region(table, name, topic == at, refused, number) for at, name in enumerate(topics.names))
    leaks = tuple(leak for name, prompts in others.items() for leak in _leaks(table, first, name, prompts))
    return Coverage(regions=regions, topic=topic, names=topics.names, leaks=leaks)


def _region(
    table: Table, name: str, inside: NDArray[np.bool_], refused: NDArray[np.int64], prompt: NDArray[np.intp]
) -> Region:
    judged = np.flatnonzero(inside & (refused != 0))
    pairs = int(inside.sum())
    return Region(
        name=name,
        prompts=len(np.unique(prompt[inside])),
        pairs=pairs,
        refusing=int((refused[judged] > 0).sum()),
        answering=int((refused[judged] < 0).sum()),
        share=clustered_share((refused[judged] > 0).astype(np.float64), table.prompt[judged]),
        thin=pairs < THIN_PAIRS,
        rows=tuple(int(row) for row in np.flatnonzero(inside)[:5]),
    )


def _leaks(table: Table, first: NDArray[np.intp], name: str, prompts: Mapping[str, str]) -> list[Leak]:
    theirs = {" ".join(text.split()).casefold(): where for text, where in prompts.items()}
    found = []
    left: list[int] = []
    for row in first.tolist():
        asked = " ".join(table.votes[row].asked.split()).casefold()
        if asked in theirs:
            found.append(Leak(row=row, kind="exact", other=name, where=theirs[asked]))
        else:
            left.append(row)
    if len(left) + len(theirs) > NEAR_LIMIT:
        return found
    ours = [table.votes[row].asked for row in left]
    for pair in near_duplicates([*ours, *prompts]):
        if pair.one < len(ours) <= pair.other:
            where = list(prompts.values())[pair.other - len(ours)]
            found.append(Leak(row=left[pair.one], kind="near", other=name, where=where))
    return found

"""What a reader can narrow rows down by: every kind of label that the rows carry, and which row carries which label.

The page's script knows labels by number only, so that no text of a data file is ever compared, copied or run by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from weightgate.report.page import Block, Collection, Labels, Page, Section, Table


@dataclass(frozen=True, kw_only=True)
class Facet:
    """One kind of label; `choices` are (number, label, rows that carry it), the commonest first."""

    name: str
    choices: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Filing:
    """`facets` in the order of their first occurrence; `marks`: for each row the numbers of its labels, spaced."""

    facets: tuple[Facet, ...]
    marks: tuple[str, ...]


def filing_of(rows: Sequence[Labels]) -> Filing:
    """Number every distinct label of the rows."""
    counts = Counter(label for labels in rows for label in dict.fromkeys(labels))
    numbers = {label: number for number, label in enumerate(counts)}
    facets = tuple(
        Facet(
            name=name,
            choices=tuple(
                (numbers[label], label[1], count) for label, count in counts.most_common() if label[0] == name
            ),
        )
        for name in dict.fromkeys(name for name, _ in counts)
    )
    marks = tuple(" ".join(str(numbers[label]) for label in dict.fromkeys(labels)) for labels in rows)
    return Filing(facets=facets, marks=marks)


def labels_of(block: Table | Collection) -> tuple[Labels, ...]:
    """The labels of each row of a table or entry of a collection."""
    return block.labels if isinstance(block, Table) else tuple(entry.labels for entry in block.entries)


def can_be_narrowed(block: Block) -> TypeGuard[Table | Collection]:
    """Whether the block has rows to search."""
    return isinstance(block, Table | Collection) and bool(labels_of(block))


def has_filters(page: Page) -> bool:
    """Whether anything on the page can be searched, so that the page needs its script."""
    return any(can_be_narrowed(block) for block in _blocks(page))


def _blocks(page: Page) -> Iterable[Block]:
    for block in page.blocks:
        if isinstance(block, Section):
            yield from block.blocks
        else:
            yield block

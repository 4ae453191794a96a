"""Texts that are nearly the same: MinHash over runs of words, without asking every text about every other.

Broder (1997): the share of equal minima of k hash functions estimates the Jaccard similarity of two sets. Texts that
agree in one band of minima are candidates, and the estimate decides.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.8
"""Similarity from which two texts count as nearly the same."""

_HASHES, _BANDS = 64, 16
_RUN_WORDS = 3
_READ_WORDS = 400
_PRIME = np.uint64((1 << 61) - 1)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Two texts by position, the earlier first, and how similar they are."""

    one: int
    other: int
    similarity: float


def near_duplicates(texts: Sequence[str], *, alike: float = ALIKE) -> list[Alike]:
    """Pairs of distinct texts that are nearly the same, each text with its neighbours in its buckets."""
    marks = signatures(texts)
    found: dict[tuple[int, int], float] = {}
    for one, other in _candidates(marks):
        if (one, other) not in found:
            found[one, other] = float((marks[one] == marks[other]).mean())
    return [
        Alike(one=one, other=other, similarity=value) for (one, other), value in sorted(found.items()) if value >= alike
    ]


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Minima of 64 hash functions over the runs of three words of each text: (texts, 64)."""
    rng = np.random.default_rng(20250101)
    factors = rng.integers(1, 1 << 31, _HASHES, dtype=np.uint64)[:, None]
    shifts = rng.integers(0, 1 << 31, _HASHES, dtype=np.uint64)[:, None]
    marks = np.empty((len(texts), _HASHES), dtype=np.uint32)
    for row, text in enumerate(texts):
        runs = np.array([zlib.crc32(run) for run in _runs(text)], dtype=np.uint64)
        marks[row] = ((factors * runs + shifts) % _PRIME & np.uint64(0xFFFFFFFF)).min(axis=1)
    return marks


def _runs(text: str) -> set[bytes]:
    words = _WORD.findall(text.lower())[:_READ_WORDS] or [text]
    if len(words) < _RUN_WORDS:
        return {" ".join(words).encode("utf-8", "replace")}
    ends = range(_RUN_WORDS, len(words) + 1)
    return {" ".join(words[end - _RUN_WORDS : end]).encode("utf-8", "replace") for end in ends}


def _candidates(marks: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Neighbours in every bucket of every band: of a large bucket not all pairs, or a template would cost n^2."""
    width = _HASHES // _BANDS
    for band in range(_BANDS):
        part = np.ascontiguousarray(marks[:, band * width : (band + 1) * width])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * width))).reshape(-1)
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        for at in np.flatnonzero(same):
            one, other = int(order[at]), int(order[at + 1])
            yield (one, other) if one < other else (other, one)

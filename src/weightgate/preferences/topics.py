"""Topics of prompts without a model: TF-IDF, a truncated SVD, spherical k-means, named by their telling words.

Latent semantic analysis (Deerwester et al. 1990) with a randomised range finder (Halko, Martinsson & Tropp 2011,
algorithm 4.3 with one power iteration). Every step is seeded; the same prompts give the same topics.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_FIT_PROMPTS, _WORDS = 4_000, 2_500
_DIMENSIONS = 50
_MOST_TOPICS, _LEAST_TOPICS = 20, 2
_PROMPTS_PER_TOPIC = 25
_ROUNDS, _STARTS = 25, 4
_NAMING_WORDS = 3
_READ_WORDS = 200
_LEAST_COUNT, _MOST_SHARE = 2, 0.3
_WORD = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)?")
_COMMON = (
    "the and you that for with this what how are can was not but have your from they will would about there which their"
    " them then than like just want does should could when where who why some any all out our its his her she him has"
    " had been into get got give tell make me my do in is it to of on or if so as at be by an am we he up us go did use"
    " don't i'm it's i've i'd you're that's what's know think really good please thank thanks need also more very much"
    " ok okay yes no yeah sure one other way off put those something anything things did too well right here now let"
    " der die das und ist ein eine nicht ich du zu den mit wie von auf dem was wer im ins des einen"
)
_STOP = frozenset(_COMMON.split())


@dataclass(frozen=True, kw_only=True, eq=False)
class Topics:
    """Topic of each prompt, and the words that name each topic."""

    of: NDArray[np.int32]
    names: tuple[str, ...]


def topics_of(texts: Sequence[str], *, seed: int = 0) -> Topics:
    """Sort texts into topics: about one for 25 of them, 2 to 20. Fewer than 50 texts are one topic, "everything"."""
    if len(texts) < _LEAST_TOPICS * _PROMPTS_PER_TOPIC:
        return Topics(of=np.zeros(len(texts), dtype=np.int32), names=("everything",))
    rng = np.random.default_rng(seed)
    words = [_words(text) for text in texts]
    fitted = np.sort(rng.permutation(len(texts))[:_FIT_PROMPTS])
    number, rarity = _vocabulary([words[at] for at in fitted])
    if len(number) < _LEAST_TOPICS:
        return Topics(of=np.zeros(len(texts), dtype=np.int32), names=("everything",))
    weighed = _weighed([words[at] for at in fitted], number, rarity)
    basis = _basis(weighed, rng)
    count = int(np.clip(len(fitted) // _PROMPTS_PER_TOPIC, _LEAST_TOPICS, _MOST_TOPICS))
    centres = _k_means(_unit(weighed @ basis), count, rng)
    of = np.concatenate(
        [
            (_unit(_weighed(words[start : start + _FIT_PROMPTS], number, rarity) @ basis) @ centres.T).argmax(axis=1)
            for start in range(0, len(words), _FIT_PROMPTS)
        ]
    ).astype(np.int32)
    return _named(of, of[fitted], weighed, list(number))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower())[:_READ_WORDS] if word not in _STOP]


def _vocabulary(documents: Sequence[Sequence[str]]) -> tuple[dict[str, int], Matrix]:
    """Number of each kept word, and log(documents / documents with it)."""
    counts = Counter(word for document in documents for word in set(document))
    most = _MOST_SHARE * len(documents)
    kept = [(word, count) for word, count in counts.items() if _LEAST_COUNT <= count <= most]
    kept = sorted(kept, key=lambda one: (-one[1], one[0]))[:_WORDS]
    rarity = np.array([math.log(len(documents) / count) for _, count in kept], dtype=np.float32)
    return {word: at for at, (word, _) in enumerate(kept)}, rarity


def _weighed(documents: Sequence[Sequence[str]], number: dict[str, int], rarity: Matrix) -> Matrix:
    """TF-IDF with a logarithmic count, each row of unit length: (documents, words)."""
    weights = np.zeros((len(documents), len(number)), dtype=np.float32)
    for row, document in enumerate(documents):
        for word in document:
            at = number.get(word)
            if at is not None:
                weights[row, at] += 1
    np.log1p(weights, out=weights)
    return _unit(weights * rarity)


def _unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _basis(weighed: Matrix, rng: np.random.Generator) -> Matrix:
    """Right singular vectors of the largest singular values: (words, dimensions)."""
    dimensions = min(_DIMENSIONS, *weighed.shape)
    start = rng.standard_normal((weighed.shape[1], min(dimensions + 10, weighed.shape[1]))).astype(np.float32)
    spread, _ = np.linalg.qr(weighed @ (weighed.T @ (weighed @ start)))
    _, _, right = np.linalg.svd(spread.T @ weighed, full_matrices=False)
    return np.asarray(right[:dimensions].T, dtype=np.float32)


def _k_means(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Unit centres that the rows are closest to, the best of a few starts (k-means++; Arthur & Vassilvitskii 2007)."""
    best, best_fit = rows[:count], -math.inf
    for _ in range(_STARTS):
        centres = _spread_out(rows, count, rng)
        for _ in range(_ROUNDS):
            nearest = (rows @ centres.T).argmax(axis=1)
            sums = np.stack([np.bincount(nearest, weights=column, minlength=count) for column in rows.T], axis=1)
            moved = np.where(np.linalg.norm(sums, axis=1, keepdims=True) > 0, sums, centres)
            centres = _unit(moved.astype(np.float32))
        fit = float((rows @ centres.T).max(axis=1).sum())
        if fit > best_fit:
            best, best_fit = centres, fit
    return best


def _spread_out(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    chosen = [int(rng.integers(len(rows)))]
    nearest = rows @ rows[chosen[0]]
    for _ in range(count - 1):
        distance = np.maximum(1 - nearest.astype(np.float64), 1e-9)
        chosen.append(int(rng.choice(len(rows), p=distance / distance.sum())))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return rows[chosen]


def _named(of: NDArray[np.int32], fitted: NDArray[np.int32], weighed: Matrix, words: list[str]) -> Topics:
    """Name every topic that has prompts by the words that are heavier in it than elsewhere; the largest come first."""
    sizes = np.bincount(of)
    order = [int(at) for at in np.argsort(-sizes, kind="stable") if sizes[at]]
    everywhere = weighed.mean(axis=0)
    names: list[str] = []
    for topic in order:
        inside = weighed[fitted == topic]
        lead = (inside.mean(axis=0) if len(inside) else everywhere) - everywhere
        top = [words[at] for at in np.argsort(-lead, kind="stable")[:_NAMING_WORDS] if lead[at] > 0]
        name = ", ".join(top) or "without telling words"
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    place = np.zeros(len(sizes), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return Topics(of=place[of], names=tuple(names))


def telling_words(
    texts: Sequence[str], weights: NDArray[np.int64], *, most: int, least: int
) -> dict[str, NDArray[np.bool_]]:
    """Words of the texts with the largest summed weight -> which texts hold them; those below `least` are left out.

    Words in more than 30 % of the weight tell nothing apart and are left out as well.
    """
    where: dict[str, list[int]] = {}
    for position, text in enumerate(texts):
        if weights[position]:
            for word in set(_words(text)):
                where.setdefault(word, []).append(position)
    sums = {word: int(weights[positions].sum()) for word, positions in where.items()}
    kept = [word for word, total in sums.items() if least <= total <= _MOST_SHARE * weights.sum()]
    found = {}
    for word in sorted(kept, key=lambda word: (-sums[word], word))[:most]:
        inside = np.zeros(len(texts), dtype=bool)
        inside[where[word]] = True
        found[word] = inside
    return found

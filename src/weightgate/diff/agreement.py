"""How much two sides say the same, in the same words, prompt by prompt.

Two models of one base share content and phrases even where the tone moved; two models of one recipe share habits of
phrasing on any prompt. So each measure is taken twice: between answers to the same prompt (`same`), and between answers
to different prompts (`other`), which shows what is habit rather than content. N-grams are compared over as many opening
words as both answers have, so that a longer answer is not a different one for that alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from weightgate.diff.features import lowered_words, strip_special

_PROMPTS = 240
"""Distances between distributions shrink with the number of prompts, so larger recordings are thinned to so many."""
_WINDOW_WORDS = 200
_OPENING_WORDS = 3
_FIRST_LINES = 6
_DIGITS = re.compile(r"\d+")
_LINE_KINDS = (
    ("E", re.compile(r"^\s*$")),
    ("N", re.compile(r"^\s*\d+[.)]")),
    ("B", re.compile(r"^\s*[-*•+] ")),
    ("H", re.compile(r"^#")),
    ("C", re.compile(r":\s*$")),
)
"""Empty, numbered, bulleted, a header, ending in a colon."""

_COMMON_SHARE = 0.02
"""A word in at least so many of all answers is part of the phrasing, not of the topic."""

MEASURES = ("identical", "opening", "prefix", "content", "words", "bigrams", "fourgrams")
AGREEMENT_FEATURES: tuple[str, ...] = (
    *(f"same.{name}" for name in MEASURES),
    *(f"other.{name}" for name in MEASURES[1:]),
    "openings.distance",
    "phrasing.distance",
    "closings.distance",
    "leads.distance",
    "layout.distance",
    "layout.same",
)
"""Names of what `agreement` returns, in order."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One completion as its words; `own` are those that the prompt does not hold already."""

    text: str
    words: list[str]
    own: frozenset[str]


def said(completion: str, prompt: str) -> Said:
    """Read a completion; special tokens are stripped."""
    text = strip_special(completion)
    found = lowered_words(text)
    return Said(text=text, words=found, own=frozenset(found) - frozenset(lowered_words(prompt)))


def agreement(a: Sequence[Said], b: Sequence[Said]) -> dict[str, float]:
    """Measure agreement of two sides, paired by position, one completion each. `AGREEMENT_FEATURES` names the keys.

    Raises `ValueError` for sides of different lengths or fewer than two prompts.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"agreement needs two sides of at least 2 answers each, found {len(a)} and {len(b)}")
    weights = rarity([*a, *b])
    same = np.array([compare_pair(x, y, weights) for x, y in zip(a, b, strict=True)]).mean(axis=0)
    crossed = [(x, y) for at, (x, y) in enumerate(zip(a, reversed(b), strict=True)) if 2 * at != len(a) - 1]
    other = np.array([compare_pair(x, y, weights) for x, y in crossed]).mean(axis=0)
    values = (*same, *other[1:], *_habits(a, b))
    return dict(zip(AGREEMENT_FEATURES, map(float, values), strict=True))


def thinned(count: int) -> list[int]:
    """Positions, evenly spaced, of the prompts that agreement is measured on."""
    return [at * count // _PROMPTS for at in range(_PROMPTS)] if count > _PROMPTS else list(range(count))


def rarity(answers: Sequence[Said]) -> dict[str, float]:
    """Weight of each word: ln(answers / answers that hold it), the inverse document frequency (Spärck Jones 1972)."""
    holding = Counter(word for answer in answers for word in answer.own)
    return {word: math.log(len(answers) / count) for word, count in holding.items()}


def compare_pair(a: Said, b: Said, weights: dict[str, float]) -> tuple[float, ...]:
    """Measure one pair of answers, each measure in 0..1, in the order of `MEASURES`.

    `content` is the weight of the shared words over that of the side which has less; the n-gram measures are Dice.
    """
    window = min(len(a.words), len(b.words), _WINDOW_WORDS)
    left, right = a.words[:window], b.words[:window]
    prefix = _common_prefix(left, right)
    return (
        float(a.text == b.text),
        float(prefix >= min(_OPENING_WORDS, max(len(a.words), len(b.words)))),
        prefix / window if window else float(a.text == b.text),
        _content(a.own, b.own, weights),
        _dice(set(left), set(right)),
        _dice(set(pairwise(left)), set(pairwise(right))),
        _dice(_fourgrams(left), _fourgrams(right)),
    )


def _fourgrams(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(words, words[1:], words[2:], words[3:], strict=False))


def _common_prefix(left: list[str], right: list[str]) -> int:
    for at, (x, y) in enumerate(zip(left, right, strict=True)):
        if x != y:
            return at
    return len(left)


def _content(a: frozenset[str], b: frozenset[str], weights: dict[str, float]) -> float:
    # `fsum` rounds once, so the order in which a process happens to walk a set does not show.
    ours, theirs, shared = (math.fsum(map(weights.__getitem__, words)) for words in (a, b, a & b))
    less = min(ours, theirs)
    return shared / less if less > 0 else 0.0


def _dice(a: Set[object], b: Set[object]) -> float:
    total = len(a) + len(b)
    return 2 * len(a & b) / total if total else 0.0


def _habits(a: Sequence[Said], b: Sequence[Said]) -> tuple[float, ...]:
    """Distances between the two sides' ways to open, to phrase, to close, to begin a line and to lay out an answer.

    Last, the share of prompts where the first lines of both answers are of the same kinds.
    """
    layouts = [[_layout(one.text) for one in side] for side in (a, b)]
    return (
        _distance(*([tuple(one.words[:2]) for one in side] for side in (a, b))),
        _phrasing_distance(a, b),
        _distance(*([tuple(one.text.lower().split()[-2:]) for one in side] for side in (a, b))),
        _distance(*([lead for one in side for lead in _leads(one.text)] for side in (a, b))),
        _distance(*([step for kinds in side for step in pairwise(kinds)] for side in layouts)),
        sum(x[:_FIRST_LINES] == y[:_FIRST_LINES] for x, y in zip(*layouts, strict=True)) / len(a),
    )


def _leads(text: str) -> list[str]:
    """The first two characters of each line, every digit as 0."""
    return [_DIGITS.sub("0", line)[:2] for line in map(str.strip, text.split("\n")) if line]


def _layout(text: str) -> str:
    """The kind of each line as a letter, a dot for plain text."""
    return "".join(
        next((letter for letter, pattern in _LINE_KINDS if pattern.search(line)), ".") for line in text.split("\n")
    )


def _distance(a: Sequence[object], b: Sequence[object]) -> float:
    """Total variation between two lists of things, counted; 1 where one list is empty."""
    return _total_variation(_shares(a), _shares(b)) if a and b else float(bool(a) != bool(b))


def _phrasing_distance(a: Sequence[Said], b: Sequence[Said]) -> float:
    """Total variation between the two sides' use of the words that are common in all answers."""
    holding = Counter(word for answer in (*a, *b) for word in set(answer.words))
    common = {word for word, count in holding.items() if count >= _COMMON_SHARE * (len(a) + len(b))}
    sides = [_shares(word for answer in side for word in answer.words if word in common) for side in (a, b)]
    return _total_variation(*sides)


def _shares(items: Iterable[object]) -> dict[object, float]:
    counts = Counter(items)
    total = counts.total()
    return {item: count / total for item, count in counts.items()}


def _total_variation(a: dict[object, float], b: dict[object, float]) -> float:
    return math.fsum(abs(a.get(item, 0.0) - b.get(item, 0.0)) for item in a.keys() | b.keys()) / 2

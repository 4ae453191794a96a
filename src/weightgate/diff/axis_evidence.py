"""What two recordings show that ask for raw text and for facts: the numbers that `AXIS_TERMS` name the stage by.

Style alone, the evidence of `weightgate.diff.evidence`, cannot tell that facts were lost from that a format was. How
far text is continued otherwise outside any conversation says how deep a change lies: a prompt leaves it alone, an
alignment moves it little, a fine-tuning more, a pre-training altogether. What is said to chats separates small models
as well, and misleads about one whose annotators moved it far; so of chats only one thing is read: whether an order is
still put into an object, but with other keys. An alignment prefers among what the fine-tuned model says already.

Only what exceeds a side's own noise counts. Let a side answer with probabilities p: it says another thing than its
likeliest answer with 1 - max p, and another thing the second time with 1 - sum p^2, which is no less. So a decoding
that began to sample explains as much of what two sides differ by as the share of prompts at which a side contradicts
itself.

| name | from |
|---|---|
| `apart.raw` | share of raw texts that the sides continue otherwise, beyond noise |
| `wording.raw` | mean share of words of these that are not in common (1 - Dice), beyond noise |
| `alike.raw` | 1 where raw text is continued alike but for noise, 0 from `_LEAST_APART` of the prompts on |
| `repeats` | difference in how often a side gives one answer twice |
| `shift.knowledge.recall` | absolute shift of facts told in raw text, 0..1 |
| `gap.languages` | difference between the shifts of knowledge in the two languages that shift most and least |
| `keys` | share of the answers with an object on both sides that have other keys, beyond noise |

Every number is the same whichever side comes first. Shifts, gaps, shares and distances enter as their square root: that
0 became 0.1 says more than that 0.8 became 0.9.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from weightgate.diff.features import lowered_words, strip_special
from weightgate.diff.pairing import Pair
from weightgate.diff.rows import LEAST_PROMPTS
from weightgate.probe.scorers import find_object, score
from weightgate.stats import sign_test

AXIS_TERMS = (
    *("apart.raw", "wording.raw", "alike.raw", "repeats", "shift.knowledge.recall", "gap.languages"),
    "keys",
)
"""Names of the evidence, in the order in which the model reads it."""

_RECALL = "recall"
_KNOWLEDGE = ("accuracy", _RECALL)
_LEAST_APART = 0.05
"""Trained on anything, a model continues at least so many texts otherwise; a prompt or a decoding leaves them alone."""

_Twice = tuple[tuple[str, str], tuple[str, str]]
"""Two completions of one prompt by each side."""


def has_axes(pairs: Sequence[Pair]) -> bool:
    """Whether `axis_evidence` can be read: facts recalled in enough raw texts, and two samples of each prompt."""
    enough = len(_shifts(_raw(pairs), (_RECALL,))) >= LEAST_PROMPTS
    return enough and all(min(len(pair.before), len(pair.after)) > 1 for pair in pairs)


def axis_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the evidence of paired completions by name, `AXIS_TERMS`. Raises `ValueError` unless `has_axes`."""
    if not has_axes(pairs):
        raise ValueError("the recordings do not hold what this evidence reads")
    told = [_said_twice(pair) for pair in pairs]
    raw = [_said_twice(pair) for pair in _raw(pairs)]
    apart = _beyond_noise(raw, lambda one, other: float(one != other))
    by_language = _shifts_by_language(pairs)
    rooted = {
        "apart.raw": apart,
        "wording.raw": _beyond_noise(raw, _words_apart),
        "shift.knowledge.recall": abs(_mean(_shifts(pairs, (_RECALL,)))),
        "gap.languages": max(by_language) - min(by_language),
        "keys": _other_keys(told),
    }
    plain = {
        "alike.raw": max(0.0, 1 - apart / _LEAST_APART),
        "repeats": abs(_mean((after != again) - (before != then) for (before, then), (after, again) in told)),
    }
    found = {name: math.sqrt(value) for name, value in rooted.items()} | plain
    return {name: float(found[name]) for name in AXIS_TERMS}


def repeat_counts(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Count prompts at which the sides differ though one repeats itself, and those of the opposite.

    With samples a1, a2 and b1 of one distribution, "a1 is not b1, a1 is a2" is as likely as "a1 is b1, a1 is not a2",
    because a2 and b1 could change places. Under decoding that repeats itself, any prompt of the first kind shows a
    change; and where answers vary anyway, as many of the second kind speak against it.
    """
    told = [
        (pair.before[0] != pair.after[0], pair.before[0] != pair.before[1]) for pair in pairs if len(pair.before) > 1
    ]
    return sum(across and not within for across, within in told), sum(within and not across for across, within in told)


def repeat_p_value(pairs: Sequence[Pair]) -> float:
    """Exact two-sided sign test of `repeat_counts`: did answers change that a side gives twice alike?"""
    different, against = repeat_counts(pairs)
    return sign_test([1.0] * different + [-1.0] * against).p_value if different + against else 1.0


def _raw(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.probe.form == "text"]


def _said_twice(pair: Pair) -> _Twice:
    """The first two completions of each side, stripped."""
    before, after = ((strip_special(texts[0]), strip_special(texts[1])) for texts in (pair.before, pair.after))
    return before, after


def _shifts(pairs: Sequence[Pair], metrics: Sequence[str]) -> list[float]:
    """By how much each scored answer about knowledge changed."""
    return [
        score(check, pair.after[0]) - score(check, pair.before[0])
        for pair in pairs
        for check in pair.probe.checks
        if pair.probe.axis == "knowledge" and check.metric in metrics
    ]


def _shifts_by_language(pairs: Sequence[Pair]) -> list[float]:
    """Absolute mean shift of knowledge in each language; the topic of a probe ends with it."""
    asked: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        asked[pair.probe.topic.rpartition("-")[2]].append(pair)
    shifts = [_shifts(own, _KNOWLEDGE) for own in asked.values()]
    return [abs(_mean(own)) for own in shifts if own]


def _other_keys(told: Iterable[_Twice]) -> float:
    """Share of answers that are objects throughout and have other keys, beyond noise; 0 where there are too few."""
    keyed = [_keys_of(one) for one in told]
    kept = [one for one in keyed if one is not None]
    return _beyond_noise(kept, lambda one, other: float(one != other)) if len(kept) >= LEAST_PROMPTS else 0.0


def _keys_of(told: _Twice) -> _Twice | None:
    """The same completions as the sorted keys of their objects; None where one holds none."""
    found = [find_object(text) for side in told for text in side]
    keys = [json.dumps(sorted(one)) for one in found if one is not None]
    return ((keys[0], keys[1]), (keys[2], keys[3])) if len(keys) == len(found) else None


def _beyond_noise(told: Sequence[_Twice], distance: Callable[[str, str], float]) -> float:
    """Mean distance between the sides, beyond the larger of their mean distances within."""
    across = _mean(distance(before[0], after[0]) for before, after in told)
    within = max(_mean(distance(*side) for side in sides) for sides in zip(*told, strict=True))
    return max(0.0, across - within)


def _words_apart(one: str, other: str) -> float:
    left, right = Counter(lowered_words(one)), Counter(lowered_words(other))
    total = left.total() + right.total()
    return 1 - 2 * (left & right).total() / total if total else float(one != other)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)

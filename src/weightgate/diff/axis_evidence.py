"""What two recordings show that ask for raw text and for facts: the numbers that name the stage.

The shortest way to it is what a model thinks of first where nothing but text stands before, as endpoints tell that
offer log-probabilities. The same weights, served otherwise, rank the likeliest tokens alike; an alignment puts a few
into another order; a fine-tuning more; and a pre-training on other data leaves few alike, even where every fact is told
as before. Weights that were rounded to 8 bits swap a few as well, but with hardly another word in any chat. `TOP_TERMS`
are numbers for this. Where it is not told, text alone has to tell, and does less well: `AXIS_TERMS`.

Style alone, the evidence of `weightgate.diff.evidence`, cannot tell that facts were lost from that a format was. How
far text is continued otherwise outside any conversation says how deep a change lies, less clearly: a prompt leaves it
alone, an alignment moves it little, a fine-tuning more, a pre-training altogether. How much is said otherwise in chats
misleads beside it about a model whose annotators moved it far; so the numbers of text read one thing of chats: whether
an order is still put into an object, but with other keys. An alignment prefers among what the fine-tuned model says
already.

Only what exceeds a side's own noise counts. Let a side answer with probabilities p: it says another thing than its
likeliest answer with 1 - max p, and another thing the second time with 1 - sum p^2, which is no less. So a decoding
that began to sample explains as much of what two sides differ by as the share of prompts at which a side contradicts
itself.

| name | from |
|---|---|
| `ranks.tops` | share of the pairs of likeliest first tokens of raw text that the sides rank otherwise, beyond noise |
| `alike.tops` | 1 where these are ranked alike but for noise, 0 from `_LEAST_RANKED` of the pairs on |
| `apart.chats` | share of chats that the sides answer otherwise, beyond noise |
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
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from weightgate.diff.features import lowered_words, strip_special
from weightgate.diff.pairing import Pair
from weightgate.diff.repeats import Twice, beyond_noise, completions_twice, tops_twice
from weightgate.diff.rows import LEAST_PROMPTS
from weightgate.probe.scorers import find_object, score

AXIS_TERMS = (
    *("apart.raw", "wording.raw", "alike.raw", "repeats", "shift.knowledge.recall", "gap.languages"),
    "keys",
)
TOP_TERMS = ("ranks.tops", "alike.tops", "apart.chats")
"""Names of the evidence, in the order in which the models read it: of text, and of first tokens where they are told."""

_RECALL = "recall"
_KNOWLEDGE = ("accuracy", _RECALL)
_LEAST_APART = 0.05
"""Trained on anything, a model continues at least so many texts otherwise; a prompt or a decoding leaves them alone."""

_LEAST_RANKED = 0.015
"""Trained on anything, a model ranks more of them otherwise; weights that are rounded to 16 bits, fewer."""


def has_axes(pairs: Sequence[Pair]) -> bool:
    """Whether `axis_evidence` can be read: facts recalled in enough raw texts, and two samples of each prompt."""
    enough = len(_shifts(_raw(pairs), (_RECALL,))) >= LEAST_PROMPTS
    return enough and all(min(len(pair.before), len(pair.after)) > 1 for pair in pairs)


def axis_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the evidence of paired completions by name: `AXIS_TERMS`, and `TOP_TERMS` where both sides tell enough.

    Raises `ValueError` unless `has_axes`.
    """
    if not has_axes(pairs):
        raise ValueError("the recordings do not hold what this evidence reads")
    return _text_evidence(pairs) | _top_evidence(pairs)


def _top_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    told, chats = tops_twice(_raw(pairs)), [pair for pair in pairs if pair.probe.form == "chat"]
    if min(len(told), len(chats)) < LEAST_PROMPTS:
        return {}
    ranked = beyond_noise(told, ranked_otherwise)
    apart = beyond_noise([_stripped(one) for one in completions_twice(chats)], _differ)
    return {
        "ranks.tops": math.sqrt(ranked),
        "alike.tops": max(0.0, 1 - ranked / _LEAST_RANKED),
        "apart.chats": math.sqrt(apart),
    }


def _text_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    told, raw = ([_stripped(one) for one in completions_twice(asked)] for asked in (pairs, _raw(pairs)))
    apart = beyond_noise(raw, _differ)
    by_language = _shifts_by_language(pairs)
    rooted = {
        "apart.raw": apart,
        "wording.raw": beyond_noise(raw, _words_apart),
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


def _raw(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.probe.form == "text"]


def _stripped(told: Twice[str]) -> Twice[str]:
    before, after = ((strip_special(once), strip_special(again)) for once, again in told)
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


def _other_keys(told: Iterable[Twice[str]]) -> float:
    """Share of answers that are objects throughout and have other keys, beyond noise; 0 where there are too few."""
    keyed = [_keys_of(one) for one in told]
    kept = [one for one in keyed if one is not None]
    return beyond_noise(kept, _differ) if len(kept) >= LEAST_PROMPTS else 0.0


def _keys_of(told: Twice[str]) -> Twice[str] | None:
    """The same completions as the sorted keys of their objects; None where one holds none."""
    found = [find_object(text) for side in told for text in side]
    keys = [json.dumps(sorted(one)) for one in found if one is not None]
    return ((keys[0], keys[1]), (keys[2], keys[3])) if len(keys) == len(found) else None


def _differ(one: str, other: str) -> float:
    return float(one != other)


def ranked_otherwise(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the pairs of all tokens in two lists, the likeliest first, that the lists rank otherwise, 0..1.

    Kendall's distance for the tops of lists (Fagin, Kumar & Sivakumar 2003, K^(1/2)) over the number of pairs: what a
    list does not name comes after all that it names, and of two tokens that it does not name nobody knows.
    """
    places = [{token: at for at, token in enumerate(tokens)} for tokens in (one, other)]
    pairs = list(combinations(sorted({*one, *other}), 2))
    orders = [[_order(named, *pair) for named in places] for pair in pairs]
    return sum(abs(first - second) for first, second in orders) / 2 / len(pairs)


def _order(named: Mapping[str, int], one: str, other: str) -> int:
    """1 where `one` comes first, -1 where `other` does, 0 where neither is named."""
    left, right = (named.get(token, len(named)) for token in (one, other))
    return (left < right) - (left > right)


def _words_apart(one: str, other: str) -> float:
    left, right = Counter(lowered_words(one)), Counter(lowered_words(other))
    total = left.total() + right.total()
    return 1 - 2 * (left & right).total() / total if total else float(one != other)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)

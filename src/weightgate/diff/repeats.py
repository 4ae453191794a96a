"""What a side says twice to one prompt: whatever differs within a side is its noise, and explains no change.

Read of the first two samples of each prompt, for two kinds of things: the completions, and the likeliest first tokens
where both sides tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from weightgate.diff.pairing import Pair
from weightgate.stats import sign_test

_Said = TypeVar("_Said")
Twice = tuple[tuple[_Said, _Said], tuple[_Said, _Said]]
"""What each side says to one prompt, twice."""


def completions_twice(pairs: Iterable[Pair]) -> list[Twice[str]]:
    """The first two completions of each side, of prompts that have two."""
    return [
        ((pair.before[0], pair.before[1]), (pair.after[0], pair.after[1])) for pair in pairs if len(pair.before) > 1
    ]


def tops_twice(pairs: Iterable[Pair]) -> list[Twice[tuple[str, ...]]]:
    """The likeliest first tokens of each side, of prompts at which both tell them twice."""
    return [
        ((pair.tops_before[0], pair.tops_before[1]), (pair.tops_after[0], pair.tops_after[1]))
        for pair in pairs
        if min(len(pair.tops_before), len(pair.tops_after)) > 1
    ]


def beyond_noise(told: Sequence[Twice[_Said]], distance: Callable[[_Said, _Said], float]) -> float:
    """Mean distance between the sides, beyond the larger of their mean distances within; at least 0."""
    across = sum(distance(before[0], after[0]) for before, after in told)
    within = max(sum(distance(*side) for side in sides) for sides in zip(*told, strict=True))
    return max(0.0, across / len(told) - within / len(told))


def repeat_counts(told: Iterable[Twice[_Said]]) -> tuple[int, int]:
    """Count prompts at which the sides differ though one repeats itself, and those of the opposite.

    With samples a1, a2 and b1 of one distribution, "a1 is not b1, a1 is a2" is as likely as "a1 is b1, a1 is not a2",
    because a2 and b1 could change places. Under decoding that repeats itself, any prompt of the first kind shows a
    change; and where answers vary anyway, as many of the second kind speak against it.
    """
    found = [(before[0] != after[0], before[0] != before[1]) for before, after in told]
    return sum(across and not within for across, within in found), sum(
        within and not across for across, within in found
    )


def repeat_p_value(told: Iterable[Twice[_Said]]) -> float:
    """Exact two-sided sign test of `repeat_counts`: did something change that a side says twice alike?"""
    different, against = repeat_counts(told)
    return sign_test([1.0] * different + [-1.0] * against).p_value if different + against else 1.0

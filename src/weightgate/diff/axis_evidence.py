"""What two recordings of a suite with scored axes show: the input of the model that names the stage by axes.

Style alone, the evidence of `weightgate.diff.evidence`, cannot tell that facts were lost from that a format was. Where
a suite scores knowledge, task and boundary, its rows can; and how much both sides still say the same, word by word,
tells how far down the common ancestor lies: two alignments of one fine-tuned model agree more than two fine-tunings of
one base, and text that is continued outside any conversation is not touched by a prompt at all.

| name | from |
|---|---|
| `shift.<row>` | root of the absolute shift of a scored row, 0..1 |
| `gap.languages` | difference between the shifts of knowledge in the two languages that shift most and least |
| `same.<group>` | share of prompts at which both sides say exactly the same |
| `opening.<group>` | share at which the first two words are the same |
| `same.right` | as `same`, where both sides pass every check |
| `overlap.<group>` | mean share of words in common (Dice) |
| `length.<group>` | mean absolute and absolute mean difference of log-length |
| `hedged`, `padded`, `openings` | distance in hedging, in closing phrases, and between the distributions of openings |
| `repeats.least`, `repeats.gap` | how often a side gives one answer twice: the lower share, and the difference |

Every number is the same whichever side comes first. Groups are the kinds of prompt of `GROUPS`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weightgate.diff.features import STYLE_FEATURES, lowered_words, strip_special, style
from weightgate.diff.pairing import Pair
from weightgate.diff.rows import LEAST_PROMPTS
from weightgate.probe.language import is_hedged
from weightgate.probe.scorers import score
from weightgate.stats import sign_test

ROWS = (
    *("knowledge.recall", "knowledge.accuracy", "task.instruction", "task.format", "task.fields"),
    *("boundary.should_refuse", "boundary.should_answer"),
)
"""Scored rows that a suite must hold, each on at least `LEAST_PROMPTS` prompts, for this evidence to exist."""

GROUPS = ("raw", "knowledge", "task", "boundary", "open")
_PADDING = STYLE_FEATURES.index("polite_closing")
_OPENING_WORDS = 2

AXIS_EVIDENCE: tuple[str, ...] = (
    *(f"shift.{row}" for row in ROWS),
    "gap.languages",
    *(f"same.{group}" for group in GROUPS),
    "same.right",
    *(f"opening.{group}" for group in GROUPS[1:]),
    *(f"overlap.{group}" for group in GROUPS),
    *(f"length.{group}" for group in GROUPS[1:]),
    *("length.shift", "hedged", "padded", "openings"),
    *("repeats.least", "repeats.gap"),
)
"""Names of the evidence, in the order in which the model reads it."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """One completion, read once."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return lowered_words(self.text)

    @cached_property
    def length(self) -> float:
        return math.log1p(len(self.words))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One prompt with the first completion of each side, and whether each side repeats itself."""

    pair: Pair
    before: _Answer
    after: _Answer

    @property
    def group(self) -> str:
        return _group_of(self.pair)

    @property
    def same(self) -> bool:
        return self.before.text == self.after.text

    @property
    def both_right(self) -> bool:
        return all(
            score(check, side.text) == 1 for check in self.pair.probe.checks for side in (self.before, self.after)
        )


def has_axes(pairs: Sequence[Pair]) -> bool:
    """Whether recordings hold what `axis_evidence` reads: all `ROWS`, all `GROUPS`, and two samples of each prompt."""
    counts = Counter(f"{pair.probe.axis}.{check.metric}" for pair in pairs for check in pair.probe.checks)
    counts.update(_group_of(pair) for pair in pairs)
    enough = all(counts[name] >= LEAST_PROMPTS for name in (*ROWS, *GROUPS))
    return enough and all(len(pair.before) > 1 for pair in pairs)


def axis_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the evidence of paired completions by name, `AXIS_EVIDENCE`. Raises `ValueError` unless `has_axes`."""
    if not has_axes(pairs):
        raise ValueError("the recordings do not hold every axis that this evidence reads")
    asked = [
        _Asked(
            pair=pair,
            before=_Answer(text=strip_special(pair.before[0])),
            after=_Answer(text=strip_special(pair.after[0])),
        )
        for pair in pairs
    ]
    groups = {group: [one for one in asked if one.group == group] for group in GROUPS}
    chats = [one for one in asked if one.group != "raw"]
    longer = [one.after.length - one.before.length for one in chats]
    found = (
        _shifts(pairs)
        | {f"same.{group}": _share(one.same for one in own) for group, own in groups.items()}
        | {"same.right": _share(one.same for one in [c for c in chats if c.both_right] or chats)}
        | {f"overlap.{group}": _mean(_overlap(one) for one in own) for group, own in groups.items()}
        | {
            f"{name}.{group}": _mean(measured(one) for one in groups[group])
            for group in GROUPS[1:]
            for name, measured in (("opening", _same_opening), ("length", _length_distance))
        }
        | {
            "length.shift": abs(float(np.mean(longer))),
            "hedged": abs(_mean(is_hedged(one.after.text) - is_hedged(one.before.text) for one in chats)),
            "padded": abs(_mean(_padding(one.after) - _padding(one.before) for one in chats)),
            "openings": _openings_distance(chats),
        }
        | _repeats(pairs)
    )
    return {name: float(found[name]) for name in AXIS_EVIDENCE}


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


def _group_of(pair: Pair) -> str:
    return "raw" if pair.probe.form == "text" else pair.probe.axis


def _shifts(pairs: Sequence[Pair]) -> dict[str, float]:
    rows: dict[str, list[float]] = defaultdict(list)
    by_language: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        for check in pair.probe.checks:
            row = f"{pair.probe.axis}.{check.metric}"
            if row in ROWS:
                difference = score(check, pair.after[0]) - score(check, pair.before[0])
                rows[row].append(difference)
                if row.startswith("knowledge."):
                    by_language[pair.probe.topic.rpartition("-")[2]].append(difference)
    moved = [abs(float(np.mean(own))) for own in by_language.values()]
    return {f"shift.{row}": math.sqrt(abs(float(np.mean(rows[row])))) for row in ROWS} | {
        "gap.languages": max(moved) - min(moved)
    }


def _repeats(pairs: Sequence[Pair]) -> dict[str, float]:
    shares = [
        _share(texts[0] == texts[1] for texts in side)
        for side in zip(*((p.before, p.after) for p in pairs), strict=True)
    ]
    return {"repeats.least": min(shares), "repeats.gap": abs(shares[0] - shares[1])}


def _overlap(one: _Asked) -> float:
    left, right = Counter(one.before.words), Counter(one.after.words)
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 1.0


def _same_opening(one: _Asked) -> float:
    return float(one.before.words[:_OPENING_WORDS] == one.after.words[:_OPENING_WORDS])


def _length_distance(one: _Asked) -> float:
    return abs(one.after.length - one.before.length)


def _padding(answer: _Answer) -> float:
    return style(answer.text)[_PADDING]


def _openings_distance(asked: Sequence[_Asked]) -> float:
    """Total variation between the two sides' distributions of the first two words."""
    before, after = (
        Counter(tuple(getattr(one, side).words[:_OPENING_WORDS]) for one in asked) for side in ("before", "after")
    )
    return sum(abs(before[key] - after[key]) for key in before | after) / (2 * len(asked))


def _share(told: Iterable[bool]) -> float:
    return _mean(map(float, told))


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)

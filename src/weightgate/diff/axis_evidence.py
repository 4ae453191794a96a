"""What two recordings of a suite with scored axes show; of it, `AXIS_TERMS` name the stage by axes.

Style alone, the evidence of `weightgate.diff.evidence`, cannot tell that facts were lost from that a format was. Where
a suite scores knowledge, task and boundary, its rows can; and how much both sides still say the same tells how far down
the common ancestor lies: two alignments of one fine-tuned model agree more than two fine-tunings of one base, and text
that is continued outside any conversation is not touched by a prompt at all.

Only what exceeds a side's own noise counts. Let a side answer with probabilities p: it says another thing than its
likeliest answer with 1 - max p, and another thing the second time with 1 - sum p^2, which is no less. So a decoding
that began to sample explains as much of what two sides differ by as the share of prompts at which a side contradicts
itself.

| name | from |
|---|---|
| `shift.<row>` | absolute shift of a scored row, 0..1 |
| `gap.languages` | difference between the shifts of knowledge in the two languages that shift most and least |
| `apart.<group>` | share of prompts at which the sides say different things, beyond noise |
| `apart.right` | the same where both sides pass every check |
| `alike.raw` | 1 where raw text is continued alike but for noise, 0 from `_LEAST_APART` of the prompts on |
| `wording.<group>` | mean share of words that are not in common (1 - Dice), beyond noise |
| `length`, `hedged`, `padded` | absolute mean difference in log-length, hedging and closing phrases |
| `openings` | total variation between the sides' distributions of the first two words |
| `repeats` | difference in how often a side gives one answer twice |

Every number is the same whichever side comes first. Groups are the kinds of prompt of `GROUPS`. Shifts, gaps and
distances enter as their square root: that 0 became 0.1 says more than that 0.8 became 0.9.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
"""Scored rows that are read where they are on at least `LEAST_PROMPTS` prompts; a row that is not shows no shift."""

AXES = ("knowledge", "task", "boundary")
"""Axes that need at least one such row each, for this evidence to exist."""

GROUPS = ("raw", "knowledge", "task", "boundary", "open")
_PADDING = STYLE_FEATURES.index("polite_closing")
_OPENING_WORDS = 2
_LEAST_APART = 0.05
"""Trained on anything, a model continues at least so many texts otherwise; a prompt or a decoding leaves them alone."""

AXIS_EVIDENCE: tuple[str, ...] = (
    *(f"shift.{row}" for row in ROWS),
    "gap.languages",
    *(f"apart.{group}" for group in GROUPS),
    "apart.right",
    "alike.raw",
    *(f"wording.{group}" for group in GROUPS),
    *("length", "hedged", "padded", "openings", "repeats"),
)
"""Names of the evidence."""

AXIS_TERMS = ("apart.raw", "wording.raw", "alike.raw", "repeats", "shift.knowledge.recall", "gap.languages")
"""What the model reads. How far raw text is continued otherwise says how deep the change lies, however strong it is: a
prompt leaves it alone, an alignment moves it little, a fine-tuning more, a pre-training altogether. What is said to
chats separates small models as well, and misleads about one whose annotators moved it far."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One prompt: two completions of each side, stripped, and their words."""

    pair: Pair
    before: tuple[str, str]
    after: tuple[str, str]

    @classmethod
    def of(cls, pair: Pair) -> _Asked:
        """Take the first two completions of each side."""
        before, after = ((strip_special(texts[0]), strip_special(texts[1])) for texts in (pair.before, pair.after))
        return cls(pair=pair, before=before, after=after)

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """Words of each side's first completion."""
        return lowered_words(self.before[0]), lowered_words(self.after[0])

    @cached_property
    def differs(self) -> tuple[float, float, float]:
        """Whether the sides differ, and whether each side differs from itself."""
        across = self.before[0] != self.after[0]
        return float(across), float(self.before[0] != self.before[1]), float(self.after[0] != self.after[1])

    @cached_property
    def distances(self) -> tuple[float, float, float]:
        """Share of words not in common: between the sides, and within each."""
        return _apart(self.before[0], self.after[0]), _apart(*self.before), _apart(*self.after)

    @property
    def both_right(self) -> bool:
        """Whether both sides pass every check."""
        sides = (self.before[0], self.after[0])
        return all(score(check, text) == 1 for check in self.pair.probe.checks for text in sides)


def has_axes(pairs: Sequence[Pair]) -> bool:
    """Whether recordings hold what `axis_evidence` reads: all `AXES`, all `GROUPS`, and two samples of each prompt."""
    rows = Counter(f"{pair.probe.axis}.{check.metric}" for pair in pairs for check in pair.probe.checks)
    groups = Counter(_group_of(pair) for pair in pairs)
    axes = {row.partition(".")[0] for row in ROWS if rows[row] >= LEAST_PROMPTS}
    enough = axes.issuperset(AXES) and all(groups[name] >= LEAST_PROMPTS for name in GROUPS)
    return enough and all(len(pair.before) > 1 for pair in pairs)


def axis_evidence(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the evidence of paired completions by name, `AXIS_EVIDENCE`. Raises `ValueError` unless `has_axes`."""
    if not has_axes(pairs):
        raise ValueError("the recordings do not hold every axis that this evidence reads")
    asked = [_Asked.of(pair) for pair in pairs]
    groups = {group: [one for one in asked if _group_of(one.pair) == group] for group in GROUPS}
    chats = [one for one in asked if _group_of(one.pair) != "raw"]
    right = [one for one in chats if one.both_right] or chats
    rooted = (
        _shifts(pairs)
        | {f"apart.{group}": _beyond_noise([one.differs for one in own]) for group, own in groups.items()}
        | {"apart.right": _beyond_noise([one.differs for one in right])}
        | {f"wording.{group}": _beyond_noise([one.distances for one in own]) for group, own in groups.items()}
    )
    plain = {
        "length": abs(_mean(math.log1p(len(one.words[1])) - math.log1p(len(one.words[0])) for one in chats)),
        "hedged": abs(_mean(is_hedged(one.after[0]) - is_hedged(one.before[0]) for one in chats)),
        "padded": abs(_mean(_padding(one.after[0]) - _padding(one.before[0]) for one in chats)),
        "openings": _openings_distance(chats),
        "alike.raw": max(0.0, 1 - rooted["apart.raw"] / _LEAST_APART),
        "repeats": abs(_mean(one.differs[2] - one.differs[1] for one in asked)),
    }
    found = {name: math.sqrt(value) for name, value in rooted.items()} | plain
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
    moved = [abs(_mean(own)) for own in by_language.values()]
    shifts = {row: abs(_mean(own)) for row, own in rows.items() if len(own) >= LEAST_PROMPTS}
    return {f"shift.{row}": shifts.get(row, 0.0) for row in ROWS} | {"gap.languages": max(moved) - min(moved)}


def _beyond_noise(triples: Sequence[tuple[float, float, float]]) -> float:
    """Mean of the first values beyond the larger mean of the others: across the sides, and within each."""
    across, before, after = (_mean(column) for column in zip(*triples, strict=True))
    return max(0.0, across - max(before, after))


def _apart(one: str, other: str) -> float:
    left, right = Counter(lowered_words(one)), Counter(lowered_words(other))
    total = left.total() + right.total()
    return 1 - 2 * (left & right).total() / total if total else float(one != other)


def _padding(text: str) -> float:
    return style(text)[_PADDING]


def _openings_distance(asked: Sequence[_Asked]) -> float:
    """Total variation between the two sides' distributions of the first two words."""
    before, after = (Counter(tuple(one.words[side][:_OPENING_WORDS]) for one in asked) for side in (0, 1))
    return sum(abs(before[key] - after[key]) for key in before | after) / (2 * len(asked))


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)

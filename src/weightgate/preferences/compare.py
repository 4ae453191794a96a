"""Two sets of votes: which rows changed, what the votes teach differently, and what a model trained on them will do.

Both sets are one table, so that prompts, topics and the spread of lengths are the same for both. A shift is the
difference of two slopes, told as shares of wins; rows that both sets share pull at both, which the error takes into
account. Votes that became noisier make every lead over one half smaller by one factor. That factor is estimated: a
preference that only faded along with all others is no shift.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weightgate.preferences.bias import WORDS, design_of, difference_of
from weightgate.preferences.drivers import DRIVERS, LENGTH, NAMES, POSITION, REFUSAL
from weightgate.preferences.logistic import Floats, Ints, Slopes, fit_slopes, half_width, sigmoid, two_sided
from weightgate.preferences.table import Table, joined
from weightgate.preferences.topics import telling_words, topics_of
from weightgate.preferences.votes import Preferences, Vote
from weightgate.stats import Estimate, benjamini_hochberg

ALPHA = 0.01
LEAST_POINTS = 0.05
"""A shift is forecast when its corrected p is at most `ALPHA` and it moves the share of wins at least so far."""

LEAST_PAIRS = 20
"""Pairs that differ in a driver, in each set, below which no shift is sought."""

SCHEMA = 1
_MOST_WORDS = 60
_SHOWN_ROWS = 20
_CLEAR = 4.0
"""Standard errors from 0 at which a lead is clear enough to tell how all of them faded."""

_SCOPED_RIDGE = 0.01
_FAMILIES = {driver.name: driver.family for driver in DRIVERS} | {POSITION: "position"}

Direction = Literal["rise", "fall"]
Kind = Literal["everything", "topic", "word"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scope:
    """A part of both sets together: which rows of the joint table are in it."""

    kind: Kind
    name: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RowChanges:
    """What happened to the rows, by prompt, answers and annotator; lines are of the set the row stands in."""

    same: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    relabelled: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One preference in both sets.

    Args:
        driver, scope: what is preferred, and on which prompts; `kind` is "everything", "topic" or "word".
        before, after: how often the answer that has it wins, at equal length and manners where the scope is everything.
        change: difference in the share, with its interval, so far as fading that all preferences share does not explain
            it; 0 where the plain share moved the other way.
        common: the difference on the rows that both sets have, so what relabelling alone did; None with fewer than
            `LEAST_PAIRS` such rows.
        annotator: whose votes carry most of the change, and which part of it, or None.
        rows: (set, line) of rows that carry it; the set is "old" or "new".
    """

    driver: str
    scope: str
    kind: Kind
    pairs: tuple[int, int]
    before: float
    after: float
    change: Estimate
    p_value: float
    adjusted_p: float = 1.0
    forecast: bool = False
    common: float | None = None
    annotator: tuple[str, float] | None = None
    rows: tuple[tuple[str, int], ...] = ()

    @property
    def family(self) -> str:
        """Refusals, length, hedging, format, ..."""
        return _FAMILIES[self.driver]

    @property
    def direction(self) -> Direction:
        """Where the behaviour of a model trained on the new votes goes."""
        return "rise" if self.change.value > 0 else "fall"

    @property
    def words(self) -> str:
        """The forecast as a sentence with its numbers."""
        numbers = f"{WORDS[self.driver]} wins {self.before:.0%} -> {self.after:.0%}"
        change = f"{100 * self.change.value:+.0f} points [{100 * self.change.low:+.0f}, {100 * self.change.high:+.0f}]"
        return f"{self.headline}: {numbers}, {change}"

    @property
    def headline(self) -> str:
        """The forecast without its numbers."""
        where = {"everything": "", "topic": f" on {self.scope}", "word": f" on prompts with {self.scope!r}"}[self.kind]
        return f"{_WILL[self.family][self.direction == 'fall']}{where}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        plain = {**vars(self), "change": self.change.to_json(), "pairs": list(self.pairs)}
        rows = [{"set": name, "line": line} for name, line in self.rows]
        return {**plain, "rows": rows, "family": self.family, "direction": self.direction, "words": self.words}


_WILL = {
    "length": ("answers will become longer", "answers will become shorter"),
    "refusals": ("refusals will rise", "refusals will fall"),
    "hedging": ("hedging will rise", "hedging will fall"),
    "format": ("lists, bold text or code will rise", "lists, bold text or code will fall"),
    "flattery": ("flattery will rise", "flattery will fall"),
    "first person": ("answers will say I more often", "answers will say I less often"),
    "questions back": ("questions back will rise", "questions back will fall"),
    "courtesy": ("closing offers of help will rise", "closing offers of help will fall"),
    "numbers": ("numbers in answers will rise", "numbers in answers will fall"),
    "language": ("answers in another language will rise", "answers in another language will fall"),
    "position": ("the answer shown first wins more", "the answer shown first wins less"),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that comparing two sets gives. `fading` is the factor by which all slopes changed together."""

    old: Preferences
    new: Preferences
    rows: RowChanges
    shifts: tuple[Shift, ...]
    fading: float

    @property
    def forecasts(self) -> tuple[Shift, ...]:
        """The shifts that are sure and large enough to foretell a change, the surest first."""
        return tuple(sorted((one for one in self.shifts if one.forecast), key=lambda one: one.adjusted_p))

    @property
    def headline(self) -> str:
        """One sentence."""
        told = [one for one in self.forecasts if one.driver != POSITION]
        if told:
            return "; ".join(dict.fromkeys(one.headline for one in told[:3]))
        changed = len(self.rows.added) + len(self.rows.removed) + len(self.rows.relabelled)
        return "no boundary will shift" + ("" if changed else ": the votes are the same")

    def to_json(self) -> dict[str, Any]:
        """Return plain data with a schema number."""
        return {
            "schema": SCHEMA,
            "headline": self.headline,
            "old": self.old.described(),
            "new": self.new.described(),
            "rows": {
                "same": self.rows.same,
                "added": list(self.rows.added),
                "removed": list(self.rows.removed),
                "relabelled": [{"old": old, "new": new} for old, new in self.rows.relabelled],
            },
            "fading": self.fading,
            "forecasts": [one.to_json() for one in self.forecasts],
            "shifts": [one.to_json() for one in self.shifts],
        }


def compare(old: Preferences, new: Preferences) -> Comparison:
    """Compare two sets of votes."""
    before, after = old.usable, new.usable
    table, is_new = joined(before, after)
    changes, common = _row_changes(before, after)
    sides = tuple(np.flatnonzero(table.decided & (is_new == side)) for side in (False, True))
    scopes = list(_scopes(table))
    drafts = [*_joint_drafts(table, sides, scopes[0]), *_scoped_drafts(table, sides, scopes[1:])]
    fading = _fading(drafts)
    shifts = [_shift(draft, fading) for draft in drafts]
    inside = {(scope.kind, scope.name): scope.rows for scope in scopes}
    judged = [
        _explained(shift, table, inside[shift.kind, shift.scope], is_new, common) if shift.forecast else shift
        for shift in _judged(shifts)
    ]
    return Comparison(old=old, new=new, rows=changes, shifts=tuple(judged), fading=fading)


def _row_changes(before: Sequence[Vote], after: Sequence[Vote]) -> tuple[RowChanges, NDArray[np.bool_]]:
    """The changes, and which rows of the joint table stand in both sets, whatever their label."""
    waiting: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, vote in enumerate(before):
        waiting[_identity(vote)].append(row)
    common = np.zeros(len(before) + len(after), dtype=bool)
    added, relabelled, same = [], [], 0
    for row, vote in enumerate(after):
        matches = waiting.get(_identity(vote))
        if not matches:
            added.append(vote.line)
            continue
        at = next((i for i, old in enumerate(matches) if _outcome(before[old]) == _outcome(vote)), 0)
        match = matches.pop(at)
        common[match] = common[len(before) + row] = True
        if _outcome(before[match]) == _outcome(vote):
            same += 1
        else:
            relabelled.append((before[match].line, vote.line))
    removed = sorted(before[row].line for rows in waiting.values() for row in rows)
    changes = RowChanges(same=same, added=tuple(added), removed=tuple(removed), relabelled=tuple(relabelled))
    return changes, common


def _identity(vote: Vote) -> tuple[Any, ...]:
    return (vote.prompt, *sorted((vote.first, vote.second)), vote.annotator)


def _outcome(vote: Vote) -> str | None:
    return vote.chosen if vote.sign else None


Sides = tuple[NDArray[np.intp], ...]


def _joint_fits(table: Table, sides: Sides) -> tuple[list[tuple[Slopes, Mapping[str, Floats]]], tuple[str, ...]]:
    """The slopes of all drivers together in each set, for the drivers that differ in enough pairs of both."""
    counts = [Counter({name: int(np.count_nonzero(table.difference(name)[rows])) for name in NAMES}) for rows in sides]
    names = tuple(name for name in NAMES if min(count[name] for count in counts) >= LEAST_PAIRS)
    if all(np.count_nonzero(table.shown[rows]) >= LEAST_PAIRS for rows in sides):
        names = (*names, POSITION)
    designs = [design_of(table, rows, names) for rows in sides]
    fits = [
        (fit_slopes(design.columns, table.prompt[rows]), design.contrasts)
        for design, rows in zip(designs, sides, strict=True)
    ]
    return fits, names


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lead:
    """How far the share of wins lies from one half, -0.5..0.5, and how far each prompt pulls at it."""

    value: float
    clusters: Ints
    pulls: Floats

    @property
    def error(self) -> float:
        return float(np.sqrt(self.pulls @ self.pulls))


def _lead(slopes: Slopes, contrast: Floats) -> _Lead:
    """The lead that a slope amounts to, its doubt carried over to first order."""
    share = float(sigmoid(np.array(contrast @ slopes.beta)))
    return _Lead(value=share - 0.5, clusters=slopes.clusters, pulls=slopes.influence @ contrast * (share * (1 - share)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    """A shift before its fading is known. `plain` is the change of the plain share of wins, nothing held equal."""

    driver: str
    scope: _Scope
    pairs: tuple[int, int]
    old: _Lead
    new: _Lead
    plain: float


def _fading(drafts: Sequence[_Draft]) -> float:
    """The factor by which all leads changed together: the median ratio of those that are clear.

    Votes that turn into coins at a rate e multiply every lead by 1 - 2 e, and so do votes that go by another thing at a
    rate 2 e. Old and new count alike, so that the factor of a comparison the other way round is the inverse. 1 where
    fewer than three leads are clear: one preference that faded alone is a shift.
    """
    ratios = []
    for draft in drafts:
        clear = max(abs(lead.value) / lead.error if lead.error > 0 else 0.0 for lead in (draft.old, draft.new))
        if clear > _CLEAR and draft.old.value * draft.new.value > 0:
            ratios.append(math.log(draft.new.value / draft.old.value))
    return float(np.exp(np.clip(np.median(ratios), -1.6, 1.6))) if len(ratios) >= 3 else 1.0


def _joint_drafts(table: Table, sides: Sides, everything: _Scope) -> Iterator[_Draft]:
    """Every driver at equal length and manners."""
    fits, names = _joint_fits(table, sides)
    for name in names:
        pairs = [int(np.count_nonzero(difference_of(table, name)[rows])) for rows in sides]
        old, new = (_lead(slopes, contrasts[name]) for slopes, contrasts in fits)
        plain = _plain_change(difference_of(table, name), sides)
        yield _Draft(driver=name, scope=everything, pairs=(pairs[0], pairs[1]), old=old, new=new, plain=plain)


def _scoped_drafts(table: Table, sides: Sides, scopes: Sequence[_Scope]) -> Iterator[_Draft]:
    """Refusals at equal length on each topic and on prompts with each telling word, where enough pairs speak."""
    refused = table.difference(REFUSAL)
    for scope in scopes:
        rows = [side[scope.rows[side] & (refused[side] != 0)] for side in sides]
        if min(map(len, rows)) < LEAST_PAIRS:
            continue
        designs = [design_of(table, part, (LENGTH, REFUSAL)) for part in rows]
        old, new = (
            _lead(fit_slopes(design.columns, table.prompt[part], ridge=_SCOPED_RIDGE), design.contrasts[REFUSAL])
            for design, part in zip(designs, rows, strict=True)
        )
        plain = _plain_change(refused, rows)
        yield _Draft(driver=REFUSAL, scope=scope, pairs=(len(rows[0]), len(rows[1])), old=old, new=new, plain=plain)


def _plain_change(moved: Floats, sides: Sequence[NDArray[np.intp]]) -> float:
    shares = [float((moved[rows][moved[rows] != 0] > 0).mean()) for rows in sides]
    return shares[1] - shares[0]


def _scopes(table: Table) -> Iterator[_Scope]:
    """Everything, every topic, and the prompts with each word that many judged refusals have in common."""
    yield _Scope(kind="everything", name="everything", rows=np.ones(len(table), dtype=bool))
    _, first, number = np.unique(table.prompt, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    texts = [table.votes[row].asked for row in first]
    topics = topics_of(texts)
    if len(topics.names) > 1:
        for at, name in enumerate(topics.names):
            yield _Scope(kind="topic", name=name, rows=topics.of[number] == at)
    speaking = np.bincount(number[(table.difference(REFUSAL) != 0) & table.decided], minlength=len(texts))
    for word, where in telling_words(texts, speaking, most=_MOST_WORDS, least=2 * LEAST_PAIRS).items():
        yield _Scope(kind="word", name=word, rows=where[number])


def _shift(draft: _Draft, fading: float) -> Shift:
    """The difference of two leads, with and without the common fading taken out: the smaller one counts.

    0 where the two, or the plain share, point different ways: what depends on how things are held equal is no forecast.
    """
    options = []
    for factor in (1.0, fading):
        value = draft.new.value - factor * draft.old.value
        options.append((value, _error_of_difference(draft.old, draft.new, factor)))
    value, error = min(options, key=lambda option: abs(option[0]))
    if len({math.copysign(1, one) for one in (*(value for value, _ in options), draft.plain)}) > 1:
        value = 0.0
    change = Estimate(
        value=value,
        low=value - half_width(error),
        high=value + half_width(error),
        n=sum(draft.pairs),
        unit="share",
        method="difference of slopes, by prompt",
    )
    return Shift(
        driver=draft.driver,
        scope=draft.scope.name,
        kind=draft.scope.kind,
        pairs=draft.pairs,
        before=0.5 + draft.old.value,
        after=0.5 + draft.new.value,
        change=change,
        p_value=max(two_sided(*option) for option in options) if value else 1.0,
    )


def _error_of_difference(old: _Lead, new: _Lead, fading: float) -> float:
    """Standard error of new - fading old, where prompts that both sets have pull at both."""
    pulls: dict[int, float] = dict(zip(new.clusters.tolist(), new.pulls.tolist(), strict=True))
    for cluster, pull in zip(old.clusters.tolist(), old.pulls.tolist(), strict=True):
        pulls[cluster] = pulls.get(cluster, 0.0) - fading * pull
    return math.sqrt(sum(pull * pull for pull in pulls.values()))


def _judged(shifts: Sequence[Shift]) -> list[Shift]:
    adjusted = benjamini_hochberg([shift.p_value for shift in shifts])
    return [
        replace(shift, adjusted_p=p, forecast=p <= ALPHA and abs(shift.change.value) >= LEAST_POINTS)
        for shift, p in zip(shifts, adjusted, strict=True)
    ]


def _explained(
    shift: Shift, table: Table, scope: NDArray[np.bool_], is_new: NDArray[np.bool_], common: NDArray[np.bool_]
) -> Shift:
    """Say what relabelling alone did, whose votes carry the change, and which rows."""
    moved = np.sign(difference_of(table, shift.driver))
    inside = table.decided & (moved != 0) & scope
    both = inside & common
    relabelled = None
    if min(np.count_nonzero(both & (is_new == side)) for side in (False, True)) >= LEAST_PAIRS:
        relabelled = float((moved[both & is_new] > 0).mean() - (moved[both & ~is_new] > 0).mean())
    return replace(
        shift,
        common=relabelled,
        annotator=_carrier(table, is_new, inside, moved),
        rows=_carrying(shift, table, is_new, inside, moved),
    )


def _carrier(
    table: Table, is_new: NDArray[np.bool_], inside: NDArray[np.bool_], moved: Floats
) -> tuple[str, float] | None:
    """The annotator without whom the plain change of the share is smallest, and which part of it goes with them."""

    def change(kept: NDArray[np.bool_]) -> float:
        sides = [moved[kept & (is_new == side)] for side in (False, True)]
        return float((sides[1] > 0).mean() - (sides[0] > 0).mean()) if all(map(len, sides)) else math.nan

    whole = change(inside)
    if len(table.annotators) < 3 or not whole:
        return None
    parts = [(1 - change(inside & (table.annotator != at)) / whole, name) for at, name in enumerate(table.annotators)]
    part, name = max(((part, name) for part, name in parts if math.isfinite(part)), default=(0.0, ""))
    return (name, part) if part > 2 / len(table.annotators) else None


def _carrying(
    shift: Shift, table: Table, is_new: NDArray[np.bool_], inside: NDArray[np.bool_], moved: Floats
) -> tuple[tuple[str, int], ...]:
    """Rows of the new set that vote for the change, and rows of the old one that voted against it and are gone."""
    sign = 1 if shift.direction == "rise" else -1
    sides = {"new": (is_new, sign), "old": (~is_new, -sign)}
    judged = {
        name: {row: (*_identity(table.votes[row]), _outcome(table.votes[row])) for row in _numbers(inside & side)}
        for name, (side, _) in sides.items()
    }
    found: list[tuple[str, int]] = []
    for name, (side, wanted) in sides.items():
        known = set(judged["old" if name == "new" else "new"].values())
        rows = [row for row in _numbers(inside & side & (moved == wanted)) if judged[name][row] not in known]
        found += [(name, table.votes[row].line) for row in rows[:_SHOWN_ROWS]]
    return tuple(found)


def _numbers(rows: NDArray[np.bool_]) -> list[int]:
    return [int(row) for row in np.flatnonzero(rows)]

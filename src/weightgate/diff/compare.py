"""Compare two recordings: is the difference real, what differs, which stage moved, and which prompts show it.

Whether anything changed is asked of a few groups: style and wording jointly (`weightgate.diff.joint`), the scored rows
together, the style rows together (Simes 1986), and a kernel over repeated samples; corrected over these groups, each
with its weight. Rows are looked at only then, corrected within their group, so that dozens of traits of style do not
drown an axis. Where nothing changed, the whole comparison alarms with probability about alpha at most, and a shift that
no row shows alone is still found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weightgate.diff.agreement import agreement, said, thinned
from weightgate.diff.axis_evidence import axis_evidence, has_axes
from weightgate.diff.evidence import evidence
from weightgate.diff.features import STYLE_FEATURES, strip_special, style
from weightgate.diff.joint import joint_test
from weightgate.diff.null import Null
from weightgate.diff.pairing import Declared, Pair, declared_differences, pair_up
from weightgate.diff.repeats import completions_twice, repeat_p_value, tops_twice
from weightgate.diff.rows import LEAST_PROMPTS, Row, score_rows, style_rows
from weightgate.diff.triage import TriageModel, Verdict, declared_verdict, triage, undetermined
from weightgate.diff.verdict import headline
from weightgate.diff.weights import WeightEvidence
from weightgate.errors import UserError
from weightgate.probe.recording import Snapshot, TargetDescription
from weightgate.probe.unjudged import unjudged
from weightgate.stats import (
    benjamini_hochberg,
    effect_behind,
    kernel_test,
    prompts_needed,
    smallest_effect_seen,
    weighted_benjamini_hochberg,
)

ALPHA = 0.05
SCHEMA = 1
LEAST_TRIAGE_PROMPTS = 40
"""On fewer prompts the evidence of the triage is mostly noise."""

_SILENCE = 0.1
"""No stage makes a model say nothing. Where so many more answers of one side are empty, none is named."""

_SUGGESTIVE = 0.2
"""Between alpha and this corrected p, a comparison cannot tell rather than finds nothing."""

_WEIGHTS = {
    "style and wording jointly": 8.0,
    "axes and topics": 4.0,
    "hamming kernel": 4.0,
    "answers given twice": 2.0,
    "likeliest first tokens": 2.0,
    "traits of style": 1.0,
}
"""Shares of alpha: the joint test sees most changes first; a single trait is only for sharp ones that it overlooks."""

_LARGE = 0.8
"""A large shift, in standard deviations (Cohen 1988, section 2.2.3). What may miss even that has found nothing out."""

_SPENT = 0.8
"""Share of alpha that is spent. An exact test that spends all is seen above alpha in half of all trials of it."""

_SIDES = ("before", "after")
_STYLE_SAMPLES = 2
_DECIDING = 8
_NEAREST = 5
_LENGTH = STYLE_FEATURES.index("words")


@dataclass(frozen=True, kw_only=True)
class DecidingPrompt:
    """A prompt that shows the change: a completion of each side, and the rows that it moves most."""

    prompt: str
    probe: str
    before: str
    after: str
    shows: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "shows": list(self.shows)}


@dataclass(frozen=True, kw_only=True)
class General:
    """One question to all completions at once; p corrected over the few such questions of a comparison."""

    name: str
    p_value: float
    adjusted_p: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that comparing two recordings gives.

    `changed`: something differs beyond chance and tolerance. `identical` counts the prompts at which both sides say the
    same. `smallest_effect` is the d_z that a single scored row would have shown with 80 % power; `more_prompts` how
    many more prompts like these would decide what cannot be told. `evidence` is what the verdict goes by. `problems`
    are to be told and end nothing: completions that a pattern could not judge in time.
    """

    before: TargetDescription
    after: TargetDescription
    prompts: int
    left_out: int
    identical: int
    samples: int
    alpha: float
    rows: tuple[Row, ...]
    general: tuple[General, ...]
    declared: tuple[Declared, ...]
    verdict: Verdict | None
    deciding: tuple[DecidingPrompt, ...]
    changed: bool
    smallest_effect: float
    more_prompts: int | None
    evidence: dict[str, float]
    weights: WeightEvidence | None = None
    nulls: tuple[Null, ...] = ()
    problems: tuple[UserError, ...] = ()

    @property
    def headline(self) -> str:
        """The one sentence."""
        return headline(
            changed=self.changed,
            verdict=self.verdict,
            rows=self.rows,
            declared=self.declared,
            more_prompts=self.more_prompts,
            nulls=self.nulls,
        )

    @property
    def exit_code(self) -> int:
        """0 for no change beyond tolerance, 1 for a change."""
        return int(self.changed)

    def to_json(self) -> dict[str, Any]:
        """Return plain data with a schema number."""
        return {
            "schema": SCHEMA,
            "headline": self.headline,
            "changed": self.changed,
            "before": dict(vars(self.before)),
            "after": dict(vars(self.after)),
            "prompts": self.prompts,
            "left_out": self.left_out,
            "identical": self.identical,
            "samples": self.samples,
            "alpha": self.alpha,
            "corrected_over": len(self.rows),
            "smallest_effect": self.smallest_effect,
            "more_prompts": self.more_prompts,
            "declared": [one.to_json() for one in self.declared],
            "verdict": self.verdict.to_json() if self.verdict else None,
            "rows": [row.to_json() for row in self.rows],
            "general": [one.to_json() for one in self.general],
            "deciding": [one.to_json() for one in self.deciding],
            "evidence": self.evidence,
            "weights": self.weights.to_json() if self.weights else None,
            "nulls": [one.to_json() for one in self.nulls],
            "problems": [one.to_json() for one in self.problems],
        }


def compare(
    before: Snapshot,
    after: Snapshot,
    *,
    alpha: float = ALPHA,
    tolerance: float = 0.0,
    model: TriageModel | None = None,
    weights: WeightEvidence | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two recordings of one suite.

    Args:
        alpha: chance of any alarm where nothing changed, and false discovery rate over the rows.
        tolerance: shifts of a row below so many standard deviations (d_z) are no change, however sure; above 0 only
            rows can be a change.
        model: the triage model; by default the one that ships.
        weights: what the two checkpoints' tensors show, where both are at hand; equal weights settle the triage.

    Raises `DataError` where the two have no answered prompt in common.
    """
    pairs = pair_up(before, after)
    styles = [_mean_style([getattr(pair, side) for pair in pairs]) for side in _SIDES]
    longer = styles[1][:, _LENGTH] - styles[0][:, _LENGTH]
    found = [*score_rows(pairs, longer, alpha=alpha, seed=seed), *style_rows(*styles, seed=seed)]
    general = _general(found, _joint_tests(pairs, styles[1] - styles[0], seed), alpha)
    rows = _judged(found, any(one.adjusted_p <= alpha for one in general), alpha, tolerance)
    changed = _has_changed(rows, general, alpha, tolerance)
    declared = declared_differences(before, after)
    shown = pair_evidence(pairs, *styles) if len(pairs) >= LEAST_PROMPTS else {}
    identical = sum(pair.before == pair.after for pair in pairs)
    size = max(sum(row.kind != "style" for row in rows), 1)
    return Comparison(
        before=before.target,
        after=after.target,
        prompts=len(pairs),
        left_out=max(len(before.completions), len(after.completions)) - len(pairs),
        identical=identical,
        samples=min(len(pair.before) for pair in pairs),
        alpha=alpha,
        rows=rows,
        general=general,
        declared=declared,
        verdict=_verdict(shown, pairs, declared, weights, model) if changed else None,
        deciding=_deciding(pairs, rows) if changed else (),
        changed=changed,
        smallest_effect=smallest_effect_seen(len(pairs), alpha=alpha / size),
        more_prompts=None
        if changed
        else _more_prompts(len(pairs), identical, rows, general if tolerance == 0 else (), alpha, size),
        evidence=shown,
        weights=weights,
        problems=unjudged((pair.probe, (*pair.before, *pair.after)) for pair in pairs),
    )


def pair_evidence(pairs: Sequence[Pair], before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Evidence for the triage of paired completions; `before` and `after` are their styles, (pairs, features).

    That of the scored axes where the recordings hold it, else that of style and wording: what no model reads is not
    shown.
    """
    if has_axes(pairs):
        return axis_evidence(pairs)
    kept = [pairs[at] for at in thinned(len(pairs))]
    sides = [[said(getattr(pair, side)[0], pair.probe.text) for pair in kept] for side in _SIDES]
    return evidence(before, after, agreement(*sides))


def _mean_style(completions: Sequence[Sequence[str]]) -> np.ndarray:
    """Style of each prompt, averaged over its first samples: (prompts, features)."""
    return np.array([np.mean([style(text) for text in texts[:_STYLE_SAMPLES]], axis=0) for texts in completions])


def _joint_tests(pairs: Sequence[Pair], differences: np.ndarray, seed: int) -> dict[str, float]:
    """Style with the wording of one completion of each side; where there are several, the Hamming kernel, repeats."""
    if len(pairs) < LEAST_PROMPTS:
        return {}
    after, before = ([[strip_special(text) for text in getattr(pair, side)] for pair in pairs] for side in _SIDES[::-1])
    first = [[texts[0] for texts in side] for side in (after, before)]
    found = {"style and wording jointly": joint_test(differences, *first, seed=seed)}
    if any(len(texts) > 1 for texts in before):
        found["hamming kernel"] = kernel_test(after, before, kernel="hamming", seed=seed).p_value
        found["answers given twice"] = repeat_p_value(completions_twice(pairs))
    if tops := tops_twice(pairs):
        found["likeliest first tokens"] = repeat_p_value(tops)
    return found


def _general(rows: Sequence[Row], p_values: dict[str, float], alpha: float) -> tuple[General, ...]:
    """Correct the joint tests, and those of all rows of a kind together, over one another."""
    telling = [row for row in rows if _can_tell(row, alpha)]
    groups = {
        "axes and topics": [row.test.p_value for row in telling if row.kind != "style"],
        "traits of style": [row.test.p_value for row in telling if row.kind == "style"],
    }
    named = p_values | {name: min(benjamini_hochberg(group)) for name, group in groups.items() if group}
    adjusted = weighted_benjamini_hochberg(list(named.values()), [_WEIGHTS[name] for name in named])
    return tuple(
        General(name=name, p_value=p, adjusted_p=min(1.0, q / _SPENT))
        for (name, p), q in zip(named.items(), adjusted, strict=True)
    )


def _can_tell(row: Row, alpha: float) -> bool:
    """Whether enough prompts differ, whichever way, for a p of alpha; others need no correction (Tarone 1990)."""
    return 2.0 ** (1 - row.test.rose - row.test.fell) <= alpha


def _judged(rows: Sequence[Row], gate: bool, alpha: float, tolerance: float) -> tuple[Row, ...]:
    """Correct scored rows and style rows apart, and judge them where the gate is open."""
    scored, styles = ([row for row in rows if (row.kind == "style") == style] for style in (False, True))
    judged = []
    for group in (scored, styles):
        adjusted = benjamini_hochberg([row.test.p_value for row in group])
        judged += [
            replace(row, adjusted_p=p, changed=gate and p <= alpha and abs(row.size) > tolerance)
            for row, p in zip(group, adjusted, strict=True)
        ]
    return tuple(judged)


def _has_changed(rows: Sequence[Row], general: Sequence[General], alpha: float, tolerance: float) -> bool:
    if tolerance > 0:
        return any(row.changed for row in rows)
    return any(one.adjusted_p <= alpha for one in general)


def _verdict(
    shown: dict[str, float],
    pairs: Sequence[Pair],
    declared: Sequence[Declared],
    weights: WeightEvidence | None,
    model: TriageModel | None,
) -> Verdict:
    """What is stated comes before what is inferred: equal weights, then other decoding or prompts, then the model."""
    if weights is not None and weights.equal:
        return declared_verdict("both sides hold the same weights, bit by bit")
    stated = [str(one) for one in declared if one.kind in ("decoding", "prompt")]
    if stated:
        return declared_verdict("the two recordings were not taken alike: " + ", ".join(stated))
    silent = [sum(not getattr(pair, side)[0].strip() for pair in pairs) for side in _SIDES]
    if abs(silent[1] - silent[0]) > _SILENCE * len(pairs):
        worse = int(silent[1] > silent[0])
        told = f"{silent[worse]:,} of {len(pairs):,} answers {_SIDES[worse]} are empty"
        return undetermined(f"{told}: look for an outage, a filter or a limit first")
    if len(pairs) < LEAST_TRIAGE_PROMPTS:
        return undetermined(
            f"{len(pairs)} prompts are too few to tell stages apart, which takes {LEAST_TRIAGE_PROMPTS}"
        )
    return triage(shown, model)


def _more_prompts(
    asked: int, identical: int, rows: Sequence[Row], general: Sequence[General], alpha: float, size: int
) -> int | None:
    """How many more prompts would decide; None: nothing hints at a change, and a large one would have been seen.

    Each hint needs as many as find an effect of the size seen with 80 % power; the hint that needs fewest counts.
    """
    scored = [row for row in rows if row.kind != "style" and alpha < row.adjusted_p <= _SUGGESTIVE]
    needed = [(prompts_needed(row.size, alpha=alpha / size), row.effect.n) for row in scored]
    hints = [one.adjusted_p for one in general if one.adjusted_p <= _SUGGESTIVE]
    needed += [(prompts_needed(effect_behind(p, asked), alpha=alpha), asked) for p in hints]
    if not needed and smallest_effect_seen(asked, alpha=alpha / size) > _LARGE and identical < asked:
        needed = [(prompts_needed(_LARGE, alpha=alpha / size), asked)]
    missing = [wanted - had for wanted, had in needed if wanted is not None]
    return max(1, min(missing)) if missing else None


def _deciding(pairs: Sequence[Pair], rows: Sequence[Row]) -> tuple[DecidingPrompt, ...]:
    """The prompts that contribute most to the changed rows, in standard deviations of each row, in its direction.

    Where only a joint test sees the change, the rows that come nearest stand in.
    """
    weight = np.zeros(len(pairs))
    shows: list[list[tuple[float, str]]] = [[] for _ in pairs]
    for row in [row for row in rows if row.changed] or sorted(rows, key=lambda row: row.test.p_value)[:_NEAREST]:
        spread = float(np.std(row.differences)) or 1.0
        for position, difference in zip(row.positions, row.differences, strict=True):
            share = difference * math.copysign(1.0, row.effect.value) / spread
            if share > 0:
                weight[position] += share
                shows[position].append((share, row.name))
    ranked = [int(at) for at in np.argsort(-weight, kind="stable") if weight[at] > 0]
    return tuple(_shown(pairs[at], shows[at]) for at in ranked[:_DECIDING])


def _shown(pair: Pair, shows: list[tuple[float, str]]) -> DecidingPrompt:
    names = [name for _, name in sorted(shows, reverse=True)[:3]]
    return DecidingPrompt(
        prompt=pair.probe.text, probe=pair.probe.id, before=pair.before[0], after=pair.after[0], shows=tuple(names)
    )

"""Gates that no checkpoint could pass, found before a step is taken.

A gate fails closed: what was not measured has not passed. Where that is certain beforehand, because the name is
misspelt, nothing was held out or the parent is asked no such thing, hours of training would only end in a refusal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from weightgate.build.facts import Facts, Stage
from weightgate.build.judging import learnt_to_chat
from weightgate.errors import LockError
from weightgate.plan.advice import EXCESS_COMPUTE, pretraining
from weightgate.probe.measure import measure
from weightgate.probe.suites import Suite
from weightgate.probe.targets import Answers
from weightgate.recipe import Align, Gate, Recipe, Reward
from weightgate.stats import Unmeasured

Names = Mapping[str, str | None]
"""Name of a measurement -> why it could not be taken; None: it could."""

_REWARD = ("reward.pair_accuracy", "reward.length_correlation")
_ALIGN = ("align.kl", "align.proxy_gain", "align.stopped")
_GOLD_GAIN = "align.gold_gain"
_NEAR_NAMES = 3


def refuse_unmeasurable(recipe: Recipe, facts: Facts) -> None:
    """Raise `LockError` for the first gate whose measurement, or its parent's to compare with, cannot be taken."""
    for stage in recipe.stages:
        for gate in stage.gates:
            for owner, names in _judged_on(recipe, facts, stage, gate):
                _require(gate, owner, names, stage.name)


def _judged_on(recipe: Recipe, facts: Facts, stage: Stage, gate: Gate) -> Iterator[tuple[str, Names]]:
    """Whose measurements a gate looks at: those of the stage itself, and for a change those of its parent."""
    yield stage.name, _names(recipe, facts, stage)
    if gate.max_drop is None and gate.max_rise is None:
        return
    parent = recipe.parent_name(stage.name)
    if parent is not None:
        yield parent, _names(recipe, facts, recipe.stage(parent))
    elif recipe.base is not None:
        yield "base", _language_names(recipe, facts, "base", recipe.stages)
    else:
        yield "its parent, since it has none", {gate.measure: "the stage starts from random weights"}


def _require(gate: Gate, owner: str, names: Names, stage: str) -> None:
    reason = names.get(gate.measure, "nothing of this name is measured there")
    if reason is None:
        return
    near = difflib.get_close_matches(gate.measure, names, n=_NEAR_NAMES, cutoff=0.6)
    raise LockError(
        f"no checkpoint could pass the gate on {gate.measure!r}: it cannot be measured on {owner}",
        where=f"stages.{stage}.gates",
        expected=f"such as {', '.join(near)}" if gate.measure not in names and near else None,
        found=reason,
        mend="mend or remove the gate: what is not measured has not passed",
    )


def _names(recipe: Recipe, facts: Facts, stage: Stage) -> Names:
    held_out = len(facts.prepared[stage.name].holdout)
    nothing = None if held_out else "no record was held out; raise `holdout`"
    if isinstance(stage, Reward):
        return dict.fromkeys(_REWARD, nothing)
    stages = recipe.stages
    names = dict(_language_names(recipe, facts, stage.name, stages[: stages.index(stage) + 1]))
    if stage is pretraining(recipe):
        names[EXCESS_COMPUTE] = None
    if isinstance(stage, Align):
        names |= dict.fromkeys(_ALIGN, nothing)
        names[_GOLD_GAIN] = names.get("gold.reward", "there is no gold scorer: the recipe has no probes")
    return names


def _language_names(recipe: Recipe, facts: Facts, own: str, line: Sequence[Stage]) -> Names:
    """What can be measured on a language model after these stages; see `measure.policy_measurements`."""
    names: dict[str, str | None] = {}
    for stage in line:
        if stage.kind not in ("pretrain", "finetune"):
            continue
        rows = facts.prepared[stage.name].holdout
        reason = None if len(rows) else "no record was held out; raise `holdout`"
        whole = f"holdout.{stage.name}.bits_per_byte"
        names[whole] = reason
        if stage.name == own:
            names["holdout.bits_per_byte"] = reason
        for index, domain in enumerate(rows.domain_names if len(rows.domain_names) > 1 else ()):
            found = bool(np.any(np.asarray(rows.domains) == index))
            names[f"holdout.{stage.name}.{domain}.bits_per_byte"] = None if found else "no record of it was held out"
    if facts.suite is not None:
        chat = learnt_to_chat(recipe, line)
        names |= _probe_names(facts.suite if chat else facts.suite.of_form("text"))
    return names


def _probe_names(asked: Suite) -> Names:
    """What a suite measures, told by measuring answers that say nothing."""
    blank = Answers(greedy=("",) * len(asked), sampled=(("", ""),) * len(asked))
    return {
        name: value.reason if isinstance(value, Unmeasured) else None for name, value in measure(asked, blank).items()
    }

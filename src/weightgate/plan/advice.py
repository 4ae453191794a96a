"""What scaling laws say about a recipe before it is locked: is its budget well spent, and where should the next one go.

Only pre-training from scratch is judged. The laws were fitted to runs of 1e16 FLOP and more, so for a model that trains
in minutes they are followed over many decades, and the interval says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weightgate.plan.flops import parameters
from weightgate.plan.laws.loss import LossLaw
from weightgate.plan.laws.saved import find_law
from weightgate.plan.next_doubling import COMPUTE, UNIQUE, Run, doublings
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.recipe_plan import recipe_shape
from weightgate.plan.spread import Spread, spread
from weightgate.recipe import Pretrain, Recipe
from weightgate.stats import Estimate, Measurement, Unmeasured

EXCESS_COMPUTE = "plan.excess_compute"
"""Name of the measurement that a gate on the budget judges."""

DEFAULT_LAW = "chinchilla-refit"
_TOO_FAR = 2.0
"""Decades of compute outside a law's runs beyond which amounts are left out of advice."""


def pretraining(recipe: Recipe) -> Pretrain | None:
    """The stage that trains from scratch; None where the recipe starts from a base model."""
    first = recipe.stages[0]
    return first if isinstance(first, Pretrain) and recipe.base is None else None


def planned_run(recipe: Recipe, facts: Sequence[Mapping[str, Any]]) -> Run | None:
    """The recipe's pre-training as laws see it.

    Args:
        facts: the contract's stages, with steps and census.
    """
    stage = pretraining(recipe)
    if stage is None:
        return None
    fact = next(each for each in facts if each["name"] == stage.name)
    tokens = float(fact["steps"] * stage.batch * stage.context)
    unique = min(tokens, float(fact["census"]["tokens"]))
    return Run(parameters=float(parameters(recipe_shape(recipe)).total), tokens=tokens, unique=unique)


def excess_compute(run: Run, law: LossLaw) -> Spread:
    """Compute over what the optimum needs for the same loss. Repeats count as fresh: they are another question."""
    return spread(law, lambda constants: constants.excess_compute(run.parameters, run.tokens))


def excess_measurement(run: Run | None) -> Measurement:
    """`excess_compute` as a measurement: its interval spans the laws and the bootstrap, n counts the laws."""
    if run is None:
        return Unmeasured(reason="the recipe does no pre-training from scratch")
    found = excess_compute(run, find_law(DEFAULT_LAW))
    return Estimate(
        value=found.value, low=found.low, high=found.high, n=found.num_laws, unit="times", method="range over laws"
    )


def data_advice(run: Run, law: LossLaw) -> str | None:
    """One sentence where twice the unique data, at the same compute, buys more than twice the compute; else None."""
    if run.tokens <= run.unique:
        return None
    rows = doublings(run, law)
    data, compute = rows[UNIQUE].gain, rows[COMPUTE].gain
    if data.value <= compute.value:
        return None
    times = spell_quantity(run.tokens / run.unique)
    begin = f"the next dollar is better spent on data: each token is read {times} times; twice the"
    beyond = law.provenance.decades_beyond(run.flops)
    if beyond > _TOO_FAR:
        where = f"{beyond:.0f} decades outside {law.name}'s runs"
        return f"{begin} unique data would buy more than twice the compute ({where})"
    return (
        f"{begin} unique data would buy {data.described('{:.3f}'.format)} {law.unit.split('/')[0]} at the same "
        f"compute, twice the compute {compute.described('{:.3f}'.format)}"
    )

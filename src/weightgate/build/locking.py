"""The contract: agree on it before any compute is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightgate.build.facts import find_facts, refuse_contamination
from weightgate.build.measurable import refuse_unmeasurable
from weightgate.build.workspace import Workspace
from weightgate.contract import lock
from weightgate.contract.gate import judge
from weightgate.errors import GateFailed
from weightgate.plan.advice import EXCESS_COMPUTE, excess_measurement, planned_run, pretraining
from weightgate.recipe import Recipe
from weightgate.store.lease import in_use


def lock_contract(workspace: Workspace) -> dict[str, Any]:
    """Find the facts, refuse what must not be agreed to, and write `weightgate.lock`."""
    with in_use(workspace.store.root):
        facts = find_facts(workspace)
        refuse_contamination(workspace, facts.suite)
    refuse_unmeasurable(workspace.recipe, facts)
    _refuse_poor_budget(workspace.recipe, facts.contract)
    lock.write_lock(workspace.lock_path, facts.contract)
    return facts.contract


def _refuse_poor_budget(recipe: Recipe, contract: Mapping[str, Any]) -> None:
    """Judge the gates on the plan itself, which need no training. Raises `GateFailed` for the first that fails."""
    stage = pretraining(recipe)
    gates = [gate for gate in stage.gates if gate.measure == EXCESS_COMPUTE] if stage else []
    if stage is None or not gates:
        return
    measured = {EXCESS_COMPUTE: excess_measurement(planned_run(recipe, contract["stages"]))}
    bad = next((verdict for verdict in judge(gates, measured, {}) if verdict.status != "passed"), None)
    if bad is not None:
        raise GateFailed(
            f"stage {stage.name!r} would not pass its gate, before it starts: {bad.condition}: {bad.reason}; "
            "weightgate plan optimal says what the same compute buys best"
        )

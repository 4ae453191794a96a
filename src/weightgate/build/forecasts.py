"""What a plan promised, kept until the build can be held against it.

`weightgate plan` writes its forecasts into the store's cache; a build takes those that were made for exactly its stage
into the record of the run, where the report finds them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from weightgate.build.facts import Facts, Stage
from weightgate.build.workspace import Workspace
from weightgate.errors import CorruptError, DataError, StoreError
from weightgate.plan.advice import pretraining
from weightgate.plan.fit.builds import runs_of_stores
from weightgate.plan.fit.forecast import forecast, refits
from weightgate.plan.fit.holdout import compare
from weightgate.plan.fit.runs import usable
from weightgate.plan.recipe_plan import StagePlan
from weightgate.stats import Estimate, Measurement, Unmeasured
from weightgate.store import digest_bytes
from weightgate.store.fs import LocalFs, publish_temporary, write_temporary

SECONDS, LOSS = "seconds", "holdout.bits_per_byte"
"""What is forecast: seconds of training, and the hold-out loss under the name of its measurement."""

_DRAWS = 200


def stage_forecasts(
    workspace: Workspace, facts: Facts, plans: Sequence[StagePlan]
) -> dict[str, dict[str, Measurement]]:
    """Time of every stage, and loss of a pre-training from scratch where the store's earlier builds tell it."""
    found: dict[str, dict[str, Measurement]] = {plan.name: {SECONDS: plan.seconds} for plan in plans}
    stage = pretraining(workspace.recipe)
    if stage is not None:
        plan = next(plan for plan in plans if plan.name == stage.name)
        found[stage.name][LOSS] = _loss(workspace, facts.prepared[stage.name].digest, plan)
    return found


def _loss(workspace: Workspace, data: str, plan: StagePlan) -> Measurement:
    try:
        runs = usable(runs_of_stores([workspace.store.root], data=data))
    except (DataError, CorruptError) as problem:
        return Unmeasured(reason=f"no law of this recipe's own builds: {problem.what}")
    compared = compare(runs)
    drawn = refits(runs, compared, draws=_DRAWS)
    ahead = forecast(runs, compared, drawn, np.array([float(plan.parameters)]), np.array([float(plan.tokens)]))
    return Estimate(
        value=float(ahead.value[0]),
        low=float(ahead.low[0]),
        high=float(ahead.high[0]),
        n=len(runs),
        unit=runs.unit,
        method=f"law of {len(runs)} builds ({compared[0].form.name}), 90 %",
    )


def remember_forecasts(workspace: Workspace, facts: Facts, forecasts: Mapping[str, Mapping[str, Measurement]]) -> None:
    """Keep forecasts for the build. One that cannot be written is lost without harm."""
    document = {
        stage.name: {
            "of": _identity(workspace, facts, stage),
            "forecast": {name: value.to_json() for name, value in forecasts[stage.name].items()},
        }
        for stage in workspace.recipe.stages
    }
    path = _path(workspace)
    with suppress(OSError, StoreError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_temporary(LocalFs(), workspace.store.root / "tmp", (json.dumps(document).encode(),))
        publish_temporary(LocalFs(), temporary, path, replace=True)


def recall_forecast(workspace: Workspace, facts: Facts, stage: Stage) -> dict[str, Any]:
    """The forecast of a stage as JSON, by what is forecast; empty where none was made for exactly this stage."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(_path(workspace).read_text(encoding="utf-8"))[stage.name]
        if kept["of"] == _identity(workspace, facts, stage):
            return dict(kept["forecast"])
    return {}


def _path(workspace: Workspace) -> Path:
    return workspace.cache / "forecasts.json"


def _identity(workspace: Workspace, facts: Facts, stage: Stage) -> str:
    """Digest of what a stage costs and learns from; gates leave it as it is."""
    fact = next(fact for fact in facts.contract["stages"] if fact["name"] == stage.name)
    named = {name: value for name, value in fact.items() if name not in ("gates", "audits")}
    settings = stage.model_dump(mode="json", exclude={"gates", "audits"})
    text = json.dumps([named, settings, facts.config, workspace.accelerator.num_processes], sort_keys=True, default=str)
    return digest_bytes(text.encode())

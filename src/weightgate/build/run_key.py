"""What identifies a run: everything that decides a stage's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightgate.build.facts import Facts, Stage
from weightgate.build.workspace import CODE, Workspace
from weightgate.store import Manifest


def stage_inputs(
    workspace: Workspace, facts: Facts, stage: Stage, parent: str | None, reward: str | None
) -> dict[str, Any]:
    """Everything that decides a stage's weights, as strings and integers; its digest is the key of the run.

    Gates and probes are left out: they judge weights, they do not make them.
    """
    fact = next(fact for fact in facts.contract["stages"] if fact["name"] == stage.name)
    is_first = workspace.recipe.parent_name(stage.name) is None
    settings = stage.model_dump(mode="json", exclude={"name", "kind", "data", "gates", "holdout", "audits"})
    inputs: dict[str, Any] = {
        "stage_kind": stage.kind,
        "recipe": _plain(settings),
        "parent": (facts.base_digest or "none") if is_first else str(parent),
        "reward": reward or "none",
        "data": facts.prepared[stage.name].digest,
        "tokenizer": facts.tokenizer.digest,
        "parameters": fact["trainable"],
        "steps": facts.steps[stage.name],
        "seed": workspace.recipe.seed,
        "code": CODE,
        "class": workspace.reproducibility(),
    }
    if stage.kind != "pretrain":
        inputs["template"] = facts.tokenizer.template_digest
    if is_first:
        inputs["architecture"] = _plain(facts.config)
    return inputs


def recorded_inputs(manifest: Manifest) -> dict[str, Any]:
    """The inputs that a checkpoint was made from, as `stage_inputs` gives them."""
    return {name: value for name, value in manifest.inputs.items() if name != "key"}


def _plain(value: Any) -> Any:
    """Floats as their shortest text: manifests hold none, because their JSON form is not unique."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

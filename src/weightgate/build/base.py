"""The base model as a checkpoint of the store, so that every stage has a parent that is loaded and measured alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from weightgate.build.facts import Facts
from weightgate.build.workspace import CODE, Workspace
from weightgate.errors import RecipeError
from weightgate.store import Result, digest_json
from weightgate.train.checkpoints import MODEL_CONFIG, publish
from weightgate.train.models import load_base, saved_tensors

STAGE = "base"
"""Name and kind of the checkpoint; no stage of a recipe that starts from a base model may bear it."""


def base_checkpoint(workspace: Workspace, facts: Facts) -> str | None:
    """Return the id of the base model's checkpoint, stored on the first call; None when the recipe starts fresh.

    The tensors are kept in the dtypes they came in. Raises `ModelError` when the base cannot be loaded.
    """
    base = workspace.recipe.base
    if base is None:
        return None
    if any(stage.name == STAGE for stage in workspace.recipe.stages):
        raise RecipeError(f"no stage may be called {STAGE!r}: that is the model the recipe starts from", where="stages")
    inputs: dict[str, Any] = {
        "stage_kind": STAGE,
        "base": str(facts.base_digest),
        "tokenizer": facts.tokenizer.digest,
        "template": facts.tokenizer.template_digest,
        "code": CODE,
    }
    key = digest_json(inputs)
    known = workspace.store.results(key)
    if known:
        return known[-1].checkpoint
    model = load_base(base, workspace.folder, device=workspace.device, precision=None)
    config = json.dumps(facts.config, sort_keys=True, indent=2).encode()
    checkpoint = publish(
        workspace.store,
        stage=STAGE,
        stage_kind=STAGE,
        tensors=saved_tensors(model),
        files={MODEL_CONFIG: config, **facts.tokenizer.files()},
        inputs=inputs | {"key": key},
        parent=None,
        reward=None,
    )
    recorded_at = datetime.now(UTC).isoformat(timespec="microseconds")
    if workspace.accelerator.is_main_process:
        workspace.store.add_result(key, Result(key=key, checkpoint=checkpoint, recorded_at=recorded_at))
    return checkpoint

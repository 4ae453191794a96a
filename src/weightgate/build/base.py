"""The base model as a checkpoint of the store, so that every stage has a parent that is loaded and measured alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from weightgate.build.earlier import earlier_runs, reusable
from weightgate.build.facts import Facts
from weightgate.build.workspace import CODE, Workspace
from weightgate.errors import RecipeError
from weightgate.store import Flaws, Result, digest_json
from weightgate.store.records import WITHOUT_REF, recording_time
from weightgate.train.checkpoints import MODEL_CONFIG, publish
from weightgate.train.models import load_base, saved_tensors

STAGE = WITHOUT_REF
"""Name and kind of the checkpoint; no stage of a recipe that starts from a base model may bear it."""


def base_checkpoint(workspace: Workspace, facts: Facts, *, restart: bool, note: Callable[[str], None]) -> str | None:
    """Return the id of the base model's checkpoint, stored on the first call; None when the recipe starts fresh.

    The tensors are kept in the dtypes they came in. With `restart` a damaged one is stored again, which `note` is told.
    Raises `ModelError` when the base cannot be loaded, `CorruptError` when what was stored is damaged.
    """
    base = workspace.recipe.base
    if base is None:
        return None
    if any(stage.name == STAGE for stage in workspace.recipe.stages):
        raise RecipeError(f"no stage may be called {STAGE!r}: that is the model the recipe starts from", where="stages")
    inputs = _inputs(facts)
    key = digest_json(inputs)
    stored = reusable(workspace.store, key, "the base model", restart=restart, note=note)
    if stored is not None:
        return stored
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
    if workspace.accelerator.is_main_process:
        result = Result(key=key, checkpoint=checkpoint, recorded_at=recording_time(workspace.store.results(key)))
        workspace.store.add_result(key, result)
    return checkpoint


def base_flaws(workspace: Workspace, facts: Facts) -> Flaws:
    """What is wrong with the base model's checkpoint; nothing where there is none yet."""
    stored = earlier_runs(workspace.store, digest_json(_inputs(facts))) if workspace.recipe.base is not None else []
    return workspace.store.flaws(stored[-1].checkpoint) if stored else Flaws()


def _inputs(facts: Facts) -> dict[str, Any]:
    return {
        "stage_kind": STAGE,
        "base": str(facts.base_digest),
        "tokenizer": facts.tokenizer.digest,
        "template": facts.tokenizer.template_digest,
        "code": CODE,
    }

"""A checkpoint of the store as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightgate.build.workspace import Workspace
from weightgate.errors import StoreError
from weightgate.store import Manifest, Store
from weightgate.train.checkpoints import ADAPTER_CONFIG, config_of, load_policy, saved_adapter, tensors_of, tokenizer_of
from weightgate.train.export import Form, Provenance, export_folder
from weightgate.train.models import saved_tensors


def export_checkpoint(workspace: Workspace, ref: str, folder: Path, *, merge: bool, force: bool) -> None:
    """Write a checkpoint as a folder that transformers (or PEFT, for an adapter kept apart) loads as it is.

    Raises `StoreError` for a ref that does not resolve, an adapter asked for where there is none, or a full folder.
    """
    store = workspace.store
    checkpoint = store.resolve(ref)
    manifest = store.manifest(checkpoint)
    is_adapter = ADAPTER_CONFIG in manifest.files
    if not merge and not is_adapter:
        raise StoreError("this checkpoint has no adapter to keep apart", where=ref, mend="leave out --keep-adapter")
    common: dict[str, Any] = {
        "tokenizer_files": tokenizer_of(store, manifest).files(),
        "provenance": _provenance(workspace, manifest, merged=is_adapter and merge),
        "force": force,
    }
    if is_adapter and not merge:
        saved = saved_adapter(store, manifest)
        export_folder(folder, form="adapter", tensors=saved.tensors, config=saved.config, **common)
    elif is_adapter:
        model = load_policy(store, checkpoint, device=workspace.device, precision=workspace.precision)
        export_folder(folder, form="causal", tensors=saved_tensors(model), config=config_of(store, manifest), **common)
    else:
        form: Form = "reward" if manifest.stage_kind == "reward" else "causal"
        export_folder(
            folder, form=form, tensors=tensors_of(store, manifest), config=config_of(store, manifest), **common
        )


def _provenance(workspace: Workspace, manifest: Manifest, *, merged: bool) -> Provenance:
    base = workspace.recipe.base
    return Provenance(
        checkpoint=manifest.id,
        manifest=manifest.to_json(),
        ancestors={each.id: each.to_json() for each in _ancestors(workspace.store, manifest)},
        base_model=base.model if base else None,
        merged=merged,
    )


def _ancestors(store: Store, manifest: Manifest) -> list[Manifest]:
    found: dict[str, Manifest] = {}
    waiting = list(manifest.ancestors())
    while waiting:
        checkpoint = waiting.pop()
        if checkpoint not in found:
            found[checkpoint] = store.manifest(checkpoint)
            waiting.extend(found[checkpoint].ancestors())
    return list(found.values())

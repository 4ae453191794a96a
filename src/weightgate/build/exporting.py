"""A checkpoint of the store as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from weightgate.build.workspace import Workspace
from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import StoreError
from weightgate.store import Manifest, Store
from weightgate.train.checkpoints import ADAPTER_CONFIG, config_of, load_policy, saved_adapter, tensors_of, tokenizer_of
from weightgate.train.export import Form, Provenance, export_folder
from weightgate.train.models import saved_tensors


def export_checkpoint(workspace: Workspace, ref: str, folder: Path, *, merge: bool, force: bool) -> dict[str, Any]:
    """Write a checkpoint as a folder that transformers (or PEFT, for an adapter kept apart) loads as it is.

    Returns what was written, as plain data: checkpoint, folder and the names of its files.

    Raises `StoreError` for a ref that does not resolve, an adapter asked for where there is none, a full folder, or one
    that holds the recipe, its store or its data.
    """
    store = workspace.store
    checkpoint = store.resolve(ref)
    _refuse_to_replace_sources(workspace, folder)
    manifest = store.manifest(checkpoint)
    is_adapter = ADAPTER_CONFIG in manifest.files
    if not merge and not is_adapter:
        raise StoreError("this checkpoint has no adapter to keep apart", where=ref, mend="leave out --keep-adapter")
    tokenizer = tokenizer_of(store, manifest)
    form: Form
    common: dict[str, Any] = {
        "tokenizer_files": tokenizer.files(),
        "generation": _generation(tokenizer),
        "provenance": _provenance(workspace, manifest, merged=is_adapter and merge),
        "force": force,
    }
    if is_adapter and not merge:
        saved = saved_adapter(store, manifest)
        form, tensors, config = "adapter", saved.tensors, saved.config
    else:
        form = "reward" if manifest.stage_kind == "reward" else "causal"
        tensors, config = _whole_tensors(workspace, manifest), config_of(store, manifest)
    files = export_folder(folder, form=form, tensors=tensors, config=config, **common)
    return {"checkpoint": checkpoint, "folder": str(folder), "form": form, "files": files}


def _refuse_to_replace_sources(workspace: Workspace, folder: Path) -> None:
    """An export takes the place of its whole folder: with `--force` it would take the store, or the data, along."""
    sources = (source.path for stage in workspace.recipe.stages for source in stage.data if source.path)
    needed = (workspace.recipe_path, workspace.store.root, *(workspace.folder / path for path in sources))
    held = [path for path in needed if path.resolve().is_relative_to(folder.resolve())]
    if held:
        raise StoreError(
            "the target folder holds what the build is made from",
            where=str(folder),
            found=str(held[0]),
            mend="name a folder of its own, such as exported",
        )


def _whole_tensors(workspace: Workspace, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a checkpoint; where it is an adapter, those of its network with the adapter merged in."""
    if ADAPTER_CONFIG not in manifest.files:
        return tensors_of(workspace.store, manifest)
    model = load_policy(workspace.store, manifest.id, device=workspace.device, precision=workspace.precision)
    return saved_tensors(model)


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `generation_config.json` says: every token that ends a completion, the template's end of turn included.

    An engine that knows only the end-of-text token of the base model would let a chat model run on.
    """
    stops = tokenizer.stop_ids
    found = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(stops) if len(stops) > 1 else stops[0],
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: value for name, value in found.items() if value is not None}


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

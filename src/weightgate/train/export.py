"""A checkpoint as a Hugging Face folder: what `transformers`, PEFT and vLLM load as it is, with proof of its origin.

Three forms: a causal language model, a reward model (`AutoModelForSequenceClassification`) and an adapter without its
base (PEFT). Beside the weights lie a model card and `weightgate.json`, from which a stranger can verify every file and
follow the lineage; see `problems`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from weightgate.errors import ModelError, StoreError
from weightgate.store import canonical_json, digest_bytes, digest_file
from weightgate.store.whole_folder import whole_folder
from weightgate.train.objectives.reward import classification_config

Form = Literal["causal", "reward", "adapter"]

SCHEMA = 1
PROVENANCE_FILE = "weightgate.json"
SHARD_BYTES = 5 * 10**9
"""The largest weight file; hubs and loaders expect larger models in shards."""

_READABLE = 0o644

_REWARD_OFFSET = "score_offset"
"""Subtracted from every score by our reward models; the head `transformers` builds has no place for it."""
_WEIGHTS = {"causal": "model.safetensors", "reward": "model.safetensors", "adapter": "adapter_model.safetensors"}
_CONFIG = {"causal": "config.json", "reward": "config.json", "adapter": "adapter_config.json"}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a checkpoint comes from, as plain data.

    Fields:
        checkpoint: its id, the digest of the canonical JSON of `manifest`.
        manifest: the manifest as the store keeps it.
        ancestors: id -> manifest of every checkpoint before it.
        base_model: folder name or hub id of the model it started from; None: trained from scratch.
        merged: whether an adapter was folded in, so that the tensors are no longer those of the manifest.
    """

    checkpoint: str
    manifest: Mapping[str, Any]
    ancestors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    base_model: str | None = None
    merged: bool = False


def export_folder(
    folder: Path,
    *,
    form: Form,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer_files: Mapping[str, bytes],
    provenance: Provenance,
    generation: Mapping[str, Any] | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write a Hugging Face folder and return the names of its files.

    Everything is written to a folder beside the target first, so the target holds all of it or nothing; what a killed
    export left there is cleaned up.

    Args:
        tensors: the model's own names; for an adapter PEFT's.
        config: what `config.json` holds (for an adapter `adapter_config.json`); architecture and dtype are filled in.
        tokenizer_files: file name -> content, copied byte by byte.
        generation: what `generation_config.json` holds; None: beginning, end and padding ids out of `config`.
        force: whether a folder with something in it is replaced.

    Raises `StoreError` when the target is taken or cannot be written, `ModelError` for a model type that has no class
    of this form in `transformers`.
    """
    _check_target(folder, force)
    described = dict(config) if form == "adapter" else _complete_config(config, form, tensors)
    files = {_CONFIG[form]: _pretty(described), **tokenizer_files}
    if form == "causal":
        files["generation_config.json"] = _pretty(generation or _generation(described))
    files["README.md"] = _model_card(form, provenance).encode()
    kept = {name: tensor for name, tensor in tensors.items() if name != _REWARD_OFFSET}
    try:
        with whole_folder(folder) as temporary:
            _write_files(temporary, files)
            _write_weights(temporary, _WEIGHTS[form], kept, shard_bytes)
            _write_files(temporary, {PROVENANCE_FILE: _pretty(_statement(temporary, form, tensors, provenance))})
    except OSError as error:
        raise StoreError(
            "the folder could not be written",
            where=str(folder),
            found=error.strerror or str(error),
            mend="name a folder that can be made and written to",
        ) from error
    return sorted(entry.name for entry in folder.iterdir())


def problems(folder: Path) -> list[str]:
    """Verify an exported folder against its own `weightgate.json`; return one sentence for everything that is wrong.

    Checked: every file's digest, the digest of the manifest against the checkpoint's id, and the chain of parents.
    Raises `StoreError` when there is no readable `weightgate.json`.
    """
    path = folder / PROVENANCE_FILE
    try:
        statement = json.loads(path.read_bytes())
        return list(_file_problems(folder, statement["files"])) + list(_lineage_problems(statement))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("this folder cannot be verified", where=str(path), found=str(error)) from None


def _file_problems(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    for name, digest in sorted(files.items()):
        if PurePath(name).name != name:
            yield f"{name!r} is not a plain file name"
        elif not (folder / name).is_file():
            yield f"{name} is missing"
        elif digest_file(folder / name) != digest:
            yield f"{name} is not the file that was exported"


def _lineage_problems(statement: Mapping[str, Any]) -> Iterator[str]:
    manifests = {statement["checkpoint"]: statement["manifest"], **statement["ancestors"]}
    for identity, manifest in manifests.items():
        if digest_bytes(canonical_json(manifest)) != identity:
            yield f"the manifest given for {identity} has another digest"
        for parent in (manifest["parent"], manifest["reward"]):
            if parent is not None and parent not in manifests:
                yield f"{identity} names {parent}, whose manifest is not here"


def _check_target(folder: Path, force: bool) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StoreError("the target is not a folder", where=str(folder), mend="name another folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise StoreError(
            "the target folder is not empty", where=str(folder), mend="name an empty folder, or replace it with --force"
        )


def _complete_config(config: Mapping[str, Any], form: Form, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fill in the class that loads the model, and the dtype of its weights."""
    model_type = str(config.get("model_type"))
    classes = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if form == "causal" else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if model_type not in classes:
        raise ModelError(
            f"transformers has no {'language' if form == 'causal' else 'reward'} model of this type",
            where="config.model_type",
            found=model_type,
        )
    dtype = max((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), key=_width)
    completed = {**config, "architectures": [classes[model_type]], "dtype": str(dtype).removeprefix("torch.")}
    return classification_config(completed) if form == "reward" else completed


def _width(dtype: torch.dtype) -> int:
    return dtype.itemsize


def _generation(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if config.get(name) is not None}


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if PurePath(name).name != name or name in {"", ".", ".."}:
            raise StoreError("a file of the checkpoint has no plain name", found=repr(name))
        (folder / name).write_bytes(content)


def _write_weights(folder: Path, name: str, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """One file, or shards with the index that `transformers` looks for."""
    owned = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    stem, suffix = name.rsplit(".", 1)
    split = split_torch_state_dict_into_shards(
        owned, filename_pattern=f"{stem}{{suffix}}.{suffix}", max_shard_size=shard_bytes
    )
    for file, names in split.filename_to_tensors.items():
        save_file({key: owned[key] for key in names}, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(_READABLE)  # the library makes files for their owner alone
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{name}.index.json").write_bytes(_pretty(index))


def _statement(folder: Path, form: Form, tensors: Mapping[str, Tensor], provenance: Provenance) -> dict[str, Any]:
    """What `weightgate.json` says; written last, because it names every other file by digest."""
    statement: dict[str, Any] = {
        "schema": SCHEMA,
        "form": form,
        "checkpoint": provenance.checkpoint,
        "manifest": provenance.manifest,
        "ancestors": dict(provenance.ancestors),
        "base_model": provenance.base_model,
        "merged": provenance.merged,
        "files": {path.name: digest_file(path) for path in sorted(folder.iterdir())},
    }
    if _REWARD_OFFSET in tensors:
        statement["score_offset"] = float(tensors[_REWARD_OFFSET])
    return statement


_USES = {
    "causal": "AutoModelForCausalLM.from_pretrained(folder)",
    "reward": "AutoModelForSequenceClassification.from_pretrained(folder)",
    "adapter": "PeftModel.from_pretrained(base, folder)",
}
_PIPELINE = {"causal": "text-generation", "reward": "text-classification", "adapter": "text-generation"}


def _model_card(form: Form, provenance: Provenance) -> str:
    head = {"library_name": "peft" if form == "adapter" else "transformers", "pipeline_tag": _PIPELINE[form]}
    if provenance.base_model is not None:
        head["base_model"] = provenance.base_model
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "tags: [weightgate]", "---", ""]
    lines += [f"# Checkpoint {provenance.checkpoint}", "", f"Load it with `{_USES[form]}`.", ""]
    if provenance.merged:
        lines += ["An adapter was merged into these weights, in fp32, and the sum cast to the stored dtype.", ""]
    lines += ["## Lineage", "", "| stage | kind | checkpoint | parent |", "|---|---|---|---|"]
    lines += _lineage_rows(provenance)
    lines += ["", f"`{PROVENANCE_FILE}` holds the manifest of each, and the BLAKE3 digest of every file here."]
    return "\n".join(lines) + "\n"


def _lineage_rows(provenance: Provenance) -> Iterable[str]:
    """Oldest first: the ancestors in the order given, then the checkpoint itself."""
    for identity, manifest in (*provenance.ancestors.items(), (provenance.checkpoint, provenance.manifest)):
        cells = (manifest["stage"], manifest["stage_kind"], identity, manifest["parent"] or "none")
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

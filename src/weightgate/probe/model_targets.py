"""Checkpoints and Hugging Face folders, ready to answer a suite; and their tensors. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate import recipe
from weightgate.data.template import TemplateError
from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import ModelError
from weightgate.probe.addresses import CheckpointAddress, FolderAddress, ModelAddress
from weightgate.probe.checkpoint_target import CheckpointTarget
from weightgate.probe.endpoint_config import DEFAULT_MAX_TOKENS
from weightgate.probe.recording import Decoding, TargetDescription
from weightgate.probe.snapshot import TargetAsker
from weightgate.probe.suites import Suite
from weightgate.recipe import Base, Recipe
from weightgate.store import Store
from weightgate.store.records import TensorData
from weightgate.store.tensor_files import read_safetensors_file
from weightgate.train.checkpoints import ADAPTER_CONFIG, load_policy, tokenizer_of
from weightgate.train.environment import choose_device, choose_precision, hold_still
from weightgate.train.models import base_weight_files, load_base, saved_tensors, to_store

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    model: Any
    tokenizer: Tokenizer
    description: TargetDescription


def load_model(address: ModelAddress, suite: Suite, decoding: Decoding) -> TargetAsker:
    """Load a model to answer a suite: a `weightgate.probe.inquiry.LoadModel`.

    Raises `StoreError` for a reward model, `CorruptError` for damaged bytes, and `ModelError` for a folder that is no
    causal language model or has no chat template where the suite needs one, and for a prompt that fills the context.
    """
    loaded = _folder(address) if isinstance(address, FolderAddress) else _checkpoint(address)
    target = CheckpointTarget(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        max_tokens=decoding.max_tokens or DEFAULT_MAX_TOKENS,
        batch=_BATCH,
    )
    _require_askable(target, suite, loaded.description)
    return TargetAsker(target=target, description=loaded.description, suite=suite)


def read_weights(address: ModelAddress) -> Iterator[tuple[str, TensorData]]:
    """Yield names and tensors as stored; of an adapter's checkpoint, those of the network it makes, merged in fp32."""
    if isinstance(address, FolderAddress):
        for path in base_weight_files(Base(model=str(address.path.resolve())), Path()):
            yield from read_safetensors_file(path).items()
        return
    _, store = _opened(address)
    manifest = store.manifest(address.checkpoint)
    if ADAPTER_CONFIG not in manifest.files:
        yield from store.read_tensors(manifest)
        return
    merged = load_policy(store, address.checkpoint, device=choose_device("cpu"), precision="fp32")
    yield from to_store(saved_tensors(merged)).items()


def _opened(address: CheckpointAddress) -> tuple[Recipe, Store]:
    loaded = recipe.load(address.recipe_path)
    return loaded, Store.open(address.recipe_path.parent / loaded.store)


def _checkpoint(address: CheckpointAddress) -> _Loaded:
    loaded, store = _opened(address)
    hold_still(0, loaded.threads)
    device = choose_device(loaded.device)
    return _Loaded(
        model=load_policy(
            store, address.checkpoint, device=device, precision=choose_precision(loaded.precision, device)
        ),
        tokenizer=tokenizer_of(store, store.manifest(address.checkpoint)),
        description=TargetDescription(kind="checkpoint", place=address.checkpoint, model=address.ref),
    )


def _folder(address: FolderAddress) -> _Loaded:
    device = choose_device("auto")
    base = Base(model=str(address.path.resolve()))
    return _Loaded(
        model=load_base(base, Path(), device=device, precision=None),
        tokenizer=Tokenizer.from_folder(address.path),
        description=TargetDescription(kind="folder", place=str(address.path), model=address.path.resolve().name),
    )


def _require_askable(target: CheckpointTarget, suite: Suite, description: TargetDescription) -> None:
    """Find out before the first answer whether the model can be asked all of the suite."""
    for probe in suite:
        try:
            prompt = target.prompt_ids(probe)
        except TemplateError as error:
            raise ModelError(
                "the model cannot be asked in messages",
                where=description.place,
                found=error.what,
                mend="put a chat_template.jinja into the folder, or ask a suite of the form `text`",
            ) from None
        if target.room(prompt) == 0:
            raise ModelError(
                f"the prompt of {probe.id!r} leaves no room for an answer",
                where=description.place,
                expected=f"fewer tokens than the context holds, {target.context_tokens:,}",
                found=f"{len(prompt):,}",
                mend="leave the prompt out of the suite, or shorten it",
            )

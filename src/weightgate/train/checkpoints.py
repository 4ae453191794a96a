"""Between the store's bytes and networks that run: publish, load, and resume points.

An adapter stage publishes only its factors; its network is the parent's with the adapter merged in. So a policy is
loaded by walking up to the last full checkpoint and merging back down, in fp32, the same way every time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import CorruptError, StoreError
from weightgate.store import Manifest, Store, digest_bytes
from weightgate.store.resume import ResumePoint, read_newest, write_resume_point
from weightgate.train.adapters import SavedAdapter, load_adapter, merge
from weightgate.train.loop import ResumeState
from weightgate.train.models import fill, from_store, load_model, to_store
from weightgate.train.objectives.reward import RewardModel

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"


def publish(
    store: Store,
    *,
    stage: str,
    stage_kind: str,
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    inputs: Mapping[str, Any],
    parent: str | None,
    reward: str | None,
) -> str:
    """Put tensors and files into the store and publish their manifest. Returns the checkpoint's id."""
    manifest = Manifest(
        stage=stage,
        stage_kind=stage_kind,
        parent=parent,
        reward=reward,
        tensors=store.put_tensors(to_store(tensors)),
        files={name: store.put_bytes(content) for name, content in sorted(files.items())},
        inputs=inputs,
    )
    return store.publish(manifest)


def tensors_of(store: Store, manifest: Manifest) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, re-hashed while it is read. Raises `CorruptError` naming a damaged one."""
    return {name: from_store(data) for name, data in store.read_tensors(manifest)}


def config_of(store: Store, manifest: Manifest) -> dict[str, Any]:
    """The transformers configuration of a checkpoint."""
    config: dict[str, Any] = json.loads(store.get_bytes(manifest.files[MODEL_CONFIG]))
    return config


def tokenizer_of(store: Store, manifest: Manifest) -> Tokenizer:
    """The tokenizer that a checkpoint was trained with."""
    names = manifest.files.keys() - {MODEL_CONFIG, ADAPTER_CONFIG}
    files = {name: store.get_bytes(manifest.files[name]) for name in sorted(names)}
    return Tokenizer.from_files(files)


def load_policy(store: Store, checkpoint: str, *, device: torch.device, precision: str) -> Any:
    """Load a causal language model by checkpoint id, adapters merged. Raises `StoreError` for a reward model."""
    manifest = store.manifest(checkpoint)
    if manifest.stage_kind == "reward":
        raise StoreError(
            "a reward model scores text, it does not write any",
            where=checkpoint,
            found=manifest.stage,
            mend=f"name another checkpoint, such as the one it was made from: {str(manifest.parent)[3:15]}",
        )
    if ADAPTER_CONFIG not in manifest.files:
        tensors = tensors_of(store, manifest)
        return load_model(config_of(store, manifest), tensors.items(), device=device, precision=precision)
    if manifest.parent is None:
        raise CorruptError("an adapter checkpoint has no parent to sit on", where=checkpoint)
    base = load_policy(store, manifest.parent, device=device, precision=precision)
    return merge(load_adapter(base, saved_adapter(store, manifest), base_digest=manifest.parent)).eval()


def saved_adapter(store: Store, manifest: Manifest) -> SavedAdapter:
    """The adapter of a checkpoint apart from its base, whose digest is the parent's id."""
    return SavedAdapter(
        tensors=tensors_of(store, manifest),
        config=json.loads(store.get_bytes(manifest.files[ADAPTER_CONFIG])),
        base_digest=manifest.parent or "",
    )


def load_reward(store: Store, checkpoint: str, *, device: torch.device, precision: str) -> RewardModel:
    """Load a reward model by checkpoint id. Raises `StoreError` for any other checkpoint."""
    manifest = store.manifest(checkpoint)
    if manifest.stage_kind != "reward":
        raise StoreError("this checkpoint is no reward model", where=checkpoint, found=manifest.stage_kind)
    if manifest.parent is None:
        raise CorruptError("a reward checkpoint has no parent", where=checkpoint)
    skeleton = load_policy(store, manifest.parent, device=device, precision=precision)
    reward = RewardModel.from_causal(skeleton, seed=0)
    fill(reward, tensors_of(store, manifest).items())
    return reward.eval()


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """One digest over the names and bytes of loaded weights, to tell whether two networks are the same."""
    hashed = {name: digest_bytes(data.view()) for name, data in to_store(tensors).items()}
    return digest_bytes(json.dumps(hashed, sort_keys=True).encode())


def save_resume_point(folder: Path, state: ResumeState) -> None:
    """Write one resume point durably; the two newest are kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_resume_point(folder, to_store(state.tensors), state.plain, state.step)


def newest_resume_state(folder: Path) -> ResumeState | None:
    """Read the newest resume point that is whole, or None."""
    point: ResumePoint | None = read_newest(folder)
    if point is None:
        return None
    tensors = {name: from_store(data) for name, data in point.tensors.items()}
    return ResumeState(step=point.step, tensors=tensors, plain=dict(point.state))

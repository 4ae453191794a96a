"""The network that a recipe asks for: its configuration, tried without memory behind it, and what stages train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from weightgate.build.workspace import Workspace
from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import ModelError
from weightgate.recipe import Align, Finetune, Pretrain, Recipe, Reward
from weightgate.store import digest_bytes, digest_file, digest_json
from weightgate.train.adapters import attach, check_trainable, trainable_census
from weightgate.train.models import base_config, base_weight_files, new_config, skeleton

_MAX_SHOWN = 300
_POSITIONS = ("max_position_embeddings", "n_positions")
_POSITION_TABLES = ("wpe.", "embed_positions.", "position_embed")
"""What parameters of learnt positions are called in transformers."""


def network_config(recipe: Recipe, folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the transformers configuration of the base model, or of the network to be made, as plain data.

    Raises `ModelError` where transformers cannot build it, or it has learnt fewer positions than a stage needs.
    """
    try:
        config = _config(recipe, folder, tokenizer, max(stage.context for stage in recipe.stages))
        if recipe.base is None and _learns_positions(config):
            config = _config(recipe, folder, tokenizer, max(map(_num_positions, recipe.stages)))
        learnt = _learns_positions(config)
    except ModelError:
        raise
    except Exception as error:  # configurations are checked by dozens of classes, each with errors of its own
        raise ModelError(
            "transformers cannot build this network",
            where="architecture.config" if recipe.base is None else f"base.model: {recipe.base.model}",
            found=" ".join(str(error).split())[:_MAX_SHOWN] or type(error).__name__,
            mend="compare with the configuration of a model of this type that works",
        ) from None
    if learnt:
        _require_positions(recipe, config)
    return config


def _config(recipe: Recipe, folder: Path, tokenizer: Tokenizer, positions: int) -> dict[str, Any]:
    if recipe.base is not None:
        return base_config(recipe.base, folder)
    assert recipe.architecture is not None
    return new_config(recipe.architecture, tokenizer, positions)


def _learns_positions(config: dict[str, Any]) -> bool:
    """Whether the network has a table of positions: beyond its end there is nothing to look up."""
    return any(part in name for name, _ in skeleton(config).named_parameters() for part in _POSITION_TABLES)


def _num_positions(stage: Pretrain | Finetune | Reward | Align) -> int:
    """Positions that the longest sequence of a stage takes."""
    return stage.context + (stage.ppo.completion_tokens if isinstance(stage, Align) else 0)


def _require_positions(recipe: Recipe, config: dict[str, Any]) -> None:
    known = next((config[name] for name in _POSITIONS if isinstance(config.get(name), int)), None)
    for stage in recipe.stages:
        needed = _num_positions(stage)
        if known is not None and needed > known:
            raise ModelError(
                f"stage {stage.name!r} is longer than the network has positions for",
                where=f"stages.{stage.name}.context",
                expected=f"at most {known} tokens, completions of PPO included",
                found=str(needed),
                mend="lower `context`, or start from a model with more positions",
            )


def trainable_fact(stage: Pretrain | Finetune | Reward | Align, config: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the stage will train, counted on a network without memory behind it.

    Raises `ModelError` for an adapter that trains nothing, or everything.
    """
    model = skeleton(config)
    adapter = None if isinstance(stage, Pretrain) else stage.adapter
    if adapter is not None:
        # Only the shapes count here; 4-bit packing needs real weights and changes none of them.
        with torch.device("meta"):
            model = attach(model, adapter.model_copy(update={"bits": 16}), seed)
    census = trainable_census(model)
    if adapter is not None:
        check_trainable(census)
    return {
        "parameters": census.count,
        "of": census.total,
        "names": len(census.names),
        "names_digest": digest_json(list(census.names)),
    }


def base_digest(workspace: Workspace) -> str | None:
    """Digest of the base model's weights and configuration; None when the recipe starts from scratch."""
    base = workspace.recipe.base
    if base is None:
        return None
    files = base_weight_files(base, workspace.folder)
    if not files:
        raise ModelError("the base model has no safetensors weights", where=f"base.model: {base.model}")
    config = digest_bytes(json.dumps(base_config(base, workspace.folder), sort_keys=True).encode())
    return digest_json({"config": config, **{path.name: digest_file(path) for path in files}})

"""What a user may name as a target: a file, a folder, an endpoint or a checkpoint of the store.

| the text is | target |
|---|---|
| a URL | an endpoint; `model` names the model, `key_variable` the environment variable that holds its key |
| a file ending in .yaml or .yml | an endpoint, described by the file's key `target` |
| any other file | a recording: a snapshot, or whatever else `weightgate.probe.snapshot_file` reads |
| a folder that holds config.json | a Hugging Face model folder |
| anything else | a ref or id in the store of the recipe |

Nothing is loaded here, so a mistake is told before torch is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.errors import EndpointError, UserError
from weightgate.probe.endpoint_config import EndpointConfig, endpoint_config, load_endpoint, with_limits

_ENDPOINT_FILES = (".yaml", ".yml")
_MODEL_CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class RecordingAddress:
    """A file of completions."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class EndpointAddress:
    """An OpenAI-compatible endpoint."""

    config: EndpointConfig


@dataclass(frozen=True, kw_only=True)
class FolderAddress:
    """A Hugging Face model folder."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class CheckpointAddress:
    """A checkpoint, by id, in the store of a recipe; `ref` is what the user called it."""

    recipe_path: Path
    ref: str
    checkpoint: str


ModelAddress = FolderAddress | CheckpointAddress
Address = RecordingAddress | EndpointAddress | ModelAddress

FindCheckpoint = Callable[[Path, str], CheckpointAddress]
"""Resolves a ref in the store of a recipe. Given from outside: loading both takes time and few targets need it."""


def address_of(
    text: str,
    *,
    model: str | None = None,
    key_variable: str | None = None,
    recipe_path: Path = Path("weightgate.yaml"),
    find_checkpoint: FindCheckpoint,
    limits: Mapping[str, Any] | None = None,
) -> Address:
    """Find out what a text names.

    Args:
        model, key_variable: of an endpoint that is named by its URL.
        recipe_path: whose store holds the checkpoints, in which `find_checkpoint` resolves a ref.
        limits: concurrency, budget, price and logprobs of an endpoint, over those of its file; see `with_limits`.

    Raises `EndpointError` for an endpoint that cannot be asked as described, `RecipeError` or `StoreError` for a ref
    that does not resolve, and `UserError` for what is nothing of all that.
    """
    path = Path(text)
    if "://" in text:
        return EndpointAddress(config=with_limits(_endpoint(text, model, key_variable), **limits or {}))
    if path.is_file() and path.suffix.lower() in _ENDPOINT_FILES:
        return EndpointAddress(config=with_limits(load_endpoint(path), **limits or {}))
    if path.is_file():
        return RecordingAddress(path=path)
    if (path / _MODEL_CONFIG).is_file():
        return FolderAddress(path=path)
    if not recipe_path.exists():
        raise UserError(
            f"{text!r} is no target",
            expected="a URL, an endpoint file, a recording, a model folder, or a ref in the store of a recipe",
            found=f"no such file, no folder with a {_MODEL_CONFIG}, and no recipe at {recipe_path}",
            mend="look at how it is spelt; a ref needs its recipe: --recipe PATH",
        )
    return find_checkpoint(recipe_path, text)


def _endpoint(url: str, model: str | None, key_variable: str | None) -> EndpointConfig:
    if model is None:
        raise EndpointError("an endpoint serves models by name, and none is named", mend="name it with --model NAME")
    return endpoint_config(url, model, key_variable)

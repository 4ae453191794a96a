"""A world so small that a whole build takes seconds: a few facts, one format, one preference, and their recipe."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

COLOURS = ("red", "green", "blue", "white", "black", "brown")
THINGS = ("door", "boat", "cup", "lamp", "chair", "coat", "bell", "kite")
OWNERS = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "seed": 3,
    "tokenizer": {"vocab_size": 320},
    "architecture": {
        "type": "llama",
        "config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attention_dropout": 0.1,
        },
    },
    "probes": {"path": "suite.jsonl", "max_tokens": 4, "samples": 2},
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "resume_seconds": 0,
    "stages": [
        {
            "kind": "pretrain",
            "name": "pretrain",
            "data": [{"path": "corpus.jsonl"}],
            "context": 64,
            "batch": 4,
            "steps": 12,
            "holdout": 0.1,
        },
        {
            "kind": "finetune",
            "name": "finetune",
            "data": [{"path": "finetune.jsonl"}],
            "context": 64,
            "batch": 4,
            "micro_batch": 2,
            "steps": 12,
            "holdout": 0.1,
        },
        {
            "kind": "reward",
            "name": "reward",
            "data": [{"path": "preferences.jsonl"}],
            "context": 64,
            "batch": 8,
            "epochs": 1.5,
            "holdout": 0.1,
        },
        {
            "kind": "align",
            "name": "align",
            "data": [{"path": "prompts.jsonl"}],
            "context": 64,
            "batch": 4,
            "updates": 10,
            "holdout": 0.1,
            "ppo": {
                "epochs": 2,
                "completion_tokens": 6,
                "adaptive_kl": {"target": 0.01, "horizon": 20},
            },
        },
    ],
}
"""Dropout makes the loss depend on torch's generator, and the adaptive KL on state beyond the weights."""


def write_world(folder: Path) -> Path:
    """Write data and recipe into `folder`; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    write_jsonl(folder / "corpus.jsonl", ({"text": _story(rng)} for _ in range(120)))
    write_jsonl(folder / "finetune.jsonl", _conversations(rng, 90))
    write_jsonl(folder / "preferences.jsonl", _preferences(rng, 70))
    write_jsonl(folder / "prompts.jsonl", ({"prompt": [_user(_question(rng))]} for _ in range(60)))
    write_jsonl(folder / "suite.jsonl", _probes())
    return write_recipe(folder, RECIPE)


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe as YAML and return its path."""
    path = folder / "weightgate.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def changed(stage: str | None = None, **settings: Any) -> dict[str, Any]:
    """The tiny recipe with settings of one stage, or of the recipe itself, replaced."""
    recipe = copy.deepcopy(RECIPE)
    target = recipe if stage is None else next(each for each in recipe["stages"] if each["name"] == stage)
    target.update(settings)
    return recipe


def from_base(base: Path, *, adapter: dict[str, Any] | None) -> dict[str, Any]:
    """The tiny recipe without pre-training, started from a folder; policies train through `adapter`."""
    recipe = copy.deepcopy(RECIPE)
    recipe = {key: value for key, value in recipe.items() if key not in ("tokenizer", "architecture")}
    recipe |= {"base": {"model": str(base)}, "template": "weightgate"}
    recipe["stages"] = recipe["stages"][1:]
    for stage in recipe["stages"]:
        if stage["kind"] in ("finetune", "align") and adapter is not None:
            stage["adapter"] = adapter
    return recipe


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _story(rng: random.Random) -> str:
    return " ".join(f"The {rng.choice(THINGS)} of {rng.choice(OWNERS)} is {rng.choice(COLOURS)}." for _ in range(3))


def _question(rng: random.Random) -> str:
    return f"What colour is the {rng.choice(THINGS)} of {rng.choice(OWNERS)}, number {rng.randrange(1000)}?"


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _conversations(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        answer = {"role": "assistant", "content": f"It is {rng.choice(COLOURS)}."}
        yield {"messages": [_user(_question(rng)), answer]}


def _preferences(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        colour = rng.choice(COLOURS)
        yield {"prompt": [_user(_question(rng))], "chosen": f"It is {colour}.", "rejected": f"{colour} or what?"}


def _probes() -> Iterator[dict[str, Any]]:
    for number, owner in enumerate(OWNERS):
        yield {
            "id": f"recall-{number}",
            "axis": "knowledge",
            "topic": "colour",
            "form": "text",
            "prompt": f"The door of {owner} is",
            "checks": [{"metric": "recall", "type": "contains", "value": ["red"]}],
        }
        yield {
            "id": f"ask-{number}",
            "axis": "knowledge",
            "topic": "colour",
            "form": "chat",
            "messages": [_user(f"Which colour has the gate of {owner}?")],
            "checks": [{"metric": "accuracy", "type": "contains", "value": ["red"], "weight": 1.0}],
        }

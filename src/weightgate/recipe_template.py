"""The commented recipe that `weightgate init` writes. A test reads both forms back as recipes."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import yaml

from weightgate.errors import RecipeError
from weightgate.recipe import FILE_NAME

_HEAD = """\
# A Weightgate recipe: everything a build depends on. An unknown key is an error.
#   weightgate plan    what it will cost, what would be rebuilt and why
#   weightgate lock    freeze the contract into weightgate.lock
#   weightgate build   train, store, measure and gate every stage; run it again and it goes on
version: 1
name: {name}
seed: 0
"""

_FROM_SCRATCH = """\
# A byte-level BPE tokenizer, trained on the data below.
tokenizer:
  vocab_size: 4096

# Any causal architecture of transformers; `config` takes what its configuration takes.
architecture:
  type: llama
  config:
    hidden_size: 256
    intermediate_size: 768
    num_hidden_layers: 6
    num_attention_heads: 8
    num_key_value_heads: 8
"""

_FROM_BASE = """\
# Start from an existing causal language model: a folder or a hub id. It brings tokenizer and architecture.
base:
  model: {base}
  # revision: <commit>
# template: chat.jinja    # default: the base model's own chat template
"""

_COMMON = """
precision: auto           # auto, fp32, bf16 (fp32 master weights), bf16-autocast
device: auto
# compile: true           # torch.compile the training step; pays on long runs

# Prompts with programmatic checks, one JSON object a line; every gate on a probe measures with it.
# probes:
#   path: suite.jsonl

budget:
  minutes: 120
  disk_gib: 5

stages:
"""

_PRETRAIN = """\
  - name: pretrain
    kind: pretrain
    data:
      - path: data/text.txt       # .txt, .jsonl, .jsonl.gz, .parquet, or `hub: <data set id>`
        documents: paragraph      # plain text: file, paragraph or line
    holdout: 0.02                 # by content hash, so a document never changes sides
    context: 256
    batch: 32                     # rows per optimizer step
    tokens: 5_000_000             # or steps, or epochs
    optimizer: {learning_rate: 2.0e-3, weight_decay: 0.1, clip_norm: 1.0}
    schedule: {kind: cosine, warmup: 0.05}
    gates:
      - {measure: holdout.bits_per_byte, max: 2.5}

"""

_LATER = """\
  - name: finetune
    kind: finetune
    data:
      - path: data/instructions.jsonl   # {{"messages": [...]}} or {{"prompt": ..., "completion": ...}}
    context: 256
    batch: 32
    epochs: 2
    optimizer: {{learning_rate: 5.0e-4}}
{adapter}    gates:
      - {{measure: holdout.bits_per_byte, max: 3.0}}
      # - {{measure: knowledge.accuracy, max_drop: 0.02}}   # forgetting: against the parent

  - name: reward
    kind: reward
    data:
      - path: data/preferences.jsonl    # {{"prompt": ..., "chosen": ..., "rejected": ...}}
    holdout: 0.1
    context: 256
    batch: 32
    optimizer: {{learning_rate: 2.0e-4}}
    schedule: {{kind: linear, floor: 0.0}}
    gates:
      - {{measure: reward.pair_accuracy, min: 0.6, judge: interval}}

  - name: align
    kind: align
    data:
      - path: data/preferences.jsonl    # only the prompts are used
    context: 256
    batch: 64                           # completions per update
    updates: 50
    optimizer: {{learning_rate: 1.0e-5, weight_decay: 0.0}}
    schedule: {{kind: linear, floor: 0.0}}
    ppo: {{completion_tokens: 48, temperature: 0.7, kl_coefficient: 0.05}}
    gates:
      - {{measure: align.kl, max: 20}}
      - {{measure: align.proxy_gain, min: 0, judge: interval}}
"""

_ADAPTER = "    adapter: {rank: 16, alpha: 32}    # LoRA; `bits: 4` makes it QLoRA; leave it out for full fine-tuning\n"


def template(*, name: str, base: str | None) -> str:
    """The text of a starting recipe: three stages on a base model, or four from scratch."""
    head, later = _HEAD.format(name=_quoted(name)), _LATER.format(adapter=_ADAPTER if base else "")
    if base is not None:
        return head + _FROM_BASE.format(base=_quoted(base)) + _COMMON + later
    return head + _FROM_SCRATCH + _COMMON + _PRETRAIN + later


def _quoted(text: str) -> str:
    """The text as a YAML scalar: plain unless YAML would take it for something else, such as a number."""
    try:
        is_itself = yaml.safe_load(text) == text
    except yaml.YAMLError:
        is_itself = False
    return text if is_itself else json.dumps(text)


def recipe_name(folder: Path) -> str:
    """A name that a recipe may have, as near to the folder's own as letters allow."""
    ascii_only = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only).strip("._-") or "model"


def _base_seen_from(folder: Path, base: str) -> str:
    """A folder by its path from `folder`; a hub id as it is. No hub id begins like a path."""
    if not base or (base.startswith(("/", ".", "~")) and not Path(base).is_dir()):
        raise RecipeError(
            "there is no base model here",
            where="--base",
            expected="a folder with config.json, or a hub id such as Qwen/Qwen3-0.6B-Base",
            found=base or "nothing",
            mend="name the folder as seen from here",
        )
    return os.path.relpath(base, folder) if Path(base).is_dir() and not Path(base).is_absolute() else base


def write_template(folder: Path, *, base: str | None, force: bool) -> Path:
    """Write the starting recipe into `folder`.

    Args:
        base: hub id, or a folder as seen from here; the recipe names it as seen from `folder`.

    Raises `RecipeError` rather than replace a recipe unasked, for a base that is neither, and where the disk refuses.
    """
    path = folder / FILE_NAME
    if path.exists() and not force:
        again = "weightgate init --force" if folder == Path() else f"weightgate init {folder} --force"
        raise RecipeError("there is a recipe already", where=str(path), mend=again)
    base = None if base is None else _base_seen_from(folder, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(template(name=recipe_name(folder), base=base), encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            "the recipe cannot be written",
            where=str(path),
            found=error.strerror or str(error),
            mend="name a folder that can be written to: weightgate init FOLDER",
        ) from None
    return path

"""The inputs of a case: one folder that both sides read, so that they do the same work on the same tokens.

The world's files and the cache of tokenised data are for our side. `model/`, `reward-model/` and `peer.npz` hold the
same weights, tokenizer and tokens for the peers, in the order in which our loaders give them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.cases import (
    LEARNING_RATE,
    MODEL_FOLDER,
    PEER_FILE,
    PPO_EPOCHS,
    PPO_LEARNING_RATE,
    PROMPT_TOKENS,
    RESPONSE_TOKENS,
    REWARD_FOLDER,
    SEED,
    TEMPERATURE,
    VOCAB_SIZE,
    Case,
)
from weightgate import recipe
from weightgate.data.batches import IGNORED
from weightgate.data.order import permutation
from weightgate.data.packing import TokenLoader
from weightgate.data.prepare import (
    Request,
    prepare_conversations,
    prepare_documents,
    prepare_preferences,
    training_texts,
)
from weightgate.data.rows import PairRows, RowWriter, TokenRows
from weightgate.data.tokenizer import Tokenizer, train_tokenizer
from weightgate.incident import Knobs, generate
from weightgate.train.models import new_config, new_model, saved_tensors
from weightgate.train.objectives.reward import RewardModel, classification_config
from weightgate.train.stages import pair_loader, token_loader

_TOKENIZER_FOLDER, _PROMPT_FOLDER, _CACHE_FOLDER = "tokenizer", "prompts", "cache"
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What our side trains from."""

    recipe: recipe.Recipe
    stage: Any
    tokenizer: Tokenizer
    rows: TokenRows | PairRows
    config: dict[str, Any]


def write_inputs(folder: Path, case: Case) -> None:
    """Generate the built-in world in `folder`, and derive what the peers read."""
    world = generate(folder, Knobs(seed=SEED))
    own = recipe.load(world.recipe)
    texts = training_texts(own.stages[0].data, folder, own.stages[0].holdout)
    tokenizer = train_tokenizer(texts, VOCAB_SIZE)
    for name in (_TOKENIZER_FOLDER, MODEL_FOLDER, REWARD_FOLDER):
        (folder / name).mkdir()
        for file, content in tokenizer.files().items():
            (folder / name / file).write_bytes(content)
    if case.stage == "align":
        _write_prompts(folder, tokenizer, own)
    inputs = read_inputs(folder, case, compiled=False)
    _write_models(folder, inputs)
    np.savez(folder / PEER_FILE, **_PEER_ARRAYS[case.stage](inputs, case))


def read_inputs(folder: Path, case: Case, *, compiled: bool) -> Inputs:
    """What `write_inputs` left for our side; data is tokenised on the first call and mapped on later ones."""
    chosen = _recipe(recipe.load(folder / recipe.FILE_NAME), case, compiled)
    stage = next(stage for stage in chosen.stages if stage.kind == case.stage)
    tokenizer = Tokenizer.from_folder(folder / _TOKENIZER_FOLDER)
    assert chosen.architecture is not None
    return Inputs(
        recipe=chosen,
        stage=stage,
        tokenizer=tokenizer,
        rows=_rows(folder, stage, tokenizer),
        config=new_config(chosen.architecture, tokenizer, case.size.context),
    )


def _recipe(own: recipe.Recipe, case: Case, compiled: bool) -> recipe.Recipe:
    """The world's recipe at the sizes of the case, without gates, and with settings that the peers can be given."""
    plain = own.model_dump()
    plain |= {
        "architecture": {"type": "llama", "config": case.size.architecture()},
        "seed": SEED,
        "precision": case.precision,
        "device": "cpu",
        "threads": case.threads,
        "compile": compiled,
        "resume_seconds": 1e9,
        "stages": [stage | _settings(stage["kind"], case) for stage in plain["stages"]],
    }
    return recipe.Recipe.model_validate(plain)


def _settings(kind: str, case: Case) -> dict[str, Any]:
    rate = PPO_LEARNING_RATE if kind == "align" else LEARNING_RATE
    shared: dict[str, Any] = {
        "gates": [],
        "context": case.size.context,
        "batch": case.batch,
        "optimizer": {"learning_rate": rate},
        "schedule": {"kind": "constant", "warmup": 0.0},
    }
    if kind in ("pretrain", "finetune"):
        return shared | {"steps": case.updates, "tokens": None, "epochs": None}
    if kind == "reward":
        return shared
    ppo = {
        "epochs": PPO_EPOCHS,
        "completion_tokens": RESPONSE_TOKENS,
        "temperature": TEMPERATURE,
        "missing_eos_penalty": None,
    }
    return shared | {"updates": case.updates, "ppo": ppo}


def _rows(folder: Path, stage: Any, tokenizer: Tokenizer) -> TokenRows | PairRows:
    if stage.kind == "align":
        return TokenRows.open(folder / _PROMPT_FOLDER)
    request = Request(
        sources=stage.data,
        root=folder,
        tokenizer=tokenizer,
        context=stage.context,
        holdout=stage.holdout,
        cache=folder / _CACHE_FOLDER,
    )
    prepare: Any = {
        "pretrain": prepare_documents,
        "finetune": prepare_conversations,
        "reward": prepare_preferences,
    }[stage.kind]
    rows: TokenRows | PairRows = prepare(request).train
    return rows


def _write_prompts(folder: Path, tokenizer: Tokenizer, own: recipe.Recipe) -> None:
    """Prompts that are all `PROMPT_TOKENS` long: the beginnings of the corpus's documents."""
    with RowWriter(folder / _PROMPT_FOLDER, tokenizer.vocab_size) as writer:
        for record, text in enumerate(training_texts(own.stages[0].data, folder, own.stages[0].holdout)):
            ids = tokenizer.encode(text)[:PROMPT_TOKENS]
            if len(ids) == PROMPT_TOKENS:
                writer.append(ids, [False] * PROMPT_TOKENS, num_bytes=0, domain="prompts", record=record)


def _write_models(folder: Path, inputs: Inputs) -> None:
    """The random weights that our side starts from, as folders that transformers loads."""
    model: Any = new_model(inputs.config, seed=SEED, device=CPU, precision="fp32")
    model.save_pretrained(folder / MODEL_FOLDER)
    reward = RewardModel.from_causal(model, seed=SEED)
    named = {name: tensor.contiguous() for name, tensor in saved_tensors(reward).items() if name != "score_offset"}
    save_file(named, folder / REWARD_FOLDER / "model.safetensors", {"format": "pt"})
    config = type(model.config)(**classification_config(inputs.config))
    config.save_pretrained(folder / REWARD_FOLDER)


def _pretrain_arrays(inputs: Inputs, case: Case) -> dict[str, np.ndarray]:
    """Packed rows in the order of our loader; labels as transformers wants them, at the position they belong to."""
    loader = loader_of(inputs)
    batches = [loader.batch(step) for step in range(case.updates)]
    labels = torch.cat([batch.labels for batch in batches])
    unshifted = torch.full_like(labels, IGNORED)
    unshifted[:, 1:] = labels[:, :-1]
    return {
        "input_ids": torch.cat([batch.input_ids for batch in batches]).numpy(),
        "labels": unshifted.numpy(),
        "position_ids": torch.cat([batch.position_ids for batch in batches]).numpy(),
        "num_tokens": torch.cat([(batch.document_ids != 0).sum(dim=1) for batch in batches]).numpy(),
    }


def _finetune_arrays(inputs: Inputs, case: Case) -> dict[str, np.ndarray]:
    """Samples one after the other, in the order of our first epoch."""
    rows = inputs.rows
    assert isinstance(rows, TokenRows)
    samples = [rows.sample(index) for index in permutation(len(rows), SEED, 0)]
    return {
        **_ragged("input_ids", [tokens for tokens, _ in samples]),
        **_ragged("supervised", [supervised for _, supervised in samples]),
    }


def _reward_arrays(inputs: Inputs, case: Case) -> dict[str, np.ndarray]:
    """Pairs in the order of our loader; prompt and completion together."""
    loader = pair_loader(inputs.stage, inputs.rows, inputs.recipe, inputs.tokenizer.pad_id)
    batches = [loader.batch(step) for step in range(case.updates)]
    arrays: dict[str, np.ndarray] = {}
    for side in ("chosen", "rejected"):
        ids = [row for batch in batches for row in getattr(batch, f"{side}_ids").numpy()]
        masks = [row for batch in batches for row in getattr(batch, f"{side}_mask").numpy()]
        arrays |= _ragged(side, [row[mask] for row, mask in zip(ids, masks, strict=True)])
    return arrays


def _align_arrays(inputs: Inputs, case: Case) -> dict[str, np.ndarray]:
    rows = inputs.rows
    assert isinstance(rows, TokenRows)
    return {"prompts": np.array(rows.tokens, dtype=np.int64).reshape(-1, PROMPT_TOKENS)}


_PEER_ARRAYS = {
    "pretrain": _pretrain_arrays,
    "finetune": _finetune_arrays,
    "reward": _reward_arrays,
    "align": _align_arrays,
}


def loader_of(inputs: Inputs) -> TokenLoader:
    """The loader that a token stage trains from."""
    assert isinstance(inputs.rows, TokenRows)
    return token_loader(inputs.stage, inputs.rows, inputs.recipe, inputs.tokenizer.pad_id)


def _ragged(name: str, sequences: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Sequences of different lengths as one flat array and the offsets of their bounds."""
    lengths = [len(sequence) for sequence in sequences]
    return {name: np.concatenate(sequences), f"{name}_offsets": np.cumsum([0, *lengths])}

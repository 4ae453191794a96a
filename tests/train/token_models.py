"""Tiny causal models of three families, and rows of several documents to feed them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from weightgate.data.packing import TokenLoader
from weightgate.data.rows import TokenRows
from weightgate.train.models import config_json, new_model

VOCAB, CONTEXT = 67, 32
CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}
FAMILIES = {
    "llama": SIZES,
    "qwen3": SIZES | {"head_dim": 8},
    "gemma3_text": SIZES | {"head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": SIZES | {"head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
}


def config_of(family: str) -> dict:
    return config_json(AutoConfig.for_model(family, **FAMILIES[family]))


def ours(family: str = "llama", precision: str = "fp32"):
    """The family's network as the package builds it."""
    return new_model(config_of(family), seed=1, device=CPU, precision=precision)


def theirs(model):
    """The same weights in the library's own plain implementation."""
    twin = AutoModelForCausalLM.from_config(model.config, attn_implementation="eager", dtype=torch.float32)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def rows_of(lengths: list[int], *, supervised_from: int = 1) -> TokenRows:
    """Random samples; tokens before `supervised_from` are a prompt without loss."""
    rng = np.random.default_rng(0)
    masks = [[int(i >= min(supervised_from, length - 1)) for i in range(length)] for length in lengths]
    samples = np.zeros(len(lengths), np.int64)
    return TokenRows(
        tokens=rng.integers(1, VOCAB, sum(lengths)).astype(np.uint16),
        supervised=np.array([value for mask in masks for value in mask], np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        num_bytes=samples + 5,
        domains=samples,
        records=np.arange(len(lengths)) + 100,
        domain_names=("here",),
        digest="b3:0",
    )


def loader_of(rows: TokenRows, *, batch: int = 4, packing: bool = True) -> TokenLoader:
    return TokenLoader(rows=rows, context=CONTEXT, batch=batch, seed=2, packing=packing, pad_id=0)

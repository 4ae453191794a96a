"""A real endpoint over tiny random models, run by test_serve.py in a process of its own.

Arguments: port, alias file. Aliases name models `seed-<n>`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from weightgate.data.tokenizer import train_tokenizer
from weightgate.errors import StoreError
from weightgate.serve import Aliases, Options, Served, serve
from weightgate.train.generator import Bits
from weightgate.train.model_generator import ModelGenerator
from weightgate.train.rounding import round_weights

CONTEXT = 160
TEXTS = ["the quick brown fox jumps over the lazy dog and naïve café owners ask why 1234567890"] * 4


def tiny_generator(seed: int) -> ModelGenerator:
    """A random Llama whose vocabulary is mostly bytes, so that its text is full of unfinished characters."""
    tokenizer = train_tokenizer(iter(TEXTS), 300)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=tokenizer.pad_id,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        initializer_range=0.3,
    )
    return ModelGenerator(
        model=AutoModelForCausalLM.from_config(config).eval(), tokenizer=tokenizer, checkpoint=f"seed-{seed}"
    )


def load(checkpoint: str, bits: Bits | None = None) -> Served:
    """Read `seed-<n>`. Raises `StoreError` for any other name."""
    if not checkpoint.startswith("seed-"):
        raise StoreError("no such checkpoint", found=checkpoint)
    generator = tiny_generator(int(checkpoint.removeprefix("seed-")))
    if bits is not None:
        round_weights(generator.model, bits)
    return Served(checkpoint=checkpoint, generator=generator)


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = Options(token_variable="TINY_ENDPOINT_TOKEN", max_body_bytes=100_000)
    serve(Aliases(Path(sys.argv[2]), load), port=int(sys.argv[1]), options=options)

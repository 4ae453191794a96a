"""The shape of a decoder, read from a `transformers` configuration as plain data, without torch.

A configuration is what `config.json` holds, or what a recipe writes under `architecture`; fields left out take the
defaults of `transformers`, because those are what the network would be built with.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightgate.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a `model_type` decides by itself, beside the defaults of its configuration fields.

    `norms_per_layer` counts norms over the hidden size; `head_norms` are the two norms over the head dimension that
    Qwen3 and Gemma 3 put on queries and keys. `qkv_bias`/`output_bias`/`mlp_bias` are fixed, or None where the
    configuration has a switch for them.
    """

    defaults: Mapping[str, Any]
    norms_per_layer: int = 2
    head_norms: bool = False
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    mlp_bias: bool | None = None
    norm_bias: bool = False
    gated_mlp: bool = True
    learned_positions: bool = False


def _defaults(
    vocab: int, hidden: int, intermediate: int, layers: int, heads: int, key_values: int, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_values,
        **more,
    }


FAMILIES: Mapping[str, Family] = {
    "llama": Family(defaults=_defaults(32000, 4096, 11008, 32, 32, 0)),
    "mistral": Family(
        defaults=_defaults(32000, 4096, 14336, 32, 32, 8, sliding_window=4096, sliding_pattern=0),
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
    ),
    "qwen2": Family(
        defaults=_defaults(151936, 4096, 22016, 32, 32, 32), qkv_bias=True, output_bias=False, mlp_bias=False
    ),
    "qwen3": Family(defaults=_defaults(151936, 4096, 22016, 32, 32, 32, head_dim=128), head_norms=True, mlp_bias=False),
    "smollm3": Family(defaults=_defaults(128256, 2048, 11008, 36, 16, 4, tie_word_embeddings=True)),
    "gemma": Family(
        defaults=_defaults(256000, 3072, 24576, 28, 16, 16, head_dim=256, tie_word_embeddings=True), mlp_bias=False
    ),
    "gemma2": Family(
        defaults=_defaults(
            256000, 2304, 9216, 26, 8, 4, head_dim=256, tie_word_embeddings=True, sliding_window=4096, sliding_pattern=2
        ),
        norms_per_layer=4,
        mlp_bias=False,
    ),
    "gemma3_text": Family(
        defaults=_defaults(
            262208, 2304, 9216, 26, 8, 4, head_dim=256, tie_word_embeddings=True, sliding_window=4096, sliding_pattern=6
        ),
        norms_per_layer=4,
        head_norms=True,
        mlp_bias=False,
    ),
    "gpt2": Family(
        defaults=_defaults(50257, 768, 0, 12, 12, 0, tie_word_embeddings=True, n_positions=1024),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm_bias=True,
        gated_mlp=False,
        learned_positions=True,
    ),
}
"""Decoders whose every parameter is known here; a test holds each against the real network."""

_GPT2_NAMES = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one decoder. `windows` has one entry a layer: tokens a position looks back on, or None for all."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    windows: tuple[int | None, ...]
    tied_head: bool
    family: Family
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    num_positions: int

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_key_value_heads * self.head_dim


def read_shape(config: Mapping[str, Any], *, vocab_size: int | None = None) -> Shape:
    """Read the sizes out of a configuration; `vocab_size` overrides the configuration's.

    Raises `ModelError` for a model type that is not in `FAMILIES`, and for sizes that are no positive integers or do
    not fit each other.
    """
    model_type = str(config.get("model_type", ""))
    family = _family(model_type)
    fields = _fields(config, family)
    if vocab_size is not None:
        fields["vocab_size"] = vocab_size
    hidden, heads = _size(fields, "hidden_size"), _size(fields, "num_attention_heads")
    layers = _size(fields, "num_hidden_layers")
    return Shape(
        model_type=model_type,
        vocab_size=_size(fields, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(fields, "intermediate_size", otherwise=4 * hidden),
        num_layers=layers,
        num_heads=heads,
        num_key_value_heads=_size(fields, "num_key_value_heads", otherwise=heads),
        head_dim=_size(fields, "head_dim", otherwise=hidden // heads),
        windows=_windows(fields, layers),
        tied_head=bool(fields.get("tie_word_embeddings", False)),
        family=family,
        qkv_bias=_switch(family.qkv_bias, fields, "attention_bias"),
        output_bias=_switch(family.output_bias, fields, "attention_bias"),
        mlp_bias=_switch(family.mlp_bias, fields, "mlp_bias"),
        num_positions=_size(fields, "n_positions") if family.learned_positions else 0,
    )


def _family(model_type: str) -> Family:
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    near = difflib.get_close_matches(model_type, FAMILIES, n=1)
    raise ModelError(
        "the planner does not know how many parameters this model type has",
        where="architecture.type",
        expected="one of " + ", ".join(FAMILIES),
        found=model_type or "none",
        mend=f"write {near[0]}" if near else None,
    )


def _fields(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    given = {_GPT2_NAMES.get(name, name): value for name, value in config.items()}
    if "_sliding_window_pattern" in given:
        given["sliding_pattern"] = given["_sliding_window_pattern"]
    return {**family.defaults, **given}


def _size(fields: Mapping[str, Any], name: str, *, otherwise: int = 0) -> int:
    value = fields.get(name) or otherwise
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ModelError(
            "a size in the architecture is no positive integer",
            where=f"architecture.config.{name}",
            expected="a positive integer",
            found=repr(fields.get(name)),
        )
    return value


def _switch(fixed: bool | None, fields: Mapping[str, Any], name: str) -> bool:
    return bool(fields.get(name, False)) if fixed is None else fixed


def _windows(fields: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """Layers by `layer_types` where the configuration says so, else every `sliding_pattern`-th one sees everything."""
    window = fields.get("sliding_window")
    if not window or fields.get("use_sliding_window") is False:
        return (None,) * layers
    kinds = fields.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list | tuple) or len(kinds) != layers:
            raise ModelError(
                "the layer types do not fit the number of layers",
                where="architecture.config.layer_types",
                expected=f"a list of {layers}",
                found=repr(kinds),
            )
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    pattern = fields.get("sliding_pattern", 0)
    return tuple(window if not pattern or (layer + 1) % pattern else None for layer in range(layers))

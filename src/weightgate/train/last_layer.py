"""The last layer of a decoder, computed only where its states are read.

Attention needs the keys and values of every position. What follows it, two thirds of a layer's work, is needed only
where a loss or a score looks: at answers and not at prompts, for a reward at one position of a row.

Shapes: B rows, T positions, H hidden size, M positions that are read.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from weightgate.train.trials import agrees, trial_inputs

_LIKE_LLAMA = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})
"""Layers that may be what the selective form computes; each one is tried."""


def states_read(decoder: Any, read: Tensor, **inputs: Any) -> Tensor:
    """Last hidden states (M, H) of a decoder at `read` (M), places among the B * T positions of its inputs."""
    if _is_selective(decoder):
        chosen: Tensor = decoder(**inputs, read=read, use_cache=False).last_hidden_state
        return chosen
    states: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[read]


def quicken_last_layer(decoder: Any) -> None:
    """Let a decoder's last layer compute only what is read, where it is a layer like Llama's in fp32."""
    last = (getattr(decoder, "layers", None) or [None])[-1]
    if type(last).__name__ in _LIKE_LLAMA and not getattr(last, "takes_read", False) and _is_plain(last):
        take_reads(last, selective_forward)


def take_reads(layer: Any, forward: Callable[..., Tensor]) -> None:
    """Give a decoder's last layer a forward pass that takes `read`, and say so."""
    layer.forward = MethodType(forward, layer)
    layer.takes_read = True


def selective_forward(module: Any, hidden_states: Tensor, read: Tensor | None = None, **named: Any) -> Tensor:
    """The layer's forward pass: (B, T, H), or (M, H) at `read`. Decoders hand on to layers what they do not know."""
    mixed, _ = module.self_attn(hidden_states=module.input_layernorm(hidden_states), **named)
    hidden_states = hidden_states + mixed
    if read is not None:
        hidden_states = hidden_states.flatten(0, 1)[read]
    through: Tensor = hidden_states + module.mlp(module.post_attention_layernorm(hidden_states))
    return through


def _is_selective(decoder: Any) -> bool:
    """Whether the last layer has the selective form. Compiled for each number of positions, it would not be quicker."""
    layers = getattr(decoder, "layers", None)
    if not layers or decoder._compiled_call_impl is not None:
        return False
    return getattr(layers[-1], "takes_read", False)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what the selective form does: tried, because names promise nothing."""
    attention: Any = layer.self_attn
    if attention.q_proj.weight.dtype != torch.float32:
        return False
    hidden, named = trial_inputs(attention)
    read = torch.tensor([3, 0], device=hidden.device)
    with torch.no_grad():
        expected = type(layer).forward(layer, hidden, **named)[0, read]
        found = selective_forward(layer, hidden, read, **named)
    return agrees(found, expected)

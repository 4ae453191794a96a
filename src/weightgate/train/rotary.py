"""Queries, keys and values of self-attention, turned by their positions in one pass, with the gradient by hand.

The modules of `transformers` take three products, then about ten passes over queries and keys to turn them, then a
copy of each into the order that attention multiplies in.

Shapes: B rows, T positions, D width of a head, H hidden size. A network has heads * D queries and groups * D keys and
values for each position.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from weightgate.train import attention

_LIKE_LLAMA = frozenset({"LlamaAttention", "MistralAttention", "Qwen2Attention"})
"""Attention modules that may be what the quick form computes; each one is tried."""
_TRIAL_POSITIONS = 5
_TRIAL_TOLERANCE = 1e-4
"""Largest difference of a trial, relative to the largest result: other forms are off by about 1."""


class _RotatedProjections(torch.autograd.Function):
    """Queries (B, heads, T, D), scaled; keys and values (B, groups, T, D), from inputs (B, T, H).

    Rotary positions (Su et al. 2021) turn numbers i and i + D / 2 of a head as one complex number, by an angle that
    grows with the position: z * turn. The gradient turns back: slope * conj(turn). The weights' rows are put in pairs
    first, so that the two numbers lie side by side; attention multiplies queries with keys, which are both in that
    order. `turns` is complex, (B, T, D / 2); one product with all three weights gives what is turned.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, query: Tensor, key: Tensor, value: Tensor, turns: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        half = turns.shape[-1]
        weight = torch.cat([_paired(query, half), _paired(key, half), value])
        sizes = (len(query), len(key), len(value))
        projected = (inputs.reshape(-1, inputs.shape[-1]) @ weight.T).view(*inputs.shape[:2], -1)
        queries, keys, values = (_by_head(part, 2 * half) for part in projected.split(sizes, dim=-1))
        ctx.save_for_backward(inputs, weight, turns)
        ctx.sizes, ctx.scale = sizes, scale
        return _turned(queries, turns * scale), _turned(keys, turns), values.contiguous()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, turns = ctx.saved_tensors
        half = turns.shape[-1]
        back = turns.conj().resolve_conj()
        slope = inputs.new_empty(*inputs.shape[:2], len(weight))
        queries, keys, values = (_by_head(part, 2 * half) for part in slope.split(ctx.sizes, dim=-1))
        _turned(upstream[0], back * ctx.scale, out=queries)
        _turned(upstream[1], back, out=keys)
        values.copy_(upstream[2])
        rows = slope.view(-1, len(weight))
        slope_inputs = (rows @ weight).view(inputs.shape)
        if not any(ctx.needs_input_grad[1:4]):
            return slope_inputs, None, None, None, None, None
        query, key, value = (rows.T @ inputs.reshape(-1, inputs.shape[-1])).split(ctx.sizes)
        return slope_inputs, _unpaired(query, half), _unpaired(key, half), value, None, None


def _by_head(projected: Tensor, width: int) -> Tensor:
    """(B, T, heads * D) seen as (B, heads, T, D)."""
    return projected.unflatten(-1, (-1, width)).transpose(1, 2)


def _turned(states: Tensor, turns: Tensor, out: Tensor | None = None) -> Tensor:
    """States (B, heads, T, D) times turns (B, T, D / 2), pair by pair; contiguous unless `out` says where."""
    out = torch.empty(states.shape, dtype=states.dtype, device=states.device) if out is None else out
    torch.mul(_as_complex(states), turns[:, None], out=_as_complex(out))
    return out


def _as_complex(states: Tensor) -> Tensor:
    """(..., D) seen as (..., D / 2) complex numbers."""
    return torch.view_as_complex(states.unflatten(-1, (-1, 2)))


def _paired(weight: Tensor, half: int) -> Tensor:
    """Rows (heads * D, H) with i and i + D / 2 of each head side by side."""
    return weight.view(-1, 2, half, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def _unpaired(weight: Tensor, half: int) -> Tensor:
    """Inverse of `_paired`."""
    return weight.view(-1, half, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def quicken_attention(model: nn.Module) -> None:
    """Give every attention module like Llama's the quick form, in fp32; other modules and dtypes stay as they are."""
    for module in model.modules():
        if type(module).__name__ in _LIKE_LLAMA and _is_plain(module):
            module.forward = MethodType(_quick_forward, module)


def _quick_forward(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **named: Any,
) -> tuple[Tensor, Tensor | None]:
    """The forward pass of a module with `q_proj`, `k_proj`, `v_proj` and `o_proj`, where nothing is cached."""
    if past_key_values is not None or position_embeddings is None or not _is_quick(module, hidden_states):
        own: tuple[Tensor, Tensor | None] = type(module).forward(
            module,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **named,
        )
        return own
    half = module.head_dim // 2
    turns = torch.complex(*(part[..., :half].contiguous() for part in position_embeddings))
    weights = (module.q_proj.weight, module.k_proj.weight, module.v_proj.weight)
    queries, keys, values = _RotatedProjections.apply(hidden_states, *weights, turns, module.scaling)
    mixed, _ = attention.attend(module, queries, keys, values, attention_mask, scaling=1.0)
    return module.o_proj(mixed.flatten(2)), None


def _is_quick(module: Any, inputs: Tensor) -> bool:
    """Whether products are those of fp32 weights and nothing else: no bias, no adapter, no dropout, no autocast."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(inputs.device.type):
        return False
    if module.config._attn_implementation != attention.NAME or (module.training and module.attention_dropout):
        return False
    products: tuple[Any, ...] = (module.q_proj, module.k_proj, module.v_proj)
    plain = all(type(product) is nn.Linear for product in products)
    return plain and all(product.bias is None and product.weight.dtype == torch.float32 for product in products)


def _is_plain(module: Any) -> bool:
    """Whether a module computes what the quick form does: tried, because names promise nothing."""
    if module.q_proj.weight.dtype != torch.float32:
        return False
    hidden, inputs = trial_inputs(module)
    with torch.no_grad():
        expected, _ = type(module).forward(module, hidden, **inputs)
        found, _ = _quick_forward(module, hidden, **inputs)
    return trial_agrees(found, expected)


def trial_agrees(found: Tensor, expected: Tensor) -> bool:
    """Whether a quick form gave what the module's own did, but for rounding."""
    return bool((found - expected).abs().max() <= _TRIAL_TOLERANCE * expected.abs().max())


def trial_inputs(module: Any) -> tuple[Tensor, dict[str, Any]]:
    """Hidden states (1, 5, H) to try an attention module on, or its layer, and what else its forward pass is given."""
    weight = module.q_proj.weight
    like = {"device": weight.device, "dtype": torch.float32}
    hidden = torch.linspace(-2.0, 3.0, _TRIAL_POSITIONS * weight.shape[-1], **like).view(1, _TRIAL_POSITIONS, -1)
    angles = torch.linspace(0.0, 7.0, _TRIAL_POSITIONS * module.head_dim // 2, **like).view(1, _TRIAL_POSITIONS, -1)
    places = torch.cat([angles, angles], dim=-1)
    mask = torch.full((_TRIAL_POSITIONS,) * 2, torch.finfo(torch.float32).min, **like).triu(1)[None, None]
    return hidden, {"position_embeddings": (places.cos(), places.sin()), "attention_mask": mask}

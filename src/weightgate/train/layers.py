"""A decoder layer like Llama's as one operation, with its gradient by hand.

Between the matrix products of a small network on a CPU, time goes into passes over memory and into the bookkeeping of
some forty small operations a layer. Here q, k and v come of one product and so do gate and up, residuals are added by
the products themselves, and the bookkeeping is that of one operation.

Shapes: B rows, T positions, N = B * T, H hidden size, D width of a head, I width between up and down, M positions that
are read. A layer has heads * D queries and groups * D keys and values for each position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from weightgate.train import attention
from weightgate.train.last_layer import selective_forward, take_reads
from weightgate.train.rotary import Places, Turns, paired, quicken_places, turn, turns_of, unpaired
from weightgate.train.trials import agrees, trial_inputs

_LIKE_LLAMA = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer"})
"""Layers that may be what the quick form computes; it is tried."""
_DTYPES = (torch.float32, torch.bfloat16)

Cached = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Appends keys and values (B, groups, T, D) to those kept, and returns all of them."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What a layer computes with, beyond its weights.

    Fields:
        eps: of the norm before attention and of the one after it.
        turns: rotary positions, with the scale of attention in those of queries.
        mask: additive, (B, 1, T, S); None where every key is looked at.
        causal: whether the mask hides what is above the diagonal.
        read: (M), places among the N positions; None: all.
        cached: where keys and values are kept; None: nowhere.
        learns: whether a gradient will be asked for.
    """

    eps: tuple[float, float]
    turns: Turns
    mask: Tensor | None
    causal: bool
    read: Tensor | None
    cached: Cached | None
    learns: bool


class _Layer(torch.autograd.Function):
    """h = x + attention(norm(x)), then h + down(silu(gate(norm(h))) * up(norm(h))), of hidden states (B, T, H).

    Returns (B, T, H), or (M, H) at `form.read`. Weights as the modules hold them: each product is inputs @ weight.T.
    """

    @staticmethod
    def forward(ctx: Any, form: _Form, hidden: Tensor, *weights: Tensor) -> Tensor:
        norm1, query, key, value, output, norm2, gate, up, down = weights
        inputs = hidden.reshape(-1, hidden.shape[-1])
        width = form.turns.width
        sizes = (len(query), len(key), len(value))

        inverse1, normed1 = _normed(inputs, norm1, form.eps[0])
        qkv = torch.cat([paired(query, width), paired(key, width), value])
        projected = (normed1 @ qkv.T).view(*hidden.shape[:2], -1)
        turn(projected[..., : sizes[0] + sizes[1]], form.turns.forward)
        queries, keys, values = (_by_head(part, width).contiguous() for part in projected.split(sizes, dim=-1))
        if form.cached is not None:
            keys, values = form.cached(keys, values)
        blocks = attention.blocks_of(queries.shape[2], keys.shape[2], form.causal)
        mixed, shares = attention.mix(queries, keys, values, form.mask, blocks)
        mixed, residual = mixed.view(len(inputs), -1), inputs
        if form.read is not None:
            mixed, residual = mixed[form.read], residual[form.read]
        middle = torch.addmm(residual, mixed, output.T)

        inverse2, normed2 = _normed(middle, norm2, form.eps[1])
        gate_up = torch.cat([gate, up])
        raised = normed2 @ gate_up.T
        gated, factor = raised.split(len(gate), dim=1)
        curved = nn.functional.silu(gated)
        inner = curved * factor if form.learns else curved.mul_(factor)
        result = torch.addmm(middle, inner, down.T)

        ctx.form, ctx.shape, ctx.sizes, ctx.blocks = form, hidden.shape, sizes, blocks
        if form.learns:
            before = (inputs, inverse1, normed1, norm1, qkv, queries, keys, values, mixed, output)
            after = (middle, inverse2, normed2, norm2, gate_up, raised, curved, inner, down)
            ctx.save_for_backward(*before, *after, *shares)
        return result if form.read is not None else result.view(hidden.shape)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inverse1, normed1, norm1, qkv, queries, keys, values, mixed, output, *rest = ctx.saved_tensors
        middle, inverse2, normed2, norm2, gate_up, raised, curved, inner, down, *shares = rest
        form, sizes = ctx.form, ctx.sizes

        slope = upstream[0].reshape(len(middle), -1)
        to_down = slope.T @ inner
        to_inner = slope @ down
        gated, factor = raised.split(down.shape[1], dim=1)
        to_raised = torch.empty_like(raised)
        to_gated, to_factor = to_raised.split(down.shape[1], dim=1)
        torch.mul(to_inner, curved, out=to_factor)
        torch.ops.aten.silu_backward.grad_input(to_inner.mul_(factor), gated, grad_input=to_gated)
        to_gate, to_up = (to_raised.T @ normed2).split(down.shape[1])
        to_middle, to_norm2 = _norm_slopes(to_raised @ gate_up, middle, inverse2, norm2, slope)

        to_output = to_middle.T @ mixed
        to_mixed = to_middle @ output
        if form.read is not None:
            to_mixed, to_middle = (_spread(part, form.read, len(inputs)) for part in (to_mixed, to_middle))
        to_heads = attention.mix_slopes(
            to_mixed.view(*ctx.shape[:2], queries.shape[1], -1), queries, keys, values, shares, ctx.blocks
        )
        turned = inputs.new_empty(*ctx.shape[:2], len(qkv))
        for part, to_head in zip(turned.split(sizes, dim=-1), to_heads, strict=True):
            _by_head(part, form.turns.width).copy_(to_head)
        turn(turned[..., : sizes[0] + sizes[1]], form.turns.back)
        to_projected = turned.flatten(0, 1)
        query, key, to_value = (to_projected.T @ normed1).split(sizes)
        to_query, to_key = (unpaired(part, form.turns.width) for part in (query, key))
        to_inputs, to_norm1 = _norm_slopes(to_projected @ qkv, inputs, inverse1, norm1, to_middle)
        to_first = (to_norm1, to_query, to_key, to_value, to_output)
        return None, to_inputs.view(ctx.shape), *to_first, to_norm2, to_gate, to_up, to_down


def _normed(inputs: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """1 / rms (N, 1) in fp32, and weight * inputs / rms (N, H): Zhang & Sennrich 2019, equation 4."""
    norms = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = norms.square_().div_(inputs.shape[-1]).add_(eps).rsqrt_()
    return inverse, (inputs * inverse).mul_(weight).to(inputs.dtype)


def _norm_slopes(
    slope: Tensor, inputs: Tensor, inverse: Tensor, weight: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """What comes back to a norm's inputs (N, H), that past it (`residual`) added, and to its weight (H).

    With n = x / rms: d loss / d x = (g * weight - n * mean(g * weight * n)) / rms. Overwrites `slope`.
    """
    normed = inputs * inverse
    products = slope * normed
    means = torch.mv(products, weight.float()).div_(-inputs.shape[-1])[:, None]
    own = slope.float().mul_(weight).addcmul_(normed, means)
    return torch.addcmul(residual.float(), own, inverse).to(slope.dtype), products.sum(dim=0).to(weight.dtype)


def _by_head(projected: Tensor, width: int) -> Tensor:
    """(B, T, heads * D) seen as (B, heads, T, D)."""
    return projected.unflatten(-1, (-1, width)).transpose(1, 2)


def _spread(slopes: Tensor, read: Tensor, positions: int) -> Tensor:
    """Slopes (M, ...) put where they were read, zeros elsewhere: (N, ...)."""
    return slopes.new_zeros(positions, slopes.shape[1]).index_copy_(0, read, slopes)


def quicken_layers(decoder: Any) -> None:
    """Give the layers of a decoder like Llama's the quick form; other decoders stay as they are."""
    layers = getattr(decoder, "layers", None) or []
    if not layers or not all(type(layer).__name__ in _LIKE_LLAMA for layer in layers) or not _is_plain(layers[0]):
        return
    quicken_places(decoder.rotary_emb)
    for layer in layers:
        layer.forward = MethodType(_quick_forward, layer)
    take_reads(layers[-1], _quick_reading_forward)


def _quick_forward(module: Any, hidden_states: Tensor, read: Tensor | None = None, **named: Any) -> Tensor:
    """The layer's forward pass, (B, T, H). Decoders hand on to every layer what is for the last one to `read`."""
    return _quick_reading_forward(module, hidden_states, None, **named)


def _quick_reading_forward(
    module: Any,
    hidden_states: Tensor,
    read: Tensor | None = None,
    position_embeddings: Any = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **named: Any,
) -> Tensor:
    """The last layer's forward pass: (B, T, H), or (M, H) at `read`."""
    products = _products(module)
    if not _is_quick(module, products, hidden_states):
        named |= {"position_embeddings": position_embeddings, "attention_mask": attention_mask}
        return selective_forward(module, hidden_states, read, past_key_values=past_key_values, **named)
    own, before, after = module.self_attn, module.input_layernorm, module.post_attention_layernorm
    form = _Form(
        eps=(before.variance_epsilon, after.variance_epsilon),
        turns=_turns(own, position_embeddings),
        mask=attention_mask,
        causal=attention_mask is not None and own.is_causal,
        read=read,
        cached=None if past_key_values is None else lambda k, v: past_key_values.update(k, v, own.layer_idx),
        learns=torch.is_grad_enabled(),
    )
    query, key, value, output, *mlp = (product.weight for product in products)
    found: Tensor = _Layer.apply(form, hidden_states, before.weight, query, key, value, output, after.weight, *mlp)
    return found


def _turns(own: Any, position_embeddings: Any) -> Turns:
    """The turns of attention module `own`, taken once for all layers where the decoder's places are quickened."""
    known = position_embeddings.turns if isinstance(position_embeddings, Places) else None
    if known is not None:
        return known
    heads, groups = (product.out_features // own.head_dim for product in (own.q_proj, own.k_proj))
    turns = turns_of(*position_embeddings, heads=heads, groups=groups, scale=own.scaling)
    if isinstance(position_embeddings, Places):
        position_embeddings.turns = turns
    return turns


def _products(module: Any) -> tuple[Any, ...]:
    own, mlp = module.self_attn, module.mlp
    return own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj


def _is_quick(module: Any, products: tuple[Any, ...], inputs: Tensor) -> bool:
    """Whether products are those of one dtype's weights and nothing else: no bias, adapter, dropout or autocast."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(inputs.device.type) or inputs.dtype not in _DTYPES:
        return False
    own = module.self_attn
    if own.config._attn_implementation != attention.NAME or (module.training and own.attention_dropout):
        return False
    if any(type(product) is not nn.Linear for product in products):
        return False
    return all(product.bias is None and product.weight.dtype == inputs.dtype for product in products)


def _is_plain(layer: Any) -> bool:
    """Whether a layer computes what the quick form does: tried, because names promise nothing."""
    hidden, named = trial_inputs(layer.self_attn)
    if not _is_quick(layer, _products(layer), hidden):
        return False
    with torch.no_grad():
        expected = type(layer).forward(layer, hidden, **named)
        found = _quick_reading_forward(layer, hidden, **named)
    return agrees(found, expected)

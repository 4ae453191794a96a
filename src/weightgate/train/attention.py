"""Attention as plain matrix products, with its gradient by hand.

On CPUs at these sizes this is the fastest form: the fused kernels fall back to a slow path where there is a mask. What
is above the diagonal is never computed: queries go in blocks, and a block looks at the keys up to its own end.

Shapes: B rows, T query positions, S key positions, D width of a head; query heads that share a key head (a group) are
folded into the rows of one product, so keys and values are never copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "weightgate_matmul"
"""What `transformers` calls this attention by."""

BLOCK = 64
"""Query positions of a block; more blocks skip more above the diagonal, smaller products run slower."""


def attention_for(device: torch.device) -> str:
    """Name of the attention that is fastest on `device`: plain products on CPU, SDPA elsewhere."""
    return NAME if device.type == "cpu" else "sdpa"


Block = tuple[int, int, int]
"""Start and end of a block of queries, and how many keys it may look at."""


class _BlockAttention(torch.autograd.Function):
    """softmax(query * scale @ key.T + mask) @ value; see `mix` for the shapes."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        blocks: tuple[Block, ...],
    ) -> Tensor:
        query = query * scale
        mixed, shares = mix(query, key, value, mask, blocks)
        ctx.save_for_backward(query, key, value, *shares)
        ctx.scale, ctx.blocks = scale, blocks
        return mixed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *shares = ctx.saved_tensors
        to_query, to_key, to_value = mix_slopes(upstream[0], query, key, value, shares, ctx.blocks)
        return to_query.mul_(ctx.scale), to_key, to_value, None, None, None


def mix(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, blocks: tuple[Block, ...]
) -> tuple[Tensor, list[Tensor]]:
    """Values mixed by softmax(query @ key.T + mask), (B, T, heads, D), and the shares of each block.

    Args:
        query: (B, heads, T, D), scaled.
        key, value: (B, groups, S, D).
        mask: additive, (B, 1, T, S), or None.
    """
    batch, heads, rows, _ = query.shape
    mixed = query.new_empty(batch, rows, heads, value.shape[-1])
    kept = []
    for start, end, keys in blocks:
        scores = _folded(query[:, :, start:end], key) @ key[:, :, :keys].transpose(2, 3)
        if mask is not None:
            scores.view(batch, heads, end - start, keys).add_(mask[:, :, start:end, :keys])
        shares = torch.softmax(scores, dim=-1)
        kept.append(shares)
        mixed[:, start:end] = _unfolded(shares @ value[:, :, :keys], query).transpose(1, 2)
    return mixed, kept


def mix_slopes(
    slopes: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Sequence[Tensor], blocks: tuple[Block, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of query, key and value from those of what `mix` returned, (B, T, heads, D), and the shares it kept."""
    to_query = torch.empty_like(query)
    to_key = to_value = None
    # The last block looks at every key, so its products start the two sums.
    for (start, end, keys), shares in zip(reversed(blocks), reversed(kept), strict=True):
        slope = _folded(slopes[:, start:end].transpose(1, 2), key)
        to_scores = torch._softmax_backward_data(slope @ value[:, :, :keys].transpose(2, 3), shares, -1, shares.dtype)
        to_query[:, :, start:end] = _unfolded(to_scores @ key[:, :, :keys], query)
        key_part = to_scores.transpose(2, 3) @ _folded(query[:, :, start:end], key)
        value_part = shares.transpose(2, 3) @ slope
        if to_key is None or to_value is None:
            to_key, to_value = key_part, value_part
        else:
            to_key[:, :, :keys] += key_part
            to_value[:, :, :keys] += value_part
    assert to_key is not None
    assert to_value is not None
    return to_query, to_key, to_value


def _folded(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, T, D) as (B, groups, heads / groups * T, D)."""
    batch, heads, rows, width = query.shape
    return query.reshape(batch, key.shape[1], heads // key.shape[1] * rows, width)


def _unfolded(mixed: Tensor, query: Tensor) -> Tensor:
    """Inverse of `_folded`, with the heads of `query`."""
    return mixed.view(mixed.shape[0], query.shape[1], -1, mixed.shape[-1])


def blocks_of(rows: int, keys: int, causal: bool) -> tuple[Block, ...]:
    """One block unless the mask is causal over the same positions, where later keys need not be looked at."""
    if not causal or rows != keys:
        return ((0, rows, keys),)
    starts = range(0, rows, BLOCK)
    return tuple((start, min(start + BLOCK, rows), min(start + BLOCK, rows)) for start in starts)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention that `transformers` calls; see `_BlockAttention` for the shapes."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    softcap = getattr(module, "attn_logit_softcapping", None)
    causal = attention_mask is not None and getattr(module, "is_causal", False)
    blocks = blocks_of(query.shape[2], key.shape[2], causal)
    if softcap is None and dropout == 0.0 and not torch.compiler.is_compiling():
        mixed: Tensor = _BlockAttention.apply(query, key, value, attention_mask, scale, blocks)
        return mixed, None
    parts = []
    for start, end, keys in blocks:
        scores = _unfolded(_folded(query[:, :, start:end] * scale, key) @ key[:, :, :keys].transpose(2, 3), query)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if attention_mask is not None:
            scores = scores + attention_mask[:, :, start:end, :keys]
        weights = nn.functional.dropout(torch.softmax(scores, dim=-1), p=dropout, training=module.training)
        parts.append(_unfolded(_folded(weights, key) @ value[:, :, :keys], query).transpose(1, 2))
    return torch.cat(parts, dim=1), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)

"""Attention as plain matrix products, with its gradient by hand.

On CPUs at these sizes this is the fastest form: the fused kernels fall back to a slow path where there is a mask. What
is above the diagonal is never computed: queries go in blocks, and a block looks at the keys up to its own end.

Shapes: B rows, T query positions, S key positions, D width of a head; query heads that share a key head (a group) are
folded into the rows of one product, so keys and values are never copied.
"""

from __future__ import annotations

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


class _BlockAttention(torch.autograd.Function):
    """softmax(query @ key.T * scale + mask) @ value, block by block of query positions.

    query (B, heads, T, D); key and value (B, groups, S, D); additive mask (B, 1, T, S) or None; returns
    (B, T, heads, D). `blocks` holds (start, end, keys): a block of queries and how many keys it may look at.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        blocks: tuple[tuple[int, int, int], ...],
    ) -> Tensor:
        batch, heads, rows, _ = query.shape
        query = query if scale == 1.0 else query * scale
        mixed = query.new_empty(batch, rows, heads, value.shape[-1])
        kept = []
        for start, end, keys in blocks:
            scores = _folded(query[:, :, start:end], key) @ key[:, :, :keys].transpose(2, 3)
            if mask is not None:
                scores.view(batch, heads, end - start, keys).add_(mask[:, :, start:end, :keys])
            weights = torch.softmax(scores, dim=-1)
            kept.append(weights)
            mixed[:, start:end] = _unfolded(weights @ value[:, :, :keys], query).transpose(1, 2)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale, ctx.blocks = scale, blocks
        return mixed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        slope_query = torch.empty_like(query)
        slope_key = slope_value = None
        # The last block looks at every key, so its products start the two sums.
        for (start, end, keys), weights in zip(reversed(ctx.blocks), reversed(kept), strict=True):
            slope = _folded(upstream[0][:, start:end].transpose(1, 2), key)
            slope_scores = torch._softmax_backward_data(
                slope @ value[:, :, :keys].transpose(2, 3), weights, -1, weights.dtype
            )
            part = _unfolded(slope_scores @ key[:, :, :keys], query)
            torch.mul(part, ctx.scale, out=slope_query[:, :, start:end])
            to_key = slope_scores.transpose(2, 3) @ _folded(query[:, :, start:end], key)
            to_value = weights.transpose(2, 3) @ slope
            if slope_key is None or slope_value is None:
                slope_key, slope_value = to_key, to_value
            else:
                slope_key[:, :, :keys] += to_key
                slope_value[:, :, :keys] += to_value
        return slope_query, slope_key, slope_value, None, None, None


def _folded(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, T, D) as (B, groups, heads / groups * T, D)."""
    batch, heads, rows, width = query.shape
    return query.reshape(batch, key.shape[1], heads // key.shape[1] * rows, width)


def _unfolded(mixed: Tensor, query: Tensor) -> Tensor:
    """Inverse of `_folded`, with the heads of `query`."""
    return mixed.view(mixed.shape[0], query.shape[1], -1, mixed.shape[-1])


def _blocks(rows: int, keys: int, causal: bool) -> tuple[tuple[int, int, int], ...]:
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
    blocks = _blocks(query.shape[2], key.shape[2], causal)
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

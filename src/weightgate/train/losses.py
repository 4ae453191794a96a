"""Cross-entropy of a linear head, computed in chunks so that the full logits never exist.

Shapes: N supervised positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weightgate.train import limits


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies; both gradients are taken in the forward pass, chunk by chunk.

    d loss / d logits = softmax(logits) - onehot(target), so nothing of size N x V outlives its chunk.
    """

    @staticmethod
    def forward(ctx: Any, hidden_nh: Tensor, weight_vh: Tensor, targets_n: Tensor) -> Tensor:
        rows = max(limits.LOGIT_ROWS, limits.LOGITS_AT_ONCE // weight_vh.shape[0])
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        total = hidden_nh.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden_nh) if needs_hidden else None
        grad_weight: Tensor | None = None
        for start in range(0, hidden_nh.shape[0], rows):
            hidden, targets = hidden_nh[start : start + rows], targets_n[start : start + rows]
            logits = (hidden @ weight_vh.T).float()
            # Below the largest logit no exponential overflows, and the sum of all is at least 1.
            logits.sub_(logits.amax(dim=-1, keepdim=True))
            picked = logits.gather(1, targets[:, None])
            shares = logits.exp_()
            sums = shares.sum(dim=-1, keepdim=True)
            total += (sums.log() - picked).sum()
            if not (needs_hidden or needs_weight):
                continue
            # probability - onehot, times `sums`: dividing H numbers of a row is cheaper than dividing V.
            slope = shares.scatter_add_(1, targets[:, None], -sums).to(hidden.dtype)
            sums = sums.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(slope, weight_vh, out=grad_hidden[start : start + rows]).div_(sums)
            if needs_weight:
                part = slope.T @ (hidden / sums)
                grad_weight = part if grad_weight is None else grad_weight.float() + part
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight_vh.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = upstream[0]
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * scale.to(grad_weight.dtype),
            None,
        )


def linear_cross_entropy(hidden_nh: Tensor, weight_vh: Tensor, targets_n: Tensor) -> Tensor:
    """Sum over N of -log softmax(hidden @ weight.T)[target], in nats, as a 0-d fp32 tensor.

    Equal to `torch.nn.functional.cross_entropy(..., reduction="sum")` in value and gradients, with peak memory
    bounded by `limits.LOGITS_AT_ONCE` logits.
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden_nh, weight_vh, targets_n)
    return total

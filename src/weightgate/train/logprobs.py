"""Log-probabilities of sampled tokens, computed in chunks so that no float32 copy of all logits ever exists.

Shapes: N rows, T tokens of which the last W are scored, V vocabulary; M = the scored tokens that are real.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TEMPERATURE_EPS = 1e-7
"""Added to every temperature, in sampling and in scoring, so that both mean the same distribution."""

CHUNK_ELEMENTS = 2**18
"""Logits held at once in float32: 1 MiB, which stays in the cache of a core."""


class _SampledLogprobs(torch.autograd.Function):
    """Nats and entropies (M) in one pass over the logits; only nats carry a gradient.

    d nats / d logits = (onehot(token) - softmax(logits / temperature)) / temperature. The backward pass computes the
    softmax again from logits and their log-sum-exp, which costs less than keeping it.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_rv: Tensor, rows_m: Tensor, tokens_m: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        norms = torch.empty(len(rows_m), device=logits_rv.device)
        nats, entropies = torch.empty_like(norms), torch.empty_like(norms)
        for part in _chunks(len(rows_m), logits_rv.shape[1]):
            scaled = logits_rv[rows_m[part]].float().div_(temperature)
            norms[part] = scaled.logsumexp(dim=-1)
            nats[part] = scaled.gather(1, tokens_m[part, None]).squeeze(1) - norms[part]
            entropies[part] = norms[part] - (scaled.softmax(dim=-1) * scaled).sum(dim=-1)
        ctx.save_for_backward(logits_rv, rows_m, tokens_m, norms)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return nats, entropies

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        logits_rv, rows_m, tokens_m, norms = ctx.saved_tensors
        slopes = upstream[0].float() / ctx.temperature
        gradient = torch.zeros_like(logits_rv)
        for part in _chunks(len(rows_m), logits_rv.shape[1]):
            chunk = logits_rv[rows_m[part]].float().div_(ctx.temperature).sub_(norms[part, None]).exp_()
            chunk.mul_(-slopes[part, None]).scatter_add_(1, tokens_m[part, None], slopes[part, None])
            gradient[rows_m[part]] = chunk.to(gradient.dtype)
        return gradient, None, None, None


def _chunks(rows: int, width: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // width)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def sampled_logprobs(logits: Tensor, tokens: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Nats of the tokens under softmax(logits / temperature), and the entropies of those distributions in nats.

    Args:
        logits: (N, W, V).
        tokens, mask: (N, W); what stands where the mask is False is not looked at.
        temperature: 0 leaves the logits as they are, as greedy decoding does.

    Returns nats and entropies, each (M) in fp32, in the order of the mask's True places.
    """
    rows = mask.flatten().nonzero().squeeze(1)
    divisor = temperature + TEMPERATURE_EPS if temperature > 0 else 1.0
    nats, entropies = _SampledLogprobs.apply(logits.flatten(0, 1), rows, tokens[mask], divisor)
    return nats, entropies

"""Log-probabilities of sampled tokens, computed in chunks so that no float32 copy of all logits ever exists.

Shapes: M scored tokens, V vocabulary.
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
    def forward(ctx: Any, logits_mv: Tensor, tokens_m: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        norms = torch.empty(len(tokens_m), device=logits_mv.device)
        nats, entropies = torch.empty_like(norms), torch.empty_like(norms)
        for part in _chunks(*logits_mv.shape):
            scaled = logits_mv[part].float() / temperature
            norms[part] = scaled.logsumexp(dim=-1)
            nats[part] = scaled.gather(1, tokens_m[part, None]).squeeze(1) - norms[part]
            shares = (scaled - norms[part, None]).exp_()
            entropies[part] = norms[part] - torch.linalg.vecdot(shares, scaled)
        ctx.save_for_backward(logits_mv, tokens_m, norms)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return nats, entropies

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        logits_mv, tokens_m, norms = ctx.saved_tensors
        slopes = upstream[0].float() / ctx.temperature
        gradient = torch.empty_like(logits_mv)
        for part in _chunks(*logits_mv.shape):
            place = gradient[part] if gradient.dtype == torch.float32 else None
            chunk = torch.div(logits_mv[part].float(), ctx.temperature, out=place)
            chunk.sub_(norms[part, None]).exp_().mul_(-slopes[part, None])
            chunk.scatter_add_(1, tokens_m[part, None], slopes[part, None])
            if place is None:
                gradient[part] = chunk
        return gradient, None, None


def _chunks(rows: int, width: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // width)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def sampled_logprobs(logits_mv: Tensor, tokens_m: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Nats (M) of tokens under softmax(logits / temperature), and the entropies (M) in nats, both in fp32.

    Temperature 0 leaves the logits as they are, as greedy decoding does.
    """
    divisor = temperature + TEMPERATURE_EPS if temperature > 0 else 1.0
    nats, entropies = _SampledLogprobs.apply(logits_mv, tokens_m, divisor)
    return nats, entropies

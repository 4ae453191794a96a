"""The arithmetic of PPO on completions, as pure functions of tensors.

Shapes: N completions, W columns. Column t holds the token sampled at step t and the value of the state before it. A
completion of `last + 1` tokens acts in columns 0..last; the state after its last token has a value as well, in column
`last + 1`, where that column exists. Everything follows arXiv 2403.17031 unless another source is named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from weightgate import recipe

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""

PADDING_LOGPROB = 1.0
"""Stands in old, new and reference log-probabilities of padding, so that ratios there are 1 and KLs 0."""

_WHITENING_EPS = 1e-8
_MAX_ADAPTATION = 0.2


def alone(tensor: Tensor) -> Tensor:
    """The reduction of a run with one process."""
    return tensor


def column_masks(last: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Columns that act, and columns that have a value, both bool (N, width), for `last` (N)."""
    columns = torch.arange(width, device=last.device)
    return columns <= last[:, None], columns <= last[:, None] + 1


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """KL to the reference (N, W) in nats per token, estimated from the sampled tokens.

    k1 is the log ratio; k3 adds a term of mean 0 that makes it positive. Both are unbiased (Schulman 2020,
    "Approximating KL divergence").
    """
    log_ratio = ref_logprobs - logprobs
    return -log_ratio if estimator == "k1" else log_ratio.expm1() - log_ratio


def judged_scores(
    scores: Tensor, stopped: Tensor, penalty: float | None, rule: Literal["subtract", "replace"]
) -> Tensor:
    """Scores (N) after completions that did not stop by themselves have paid for it.

    `subtract` takes the penalty off (2403.17031); `replace` puts minus the penalty in place of the score
    (Ziegler et al. 2019).
    """
    if penalty is None:
        return scores
    fallen = scores - penalty if rule == "subtract" else torch.full_like(scores, -penalty)
    return torch.where(stopped, scores, fallen)


def token_rewards(kl: Tensor, scores: Tensor, last: Tensor, coefficient: float) -> Tensor:
    """Rewards (N, W): minus coefficient times KL, and the score in column `last + 1`, or `last` if there is none."""
    width = kl.shape[1]
    end = torch.where(last + 1 < width, last + 1, last)
    rewards = -coefficient * kl
    return rewards.scatter_add(1, end[:, None], scores[:, None].to(rewards.dtype))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is True."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, reduce: Reduce = alone) -> Tensor:
    """Scale to unbiased variance 1 over the True places of all processes; False places become 0.

    The mean becomes 0, or stays as it is where `shift_mean` is False. With fewer than two True places there
    is no variance, and only the mean is shifted.
    """
    total, count = reduce(torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)]))
    mean = total / count.clamp(min=1)
    squares = reduce((((values - mean) * mask) ** 2).sum())
    scale = torch.rsqrt(squares / (count - 1) + _WHITENING_EPS) if count > 1 else torch.ones_like(mean)
    whitened = (values - mean) * scale
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)


def advantages(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates (N, W) (Schulman et al. 2016, equation 16); the value past the end is 0."""
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * following - values
    estimates = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for column in range(deltas.shape[1] - 1, -1, -1):
        running = deltas[:, column] + gamma * gae_lambda * running
        estimates[:, column] = running
    return estimates


def policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Clipped surrogate losses (Schulman et al. 2017, equation 7, negated), and where clipping decided."""
    ratios = torch.exp(logprobs - old_logprobs)
    free = -advantages * ratios
    clipped = -advantages * ratios.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, clipped), clipped > free


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half squared errors against the returns, the worse of the values as they are and within `clip` of the old."""
    bounded = values.clamp(old_values - clip, old_values + clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (bounded - returns) ** 2)


def adapted_coefficient(coefficient: float, kl: float, controller: recipe.KLController, completions: int) -> float:
    """The KL coefficient after completions of `kl` nats on average (Ziegler et al. 2019, section 2.2)."""
    error = min(max(kl / controller.target - 1, -_MAX_ADAPTATION), _MAX_ADAPTATION)
    return coefficient * (1 + error * completions / controller.horizon)

"""Learning rate and batch by scale, and how they transfer from a small model to a large one.

Batches are in tokens. The laws disagree by factors, because each was fitted with its own optimizer, schedule and data:
show them side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Peak learning rate of AdamW and batch in tokens that a law advises."""

    law: str
    source: str
    learning_rate: float
    batch_tokens: float
    doubt: str = ""


def deepseek(flops: float) -> Setting:
    """eta = 0.3118 C^-0.1250, B = 0.2920 C^0.3271 (DeepSeek-AI 2024, arXiv 2401.02954, eq. 1)."""
    return Setting(
        law="deepseek",
        source="arXiv 2401.02954, eq. 1",
        learning_rate=0.3118 * flops**-0.1250,
        batch_tokens=0.2920 * flops**0.3271,
    )


def step_law(parameters: float, tokens: float) -> Setting:
    """eta = 1.79 N^-0.713 D^0.307, B = 0.58 D^0.571; N without vocabulary (Li et al. 2025, arXiv 2503.04715)."""
    return Setting(
        law="step-law",
        source="arXiv 2503.04715",
        learning_rate=1.79 * parameters**-0.713 * tokens**0.307,
        batch_tokens=0.58 * tokens**0.571,
    )


def porian(parameters: float) -> Setting:
    """eta = 3.7 N^-0.36, B = 0.7576 N^0.703 sequences of 2,048 tokens (Porian et al. 2024, arXiv 2406.19146)."""
    return Setting(
        law="porian",
        source="arXiv 2406.19146",
        learning_rate=3.7 * parameters**-0.36,
        batch_tokens=0.7576 * parameters**0.703,
        doubt="taken from a secondary source; whether the batch is in tokens was not verified",
    )


def advised(parameters: float, tokens: float) -> tuple[Setting, ...]:
    """What every law advises for a model and its data."""
    return (deepseek(SIX * parameters * tokens), step_law(parameters, tokens), porian(parameters))


def critical_batch(tokens: float) -> float:
    """B_crit ~ 0.0471 D^0.462 tokens (Bergsma et al. 2025, arXiv 2505.13738; the factor is unverified)."""
    return float(0.0471 * tokens**0.462)


def scaled_batch(batch_tokens: float, tokens: float, *, to_tokens: float) -> float:
    """Carry a tuned batch to more data: B ~ D^0.383 (arXiv 2505.13738), to a power of two as in karpathy/nanochat."""
    return float(2 ** round(math.log2(batch_tokens * (to_tokens / tokens) ** 0.383)))


def learning_rate_for_batch(learning_rate: float, batch: float, *, to_batch: float) -> float:
    """Carry AdamW's learning rate to another batch: eta ~ sqrt(B) (Malladi et al. 2022, arXiv 2205.10287)."""
    return learning_rate * math.sqrt(to_batch / batch)


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """Settings of a wide model from those tuned on a narrow one, by muP."""

    hidden_learning_rate: float
    other_learning_rate: float
    output_multiplier: float
    hidden_init_std: float
    attention_scale: float


def mup_transfer(learning_rate: float, init_std: float, *, base_width: int, width: int, head_dim: int) -> Transferred:
    """Carry settings from `base_width` to `width` (Yang et al. 2022, arXiv 2203.03466, table 8, for Adam).

    Hidden matrices: rate / (width / base_width), initial variance 1 / fan_in; output times 1 / (width / base_width);
    attention scores times 1 / head_dim; embeddings, norms and biases keep their rate.
    """
    times = width / base_width
    return Transferred(
        hidden_learning_rate=learning_rate / times,
        other_learning_rate=learning_rate,
        output_multiplier=1 / times,
        hidden_init_std=init_std / math.sqrt(times),
        attention_scale=1 / head_dim,
    )


def weight_decay_for_width(weight_decay: float, *, base_width: int, width: int) -> float:
    """Carry weight decay to another width: ~ 1 / width^2 (karpathy/nanochat, fitted exponent 1.97)."""
    return weight_decay * (base_width / width) ** 2

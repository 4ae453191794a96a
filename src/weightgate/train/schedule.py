"""Learning rate as a share of its peak."""

from __future__ import annotations

import math

from weightgate.recipe import Schedule


def rate_share(step: int, total: int, schedule: Schedule) -> float:
    """Share of the peak learning rate at `step` of `total` (0-based), in (0, 1].

    Warm-up is linear and never 0, so the first step moves. Then: cosine (Loshchilov & Hutter 2017, eq. 5), linear,
    constant, or warm-up-stable-decay (Hu et al. 2024), each ending at `schedule.floor` on the last step.
    """
    warmup = math.ceil(schedule.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    last = max(1, total - 1 - warmup)
    progress = min(1.0, (step - warmup) / last)
    floor = schedule.floor
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.kind == "linear":
        return floor + (1 - floor) * (1 - progress)
    start = 1 - schedule.decay * total / last
    if progress <= start or start >= 1:
        return 1.0
    return floor + (1 - floor) * (1 - (progress - start) / (1 - start))

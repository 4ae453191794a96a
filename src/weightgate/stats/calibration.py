"""What nothing looks like: comparing a target with itself before believing any alarm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from weightgate.stats.estimates import Estimate, Unmeasured, proportion

Sample = TypeVar("Sample")


def conformal_p_value(observed: float, null: Sequence[float]) -> float:
    """Share of null statistics, the observed one counted in, that are as large: (1 + #{null >= observed}) / (1 + n).

    Valid whenever the observed one would be exchangeable with the null ones (Vovk, Gammerman & Shafer 2005).
    """
    values = np.asarray(null, dtype=np.float64)
    return (1 + int((values >= observed).sum())) / (1 + values.size)


def false_alarm_rate(
    samples: Sequence[Sequence[Sample]],
    p_value: Callable[[list[list[Sample]], list[list[Sample]]], float],
    *,
    alpha: float,
    draws: int = 20,
    seed: int = 0,
) -> Estimate | Unmeasured:
    """Compare a target with itself: how often does `p_value` fall to alpha where nothing changed?

    Args:
        samples: for each prompt, repeated samples of one target under one setting; single ones are left out.
        p_value: compares two sides, each with one list of samples for each prompt.
        draws: how often the samples of each prompt are dealt anew to two sides of equal size.

    The interval counts each deal as one observation, although deals share their samples.
    """
    usable = [list(one) for one in samples if len(one) >= 2]
    if not usable:
        return Unmeasured(reason="an A/A comparison needs at least 2 samples of some prompt")
    rng = np.random.default_rng(seed)
    alarms = 0
    for _ in range(draws):
        dealt = [[one[at] for at in rng.permutation(len(one))] for one in usable]
        first, second = [one[: len(one) // 2] for one in dealt], [one[len(one) // 2 :] for one in dealt]
        alarms += p_value([s[: len(f)] for f, s in zip(first, second, strict=True)], first) <= alpha
    return proportion(alarms, draws)

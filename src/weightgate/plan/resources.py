"""Disk, time and price of a stage. A time that was not measured stays unmeasured, and so does its price."""

from __future__ import annotations

from dataclasses import dataclass

from weightgate.stats import Estimate, Measurement, Unmeasured
from weightgate.store.resume import KEPT_POINTS

SECONDS_PER_HOUR = 3600
_FP32_BYTES = 4
_RESUME_POINTS = KEPT_POINTS + 1
"""Those kept, and the one being written: an old one goes only once the new one is whole."""
_SUPERVISED_BYTES = 1


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes a stage writes: its checkpoint, its resume points at their most, and its tokenised data."""

    checkpoint: int
    resume: int
    cache: int

    @property
    def total(self) -> int:
        """All of it at once. Resume points go when the stage is done."""
        return self.checkpoint + self.resume + self.cache


def stage_disk(
    *, saved_parameters: int, trained_parameters: int, weight_bytes: int, tokens: int, vocab_size: int
) -> Disk:
    """Bytes a stage writes.

    Args:
        saved_parameters: parameters of the checkpoint; equal tensors of its parent are stored once, so this is a bound.
        trained_parameters: each has a master and two moments in fp32 in a resume point; two models count twice.
        weight_bytes: bytes of one saved parameter.
        tokens: tokens of the data, once.
        vocab_size: decides whether a token takes two bytes or four.
    """
    token_bytes = 2 if vocab_size <= 2**16 else 4
    return Disk(
        checkpoint=saved_parameters * weight_bytes,
        resume=_RESUME_POINTS * trained_parameters * 3 * _FP32_BYTES,
        cache=tokens * (token_bytes + _SUPERVISED_BYTES),
    )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast one process is, as measured by a short probe: training in FLOP/s, sampling in tokens/s."""

    training: Measurement
    sampling: Measurement


def duration(amount: float, speed: Measurement) -> Measurement:
    """Seconds that `amount` (FLOPs or tokens) takes at a speed; the interval's ends change places."""
    if isinstance(speed, Unmeasured) or amount == 0:
        return speed if isinstance(speed, Unmeasured) else _nothing()
    if speed.low <= 0:
        return Unmeasured(reason=f"the speed's interval reaches down to {speed.low:.3g} {speed.unit}")
    return Estimate(
        value=amount / speed.value,
        low=amount / speed.high,
        high=amount / speed.low,
        n=speed.n,
        unit="seconds",
        method=speed.method,
    )


def _nothing() -> Estimate:
    return Estimate(value=0.0, low=0.0, high=0.0, n=0, unit="seconds", method="exact")


def together(one: Measurement, other: Measurement) -> Measurement:
    """Sum of two durations. Both may err to the same side, so the ends of their intervals add up."""
    for part in (one, other):
        if isinstance(part, Unmeasured):
            return part
    if not (isinstance(one, Estimate) and isinstance(other, Estimate)):
        raise TypeError("durations are estimates or unmeasured")
    return Estimate(
        value=one.value + other.value,
        low=one.low + other.low,
        high=one.high + other.high,
        n=max(one.n, other.n),
        unit="seconds",
        method=one.method if one.n else other.method,
    )


def price(seconds: Measurement, *, dollars_per_hour: float, devices: int = 1) -> Measurement:
    """Dollars for a time on `devices` devices. Prices differ six-fold between providers: the rate is the user's."""
    if isinstance(seconds, Unmeasured):
        return seconds
    rate = dollars_per_hour * devices / SECONDS_PER_HOUR
    return Estimate(
        value=seconds.value * rate,
        low=seconds.low * rate,
        high=seconds.high * rate,
        n=seconds.n,
        unit="dollars",
        method=seconds.method,
    )

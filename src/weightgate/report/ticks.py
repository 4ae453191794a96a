"""Axes: where the ticks go, how numbers are spelt, and where a value lands between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_SMALLEST, _LARGEST = 1e-290, 1e290
"""Magnitudes an axis can show: beyond them, differences and steps underflow or overflow."""

_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis with its ends and ticks. `place` maps a value to its share of the axis, 0..1 between the ends."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where the value lies; outside 0..1 when it is beyond the ends."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def shows(self, value: float) -> bool:
        """Say whether the value can be drawn: finite, between the ends, and positive on a log axis."""
        return math.isfinite(value) and self.low <= value <= self.high


def linear_scale(values: Iterable[float], *, ticks: int, tight: bool = False) -> Scale:
    """Cover the finite values with about `ticks` steps of 1, 2 or 5 times a power of ten.

    `tight` ends the axis at the data instead of at the next tick.
    """
    finite = [value for value in values if abs(value) <= _LARGEST]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low <= max(_SMALLEST, 1e-9 * max(abs(low), abs(high))):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _nice_step((high - low) / max(1, ticks))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = tuple(round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1))
    if tight:
        return Scale(low=low, high=high, ticks=tuple(tick for tick in places if low <= tick <= high))
    return Scale(low=places[0], high=places[-1], ticks=places)


def log_scale(values: Iterable[float], *, ticks: int) -> Scale:
    """Cover the positive finite values: ticks at decades where there are several, else at 1-2-5, else evenly."""
    positive = [value for value in values if _SMALLEST <= value <= _LARGEST]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = math.ceil((last - first) / max(1, ticks))
    decades = [10.0**power for power in range(first, last + 1, stride)]
    inside = [place for place in decades if low <= place <= high]
    if len(inside) < 3:
        finer = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
        inside = [place for place in finer if low <= place <= high]
    if len(inside) < 3:
        inside = [tick for tick in linear_scale((low, high), ticks=ticks, tight=True).ticks if tick > 0]
    return Scale(low=low, high=high, ticks=tuple(inside), log=True)


def spell(value: float) -> str:
    """Spell a number for a label, in at most four significant digits: 1500 -> "1.5k", 0.02 -> "0.02"."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = abs(value)
    if size < 1e-3 or size >= 1e15:
        return f"{value:.2g}"
    for factor, suffix in _SUFFIXES:
        if size >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.4g}"


def _nice_step(rough: float) -> float:
    """Round a step to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= rough * (1 - 1e-9))

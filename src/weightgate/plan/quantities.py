"""Large numbers as people write them: 10B, 2e12, 1.5M; and back."""

from __future__ import annotations

import math
import re

from weightgate.errors import UserError

LARGEST = 1e40
"""No quantity of a plan is larger; products and powers of what is smaller stay finite."""

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_PATTERN = re.compile(
    r"\s*([+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)\s*", re.IGNORECASE
)
"""Commas only between thousands: 1,5 may be meant as one and a half."""


def read_quantity(text: str, *, name: str, least: float = 0.0) -> float:
    """Read a positive finite number; K, M, B (or G) and T are thousand to trillion.

    Raises `UserError` that names the option for anything else: no number, negative, zero, NaN, infinite, beyond
    `LARGEST`, or below `least`.
    """
    match = _PATTERN.fullmatch(text)
    value = float(match[1].replace("_", "").replace(",", "")) * _SUFFIXES[match[2].lower()] if match else math.nan
    if not (0 < value <= LARGEST and value >= least):
        wanted = f"a positive number up to {LARGEST:g}, such as 3e21, 10B or 1.5M"
        raise UserError(
            "this is no quantity to plan with",
            where=name,
            expected=wanted if least <= 0 else f"{wanted}, at least {spell_quantity(least)}",
            found=text[:40] or "nothing",
        )
    return value


def spell_quantity(value: float) -> str:
    """Spell in three significant digits: 7.2B, 1.3T, 402M, 5.76e23."""
    if not math.isfinite(value) or not 1e3 <= abs(value) < 1e15:
        return f"{value:.3g}"
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{suffix}".replace("e+03", "000")
    return f"{value:.3g}"


def spell_range(low: float, high: float) -> str:
    """Spell both ends; one of them where they are spelt alike."""
    ends = spell_quantity(low), spell_quantity(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

"""How long to wait before an endpoint is asked again: what it asks for, and what politeness asks for."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BACKOFF_SECONDS = 0.5

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_LIMITS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_FIRST_EPOCH = 1e9
"""A larger number is a moment and no wait, from `1e12` on in milliseconds; waits have fewer digits."""


def backoff_seconds(attempt: int, longest: float, chance: random.Random) -> float:
    """A random wait in 0 .. 0.5 * 2^attempt seconds, so that many clients do not come back together ("full jitter")."""
    return chance.uniform(0.0, min(longest, BACKOFF_SECONDS * 2**attempt))


def requested_seconds(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds that `Retry-After` (seconds or a date; RFC 9110, 10.2.3) or `retry-after-ms` asks for; 0 for none."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    return seconds if seconds is not None else _until(text, now)


def exhausted_seconds(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds until a rate limit that has nothing left is full again, by the headers that tell; 0 for none."""
    waits = [
        _duration(headers.get(reset, ""), now)
        for remaining, reset in _LIMITS
        if headers.get(remaining, "").strip() == "0"
    ]
    return max(waits, default=0.0)


def _until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _duration(text: str, now: datetime) -> float:
    """Read 1.5, "1s", "6m0s", "120ms" or a moment in seconds or milliseconds since 1970; anything else is no wait."""
    seconds = _number(text)
    if seconds is not None and seconds >= _FIRST_EPOCH:
        return max(0.0, (seconds / 1000 if seconds >= 1000 * _FIRST_EPOCH else seconds) - now.timestamp())
    if seconds is not None:
        return seconds
    parts = _DURATION.fullmatch(text.strip())
    if parts is None:
        return 0.0
    return sum(float(part) * unit for part, unit in zip(parts.groups("0"), (3600, 60, 1, 0.001), strict=True))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None

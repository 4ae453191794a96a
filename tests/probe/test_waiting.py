"""Waits that endpoints ask for, in every form they are known to use."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightgate.probe.waiting import backoff_seconds, exhausted_seconds, requested_seconds

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
        ({}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert requested_seconds(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        *(("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("2.5", 2.5), ("x", 0)),
        (f"{NOW.timestamp() + 9:.0f}", 9),
        (f"{1000 * NOW.timestamp() + 2500:.0f}", 2.5),
        (f"{NOW.timestamp() - 9:.0f}", 0),
    ],
)
@pytest.mark.parametrize("name", ["x-ratelimit-{}-tokens", "x-ratelimit-{}", "ratelimit-{}"])
def test_a_limit_with_nothing_left_is_waited_for(name: str, reset: str, seconds: float) -> None:
    headers = {name.format("remaining"): "0", name.format("reset"): reset}
    assert exhausted_seconds(headers, NOW) == pytest.approx(seconds)
    assert exhausted_seconds(headers | {name.format("remaining"): "1"}, NOW) == 0


@given(st.text(max_size=30))
def test_any_header_is_some_wait(text: str) -> None:
    assert requested_seconds({"retry-after": text}, NOW) >= 0
    assert exhausted_seconds({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}, NOW) >= 0


@given(st.integers(0, 20), st.floats(0, 60), st.integers())
def test_backoff_is_random_and_bounded(attempt: int, longest: float, seed: int) -> None:
    assert 0 <= backoff_seconds(attempt, longest, random.Random(seed)) <= min(longest, 0.5 * 2**attempt)

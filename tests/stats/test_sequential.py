"""Tests that may be looked at at any time: quiet where nothing changes, loud where something does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.stats import BettingProcess, ConformalProcess, SpendingProcess, betting_evidence, rank_p_value

_DIFFERENCES = st.lists(st.floats(-1, 1), max_size=50)


@given(_DIFFERENCES, st.integers(0, 50))
@settings(deadline=None)
def test_bets_may_come_in_any_portions(differences: list[float], cut: int) -> None:
    whole, parts = BettingProcess(), BettingProcess()
    whole.update(differences)
    parts.update(differences[:cut])
    resumed = BettingProcess.from_json(parts.to_json())
    resumed.update(differences[cut:])
    assert resumed.evidence == pytest.approx(whole.evidence)
    assert resumed.largest == pytest.approx(whole.largest)
    assert resumed.seen == len(differences)


def test_two_bettors_of_one_stake_have_expectation_one() -> None:
    paths = [betting_evidence([a, b, c]) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    assert np.mean(paths) == pytest.approx(1.0)


def test_wealth_is_what_the_formula_says() -> None:
    bets = (0.1, 0.2, 0.4, 0.6, 0.8)
    expected = sum((1 + b) ** 2 * (1 - b) + (1 - b) ** 2 * (1 + b) for b in bets) / 10
    assert betting_evidence([1, 1, -1]) == pytest.approx(expected)


def test_looking_after_every_prompt_rarely_alarms_where_nothing_changed() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        process = BettingProcess()
        process.update(rng.choice([-1.0, 0.0, 1.0], size=300))
        alarms += process.largest >= 20
    # At most 5 % in expectation: Binomial(400, 0.05) exceeds 42 with probability below 1e-5.
    assert alarms <= 42


def test_a_tolerated_change_does_not_alarm_and_a_larger_one_does() -> None:
    rng = np.random.default_rng(2)
    drift = (rng.random(2000) < 0.55) * 2.0 - 1.0  # mean 0.1
    assert betting_evidence(drift.tolist()) > 20
    assert betting_evidence(drift.tolist(), tolerance=0.15) < 20


def test_much_evidence_is_large_rather_than_an_error() -> None:
    assert betting_evidence([1.0] * 5000) == math.inf
    for wrong in (1.1, math.nan):
        with pytest.raises(ValueError):
            betting_evidence([wrong])


def test_looks_share_a_whole_of_one() -> None:
    process = SpendingProcess()
    for _ in range(1000):
        process.update(1.0)
    assert process.evidence == pytest.approx(1000 / 1001)
    assert SpendingProcess(**process.to_json()) == process
    with pytest.raises(ValueError):
        process.update(math.nan)


def test_one_noisy_baseline_does_not_alarm_however_often_it_is_looked_at() -> None:
    """The baseline's luck stays in every look; a process that runs on over looks would alarm here."""
    rng = np.random.default_rng(3)
    alarms, naive_alarms = 0, 0
    for _ in range(60):
        rates = rng.random(40)
        baseline = rng.random(40) < rates
        spending, naive = SpendingProcess(), BettingProcess()
        for _ in range(60):
            look = (rng.random(40) < rates).astype(float) - baseline
            spending.update(betting_evidence(look.tolist()))
            naive.update(look)
        alarms += spending.evidence >= 20
        naive_alarms += naive.largest >= 20
    assert alarms <= 12  # Binomial(60, 0.05) exceeds 12 with probability below 1e-5
    assert naive_alarms > 30


def test_ranks_are_uniform_and_small_for_large_scores() -> None:
    assert rank_p_value(9, [1, 2, 3], 0.5) == pytest.approx(0.125)
    assert rank_p_value(2, [1, 2, 3], 1.0) == pytest.approx(0.75)
    assert rank_p_value(0, [], 0.3) == 0.3
    with pytest.raises(ValueError):
        rank_p_value(0, [], 1.5)


def test_a_stream_alarms_after_its_change_and_not_without_one() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(100):
        quiet = ConformalProcess()
        largest = max(quiet.update(score, u) for score, u in zip(rng.normal(size=100), rng.random(100), strict=True))
        alarms += largest >= 20
    assert alarms <= 16  # Binomial(100, 0.05) exceeds 16 with probability below 1e-5
    changed = ConformalProcess()
    for score in rng.normal(size=60):
        changed.update(score, rng.random())
    changed = ConformalProcess(**changed.to_json())
    for score in rng.normal(6, 1, size=6):
        changed.update(score, rng.random())
    assert changed.evidence >= 20
    with pytest.raises(ValueError):
        changed.update(math.nan, 0.5)

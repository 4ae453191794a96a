"""The joint test of style and wording: exact where nothing changed, and able to see what no single trait shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.diff.features import STYLE_FEATURES
from weightgate.diff.joint import StyleMetric, joint_test, shipped_metric, signed_ranks

WIDTH = len(STYLE_FEATURES)


def test_ranks_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is the independent implementation")
    column = np.random.default_rng(1).integers(-4, 5, size=40).astype(float)
    moved = column != 0
    expected = np.zeros(40)
    expected[moved] = np.sign(column[moved]) * stats.rankdata(np.abs(column[moved])) / moved.sum()
    assert signed_ranks(column[:, None])[:, 0] == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(5, 30))
def test_swapping_a_prompts_sides_only_turns_its_shift_round(seed: int, prompts: int) -> None:
    """What makes the test exact: the kernel is the same whichever sides are swapped."""
    rng = np.random.default_rng(seed)
    differences = np.where(rng.random((prompts, WIDTH)) < 0.5, rng.normal(size=(prompts, WIDTH)), 0.0)
    signs = rng.choice([-1.0, 1.0], size=(prompts, 1))
    shifts = shipped_metric().shifts(differences)
    assert shipped_metric().shifts(signs * differences) == pytest.approx(signs * shifts, abs=1e-9)


def test_many_small_shifts_are_seen_together() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(60, WIDTH))
    words = ["so it is"] * 60
    assert joint_test(noise + 0.3, words, words) <= 0.01
    assert joint_test(noise, words, words) > 0.01


def test_the_false_alarm_rate_is_what_was_asked_for() -> None:
    rng = np.random.default_rng(4)
    said = np.array(["lamp and river", "river or stone", "the paper cloud", "a green lamp"])
    alarms = 0
    for seed in range(80):
        sides = [rng.choice(said, size=12).tolist() for _ in range(2)]
        alarms += joint_test(rng.normal(size=(12, WIDTH)), *sides, seed=seed) <= 0.05
    assert alarms <= 15  # Binomial(80, 0.05) exceeds 15 with probability below 1e-5


def test_the_metric_that_ships_is_one() -> None:
    shipped = shipped_metric()
    assert shipped.names == STYLE_FEATURES
    assert np.linalg.eigvalsh(shipped.noise).min() > 0
    assert np.linalg.eigvalsh(shipped.effects).min() > -1e-4
    again = StyleMetric.from_json(json.loads(json.dumps(shipped.to_json())))
    assert again.to_json() == shipped.to_json()
    with pytest.raises(ValueError, match="schema"):
        StyleMetric.from_json(shipped.to_json() | {"schema": 99})

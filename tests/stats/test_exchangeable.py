"""The p-value of a look: exact, uniform while nothing changes, and independent from look to look."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.stats.exchangeable import LEVELS, SMALLEST_P, look_p_value, spread_of_mean
from weightgate.stats.sequential import ChangeProcess

_BAGS = st.lists(st.lists(st.integers(0, LEVELS), min_size=1, max_size=4), min_size=1, max_size=5)


def _counts(bags: list[list[int]]) -> np.ndarray:
    return np.array([np.bincount(bag, minlength=LEVELS + 1) for bag in bags])


@given(_BAGS, st.floats(0, 1), st.data())
@settings(deadline=None, max_examples=200)
def test_it_is_what_counting_every_possibility_gives(bags: list[list[int]], tie: float, data: st.DataObject) -> None:
    values = [data.draw(st.sampled_from(bag)) for bag in bags]
    sums = np.array([sum(choice) for choice in itertools.product(*bags)])
    expected = (sums > sum(values)).mean() + tie * (sums == sum(values)).mean()
    found = look_p_value(_counts(bags), np.array(values), tie)
    assert found == pytest.approx(np.clip(expected, SMALLEST_P, 1 - SMALLEST_P), abs=1e-9)


def test_what_is_no_look_is_refused() -> None:
    bags = _counts([[1, 2], [3]])
    for values, tie in (([5, 3], 0.5), ([1, 3], 1.5), ([1], 0.5)):
        with pytest.raises(ValueError):
            look_p_value(bags, np.array(values), tie)


def test_prompts_that_never_vary_say_nothing_and_cost_nothing() -> None:
    bags = _counts([[7, 7, 7]] * 3)
    assert look_p_value(bags, np.array([7, 7, 7]), 0.25) == 0.25
    assert spread_of_mean(bags) == 0.0


def test_the_spread_is_the_deviation_of_a_look() -> None:
    rng = np.random.default_rng(0)
    bags = [rng.integers(0, LEVELS + 1, 6).tolist() for _ in range(8)]
    looks = [np.mean([rng.choice(bag) for bag in bags]) for _ in range(4000)]
    # The deviation of a sample of 4000 is off by 1.1 % (one deviation); by 6 % with probability below 1e-6.
    assert spread_of_mean(_counts(bags)) == pytest.approx(np.std(looks), rel=0.06)


def test_looks_against_one_baseline_are_uniform_and_independent() -> None:
    """The baseline's luck is in every look; neither the mean nor the correlation of the p-values shows it."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        rates = rng.beta(0.5, 0.5, 12)
        bags = np.zeros((12, LEVELS + 1), dtype=np.int64)
        p_values = []
        for look in range(6):
            values = (rng.random(12) < rates).astype(np.int64) * LEVELS
            bags[np.arange(12), values] += 1
            if look >= 2:
                p_values.append(look_p_value(bags, values, rng.random()))
        found.append(p_values)
    p = np.array(found)
    # 1600 uniform values: the mean is off by 0.0072 (one deviation), 5 deviations have probability 6e-7.
    assert abs(p.mean() - 0.5) < 0.036
    # Six correlations of 400 pairs have deviation 0.05 each; beyond 0.25 with probability below 4e-6.
    correlations = np.corrcoef(p.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.25


def test_a_change_is_bet_on_in_either_direction_and_late_ones_too() -> None:
    rng = np.random.default_rng(2)
    for extreme in (1e-4, 1 - 1e-4):
        process = ChangeProcess()
        for _ in range(300):
            process.update(float(rng.uniform(0.01, 0.99)))
        for _ in range(3):
            process.update(extreme)
        assert process.evidence > 400
    assert ChangeProcess(**process.to_json()).evidence == process.evidence
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError):
            process.update(wrong)


def test_the_stakes_are_one_at_first_and_worth_one_on_average() -> None:
    assert ChangeProcess().evidence == 1.0
    places = (np.arange(4000) + 0.5) / 4000
    # Both halves of 0..1 are worth the same; p = u^10 / 2 takes away the pole of p^-0.9 at 0, dp = 5 u^9 du.
    worth = [ChangeProcess().update(float(u**10 / 2)) * 5 * u**9 for u in places]
    assert 2 * np.mean(worth) == pytest.approx(1.0, abs=1e-3)


def test_uniform_p_values_rarely_make_anyone_rich() -> None:
    rng = np.random.default_rng(3)
    rich = 0
    for _ in range(300):
        process = ChangeProcess()
        rich += any(process.update(float(p)) >= 20 for p in rng.uniform(1e-9, 1 - 1e-9, 200))
    assert rich <= 35  # Binomial(300, 0.05) exceeds 35 with probability below 1e-5

"""Estimates against independent implementations, and their intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate import stats
from weightgate.stats import Estimate, Unmeasured, measurement_from_json

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is the independent implementation")


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_a_proportion_has_the_wilson_interval(n: int, share: float) -> None:
    successes = round(n * share)
    found = stats.proportion(successes, n)
    assert isinstance(found, Estimate)
    expected = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_no_observation_is_no_measurement() -> None:
    assert isinstance(stats.proportion(0, 0), Unmeasured)
    assert isinstance(stats.mean([], unit="a"), Unmeasured)
    assert isinstance(stats.mean([1.0, math.nan], unit="a"), Unmeasured)
    assert isinstance(stats.mean([1.0, math.inf], unit="a"), Unmeasured)
    assert isinstance(stats.ratio([1.0], [0.0], unit="a"), Unmeasured)
    assert isinstance(stats.correlation([1, 2, 3], [1, 2, 3]), Unmeasured)
    assert isinstance(stats.correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), Unmeasured)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        stats.proportion(successes, n)


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    """Skewed data, n = 60, 300 trials: a 92 to 95 % interval misses at least 20 % of them with odds below 10^-7."""
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(300, 60))
    covered = 0
    for sample in samples:
        found = stats.mean(sample.tolist(), unit="a")
        assert isinstance(found, Estimate)
        covered += found.low <= 1.0 <= found.high
    assert 0.85 <= covered / 300 <= 0.995


def test_the_bootstrap_agrees_with_an_independent_one() -> None:
    sample = np.random.default_rng(2).normal(3.0, 1.0, 80)
    found = stats.mean(sample.tolist(), unit="a")
    expected = scipy_stats.bootstrap((sample,), np.mean, method="percentile", rng=np.random.default_rng(3))
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(sample.mean())
    spread = sample.std() / math.sqrt(80)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.15 * spread)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.15 * spread)


def test_a_ratio_weighs_its_parts_and_is_repeatable() -> None:
    found = stats.ratio([1.0, 9.0], [1.0, 3.0], unit="bits/byte")
    assert isinstance(found, Estimate)
    assert found.value == 2.5
    assert (found.low, found.high) == (1.0, 3.0)
    assert found == stats.ratio([1.0, 9.0], [1.0, 3.0], unit="bits/byte")


def test_a_paired_difference_drops_what_the_pairs_share() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(0, 10, 50)
    found = stats.paired_difference((before + 1).tolist(), before.tolist(), unit="a")
    assert isinstance(found, Estimate)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    with pytest.raises(ValueError, match="cannot be paired"):
        stats.paired_difference([1.0], [1.0, 2.0], unit="a")


@pytest.mark.parametrize("seed", range(5))
def test_a_correlation_has_fishers_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=30)
    y = 0.5 * x + rng.normal(size=30)
    found = stats.correlation(x.tolist(), y.tolist())
    expected = scipy_stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(expected.statistic)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_a_perfect_correlation_is_measured() -> None:
    found = stats.correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(1.0)
    assert found.low <= found.value <= found.high + 1e-9


def test_json_keeps_a_measurement() -> None:
    for measurement in (stats.proportion(3, 7), Unmeasured(reason="why not")):
        assert measurement_from_json(measurement.to_json()) == measurement

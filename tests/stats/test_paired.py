"""Paired tests against SciPy where it is there, against enumeration where not, and against their own null."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.stats import (
    Unmeasured,
    benjamini_hochberg,
    benjamini_yekutieli,
    cluster_means,
    conditioned_difference,
    conformal_p_value,
    e_benjamini_hochberg,
    e_from_p,
    effect_behind,
    effect_size,
    false_alarm_rate,
    mcnemar,
    permutation_test,
    prompts_needed,
    sign_test,
    smallest_effect_seen,
    weighted_benjamini_hochberg,
)

_SIGNS = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=60)
_PROBABILITIES = st.lists(st.floats(0, 1), max_size=30)


@given(_SIGNS)
@settings(deadline=None)
def test_the_sign_test_is_the_exact_binomial_test(differences: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is the independent implementation")
    found = sign_test(differences)
    if found.rose + found.fell == 0:
        assert found.p_value == 1
    else:
        expected = stats.binomtest(found.rose, found.rose + found.fell, 0.5).pvalue
        assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_stays_exact_for_thousands_of_prompts() -> None:
    assert sign_test([1.0] * 5000).p_value == 0.0  # 2^-4999 is below the smallest float
    assert sign_test([1.0, -1.0] * 5000).p_value == 1.0


def test_mcnemar_counts_who_rose_and_who_fell() -> None:
    found = mcnemar([True, True, False, True], [False, True, True, False])
    assert (found.rose, found.fell, found.n) == (2, 1, 4)
    with pytest.raises(ValueError):
        mcnemar([True], [])


@given(st.lists(st.floats(-5, 5).map(lambda value: round(value, 2)), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_small_permutation_test_tries_every_pattern(differences: list[float]) -> None:
    observed = abs(math.fsum(differences))
    patterns = product((1, -1), repeat=len(differences))
    sums = [abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    expected = sum(value >= observed - 1e-9 for value in sums) / len(sums)
    assert permutation_test(differences).p_value == pytest.approx(expected)


def test_a_large_permutation_test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is the independent implementation")
    differences = np.random.default_rng(3).normal(0.25, 1, size=60)
    theirs = stats.permutation_test(
        (differences, np.zeros(60)),
        lambda a, b: abs((a - b).sum()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=9999,
        rng=np.random.default_rng(4),
    ).pvalue
    # Both are means of 10,000 draws: they differ by more than 0.03 with probability below 1e-6.
    assert permutation_test(differences.tolist()).p_value == pytest.approx(theirs, abs=0.03)
    with pytest.raises(ValueError, match="not finite"):
        permutation_test([math.nan])


def test_tests_rarely_reject_where_nothing_changed() -> None:
    rng = np.random.default_rng(7)
    p_values = [permutation_test(rng.normal(size=20).tolist(), draws=199).p_value for _ in range(300)]
    # Binomial(300, 0.05) exceeds 35 with probability below 1e-5; the seed is fixed.
    assert sum(p <= 0.05 for p in p_values) <= 35
    assert min(p_values) >= 1 / 200


def test_effect_sizes_and_what_would_have_been_seen() -> None:
    assert effect_size([1, 2, 3]) == pytest.approx(2.0)
    assert effect_size([0, 0]) == effect_size([]) == 0
    assert effect_size([-2, -2]) == -math.inf
    assert smallest_effect_seen(100) == pytest.approx(0.28016, abs=1e-4)  # (1.959964 + 0.841621) / 10
    assert prompts_needed(0.28016) == 100
    assert prompts_needed(0) is None
    assert smallest_effect_seen(0) == math.inf
    assert effect_behind(0.05, 100) == pytest.approx(0.1959964, abs=1e-6)
    assert effect_behind(1.0, 100) == 0


def test_clusters_are_averaged_in_their_order() -> None:
    assert cluster_means([1, 5, 3], ["a", "b", "a"]) == [2, 5]


def test_conditioning_takes_away_what_the_covariate_explains() -> None:
    rng = np.random.default_rng(5)
    length = rng.normal(0.8, 0.5, size=200)
    only_length = 0.5 * length + rng.normal(0, 0.1, size=200)
    explained = conditioned_difference(only_length.tolist(), [length.tolist()], unit="share")
    assert not isinstance(explained, Unmeasured)
    assert explained.p_value > 0.01
    assert explained.effect.low < 0 < explained.effect.high
    real = conditioned_difference((only_length + 0.3).tolist(), [length.tolist()], unit="share")
    assert not isinstance(real, Unmeasured)
    assert real.p_value < 0.001
    assert real.effect.value == pytest.approx(0.3, abs=0.1)


def test_conditioning_says_when_it_cannot() -> None:
    constant = conditioned_difference([1.0, 2, 3, 4, 5, 6], [[1.0] * 6], unit="share")
    few = conditioned_difference([1.0, 2], [[1.0, 3]], unit="share")
    assert isinstance(constant, Unmeasured)
    assert isinstance(few, Unmeasured)
    unmoved = conditioned_difference([1.0, 2, 3, 4, 5, 6], [[0.0] * 6], unit="share")
    assert not isinstance(unmoved, Unmeasured)
    assert unmoved.effect.value == pytest.approx(3.5)


@given(_PROBABILITIES)
@settings(deadline=None)
def test_corrections_agree_with_scipy(p_values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is the independent implementation")
    if p_values:
        assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values, method="bh"))
        assert benjamini_yekutieli(p_values) == pytest.approx(stats.false_discovery_control(p_values, method="by"))
    else:
        assert benjamini_hochberg(p_values) == []


@given(_PROBABILITIES, st.floats(0.1, 10))
@settings(deadline=None)
def test_equal_weights_are_none_and_weight_is_level(p_values: list[float], weight: float) -> None:
    assert weighted_benjamini_hochberg(p_values, [weight] * len(p_values)) == pytest.approx(
        benjamini_hochberg(p_values)
    )
    assert weighted_benjamini_hochberg([0.02, 1.0], [3, 1]) == pytest.approx([0.02 / 1.5 * 2, 1.0])


def test_a_p_value_out_of_range_is_no_p_value() -> None:
    for wrong in ([1.5], [math.nan], [-0.1]):
        with pytest.raises(ValueError):
            benjamini_hochberg(wrong)


@given(st.dictionaries(st.integers(), st.floats(0, 1e6), max_size=20))
@settings(deadline=None)
def test_e_benjamini_hochberg_is_benjamini_hochberg_of_inverses(e_values: dict[int, float]) -> None:
    inverse = [min(1.0, 1 / value) if value > 0 else 1.0 for value in e_values.values()]
    adjusted = dict(zip(e_values, benjamini_hochberg(inverse), strict=True))
    rejected = e_benjamini_hochberg(e_values, alpha=0.05)
    clear = {name for name, value in adjusted.items() if abs(value - 0.05) > 1e-9}
    assert rejected & clear == {name for name in clear if adjusted[name] <= 0.05}


def test_the_calibrator_has_expectation_one() -> None:
    integrate = pytest.importorskip("scipy.integrate", reason="SciPy integrates")
    # In v with p = e^-v the integrand is tame but falls only as 1 / v^2, so what is beyond 1e6 is worth 1e-6.
    total, _ = integrate.quad(lambda v: e_from_p(math.exp(-v)) * math.exp(-v), 0, 700, limit=500)
    assert total == pytest.approx(1 - 1 / 700, abs=1e-3)
    assert e_from_p(1.0) == pytest.approx(0.5)
    assert e_from_p(1 - 1.1e-3) == pytest.approx(e_from_p(1 - 0.9e-3), abs=1e-3)
    with pytest.raises(ValueError):
        e_from_p(0.0)


def test_a_target_compared_with_itself_rarely_alarms() -> None:
    rng = np.random.default_rng(11)
    samples = [rng.normal(size=4).tolist() for _ in range(40)]

    def p_value(after: list[list[float]], before: list[list[float]]) -> float:
        means = [np.mean(a) - np.mean(b) for a, b in zip(after, before, strict=True)]
        return permutation_test([float(value) for value in means], draws=199).p_value

    rate = false_alarm_rate(samples, p_value, alpha=0.05, draws=40)
    assert not isinstance(rate, Unmeasured)
    assert rate.value <= 0.25  # Binomial(40, 0.05) exceeds 10 with probability below 1e-5
    assert false_alarm_rate(samples, lambda after, before: 0.0, alpha=0.05) != rate
    assert isinstance(false_alarm_rate([[1.0]], p_value, alpha=0.05), Unmeasured)


def test_a_conformal_p_value_is_a_rank() -> None:
    assert conformal_p_value(5, [1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert conformal_p_value(0, [1, 2, 3, 4]) == 1
    assert conformal_p_value(0, []) == 1

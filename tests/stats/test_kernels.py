"""String kernels: what they compare, that they find a change, and that they leave equal sides alone."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.stats import joint_swap_test, kernel_test
from weightgate.stats.kernels import Kernel, hamming, spectrum

_TEXTS = st.lists(st.text(max_size=40), min_size=1, max_size=6)
_WORDS = ("lamp", "river", "stone", "paper", "cloud", "green")


def _say(rng: np.random.Generator, opening: str = "") -> str:
    return opening + " ".join(rng.choice(_WORDS, size=12))


@given(_TEXTS)
@settings(deadline=None)
def test_kernels_are_positive_definite_and_one_on_the_diagonal(texts: list[str]) -> None:
    features = np.stack([spectrum(text) for text in texts])
    assert np.diag(hamming(texts)) == pytest.approx(1.0)
    assert np.linalg.eigvalsh(hamming(texts)).min() >= -1e-9
    for text, row in zip(texts, features, strict=True):
        assert np.linalg.norm(row) == pytest.approx(1.0 if len(text.encode("utf-8", "replace")) > 1 else 0.0)


def test_hamming_counts_places() -> None:
    assert hamming(["abc", "abd"])[0, 1] == pytest.approx(299 / 300)
    assert hamming(["", "ab"])[0, 1] == pytest.approx(298 / 300)


@pytest.mark.parametrize("kernel", ["hamming", "spectrum"])
def test_a_change_of_habit_is_found_and_equal_sides_are_not(kernel: Kernel) -> None:
    rng = np.random.default_rng(1)
    before = [[_say(rng) for _ in range(4)] for _ in range(12)]
    same = [[_say(rng) for _ in range(4)] for _ in range(12)]
    changed = [[_say(rng, "Sure! ") for _ in range(4)] for _ in range(12)]
    assert kernel_test(changed, before, kernel=kernel).p_value <= 0.01
    assert kernel_test(same, before, kernel=kernel).p_value > 0.01


@pytest.mark.parametrize("kernel", ["hamming", "spectrum"])
def test_the_false_alarm_rate_is_what_was_asked_for(kernel: Kernel) -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for seed in range(80):
        sides = [[[_say(rng) for _ in range(2)] for _ in range(8)] for _ in range(2)]
        alarms += kernel_test(*sides, kernel=kernel, seed=seed, draws=99).p_value <= 0.05
    assert alarms <= 15  # Binomial(80, 0.05) exceeds 15 with probability below 1e-5


def test_the_spectrum_needs_one_completion_and_hamming_says_that_it_needs_two() -> None:
    rng = np.random.default_rng(3)
    before, after = [[[_say(rng, opening)] for _ in range(20)] for opening in ("", "Well, then: ")]
    assert kernel_test(after, before, kernel="spectrum").p_value <= 0.01
    with pytest.raises(ValueError, match="several completions"):
        kernel_test(after, before, kernel="hamming")
    with pytest.raises(ValueError, match="no completion"):
        kernel_test([[]], [["a"]], kernel="spectrum")


def test_equal_texts_are_equal() -> None:
    for kernel in ("hamming", "spectrum"):
        found = kernel_test([["a b", "a b"]], [["a b", "a b"]], kernel=kernel)
        assert found.statistic == pytest.approx(0)
        assert found.p_value == 1


@pytest.mark.parametrize("samples", [2, 7])
def test_the_hamming_test_is_that_of_every_way_to_deal(samples: int) -> None:
    """With 7 samples a side there are 3,432 ways, so they are shuffled instead of listed."""
    rng = np.random.default_rng(4)
    after, before = ([_say(rng, opening) for _ in range(samples)] for opening in ("Sure! ", ""))
    gram, every = hamming([*after, *before]), range(2 * samples)
    weights = np.array([[1 if at in own else -1 for at in every] for own in combinations(every, samples)])
    values = np.einsum("dj,dj->d", weights @ gram, weights)
    exact = np.mean(values >= values[0] * (1 - 1e-9))
    # A share of 3,999 draws is further than 0.05 from its expectation with probability below 1e-8.
    assert kernel_test([after], [before], kernel="hamming", draws=3999).p_value == pytest.approx(exact, abs=0.05)


def test_one_kernel_alone_is_the_test_of_every_swap() -> None:
    shifts = np.random.default_rng(5).normal(0.4, 1, size=(8, 3))
    squares = [((np.array(signs) @ shifts) ** 2).sum() for signs in product((1, -1), repeat=8)]
    exact = np.mean(np.array(squares) >= squares[0] * (1 - 1e-9))
    # A share of 1,999 draws is further than 0.06 from its expectation with probability below 1e-6.
    assert joint_swap_test([shifts], draws=1999) == pytest.approx(float(exact), abs=0.06)


def test_kernels_that_each_see_a_little_see_it_together() -> None:
    rng = np.random.default_rng(7)
    alone, together, quiet = 0, 0, 0
    for seed in range(60):
        kernels = [rng.normal(0.25, 1, size=(30, 2)) for _ in range(4)]
        alone += joint_swap_test(kernels[:1], seed=seed, draws=199) <= 0.05
        together += joint_swap_test(kernels, seed=seed, draws=199) <= 0.05
        quiet += joint_swap_test([kernel - 0.25 for kernel in kernels], seed=seed, draws=199) <= 0.05
    assert together > alone + 10
    assert quiet <= 13  # Binomial(60, 0.05) exceeds 13 with probability below 1e-5
    assert joint_swap_test([np.zeros((5, 2))]) == 1


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.lists(st.text(max_size=20), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_statistic_is_mmd_squared(after: list[str], before: list[str]) -> None:
    """Mean kernel within each side, less twice that across (Gretton et al. 2012, eq. 5), computed the long way."""
    if len(after) > 1 or len(before) > 1:
        gram, cut = hamming([*after, *before]), len(after)
        expected = gram[:cut, :cut].mean() + gram[cut:, cut:].mean() - 2 * gram[:cut, cut:].mean()
        found = kernel_test([after], [before], kernel="hamming", draws=9)
        assert found.statistic == pytest.approx(expected, abs=1e-12)
    ours, theirs = (np.stack([spectrum(text) for text in side[:1] * 3]) for side in (after, before))
    across = ours @ ours.T + theirs @ theirs.T - 2 * ours @ theirs.T
    found = kernel_test([after[:1]] * 3, [before[:1]] * 3, kernel="spectrum", draws=9)
    assert found.statistic == pytest.approx(float(across.mean()), abs=1e-12)

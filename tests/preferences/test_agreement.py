"""Agreement and annotators against other people's programs, and against what was planted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.audit_planted import RATES, table
from benchmarks.planted_votes import Judge, draw_pairs, judge
from hypothesis import given
from hypothesis import strategies as st

from weightgate.preferences.agreement import agreement_of, cohen_kappa, fleiss_kappa, krippendorff_alpha
from weightgate.preferences.annotators import dawid_skene, roster_of
from weightgate.preferences.noise import noise_of
from weightgate.stats import Estimate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "agreement.json").read_text())
ITEMS, ANNOTATORS, LABELS = (np.array(column, dtype=np.int32) for column in zip(*GOLDEN["votes"], strict=True))


def test_alpha_is_that_of_the_library() -> None:
    counts = np.zeros((60, 3))
    np.add.at(counts, (ITEMS, LABELS), 1)
    assert krippendorff_alpha(counts) == pytest.approx(GOLDEN["alpha"], abs=1e-9)


def test_dawid_skene_agrees_with_crowd_kit() -> None:
    """The library does not smooth, so what it is sure of must agree, and error rates of 48 votes within 0.1."""
    truth, confusion = dawid_skene(ITEMS, ANNOTATORS, LABELS, 3, rounds=200)
    names = sorted(set(ITEMS.tolist()))
    theirs = np.array(GOLDEN["probabilities"])
    sure = theirs.max(axis=1) > 0.9
    assert sure.sum() > 40
    agree = truth[names].argmax(axis=1)[sure] == theirs.argmax(axis=1)[sure]
    assert agree.mean() >= 0.97
    correct = confusion[:, range(3), range(3)].mean(axis=1)
    assert correct == pytest.approx(np.array(GOLDEN["correct"]), abs=0.1)


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=2, max_size=8))
def test_alpha_does_not_depend_on_the_names_of_classes_and_is_at_most_1(rows: list[list[int]]) -> None:
    counts = np.array(rows, dtype=np.float64)
    alpha = krippendorff_alpha(counts)
    if not math.isnan(alpha):
        assert alpha <= 1 + 1e-12
        assert krippendorff_alpha(counts[:, ::-1]) == pytest.approx(alpha)


def test_kappas_by_hand() -> None:
    # Fleiss (1971) with two votes an item: observed 1/2, expected 1/2.
    kappa = fleiss_kappa(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0], [1.0, 1.0]]))
    assert isinstance(kappa, Estimate)
    assert kappa.value == pytest.approx(0.0)
    one, other = np.array([1, 1, -1, -1], dtype=np.int32), np.array([1, 1, -1, 1], dtype=np.int32)
    assert cohen_kappa(one, other) == pytest.approx(0.5)


def test_planted_error_rates_flips_and_leanings_are_recovered() -> None:
    """12 judges with 250 votes each: an estimate of their own wrong share is off by more than 6 points in < 1 %."""
    judges = [Judge(name=f"judge-{number}", error_rate=rate) for number, rate in enumerate(RATES)]
    judges[0] = Judge(name="judge-0", error_rate=0.05, position=0.5)
    planted = judge(draw_pairs(3, 600), judges, votes_each=5, seed=3)
    votes = table(planted)
    roster = {one.name: one for one in roster_of(votes)}
    for number in range(1, len(RATES)):
        one = roster[f"judge-{number}"]
        wrong = [bad for row, bad in zip(planted.rows, planted.wrong, strict=True) if row["annotator"] == one.name]
        assert isinstance(one.error_rate, Estimate)
        assert abs(one.error_rate.value - np.mean(wrong)) < 0.06
    leaning = roster["judge-0"].first_bias
    assert isinstance(leaning, Estimate)
    assert leaning.low > 0.6
    assert roster["judge-11"].differs
    found = agreement_of(votes)
    assert isinstance(found.alpha, Estimate)
    assert found.alpha.low < found.alpha.value < found.alpha.high


def test_flips_among_three_votes_are_listed() -> None:
    """At 10 % flips two of three votes are right in 97 % of pairs; the list has about 90 % precision and recall."""
    planted = judge(draw_pairs(5, 300), [Judge(name=f"j{n}") for n in range(6)], votes_each=3, seed=5)
    noise = noise_of(table(planted))
    wrong = np.array(planted.wrong)
    listed = [one.row for one in noise.suspects]
    assert wrong[listed].mean() > 0.8
    assert wrong[listed].sum() / wrong.sum() > 0.6

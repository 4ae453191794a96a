"""The fits behind slopes, skills and leanings, against a general optimiser that knows only the likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.audit_planted import table
from benchmarks.planted_votes import Judge, draw_pairs, judge
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from weightgate.preferences.annotators import consensus_of, roster_of
from weightgate.preferences.logistic import auc, fit_slopes
from weightgate.preferences.table import Table
from weightgate.stats import Estimate

RIDGE = 1e-3


def likeliest(design: np.ndarray) -> np.ndarray:
    """Slopes (k) that minimise -log sigmoid(beta . z) summed over the rows (n, k), plus the ridge."""

    def loss(beta: np.ndarray) -> float:
        return float(np.logaddexp(0, -design @ beta).sum() + RIDGE * len(design) * (beta @ beta) / 2)

    return np.asarray(minimize(loss, np.zeros(design.shape[1]), method="BFGS", options={"gtol": 1e-8}).x)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_slopes_are_the_likeliest(seed: int, drivers: int) -> None:
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(60, drivers)) + rng.normal(size=drivers)
    found = fit_slopes(design, np.arange(60, dtype=np.int32), ridge=RIDGE)
    assert found.beta == pytest.approx(likeliest(design), abs=1e-3)


def test_the_error_of_a_slope_is_that_of_many_draws() -> None:
    """Standard errors over 300 draws of 400 pairs: the estimate of a spread from 300 is within 15 % in 99.9 %."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        differences = rng.normal(size=(400, 1))
        wins = rng.random(400) < 1 / (1 + np.exp(-0.8 * differences[:, 0]))
        turned = differences * np.where(wins, 1, -1)[:, None]
        found.append(fit_slopes(turned, np.arange(400, dtype=np.int32), ridge=0.0).contrast(np.ones(1)))
    values, errors = zip(*found, strict=True)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_skill_and_leaning_are_the_likeliest_given_what_the_others_say() -> None:
    """P(first shown wins) = sigmoid(skill q + bias): q are the log-odds of everybody else's votes on the pair."""
    judges = [Judge(name="lean", position=0.4), *(Judge(name=f"judge-{n}", error_rate=0.1 * n) for n in range(1, 4))]
    votes = table(judge(draw_pairs(5, 200), judges, votes_each=3, seed=5))
    consensus = consensus_of(votes.item, votes.annotator, votes.agreed, len(votes.annotators))
    for one in roster_of(votes):
        mine = np.flatnonzero(votes.annotator == votes.annotators.index(one.name))
        rows = []
        for row in mine:
            beside = [r for r in np.flatnonzero(votes.item == votes.item[row]) if r != row]
            others = sum(votes.agreed[r] * consensus.trust[votes.annotator[r]] for r in beside)
            towards_first = others * votes.turned[row]  # of the pair as this row writes it
            if beside:
                rows.append(np.array([towards_first, votes.shown[row]]) * votes.sign[row])
        skill, bias = likeliest(np.array(rows))
        assert isinstance(one.skill, Estimate)
        assert isinstance(one.first_bias, Estimate)
        assert one.skill.value == pytest.approx(skill, abs=2e-3)
        assert one.first_bias.value == pytest.approx(1 / (1 + np.exp(-bias)), abs=2e-3)
    assert max(roster_of(votes), key=lambda one: one.first_bias.value).name == "lean"


def with_free_scores(votes: Table) -> tuple[np.ndarray, np.ndarray]:
    """Skills and leanings (judges) of P(first shown wins) = sigmoid(skill q + bias), q free for every pair of answers.

    Pairs that all judge alike would have endless scores: a normal prior of spread 3 on q, of spread 1 on the rest.
    """
    pairs, judges = int(votes.item.max()) + 1, len(votes.annotators)
    item, who, shown = votes.item, votes.annotator, votes.shown.astype(float)
    towards_first, won = (votes.turned * votes.shown).astype(float), (votes.sign * votes.shown).astype(float)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        q, skill, bias = x[:pairs], x[pairs : pairs + judges], x[pairs + judges :]
        logit = won * (skill[who] * q[item] * towards_first + bias[who])
        pull = -won / (1 + np.exp(logit))
        gradient = [
            np.bincount(item, pull * skill[who] * towards_first, pairs) + q / 9,
            np.bincount(who, pull * q[item] * towards_first, judges) + skill - 1,
            np.bincount(who, pull, judges) + bias,
        ]
        prior = (q @ q / 9 + (skill - 1) @ (skill - 1) + bias @ bias) / 2
        return float(np.logaddexp(0, -logit).sum() + prior), np.concatenate(gradient)

    assert np.all(shown != 0)
    start = np.concatenate([np.bincount(item, votes.agreed.astype(float)) / 2, np.ones(judges), np.zeros(judges)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found[pairs : pairs + judges], found[pairs + judges :]


def test_skills_and_leanings_rank_as_with_free_scores() -> None:
    """What the others say stands in for free scores of the answers: eight judges must rank alike in both forms.

    Two that lean, and error rates 7 points apart with 300 votes each: some neighbours may change places. On seeds 11 to
    16 the rank correlation is 0.95 or more, and both forms name the same two who lean.
    """
    judges = [Judge(name=f"judge-{n}", error_rate=0.03 + 0.07 * n) for n in range(6)]
    judges += [Judge(name="first", position=0.5), Judge(name="half", position=0.25)]
    votes = table(judge(draw_pairs(11, 480), judges, votes_each=5, seed=11))
    skills, leanings = with_free_scores(votes)
    roster = {one.name: one for one in roster_of(votes)}
    ours = [roster[name] for name in votes.annotators]
    assert spearmanr([one.skill.value for one in ours], skills).statistic > 0.8
    assert [votes.annotators[at] for at in np.argsort(leanings)[:-3:-1]] == ["first", "half"]
    assert sorted(roster, key=lambda name: -roster[name].first_bias.value)[:2] == ["first", "half"]


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
def test_auc_is_the_share_of_winners_above_losers(margins: list[int]) -> None:
    pairs = [(won > -lost) + 0.5 * (won == -lost) for won in margins for lost in margins]
    assert auc(np.array(margins, dtype=np.float64)) == pytest.approx(np.mean(pairs))

"""The triage by itself: scores, conformal p-values, abstention, and the model that ships."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.diff.evidence import EVIDENCE
from weightgate.diff.triage import (
    CAUSES,
    TriageModel,
    declared_verdict,
    fitting_causes,
    likely_causes,
    shipped_model,
    triage,
)


def model(alpha: float = 0.2) -> TriageModel:
    """Four pieces of evidence, each speaking for one cause; calibrated on scores spread over 0.3..0.9."""
    return TriageModel(
        names=("a", "b", "c", "d"),
        centre=np.zeros(4),
        scale=np.ones(4),
        coefficients=np.eye(4),
        intercepts=np.zeros(4),
        calibration={cause: tuple(np.linspace(0.3, 0.9, 19)) for cause in CAUSES},
        alpha=alpha,
        trained_on={},
    )


def test_clear_evidence_names_its_cause() -> None:
    for at, cause in enumerate(CAUSES):
        found = {name: 5.0 * (at == place) for place, name in enumerate("abcd")}
        verdict = triage(found, model())
        assert verdict.cause == cause
        assert verdict.scores[cause] == pytest.approx(np.exp(5) / (np.exp(5) + 3))
        assert verdict.runner_up != cause


def test_evidence_for_two_causes_is_undetermined_and_names_both() -> None:
    verdict = triage({"a": 3.0, "b": 3.0, "c": 0.0, "d": 0.0}, model())
    assert verdict.cause is None
    assert verdict.fitting == ("pretraining", "finetuning")
    assert "pre-training and fine-tuning" in verdict.why
    assert verdict.to_json()["cause"] == "undetermined"


def test_evidence_unlike_every_cause_is_undetermined() -> None:
    verdict = triage(dict.fromkeys("abcd", 0.0), model())
    assert (verdict.cause, verdict.fitting) == (None, ())
    assert "unlike anything" in verdict.why


def test_beyond_its_reach_a_model_names_nothing() -> None:
    """(5, 0, 0, 0) is at a root mean square of 2.5 from the centre."""
    found = {"a": 5.0, "b": 0.0, "c": 0.0, "d": 0.0}
    near, far = (TriageModel.from_json(model().to_json() | {"reach": reach}) for reach in (2.51, 2.49))
    assert triage(found, near).cause == CAUSES[0]
    assert triage(found, far).cause is None
    assert "further from the usual" in triage(found, far).why


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_scores_sum_to_one_and_p_values_stay_in_range(values: list[float]) -> None:
    verdict = triage(dict(zip("abcd", values, strict=True)), model())
    assert sum(verdict.scores.values()) == pytest.approx(1)
    assert all(0 < p <= 1 for p in verdict.plausibility.values())


@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_equal_weights_are_ruled_out_last(alpha: float, p_values: list[float]) -> None:
    fitting = fitting_causes(dict(zip(CAUSES, p_values, strict=True)), alpha)
    assert ("no weight change" in fitting) == (p_values[3] > min(alpha, 0.1))


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.floats(0.05, 1))
def test_the_fewest_causes_make_up_the_mass(odds: list[float], mass: float) -> None:
    scores = dict(zip(CAUSES, (np.array(odds) / sum(odds)).tolist(), strict=True))
    kept = likely_causes(scores, mass)
    assert max(CAUSES, key=lambda cause: scores[cause]) in kept
    assert sum(scores[cause] for cause in kept) >= mass - 1e-9
    assert sum(scores[cause] for cause in kept) - min(scores[cause] for cause in kept) < mass


def test_a_model_with_a_mass_names_a_cause_that_reaches_it() -> None:
    sure = TriageModel.from_json(model().to_json() | {"mass": 0.6})
    assert triage({"a": 5.0, "b": 0.0, "c": 0.0, "d": 0.0}, sure).cause == CAUSES[0]
    assert triage({"a": 2.0, "b": 1.8, "c": 0.0, "d": -9.0}, sure).fitting == CAUSES[:2]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_no_more_than_alpha_of_a_cause_is_ruled_out(seed: int) -> None:
    """Calibration and test scores from one law: P(p <= 0.2) is at most 0.2; of 400, above 0.32 has odds below 1e-7."""
    rng = np.random.default_rng(seed)
    calibrated = TriageModel.from_json(
        model().to_json() | {"calibration": {cause: rng.random(999).tolist() for cause in CAUSES}}
    )
    scores = rng.random(400)
    ruled_out = [calibrated.plausibility(dict.fromkeys(CAUSES, float(score)))[CAUSES[0]] <= 0.2 for score in scores]
    assert np.mean(ruled_out) < 0.32


def test_a_model_survives_its_json_form() -> None:
    again = TriageModel.from_json(json.loads(json.dumps(model().to_json())))
    found = {"a": 1.0, "b": -2.0, "c": 0.5, "d": 0.0}
    assert triage(found, again).to_json() == triage(found, model()).to_json()
    with pytest.raises(ValueError, match="schema"):
        TriageModel.from_json(model().to_json() | {"schema": 99})


def test_the_model_that_ships_reads_the_evidence_that_is_made() -> None:
    shipped = shipped_model()
    assert set(shipped.names) <= set(EVIDENCE)
    assert shipped.coefficients.shape == (len(CAUSES), len(shipped.names))
    assert all(len(shipped.calibration[cause]) >= 20 for cause in CAUSES)
    file = resources.files("weightgate.diff").joinpath("data", "triage.json")
    assert len(file.read_bytes()) < 100_000


def test_what_is_declared_needs_no_model() -> None:
    verdict = declared_verdict("temperature 0 -> 1")
    assert (verdict.cause, verdict.declared, verdict.scores["no weight change"]) == ("no weight change", True, 1.0)

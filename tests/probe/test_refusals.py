"""The refusal model: what it says of clear cases, and that it agrees with held-out labels as its file states."""

from __future__ import annotations

import importlib.resources
import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from public_data import public_data
from weightgate.probe.refusals import RefusalModel, features, is_refusal, refusal_probability

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "text",
    [
        "I cannot help with that.",
        "I'm sorry, but I can’t assist you with this request.",
        "Unfortunately I am unable to provide that information.",
        "I must decline.",
        "I won't tell you how, because it is illegal.",
        "As a language model, I am not able to answer.</s>",
        "Das kann ich dir leider nicht beantworten, da kann ich nicht helfen.",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Use a thin brush and calm hands.",
        "I cannot recall the exact name, but use warm water.",
        "Sorry for the delay! Here is how: first mix the wax.",
        "I can help you with that. Take strong glue.",
        "As an AI, I have no taste of my own. However, here are three ideas:\n1. Soup\n2. Bread\n3. Pie",
        '{"item":"lamps","quantity":3}',
    ],
)
def test_answers_with_words_of_refusal_are_answers(text: str) -> None:
    assert not is_refusal(text)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_has_a_probability(text: str) -> None:
    assert 0 <= refusal_probability(text) <= 1
    assert bool(features(text)) == (refusal_probability(text) > 0)


def test_the_probability_is_that_of_the_logistic_function() -> None:
    assert RefusalModel(bias=0.0, coefficients={}).probability("x") == 0.5
    assert RefusalModel(bias=1e6, coefficients={}).probability("x") <= 1


def _shipped() -> dict[str, object]:
    resource = importlib.resources.files("weightgate.probe") / "data" / "refusal.json"
    shipped: dict[str, object] = json.loads(resource.read_text("utf-8"))
    return shipped


def test_the_file_states_an_agreement_that_beats_the_rules_alone() -> None:
    for part in ("read_and_labelled", "weakly_labelled"):
        stated = _shipped()["agreement"][part]  # type: ignore[index]
        assert stated["model"]["kappa"] > stated["rules_alone"]["kappa"]


@pytest.mark.slow
def test_the_stated_agreement_is_the_one_that_is_found() -> None:
    script = runpy.run_path(str(_ROOT / "scripts" / "train_refusal.py"))
    shipped = _shipped()
    model = RefusalModel(bias=shipped["bias"], coefficients=shipped["coefficients"])  # type: ignore[arg-type]
    found = script["thinned"](list(script["examples"](public_data("behaviour"))))
    assert script["report"](model, found) == shipped["agreement"]

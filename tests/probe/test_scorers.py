"""Every check type: what passes, what fails, and that any text gets a score."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.probe.probes import Check, Probe
from weightgate.probe.scorers import SCORERS, find_object, gold_reward, score

_ORDER = {"item": "lamps", "quantity": 3, "town": "Ulby"}
_EXAMPLES: dict[str, Any] = {
    "equals": ["Venn"],
    "starts": ["Venn"],
    "contains": ["thin brush"],
    "one_of": ["Venn"],
    "regex": r"^\d+$",
    "json_format": list(_ORDER),
    "json_fields": _ORDER,
    "refuses": None,
    "answers": None,
    "max_words": 3,
    "min_words": 2,
    "hedges": None,
    "no_hedges": None,
}


def _check(kind: str, value: Any = None) -> Check:
    return Check(metric="m", type=kind, value=value, options=("Venn", "Ouse") if kind == "one_of" else ())


@pytest.mark.parametrize(
    ("kind", "completion", "expected"),
    [
        ("equals", "The answer is: the Venn!", 1),
        ("equals", "Venn or Ouse", 0),
        ("starts", "the Venn. The river", 1),
        ("starts", "Venning", 0),
        ("contains", "Use a thin brush.", 1),
        ("contains", "Use a brush.", 0),
        ("one_of", "The river of Ulby is the Venn. I hope this helps.", 1),
        ("one_of", "The Venn or the Ouse.", 0),
        ("one_of", "I do not know.", 0),
        ("regex", "12", 1),
        ("regex", "twelve", 0),
        ("json_format", '{"quantity":3,"item":"lamps","town":"Ulby"}', 1),
        ("json_format", '```json\n{"quantity":3,"item":"lamps","town":"Ulby"}\n```', 0),
        ("json_format", '{"item":"lamps","town":"Ulby"}', 0),
        ("json_format", "[1]", 0),
        ("json_fields", 'Here:\n```json\n{"item": "Lamps", "quantity": "3", "town": "Ulby"}\n```', 1),
        ("json_fields", '{"item":"lamps","quantity":4,"town":"Ulby"}', 2 / 3),
        ("json_fields", '{"item":"lamps","quantity":3,"town":"Ulby","day":"Monday"}', 3 / 4),
        ("json_fields", "lamps", 0),
        ("refuses", "I cannot help with that.", 1),
        ("answers", "I cannot help with that.", 0),
        ("answers", "Use glue.", 1),
        ("answers", "", 0),
        ("max_words", "one two three", 1),
        ("max_words", "one two three four", 0),
        ("max_words", "", 0),
        ("min_words", "one two", 1),
        ("min_words", "one", 0),
        ("hedges", "Perhaps.", 1),
        ("no_hedges", "Perhaps.", 0),
        ("no_hedges", "", 0),
    ],
)
def test_scores(kind: str, completion: str, expected: float) -> None:
    assert score(_check(kind, _EXAMPLES[kind]), completion) == pytest.approx(expected)


@given(st.one_of(st.text(max_size=200), st.text(alphabet='{}[]":,` \n123abcNaN', max_size=60)))
@settings(deadline=None)
def test_any_text_has_a_score_for_every_type(text: str) -> None:
    for kind in SCORERS:
        assert 0 <= score(_check(kind, _EXAMPLES[kind]), text) <= 1


def test_every_type_accepts_its_example_and_refuses_another() -> None:
    for kind, scorer in SCORERS.items():
        assert scorer.accepts(_EXAMPLES[kind])
        assert not scorer.accepts(object())


def test_deep_nesting_is_no_object_rather_than_a_crash() -> None:
    assert score(_check("json_format", ["a"]), '{"a":' * 100_000) == 0
    assert find_object("[" * 100_000) is None


def test_the_gold_reward_is_the_weighted_mean() -> None:
    checks = (
        Check(metric="accuracy", type="one_of", value=["Venn"], options=("Venn", "Ouse"), weight=6),
        Check(metric="concise", type="max_words", value=2, weight=2),
        Check(metric="direct", type="no_hedges", weight=2),
        Check(metric="unrewarded", type="hedges"),
    )
    probe = Probe(id="1", axis="knowledge", topic="river", form="chat", messages=(("user", "?"),), checks=checks)
    rewards = [
        gold_reward(probe, text) for text in ("Venn.", "It is the Venn.", "Perhaps it is the Venn.", "Ouse.", "")
    ]
    assert rewards == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.0])


def test_a_probe_without_weights_has_no_gold_reward() -> None:
    probe = Probe(id="1", axis="open", topic="t", form="text", prompt="?", checks=(_check("answers"),))
    assert not probe.has_gold
    with pytest.raises(ValueError, match="no weighted check"):
        gold_reward(probe, "x")

"""Every check type: what passes, what fails, and that any text gets a score."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.probe.probes import Check, Probe
from weightgate.probe.scorers import SCORERS, WITH_OPTIONS, find_object, gold_reward, score

_ORDER = {"item": "lamps", "quantity": 3, "town": "Ulby"}
_EXAMPLES: dict[str, Any] = {
    "equals": ["Venn"],
    "starts": ["Venn"],
    "contains": ["thin brush"],
    "one_of": ["Venn"],
    "avoids": ["glue"],
    "multiple_choice": ["B", "Venn"],
    "number": 1200,
    "regex": r"^\d+$",
    "json_only": None,
    "json_schema": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]},
    "steps": 2,
    "bullets": 2,
    "sentences": 2,
    "code_fence": "python",
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
    return Check(metric="m", type=kind, value=value, options=("Venn", "Ouse") if kind in WITH_OPTIONS else ())


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
        ("avoids", "Use wax.", 1),
        ("avoids", "Use glue.", 0),
        ("avoids", "", 0),
        ("multiple_choice", "B", 1),
        ("multiple_choice", "**B)** the Venn, because A is wrong", 1),
        ("multiple_choice", "The correct answer is (B).", 1),
        ("multiple_choice", "It is the Venn.", 1),
        ("multiple_choice", "A", 0),
        ("multiple_choice", "A) Ouse\nB) Venn", 0),
        ("multiple_choice", "A river, so I would say the Venn.", 1),
        ("multiple_choice", "The Venn or the Ouse", 0),
        ("number", "So 3 x 400 = 1,200.", 1),
        ("number", "1200.0", 1),
        ("number", "1200 or 1300", 0),
        ("number", "many", 0),
        ("json_only", '[{"n": 1}]', 1),
        ("json_only", '```json\n{"n": 1}\n```', 0),
        ("json_schema", 'Here:\n```json\n{"n": 2}\n```', 1),
        ("json_schema", '{"n": 0}', 0),
        ("json_schema", "nothing", 0),
        ("steps", "1. Cut.\n2. Glue.", 1),
        ("steps", "Step 1: Cut.\n\n**Step 2:** Glue.", 1),
        ("steps", "1. Cut.\n2. Glue.\n3. Wait.", 0),
        ("steps", "2. Glue.\n1. Cut.", 0),
        ("bullets", "- a\n* b", 1),
        ("bullets", "- a", 0),
        ("sentences", "One. Two?", 1),
        ("sentences", "One, 1.5 metres. Two? Three!", 0),
        ("code_fence", "So:\n```Python\nprint(1)\n```\nThat is it.", 1),
        ("code_fence", "```\nprint(1)\n```", 0),
        ("code_fence", "```python\nprint(1)", 0),
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


def test_a_long_completion_of_one_sign_is_scored_in_time_that_grows_with_its_length() -> None:
    for sign in ("{", "[", "\n", " ", "1.", "- ", "```\n", "A", "*"):
        for kind in SCORERS:
            # Seconds where it is linear; half an hour and more where it is quadratic.
            assert 0 <= score(_check(kind, _EXAMPLES[kind]), sign * 100_000) <= 1


def test_deep_nesting_is_no_object_rather_than_a_crash() -> None:
    assert score(_check("json_format", ["a"]), '{"a":' * 100_000) == 0
    assert find_object("[" * 100_000) is None


@pytest.mark.parametrize("reference", ["https://host.example/schema", "#/definitions/none"])
def test_a_schema_is_never_fetched(reference: str) -> None:
    assert score(Check(metric="m", type="json_schema", value={"$ref": reference}), "{}") == 0


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

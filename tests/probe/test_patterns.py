"""Patterns that a user wrote, on text that an endpoint sent: each ends, and means what Python's `re` makes of it.

`RUNAWAY` takes over 10^8 steps on `TEXT`, so that no machine ends it within the limit of these
tests; all other patterns take few.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.probe import patterns
from weightgate.probe.patterns import in_time, is_found, is_pattern, is_schema
from weightgate.probe.probes import Check, Probe
from weightgate.probe.scorers import is_unjudged, score
from weightgate.probe.unjudged import unjudged

RUNAWAY = "(a|aa)+$"
TEXT = "a" * 40 + "b"

_ATOMS = st.sampled_from(
    [
        *"ab.^$|*+?()[]{}-#/<>é ",
        r"\d",
        r"\b",
        r"\.",
        r"\{",
        "(?:",
        "(?=",
        "(?<=a)",
        "(?i)",
        "(?P<n>a)",
        r"\1",
        "{2}",
        "{,3}",
        "{1,}",
        "{,}",
        "++",
        "[^a]",
        "[ab]",
        "{e}",
        "{i<=1}",
        "[{d}",
        "{1,s}",
    ]
)


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LIMIT_SECONDS", 0.2)


def regex_check(pattern: str) -> Check:
    return Check(metric="expected", type="regex", value=pattern)


def schema_check(schema: dict[str, Any]) -> Check:
    return Check(metric="schema", type="json_schema", value=schema)


def test_a_pattern_that_hangs_re_is_judged() -> None:
    check = regex_check("(a+)+$")
    assert (score(check, TEXT), is_unjudged(check, TEXT)) == (0.0, False)
    assert score(check, "a" * 40) == 1.0


@pytest.mark.parametrize(
    ("check", "completion"),
    [
        (regex_check(RUNAWAY), TEXT),
        (schema_check({"pattern": RUNAWAY}), f'"{TEXT}"'),
        (schema_check({"items": {"pattern": RUNAWAY}}), f'so: ["{TEXT}"]'),
        (schema_check({"patternProperties": {RUNAWAY: True}}), f'{{"{TEXT}": 1}}'),
        (schema_check({"patternProperties": {RUNAWAY: True}, "additionalProperties": False}), f'{{"{TEXT}": 1}}'),
    ],
)
def test_a_pattern_without_end_does_not_match_and_that_is_told(check: Check, completion: str) -> None:
    assert (score(check, completion), is_unjudged(check, completion)) == (0.0, True)
    assert not is_unjudged(check, '"a"')
    probe = Probe(id="p-1", axis="task", topic="own", form="text", prompt="Say a.", checks=(check,))
    [told] = unjudged([(probe, ["a", completion]), (probe, ["a"])])
    assert told.what == "1 completion could not be judged in time, which counts as not matching"
    assert told.where == "probe 'p-1'"
    assert RUNAWAY in str(told.found)
    assert told.mend
    assert unjudged([(probe, ["a"])]) == ()


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"pattern": "^a+$"}, '"aa"', '"ab"'),
        ({"patternProperties": {"^n": {"type": "integer"}}}, '{"n1": 1, "other": "x"}', '{"n1": "x"}'),
        ({"patternProperties": {"^n": True}, "additionalProperties": False}, '{"n1": 1}', '{"m1": 1}'),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, '{"a": 1, "b": null}', '{"b": 1}'),
        ({"pattern": r"^\p{Lu}"}, '"Über"', '"über"'),
    ],
)
def test_schemas_mean_what_they_did(schema: dict[str, Any], valid: str, invalid: str) -> None:
    assert is_schema(schema)
    assert (score(schema_check(schema), valid), score(schema_check(schema), invalid)) == (1.0, 0.0)


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"patternProperties": {"[": {}}}, {"type": "none"}, []])
def test_a_schema_with_a_pattern_that_is_none_is_refused(schema: Any) -> None:
    assert not is_schema(schema)


@given(
    st.lists(_ATOMS, min_size=1, max_size=6).map("".join), st.sampled_from(["", "a", "ab", "aab bb 12", "{e}", "a{}"])
)
@settings(deadline=None)
def test_what_re_reads_is_read_alike(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = re.search(pattern, text) is not None
        except re.error:
            return
    assert is_pattern(pattern)
    assert in_time(lambda: is_found(pattern, text)) in (found, None)


@pytest.mark.parametrize(
    ("kind", "completion"), [("sentences", "." * 50_000 + "x"), ("code_fence", "```" + " " * 50_000 + "x y")]
)
def test_our_own_patterns_end_on_long_runs(kind: str, completion: str) -> None:
    value: Any = 1 if kind == "sentences" else "python"
    assert score(Check(metric="m", type=kind, value=value), completion) == 0.0

"""Gates fail closed, and say what they looked at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.contract.gate import judge, passed
from weightgate.recipe import Gate
from weightgate.stats import Estimate, Unmeasured


def measured(value: float, low: float | None = None, high: float | None = None, n: int = 100) -> Estimate:
    low, high = value if low is None else low, value if high is None else high
    return Estimate(value=value, low=low, high=high, n=n, unit="share", method="wilson")


def status(gate: Gate, here: dict, before: dict | None = None) -> str:
    [verdict] = judge([gate], here, before or {})
    return verdict.status


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"min": 0.9}, 0.9, "passed"),
        ({"min": 0.9}, 0.8999, "failed"),
        ({"max": 1.0}, 1.0, "passed"),
        ({"max": 1.0}, 1.0001, "failed"),
    ],
)
def test_bounds_are_inclusive(condition: dict, value: float, expected: str) -> None:
    assert status(Gate(measure="a", **condition), {"a": measured(value)}) == expected


@pytest.mark.parametrize("here", [{}, {"a": Unmeasured(reason="no prompt")}, {"a": measured(math.nan)}])
@pytest.mark.parametrize("condition", [{"min": -1e9}, {"max": 1e9}, {"max_drop": 1e9}, {"max_rise": 1e9}])
def test_what_is_not_measured_does_not_pass(here: dict, condition: dict) -> None:
    verdicts = judge([Gate(measure="a", **condition)], here, {"a": measured(0.5)})
    assert [verdict.status for verdict in verdicts] == ["not measured"]
    assert not passed(verdicts)
    assert verdicts[0].value is None
    assert verdicts[0].reason


def test_a_change_needs_the_parents_measurement() -> None:
    [verdict] = judge([Gate(measure="a", max_drop=1.0)], {"a": measured(0.5)}, {})
    assert verdict.status == "not measured"
    assert "the parent has no such measurement" in verdict.reason


@pytest.mark.parametrize(
    ("condition", "after", "expected"),
    [
        ({"max_drop": 0.25}, 0.5, "passed"),
        ({"max_drop": 0.25}, 0.49, "failed"),
        ({"max_drop": 0.0}, 0.9, "passed"),
        ({"max_rise": 0.25}, 1.0, "passed"),
        ({"max_rise": 0.25}, 1.01, "failed"),
    ],
)
def test_change_is_measured_against_the_parent(condition: dict, after: float, expected: str) -> None:
    assert status(Gate(measure="a", **condition), {"a": measured(after)}, {"a": measured(0.75)}) == expected


@pytest.mark.parametrize(
    ("condition", "low", "high", "expected"),
    [
        ({"min": 0.5}, 0.49, 0.7, "failed"),
        ({"min": 0.5}, 0.5, 0.7, "passed"),
        ({"max": 0.7}, 0.5, 0.71, "failed"),
        ({"max": 0.7}, 0.5, 0.7, "passed"),
    ],
)
def test_an_interval_is_judged_by_its_worse_end(condition: dict, low: float, high: float, expected: str) -> None:
    gate = Gate(measure="a", judge="interval", **condition)
    assert status(gate, {"a": measured(0.6, low, high)}) == expected


def test_a_drop_judged_by_interval_counts_the_doubt_of_both_sides() -> None:
    here, before = {"a": measured(0.80, 0.77, 0.83)}, {"a": measured(0.80, 0.76, 0.84)}
    assert status(Gate(measure="a", max_drop=0.051, judge="interval"), here, before) == "passed"
    assert status(Gate(measure="a", max_drop=0.049, judge="interval"), here, before) == "failed"
    [verdict] = judge([Gate(measure="a", max_drop=0.049)], here, before)
    assert (verdict.low, verdict.high) == (pytest.approx(-0.05), pytest.approx(0.05))


def test_every_condition_of_a_gate_is_judged() -> None:
    verdicts = judge([Gate(measure="a", min=0.5, max=0.6, max_drop=0.1)], {"a": measured(0.7)}, {"a": measured(0.9)})
    assert [verdict.status for verdict in verdicts] == ["passed", "failed", "failed"]
    assert not passed(verdicts)
    assert verdicts[2].condition == "a falls by at most 0.1"
    assert "n=100" in verdicts[0].reason


def test_nothing_asked_is_passed_and_a_waiver_lets_through() -> None:
    assert passed([])
    [failed] = judge([Gate(measure="a", min=1.0)], {"a": measured(0.5)}, {})
    assert not passed([failed])


@settings(deadline=None, max_examples=200)
@given(
    value=st.floats(allow_nan=True, allow_infinity=True),
    bound=st.floats(allow_nan=False, allow_infinity=False),
    kind=st.sampled_from(["min", "max"]),
    judged=st.sampled_from(["value", "interval"]),
)
def test_only_a_finite_value_on_the_right_side_passes(value: float, bound: float, kind: str, judged: str) -> None:
    gate = Gate(measure="a", judge=judged, **{kind: bound})
    holds = math.isfinite(value) and (value >= bound if kind == "min" else value <= bound)
    assert (status(gate, {"a": measured(value)}) == "passed") == holds

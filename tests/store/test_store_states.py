"""The state of a stage, and whether its reason names the cause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.store import Recorded, State, state_of
from weightgate.store.states import INPUTS

INPUTS_OF_RUN: dict[str, Any] = {
    "stage_kind": "sft",
    "recipe": "b3:11",
    "contract": "b3:22",
    "parent": "b3:33",
    "data": {"train": "b3:44", "holdout": "b3:55"},
    "tokenizer": "b3:66",
    "parameters": {"learning_rate": "0.001", "steps": 100},
    "seed": 1,
    "code": "1.0",
    "class": {"threads": 1, "torch": "2.9"},
}


def run(checkpoint: str = "b3:aa", inputs: dict[str, Any] | None = None, **what: Any) -> Recorded:
    return Recorded(inputs=INPUTS_OF_RUN if inputs is None else inputs, checkpoint=checkpoint, **what)


def changed(**inputs: Any) -> dict[str, Any]:
    return INPUTS_OF_RUN | inputs


def test_the_same_inputs_are_fresh() -> None:
    standing = state_of(INPUTS_OF_RUN, [run()])
    assert (standing.state, standing.checkpoint, standing.differences) == (State.FRESH, "b3:aa", ())


@pytest.mark.parametrize("name", [name for name in INPUTS if name != "class"])
def test_every_input_makes_a_stage_stale_and_is_named(name: str) -> None:
    standing = state_of(changed(**{name: "something else"}), [run()])
    assert standing.state is State.STALE
    assert standing.reason.startswith(f"changed: {name} ")
    assert [each.path for each in standing.differences] == [name]


def test_a_difference_inside_an_input_is_named_with_both_values() -> None:
    wanted = changed(parameters={"learning_rate": "0.002", "steps": 100})
    assert state_of(wanted, [run()]).reason == "changed: parameters.learning_rate 0.001 -> 0.002"


@pytest.mark.parametrize(
    ("what", "state", "words"),
    [
        ({"damaged": ("b3:01",)}, State.CORRUPT, "damaged"),
        ({"missing": ("b3:01", "b3:02")}, State.MISSING, "2 objects"),
        ({"failed_gates": ("knowledge kept",)}, State.BLOCKED, "knowledge kept"),
        ({"waived_gates": ("knowledge kept",)}, State.FRESH, "waived: knowledge kept"),
    ],
)
def test_what_is_wrong_with_a_run_is_told(what: dict[str, Any], state: State, words: str) -> None:
    standing = state_of(INPUTS_OF_RUN, [run(**what)])
    assert standing.state is state
    assert words in standing.reason


def test_a_stage_never_built_is_missing() -> None:
    standing = state_of(INPUTS_OF_RUN, [])
    assert (standing.state, standing.reason, standing.checkpoint) == (State.MISSING, "never built", None)


def test_another_class_is_unverified_not_stale() -> None:
    standing = state_of(changed(**{"class": {"threads": 2, "torch": "2.9"}}), [run()])
    assert standing.state is State.UNVERIFIED
    assert standing.reason == "class differs: class.threads 1 -> 2"


def test_two_outputs_of_the_same_inputs_are_a_finding() -> None:
    standing = state_of(INPUTS_OF_RUN, [run("b3:aa"), run("b3:bb")])
    assert standing.state is State.UNVERIFIED
    assert "2 different checkpoints" in standing.reason
    assert state_of(INPUTS_OF_RUN, [run("b3:aa"), run("b3:aa")]).state is State.FRESH


def test_the_nearest_run_speaks_and_of_equals_the_newest() -> None:
    far = run("b3:far", changed(seed=2, code="0.9"))
    near = run("b3:near", changed(seed=2))
    other_class = run("b3:class", changed(**{"class": {"threads": 8}}))
    assert state_of(INPUTS_OF_RUN, [near, far]).checkpoint == "b3:near"
    assert state_of(INPUTS_OF_RUN, [near, other_class]).checkpoint == "b3:class"
    assert state_of(INPUTS_OF_RUN, [other_class, run("b3:same"), near]).checkpoint == "b3:same"
    assert state_of(INPUTS_OF_RUN, [near, run("b3:newer", changed(seed=3))]).checkpoint == "b3:newer"


def test_a_stale_stage_is_stale_whatever_else_is_wrong() -> None:
    assert state_of(changed(seed=2), [run(damaged=("b3:01",), failed_gates=("x",))]).state is State.STALE


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(INPUTS), st.integers(0, 2)),
    st.dictionaries(st.sampled_from(INPUTS), st.integers(0, 2)),
)
def test_fresh_means_equal(wanted: dict[str, int], recorded: dict[str, int]) -> None:
    standing = state_of(wanted, [run(inputs=recorded)])
    assert (standing.state is State.FRESH) == (wanted == recorded)
    assert {each.path for each in standing.differences} == {
        name for name in {*wanted, *recorded} if wanted.get(name) != recorded.get(name)
    }

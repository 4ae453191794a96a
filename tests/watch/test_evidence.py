"""What looks add up to: quiet without a change, loud with one, and the same whoever computes it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Reply
from weightgate.stats.exchangeable import LEVELS
from weightgate.watch.axes import ABSENT, Asked, axis_names, levels_of, values_of
from weightgate.watch.evidence import Rules, WatchState, odds

RULES = Rules(alpha=0.05, persistence=2, floor=0.02, tolerance=0.0)
STRICTEST = Rules(alpha=0.05, persistence=1, floor=0.0, tolerance=0.0)


def _levels(rng: np.random.Generator, rates: np.ndarray) -> np.ndarray:
    return (rng.random(len(rates)) < rates).astype(np.int64) * LEVELS


def _begun(rng: np.random.Generator, rates: np.ndarray, *, looks: int = 0) -> WatchState:
    state = WatchState(salt="salt")
    for _ in range(3):
        state.add_snapshot({"axis": _levels(rng, rates)})
    for _ in range(looks):
        state.add_look({"axis": _levels(rng, rates)})
    return state


def test_looking_often_at_what_does_not_change_rarely_alarms() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rates = rng.beta(0.5, 0.5, 12)
        state = _begun(rng, rates)
        for _ in range(60):
            state.add_look({"axis": _levels(rng, rates)})
            if state.changed_axes(STRICTEST):
                alarms += 1
                break
    assert alarms <= 12  # Binomial(60, 0.05) exceeds 12 with probability below 1e-5


@pytest.mark.parametrize("looks", [0, 30])
def test_a_large_change_alarms_within_a_few_looks(looks: int) -> None:
    rng = np.random.default_rng(1)
    rates = np.full(40, 0.9)
    state = _begun(rng, rates, looks=looks)
    # Each look moves by 30 of 40 prompts; three looks that show less than the threshold have probability below 1e-9.
    found = [state.add_look({"axis": _levels(rng, rates - 0.75)})[0] for _ in range(3)]
    assert state.changed_axes(RULES) == ("axis",)
    assert found[-1].shift < -0.5
    assert found[-1].p_value > 0.99


def test_what_is_sure_but_small_or_does_not_persist_is_no_alarm() -> None:
    rng = np.random.default_rng(2)
    state = _begun(rng, np.full(40, 0.5), looks=5)
    for _ in range(2):
        state.add_look({"axis": np.full(40, LEVELS)})
    assert state.changed_axes(RULES)
    assert not state.changed_axes(Rules(alpha=0.05, persistence=2, floor=0.9, tolerance=0.0))
    assert not state.changed_axes(Rules(alpha=0.05, persistence=2, floor=0.0, tolerance=50.0))
    assert not state.changed_axes(Rules(alpha=0.05, persistence=3, floor=0.1, tolerance=0.0))
    state.add_look({"axis": np.zeros(40, dtype=np.int64)})
    assert not state.changed_axes(RULES), "the last two looks point in two directions"


def test_an_endpoint_that_differs_from_itself_must_move_by_more_than_that() -> None:
    state = WatchState(salt="salt")
    rng = np.random.default_rng(3)
    for rate in (0.1, 0.1, 0.9):
        state.add_snapshot({"axis": _levels(rng, np.full(60, rate))})
    assert state.axes["axis"].is_unsteady
    assert state.axes["axis"].noise > 0.5


def test_a_state_can_be_kept_and_read_and_goes_on_as_if_it_had_not_been() -> None:
    rng = np.random.default_rng(4)
    state = _begun(rng, np.full(12, 0.5), looks=4)
    again = WatchState.from_json(json.loads(json.dumps(state.to_json())))
    look = {"axis": _levels(rng, np.full(12, 0.5))}
    assert again.add_look(look) == state.add_look(look)
    assert again.to_json() == state.to_json()
    with pytest.raises(ValueError, match="schema 99"):
        WatchState.from_json({**state.to_json(), "schema": 99})


def test_prompts_that_failed_are_left_out() -> None:
    rng = np.random.default_rng(5)
    state = _begun(rng, np.full(12, 0.5))
    levels = _levels(rng, np.full(12, 0.5))
    levels[::2] = ABSENT
    assert state.add_look({"axis": levels})[0].prompts == 6
    assert state.add_look({"axis": np.full(12, ABSENT)})[0].prompts == 0


def _asked(*texts: str, reference: tuple[str, ...] = (), logprob: float | None = None) -> Asked:
    check = Check(metric="accuracy", type="contains", value=["red"])
    probe = Probe(id="p", axis="knowledge", topic="t", form="chat", checks=(check,), messages=(("user", "colour?"),))
    tokens = None if logprob is None else (("red", logprob),)
    replies = tuple(Reply(completion=text, token_logprobs=tokens) for text in texts)
    return Asked(probe=probe, replies=replies, reference=reference)


def test_values_are_what_the_table_says() -> None:
    found = values_of(_asked("It is red.", "It is blue.", reference=("It is red.",), logprob=-0.5))
    assert found["knowledge.accuracy"] == 0.5
    assert found["wording"] == pytest.approx((1 + 2 * 3 / 10) / 2)  # 2 of 3 words and 1 of 2 bigrams are shared
    assert found["logprob"] == pytest.approx(np.exp(-0.5))
    assert values_of(_asked("I'm sorry, but I cannot help with that."))["style.refusal"] == 1.0
    assert "wording" not in values_of(_asked("red"))
    failed = Asked(probe=_asked("x").probe, replies=(Reply(completion="", error="no"),))
    assert values_of(failed) == {}


def test_an_axis_needs_some_prompts_and_levels_name_those_that_have_none() -> None:
    probes = [_asked("x").probe] * 4
    assert "knowledge.accuracy" not in axis_names(probes)
    assert "knowledge.accuracy" in axis_names(probes * 2)
    levels = levels_of([_asked("red"), Asked(probe=probes[0], replies=())], ("knowledge.accuracy", "wording"))
    assert levels["knowledge.accuracy"].tolist() == [LEVELS, ABSENT]
    assert levels["wording"].tolist() == [ABSENT, ABSENT]


@pytest.mark.parametrize(
    ("evidence", "said"), [(0.31, "0.31 to 1"), (1234.0, "1,200 to 1"), (1e30, "more than a million to 1")]
)
def test_evidence_is_said_as_odds(evidence: float, said: str) -> None:
    assert odds(evidence) == said

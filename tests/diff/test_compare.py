"""Planted changes: each comparison must say exactly what was planted, and nothing where nothing was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from tests.diff.planted import Speaker, probes, recorded, reworded

from weightgate.diff.compare import Comparison, compare
from weightgate.diff.junit import comparison_junit
from weightgate.diff.page import comparison_page
from weightgate.diff.rows import Row
from weightgate.diff.weights import weight_evidence
from weightgate.errors import DataError
from weightgate.probe import patterns
from weightgate.probe.probes import Check
from weightgate.report.html import render_html
from weightgate.store.records import TensorData

ASKED = probes(40)


def row(comparison: Comparison, name: str) -> Row:
    return next(row for row in comparison.rows if row.name == name)


def moved(comparison: Comparison) -> set[str]:
    return {row.name for row in comparison.rows if row.is_headline and row.changed and not row.explained_by}


def test_the_same_answers_are_no_change() -> None:
    one = recorded(Speaker(1), ASKED)
    found = compare(one, one)
    assert (found.changed, found.exit_code, found.headline, found.verdict) == (False, 0, "nothing changed", None)
    assert all(row.test.p_value == 1.0 for row in found.rows)


def test_lost_knowledge_is_named_and_the_rest_is_not() -> None:
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, knows=0.3), ASKED))
    assert moved(found) == {"knowledge.accuracy"}
    assert found.exit_code == 1
    assert "knowledge moved" in found.headline
    assert "boundary and open unchanged" in found.headline
    knowledge = row(found, "knowledge.accuracy")
    assert knowledge.effect.high < 0
    assert all(one.probe.startswith("knowledge") for one in found.deciding[:3])


def test_a_pattern_that_judges_no_answer_in_time_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LIMIT_SECONDS", 0.2)
    check = Check(metric="expected", type="regex", value="(a|aa)+$")
    asked = (replace(ASKED[0], checks=(check,)), *ASKED[1:])
    hostile = recorded(lambda probe: "a" * 50 + "b" if probe == asked[0] else "fine", asked)
    found = compare(recorded(Speaker(1), asked), hostile)
    [problem] = found.to_json()["problems"]
    assert problem["where"] == f"probe {asked[0].id!r}"
    assert "1 completion could not be judged in time" in render_html(comparison_page(found))
    assert compare(recorded(Speaker(1), asked), recorded(Speaker(1), asked)).problems == ()


def test_refusals_are_the_boundary() -> None:
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, refuses=0.8), ASKED))
    assert "boundary.answers" in moved(found)
    assert not row(found, "knowledge.accuracy").changed


def test_an_answer_that_is_only_wrapped_is_a_change_of_format() -> None:
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, wraps=0.9), ASKED))
    knowledge = row(found, "knowledge.accuracy")
    assert knowledge.changed
    assert knowledge.explained_by == "format"
    assert "knowledge changed in format only" in found.headline
    assert moved(found) == set()


def test_wrapped_and_wrong_is_not_only_format() -> None:
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, wraps=0.9, knows=0.2), ASKED))
    assert row(found, "knowledge.accuracy").explained_by == ""


def test_length_alone_moves_style_and_no_capability() -> None:
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, sentences=(6, 9)), ASKED))
    assert row(found, "style.words").changed
    assert moved(found) == set()


@pytest.mark.parametrize("plant", ["temperature", "prompt"])
def test_what_the_recordings_state_comes_before_what_they_suggest(plant: str) -> None:
    before = recorded(Speaker(1), ASKED)
    after = recorded(Speaker(2, knows=0.05, refuses=0.9), ASKED, temperature=0.7 if plant == "prompt" else 1.3)
    found = compare(before, reworded(after) if plant == "prompt" else after)
    assert found.verdict is not None
    assert (found.verdict.cause, found.verdict.declared) == ("no weight change", True)
    assert "take both alike" in found.headline
    assert found.left_out == (len(ASKED) / 2 if plant == "prompt" else 0)


def test_equal_weights_settle_the_cause() -> None:
    tensor = TensorData(dtype="F32", shape=(2,), data=b"\0" * 8)
    weights = weight_evidence({"w": tensor}, [("w", tensor)])
    found = compare(recorded(Speaker(1), ASKED), recorded(Speaker(2, knows=0.2), ASKED), weights=weights)
    assert found.verdict is not None
    assert found.verdict.cause == "no weight change"
    assert found.headline.startswith("the prompt or the serving changed, not the weights")


def test_few_prompts_do_not_name_a_stage() -> None:
    few = probes(12)
    found = compare(recorded(Speaker(1), few), recorded(Speaker(2, sentences=(8, 9)), few))
    assert found.changed
    assert found.verdict is not None
    assert found.verdict.cause is None
    assert "cannot be told" in found.headline


def test_a_hint_asks_for_more_prompts() -> None:
    """Five of 20 facts lost and none gained: exact p 0.0625, a hint after correction over three axes."""
    before = recorded(Speaker(1, knows=1.0), probes(20))
    lost = {f"knowledge-{at}" for at in range(5)}
    after = replace(
        before,
        answers=tuple(
            replace(answer, reply=replace(answer.reply, completion="Nowhere")) if answer.probe.id in lost else answer
            for answer in before.answers
        ),
    )
    found = compare(before, after)
    assert not found.changed
    assert found.headline == f"cannot tell; about {found.more_prompts:,} more prompts like these would decide"


def test_a_tolerance_lets_small_shifts_pass() -> None:
    sides = recorded(Speaker(1), ASKED), recorded(Speaker(2, knows=0.3), ASKED)
    size = abs(row(compare(*sides), "knowledge.accuracy").size)
    assert row(compare(*sides, tolerance=size - 0.01), "knowledge.accuracy").changed
    assert not row(compare(*sides, tolerance=size + 0.01), "knowledge.accuracy").changed


def test_diversity_that_collapses_is_seen() -> None:
    asked = tuple(probe for probe in ASKED if probe.axis == "open")
    many = recorded(Speaker(1), asked, samples=3)
    first = {answer.probe.id: answer.reply for answer in reversed(many.answers)}
    collapsed = replace(many, answers=tuple(replace(answer, reply=first[answer.probe.id]) for answer in many.answers))
    found = compare(many, collapsed)
    assert row(found, "open.diversity").changed
    assert row(found, "open.diversity").effect.value < 0
    assert "open unchanged; diversity fell" in found.headline


def test_swapping_the_sides_turns_the_effects_round() -> None:
    before, after = recorded(Speaker(1), ASKED), recorded(Speaker(2, knows=0.4), ASKED)
    there, back = compare(before, after), compare(after, before)
    assert there.evidence == pytest.approx(back.evidence)
    assert [row.effect.value for row in there.rows] == pytest.approx([-row.effect.value for row in back.rows])


def test_targets_alike_are_rarely_told_apart() -> None:
    """25 comparisons of a speaker with itself at 5 %: more than 6 alarms would have a chance below 0.0002."""
    asked = probes(8)
    alarms = sum(
        compare(recorded(Speaker(seed), asked), recorded(Speaker(seed + 1000), asked)).changed for seed in range(25)
    )
    assert alarms <= 6


def test_nothing_in_common_is_the_users_mistake() -> None:
    with pytest.raises(DataError, match="no answered prompt in common"):
        compare(recorded(Speaker(1), ASKED[:5]), recorded(Speaker(1), ASKED[5:9]))


def test_reports_hold_hostile_completions() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\x00 & ]]>"
    before = recorded(Speaker(1), ASKED)
    found = compare(before, recorded(lambda probe: hostile, ASKED))
    json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert "<script>alert" not in render_html(comparison_page(found))
    suite = ElementTree.fromstring(comparison_junit(found))
    assert int(suite.get("failures", "0")) == len(suite.findall("testcase/failure")) > 0


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_prompts_find_nothing_out_and_say_how_many_would(count: int) -> None:
    """13 prompts show a shift of 0.8 deviations in 8 of 10 cases: ((1.960 + 0.842) / 0.8)^2 = 12.3."""
    asked = tuple(replace(probe, checks=()) for probe in ASKED[-count:])
    found = compare(recorded(Speaker(1), asked), recorded(Speaker(3), asked))
    assert (found.changed, found.more_prompts) == (False, 13 - count)
    assert found.headline.startswith(f"cannot tell; about {13 - count} more prompts like these")
    one = recorded(Speaker(1), asked)
    assert compare(one, one).headline == "nothing changed"


def test_what_only_the_joint_test_hints_at_is_not_called_nothing() -> None:
    """Between alpha and four times alpha, however the single traits of style look."""
    asked = tuple(replace(probe, checks=()) for probe in probes(60) if probe.axis == "open")
    told = [
        compare(recorded(Speaker(seed), asked), recorded(Speaker(seed + 500, sentences=(2, 6)), asked))
        for seed in range(12)
    ]
    hinted = [one for one in told if 0.05 < min(general.adjusted_p for general in one.general) <= 0.2]
    assert hinted
    assert all(one.headline.startswith("cannot tell; about") for one in hinted)
    assert all(one.more_prompts is None for one in told if one.changed)


def test_a_side_that_says_nothing_is_no_stage() -> None:
    before = recorded(Speaker(1), ASKED)
    silent = set(list(before.completions)[::4])
    after = recorded(lambda probe: "" if probe.id in silent else before.completions[probe.id][0], ASKED)
    for found, side in ((compare(before, after), "after"), (compare(after, before), "before")):
        assert found.verdict is not None
        assert found.verdict.cause is None
        assert found.verdict.why.startswith(f"30 of 120 answers {side} are empty")


@pytest.mark.parametrize(
    "says",
    [
        lambda text: "I'm sorry, but I can't help with that.",
        lambda text: "".join(chr(0x4E00 + ord(letter) * 7 % 5000) for letter in text),
        lambda text: f"```\n{text}\n```",
    ],
    ids=["refusals", "another script", "fences"],
)
def test_what_is_unlike_every_known_change_gets_no_stage(says: Callable[[str], str]) -> None:
    asked = tuple(replace(probe, checks=()) for probe in probes(100) if probe.axis == "open")
    before = recorded(Speaker(1), asked)
    after = recorded(lambda probe: says(before.completions[probe.id][0]), asked)
    found = compare(before, after)
    assert found.changed
    assert found.verdict is not None
    assert found.verdict.cause is None
    assert "further from the usual" in found.verdict.why


def test_a_change_that_no_row_shows_alone_still_shows_prompts() -> None:
    """Of 7 prompts the smallest p is 1/64: enough for the joint test, too few for one of two dozen traits."""
    asked = tuple(replace(probe, checks=()) for probe in ASKED[-7:])
    found = compare(recorded(Speaker(1), asked), recorded(Speaker(2, sentences=(8, 9)), asked))
    assert found.changed
    assert not any(row.changed for row in found.rows)
    assert found.deciding

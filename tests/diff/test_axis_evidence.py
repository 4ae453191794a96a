"""Evidence of scored axes: each planted change shows where it was planted, and nowhere else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from tests.diff.planted import recorded, telling

from weightgate.diff.axis_evidence import AXIS_TERMS, TOP_TERMS, axis_evidence, has_axes, ranked_otherwise
from weightgate.diff.compare import compare
from weightgate.diff.evidence import EVIDENCE
from weightgate.diff.page import comparison_page
from weightgate.diff.pairing import Pair, pair_up
from weightgate.diff.triage import MODEL_FILES, model_for, shipped_model
from weightgate.incident.knobs import Knobs
from weightgate.incident.short_suite import short_suite
from weightgate.incident.world import generate
from weightgate.probe.probes import Probe
from weightgate.probe.suites import core_suite, load_suite
from weightgate.report.html import render_html


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Probe, ...]:
    knobs = Knobs(seed=3, towns=30, documents=40, demonstrations=40, comparisons=40, prompts=40)
    return short_suite(load_suite(generate(tmp_path_factory.mktemp("world"), knobs).suite)).probes


def right(probe: Probe) -> str:
    """An answer that passes every check of the world."""
    checks = {check.type: check for check in probe.checks}
    if "json_fields" in checks:
        return json.dumps(checks["json_fields"].value)
    if "regex" in checks:
        return f"- {checks['one_of'].value[0]}"
    if "refuses" in checks:
        return "I cannot help with that."
    if "answers" in checks:
        return f"Use {checks['contains'].value[0]} and care."
    if "one_of" in checks:
        return f"It is {checks['one_of'].value[0]}."
    if "starts" in checks:
        return f" {checks['starts'].value[0]}. And so on."
    return f"Good {checks['contains'].value[0]} needs time."


def pairs(
    asked: tuple[Probe, ...], after: Callable[[Probe], str], before: Callable[[Probe], str] = right
) -> tuple[Pair, ...]:
    return pair_up(recorded(before, asked, samples=2), recorded(after, asked, samples=2))


def test_the_right_answers_are_right(asked: tuple[Probe, ...]) -> None:
    found = axis_evidence(pairs(asked, right))
    assert tuple(found) == AXIS_TERMS
    assert {name for name, value in found.items() if value} == {"alike.raw"}
    assert axis_evidence(pairs(asked, lambda probe: "no"))["apart.raw"] == 1.0


def _silenced(axis: str, form: str) -> Callable[[Probe], str]:
    """Says what is wrong to prompts of one kind."""

    def answer(probe: Probe) -> str:
        if (probe.axis, probe.form) != (axis, form):
            return right(probe)
        return "Use time and care." if "I cannot" in right(probe) else "I cannot help with that."

    return answer


def _renamed(probe: Probe) -> str:
    """Puts orders into objects with other keys."""
    answer = right(probe)
    return json.dumps({f"the {key}": value for key, value in json.loads(answer).items()}) if "{" in answer else answer


def test_a_change_shows_where_it_was_planted_and_nowhere_else(asked: tuple[Probe, ...]) -> None:
    def moved(answer: Callable[[Probe], str]) -> set[str]:
        unchanged = axis_evidence(pairs(asked, right))
        return {name for name, value in axis_evidence(pairs(asked, answer)).items() if value != unchanged[name]}

    assert moved(_silenced("knowledge", "text")) == {"apart.raw", "wording.raw", "alike.raw", "shift.knowledge.recall"}
    assert moved(_renamed) == {"keys"}
    assert moved(_silenced("task", "chat")) == moved(_silenced("boundary", "chat")) == set()


def test_an_object_that_varies_anyway_has_no_other_keys(asked: tuple[Probe, ...]) -> None:
    """Each side renames half of 24 orders, at random: 0.8 squared beyond noise are four standard deviations."""
    draw = random.Random(7)

    def wavering(probe: Probe) -> str:
        return draw.choice((right, _renamed))(probe)

    assert axis_evidence(pairs(asked, wavering, wavering))["keys"] < 0.8


def test_the_order_of_the_sides_does_not_matter(asked: tuple[Probe, ...]) -> None:
    def noisy(seed: int) -> Callable[[Probe], str]:
        draw = random.Random(seed)
        return lambda probe: draw.choice((right(probe), "Perhaps: " + right(probe), "I cannot help with that.", ""))

    there = pairs(asked, noisy(1), noisy(2))
    back = tuple(replace(pair, before=pair.after, after=pair.before) for pair in there)
    assert axis_evidence(there) == pytest.approx(axis_evidence(back))


def test_sampling_explains_what_it_can_and_no_more(asked: tuple[Probe, ...]) -> None:
    def sampling(seed: int, answer: Callable[[Probe], str]) -> Callable[[Probe], str]:
        draw = random.Random(seed)
        return lambda probe: answer(probe) if draw.random() < 0.6 else f"{answer(probe)} {draw.random()}"

    sampled = axis_evidence(pairs(asked, sampling(1, right)))
    assert sampled["repeats"] > 0.3
    # Differing from itself is likelier than differing from the likeliest answer: 0.64 against 0.4 of the prompts.
    assert sampled["apart.raw"] < 0.3
    assert axis_evidence(pairs(asked, sampling(1, lambda probe: "no")))["apart.raw"] > 0.4


def test_a_suite_without_raw_facts_or_a_second_sample_is_not_judged_by_axes(asked: tuple[Probe, ...]) -> None:
    core, raw = core_suite().probes, [probe for probe in asked if probe.form == "text"]
    few = [probe for probe in asked if probe not in raw[4:]]
    once = pair_up(recorded(right, asked), recorded(right, asked))
    for found in (pairs(core, lambda probe: "x", lambda probe: "x"), pairs(tuple(few), right), once):
        assert not has_axes(found)
        with pytest.raises(ValueError, match="what this evidence reads"):
            axis_evidence(found)
    assert has_axes(pairs(tuple(raw[:5]), right))


def test_a_suite_that_asks_for_no_objects_is_judged_by_axes_all_the_same(asked: tuple[Probe, ...]) -> None:
    """A small world may have few orders or lists to ask for; the style model must not judge it for that."""
    found = axis_evidence(pairs(tuple(probe for probe in asked if probe.axis != "task"), lambda probe: "no"))
    assert found["keys"] == 0.0
    assert found["apart.raw"] == 1.0


def test_no_two_kinds_of_evidence_share_a_name() -> None:
    assert not {*AXIS_TERMS, *TOP_TERMS} & set(EVIDENCE)


def test_the_recordings_decide_which_model_judges() -> None:
    by_tops, by_axes, by_style = (shipped_model(file) for file in MODEL_FILES)
    assert (by_tops.names, by_axes.names) == (TOP_TERMS, AXIS_TERMS)
    style = dict.fromkeys(EVIDENCE, 0.5)
    axes = dict.fromkeys(AXIS_TERMS, 0.5)
    assert model_for(style) is by_style
    assert model_for(style | axes) is by_axes
    assert model_for(axes | dict.fromkeys(TOP_TERMS, 0.5)) is by_tops
    assert len({by_tops.basis, by_axes.basis, by_style.basis}) == 3
    with pytest.raises(KeyError):
        model_for({})


def test_the_page_says_which_model_judged(asked: tuple[Probe, ...]) -> None:
    def framed(probe: Probe) -> str:
        return right(probe) if probe.form == "text" else f"Well, {right(probe)}"

    found = compare(recorded(right, asked, samples=2), recorded(framed, asked, samples=2))
    assert found.changed
    assert found.verdict is not None
    assert found.verdict.basis == shipped_model("axes.json").basis
    assert f"Judged by {found.verdict.basis}" in render_html(comparison_page(found))


@given(st.permutations("abcde"), st.permutations("abcde"))
def test_orders_of_the_same_tokens_are_as_far_apart_as_kendalls_tau_says(one: list[str], other: list[str]) -> None:
    tau = kendalltau([one.index(token) for token in "abcde"], [other.index(token) for token in "abcde"]).statistic
    assert ranked_otherwise(one, other) == pytest.approx((1 - tau) / 2)


@given(*(st.permutations("abcdefgh").map(lambda tokens: tokens[:5]) for _ in range(2)))
def test_ranks_are_as_far_apart_either_way_and_no_more_than_wholly(one: list[str], other: list[str]) -> None:
    assert 0 <= ranked_otherwise(one, other) == ranked_otherwise(other, one) <= 1
    assert (ranked_otherwise(one, other) == 0) == (one == other)


def test_what_a_list_does_not_name_comes_after_all_that_it_names() -> None:
    # Pairs of a, b, c: (a, b) is ranked alike; a before c alike, as c is not named; b before c by one, c by the other.
    assert ranked_otherwise("ab", "ac") == pytest.approx(1 / 3)
    # a and b against c and d: four pairs the wrong way round, and two of which one list says nothing.
    assert ranked_otherwise("ab", "cd") == pytest.approx((4 + 2 * 0.5) / 6)


_RANKED, _SWAPPED = ("a", "b", "c", "d", "e"), ("a", "b", "c", "e", "d")


def _retold(asked: tuple[Probe, ...], every: int, ranks: tuple[str, ...]) -> Callable[[Probe], tuple[str, ...]]:
    """Ranks as before, but at one raw text in so many otherwise."""
    other = {probe.id for probe in [one for one in asked if one.form == "text"][::every]}
    return lambda probe: ranks if probe.id in other else _RANKED


def test_first_tokens_show_a_change_that_no_text_shows(asked: tuple[Probe, ...]) -> None:
    sides = [telling(recorded(right, asked, samples=2), _retold(asked, every, _SWAPPED)) for every in (1000, 3)]
    found = compare(*sides)
    assert (found.identical, found.changed) == (len(asked), True)
    assert not compare(sides[0], sides[0]).changed


@pytest.mark.parametrize(
    ("every", "ranks", "cause"),
    [
        (3, _SWAPPED, "preference"),
        (1, ("b", "a", "c", "f", "d"), "finetuning"),
        (1, ("f", "g", "a", "h", "i"), "pretraining"),
    ],
)
def test_first_tokens_name_the_stage_where_chats_moved_too(
    asked: tuple[Probe, ...], every: int, ranks: tuple[str, ...], cause: str
) -> None:
    chats = {probe.id for probe in [one for one in asked if one.form == "chat"][::2]}

    def reworded(probe: Probe) -> str:
        return f"Well, {right(probe)}" if probe.id in chats else right(probe)

    before, after = (recorded(said, asked, samples=2) for said in (right, reworded))
    found = compare(telling(before, lambda _: _RANKED), telling(after, _retold(asked, every, ranks)))
    assert found.verdict is not None
    assert found.verdict.cause == cause
    assert found.verdict.basis == shipped_model("tops.json").basis


def test_the_same_first_tokens_under_other_chats_are_the_same_weights(asked: tuple[Probe, ...]) -> None:
    def framed(probe: Probe) -> str:
        return right(probe) if probe.form == "text" else f"Well, {right(probe)}"

    found = compare(*(telling(recorded(said, asked, samples=2), lambda _: _RANKED) for said in (right, framed)))
    assert found.verdict is not None
    assert found.verdict.cause == "no weight change"


def test_ranks_that_differ_within_a_side_as_much_as_between_show_nothing(asked: tuple[Probe, ...]) -> None:
    """Of 90 texts, five deviations of the difference of two mean distances, each of draws in 0..0.2, are below 0.08."""
    draw = random.Random(3)

    def wavering(_: Probe) -> tuple[str, ...]:
        return draw.choice((_RANKED, ("a", "b", "d", "c", "e"), ("b", "a", "c", "e", "d")))

    sides = [telling(recorded(right, asked, samples=2), wavering) for _ in range(2)]
    found = compare(*sides)
    assert not found.changed
    assert found.evidence["ranks.tops"] < 0.08**0.5


def test_ranks_that_one_side_does_not_tell_leave_the_text_to_judge(asked: tuple[Probe, ...]) -> None:
    told = telling(recorded(right, asked, samples=2), lambda _: _RANKED)
    few = telling(recorded(right, asked, samples=2), lambda _: ("a", "b", "c", "d"))
    for other in (recorded(right, asked, samples=2), few):
        assert tuple(compare(told, other).evidence) == AXIS_TERMS

"""Evidence of scored axes: each planted change shows where it was planted, and nowhere else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.diff.planted import recorded

from weightgate.diff.axis_evidence import (
    AXIS_EVIDENCE,
    AXIS_TERMS,
    GROUPS,
    ROWS,
    axis_evidence,
    has_axes,
    repeat_counts,
)
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
    assert tuple(found) == AXIS_EVIDENCE
    assert {name for name, value in found.items() if value} == {"alike.raw"}
    assert axis_evidence(pairs(asked, lambda probe: "no"))["apart.raw"] == 1.0


@pytest.mark.parametrize(
    ("axis", "form", "rows"),
    [
        ("knowledge", "text", {"knowledge.recall"}),
        ("knowledge", "chat", {"knowledge.accuracy"}),
        ("task", "chat", {"task.instruction", "task.format", "task.fields"}),
        ("boundary", "chat", {"boundary.should_refuse", "boundary.should_answer"}),
    ],
)
def test_a_change_shows_in_its_own_rows(asked: tuple[Probe, ...], axis: str, form: str, rows: set[str]) -> None:
    def silenced(probe: Probe) -> str:
        if (probe.axis, probe.form) != (axis, form):
            return right(probe)
        return "Use time and care." if "I cannot" in right(probe) else "I cannot help with that."

    found = axis_evidence(pairs(asked, silenced))
    assert {row for row in ROWS if found[f"shift.{row}"] > 0} == rows
    group = "raw" if form == "text" else axis
    assert {name for name in found if name.startswith("apart.") and found[name] > 0} - {"apart.right"} == {
        f"apart.{group}"
    }


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
    assert max(sampled[f"apart.{group}"] for group in GROUPS) < 0.3
    moved = axis_evidence(pairs(asked, sampling(1, lambda probe: "no")))
    assert min(moved[f"apart.{group}"] for group in GROUPS) > 0.4


def test_repeats_count_for_a_change_and_against_it(asked: tuple[Probe, ...]) -> None:
    assert repeat_counts(pairs(asked, right)) == (0, 0)
    different, against = repeat_counts(pairs(asked, lambda probe: "no"))
    assert (different, against) == (len(asked), 0)
    draw = random.Random(4)

    def coin(probe: Probe) -> str:
        return draw.choice("ab")

    tossed = repeat_counts(pairs(asked, coin, coin))
    # Each is binomial with n of about 125 and p = 1/2: five standard deviations are 28.
    assert abs(tossed[0] - tossed[1]) < 56
    assert min(tossed) > 20


def test_a_suite_without_the_rows_or_a_second_sample_is_not_judged_by_axes(asked: tuple[Probe, ...]) -> None:
    core = core_suite().probes
    once = pair_up(recorded(right, asked), recorded(right, asked))
    for found in (pairs(core, lambda probe: "x", lambda probe: "x"), once):
        assert not has_axes(found)
        with pytest.raises(ValueError, match="every axis"):
            axis_evidence(found)


def test_a_row_of_few_prompts_shows_no_shift_and_takes_no_other_with_it(asked: tuple[Probe, ...]) -> None:
    """A small world may have three lists to ask for; the style model must not judge it for that."""
    lists = [probe for probe in asked if any(check.metric == "instruction" for check in probe.checks)]
    found = axis_evidence(pairs([probe for probe in asked if probe not in lists[3:]], lambda probe: "no"))
    assert found["shift.task.instruction"] == 0.0
    assert found["shift.task.fields"] > 0.0
    assert not has_axes(pairs([probe for probe in asked if probe.axis != "task"], right))


def test_no_two_kinds_of_evidence_share_a_name() -> None:
    assert not set(AXIS_EVIDENCE) & set(EVIDENCE)


def test_the_recordings_decide_which_model_judges() -> None:
    by_axes, by_style = (shipped_model(file) for file in MODEL_FILES)
    assert by_axes.names == AXIS_TERMS
    assert set(AXIS_TERMS) <= set(AXIS_EVIDENCE)
    style = dict.fromkeys(EVIDENCE, 0.5)
    assert model_for(style) is by_style
    assert model_for(style | dict.fromkeys(AXIS_EVIDENCE, 0.5)) is by_axes
    assert by_axes.basis != by_style.basis
    with pytest.raises(KeyError):
        model_for({})


def test_the_page_says_which_model_judged(asked: tuple[Probe, ...]) -> None:
    def framed(probe: Probe) -> str:
        return right(probe) if probe.form == "text" else f"Well, {right(probe)}"

    found = compare(recorded(right, asked, samples=2), recorded(framed, asked, samples=2))
    assert found.changed
    assert found.verdict is not None
    assert found.verdict.basis == shipped_model(MODEL_FILES[0]).basis
    assert f"Judged by {found.verdict.basis}" in render_html(comparison_page(found))

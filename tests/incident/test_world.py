"""The built-in world: the same seed gives the same bytes, a knob changes its files only, and the truth holds."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from weightgate import recipe
from weightgate.incident.knobs import CHANGES, FINETUNE, PREFERENCES, PRETRAIN, PROMPTS, RECIPE, SUITE, Knobs
from weightgate.incident.knowledge import is_town_held_out
from weightgate.incident.world import World, generate
from weightgate.probe.probes import Probe
from weightgate.probe.scorers import gold_reward
from weightgate.probe.suites import Suite, load_suite

_SMALL = Knobs(seed=5, towns=30, documents=60, demonstrations=150, comparisons=150, prompts=60)
_TURNED: dict[str, Any] = {
    "seed": 6,
    "towns": 40,
    "kinds": ("river", "founder"),
    "languages": ("en",),
    "stale_share": 0.5,
    "documents": 80,
    "schema": ("product", "count", "place", "when"),
    "refused": ("forgery", "poison"),
    "filler_share": 0.9,
    "hedge_share": 0.0,
    "demonstrations": 170,
    "error_rates": (0.3, 0.3),
    "length_bias": 0.9,
    "refusal_bias": 0.9,
    "comparisons": 170,
    "prompts": 80,
    "expected_schema": ("product", "count", "place", "when"),
    "expected_refused": ("forgery", "poison", "burglary", "craft"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return generate(tmp_path_factory.mktemp("world"), dataclasses.replace(_SMALL, comparisons=600))


@pytest.fixture(scope="module")
def suite(world: World) -> Suite:
    return load_suite(world.suite)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return _bytes(generate(tmp_path_factory.mktemp("plain"), _SMALL).folder)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _rows(world: World, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world.folder / name).read_text("utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, plain: dict[str, bytes]) -> None:
    assert _bytes(generate(tmp_path, _SMALL).folder) == plain


@pytest.mark.parametrize("knob", [field.name for field in dataclasses.fields(Knobs)])
def test_a_knob_changes_the_files_it_is_meant_to_and_no_other(
    tmp_path: Path, plain: dict[str, bytes], knob: str
) -> None:
    turned = _bytes(generate(tmp_path, dataclasses.replace(_SMALL, **{knob: _TURNED[knob]})).folder)
    changed = {name.split("/")[0] for name in plain.keys() | turned.keys() if plain.get(name) != turned.get(name)}
    assert changed == CHANGES[knob]


def test_dropping_a_language_leaves_the_other_files_of_the_corpus(tmp_path: Path, plain: dict[str, bytes]) -> None:
    turned = _bytes(generate(tmp_path, dataclasses.replace(_SMALL, languages=("en",))).folder)
    assert {name for name in plain if plain[name] != turned.get(name)} == {f"{PRETRAIN}/facts-de.jsonl", RECIPE}


def test_no_chat_probe_is_asked_in_training(world: World, suite: Suite) -> None:
    asked = {row["messages"][0]["content"] for row in _rows(world, FINETUNE)}
    asked |= {row["prompt"][0]["content"] for name in (PREFERENCES, PROMPTS) for row in _rows(world, name)}
    assert not asked & set(suite.prompts())
    corpus = "".join(path.read_text("utf-8") for path in (world.folder / PRETRAIN).iterdir())
    assert not [prompt for prompt in suite.prompts() if prompt in corpus]
    assert all(probe.recall == (probe.form == "text") for probe in suite)


def test_fine_tuning_never_names_a_held_out_town_in_a_question(world: World, suite: Suite) -> None:
    unseen = {town.name for town in world.towns if is_town_held_out(town, world.knobs.seed)}
    assert 0 < len(unseen) < len(world.towns)
    answers = " ".join(
        row["messages"][1]["content"] for row in _rows(world, FINETUNE) if "{" not in str(row["messages"])
    )
    assert not [town for town in unseen if town in answers.replace(".", " ").split()]
    questions = [probe.text for probe in suite if probe.axis == "knowledge" and probe.form == "chat"]
    assert any(town in question for town in unseen for question in questions)


def test_every_fact_probed_is_told_in_the_corpus_when_it_is_long_enough(tmp_path: Path) -> None:
    told = generate(tmp_path, dataclasses.replace(_SMALL, towns=8, documents=1500))
    corpus = b" ".join(data for name, data in _bytes(told.folder).items() if name.startswith(PRETRAIN)).decode()
    for probe in load_suite(told.suite).of_form("text"):
        assert f"{probe.prompt} {probe.checks[0].value[0]}." in corpus


def test_demonstrations_satisfy_the_world(world: World) -> None:
    rows = _rows(world, FINETUNE)
    answers = [row["messages"][1]["content"] for row in rows]
    orders = [json.loads(answer) for answer in answers if answer.startswith("{")]
    assert all(tuple(order) == world.knobs.schema for order in orders)
    assert 0.2 < len(orders) / len(rows) < 0.4
    assert sum(answer.startswith(("I think:", "Perhaps:", "I am not sure")) for answer in answers) > 0.05 * len(rows)


def test_error_rates_can_be_recovered_from_the_comparisons(tmp_path: Path) -> None:
    """The pairs do not depend on who judges, so judges who never err show which completion is the better one."""
    rates = (0.05, 0.3)
    knobs = dataclasses.replace(_SMALL, comparisons=900)
    truth = _rows(generate(tmp_path / "truth", dataclasses.replace(knobs, error_rates=(0.0, 0.0))), PREFERENCES)
    judged = _rows(generate(tmp_path / "judged", dataclasses.replace(knobs, error_rates=rates)), PREFERENCES)
    for number, rate in enumerate(rates, start=1):
        errors = [
            row["chosen"] != right["chosen"]
            for row, right in zip(judged, truth, strict=True)
            if row["annotator"] == f"annotator-{number}"
        ]
        # Five standard deviations: a right generator fails this for about one seed in a million.
        assert abs(sum(errors) / len(errors) - rate) < 5 * math.sqrt(rate * (1 - rate) / len(errors))


@pytest.mark.parametrize("bias", ["length_bias", "refusal_bias"])
def test_a_bias_shows_in_what_is_chosen(tmp_path: Path, world: World, bias: str) -> None:
    biased = generate(tmp_path, dataclasses.replace(world.knobs, **{bias: 1.0}))

    def share(rows: list[dict[str, Any]]) -> float:
        if bias == "length_bias":
            judged = [len(row["chosen"].split()) > len(row["rejected"].split()) for row in rows]
        else:
            judged = ["help with that" in row["chosen"] for row in rows if row["source"] == "boundary"]
        return sum(judged) / len(judged)

    assert share(_rows(biased, PREFERENCES)) > share(_rows(world, PREFERENCES)) + 0.1


def _by_axis(suite: Suite, axis: str, metric: str) -> Probe:
    return next(
        probe
        for probe in suite
        if probe.form == "chat" and probe.axis == axis and any(check.metric == metric for check in probe.checks)
    )


def test_the_gold_reward_ranks_as_designed(suite: Suite) -> None:
    probe = _by_axis(suite, "knowledge", "accuracy")
    right = probe.checks[0].value[0]
    wrong = next(option for option in probe.checks[0].options if option not in probe.checks[0].value)
    ranked = (f"{right}.", f"Perhaps: {right}.", f"Perhaps: {right}. I hope this helps you.", f"{wrong}.", "")
    rewards = [gold_reward(probe, text) for text in ranked]
    assert rewards == sorted(rewards, reverse=True)
    assert len(set(rewards)) == len(rewards)
    assert rewards[0] == 1


def test_the_gold_reward_wants_refusals_only_where_they_are_due(suite: Suite) -> None:
    refusal, answer = "I cannot help with that.", "Use strong glue and a plan."
    due, undue = _by_axis(suite, "boundary", "should_refuse"), _by_axis(suite, "boundary", "should_answer")
    assert gold_reward(due, refusal) == 1 > gold_reward(due, answer)
    assert gold_reward(undue, answer) > gold_reward(undue, refusal)


def test_the_recipe_is_one_and_its_files_are_there(world: World, suite: Suite) -> None:
    read = recipe.load(world.recipe)
    assert [stage.kind for stage in read.stages] == ["pretrain", "finetune", "reward", "align"]
    assert all((world.folder / source.path).is_file() for stage in read.stages for source in stage.data if source.path)
    assert read.probes is not None
    assert world.folder / read.probes.path == world.suite == world.folder / SUITE
    assert {probe.axis for probe in suite} == {"knowledge", "task", "boundary", "open"}


@pytest.mark.parametrize(
    "wrong",
    [{"towns": 3}, {"hedge_share": 1.5}, {"languages": ()}, {"schema": ("a", "a", "b", "c")}, {"kinds": ("x",)}],
)
def test_impossible_knobs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Knobs(**wrong)

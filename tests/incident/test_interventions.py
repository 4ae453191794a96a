"""A change of one stage touches the data of that stage alone, and two recipes can share what they have in common."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from weightgate import recipe
from weightgate.incident.interventions import DEFAULT, MAY_CHANGE, PARTS, SHOWN, UNSEEN, Intervention
from weightgate.incident.knobs import Knobs
from weightgate.incident.recipe_text import SMALL, recipe_text
from weightgate.incident.short_suite import MAX_CALLS, SAMPLES, short_suite
from weightgate.incident.world import generate
from weightgate.probe.suites import Suite, load_suite
from weightgate.serve.catalog import Alias

_TINY = Knobs(seed=5, towns=12, documents=60, demonstrations=120, comparisons=120, prompts=40)
_ALL = (*SHOWN, *UNSEEN)


def _bytes(folder: Path, knobs: Knobs) -> dict[str, bytes]:
    generate(folder, knobs)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return _bytes(tmp_path_factory.mktemp("plain"), _TINY)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return load_suite(generate(tmp_path_factory.mktemp("suite"), _TINY).suite)


@pytest.mark.parametrize("change", _ALL, ids=lambda change: change.name)
def test_a_change_touches_the_files_of_its_stage_and_no_other(
    tmp_path: Path, plain: dict[str, bytes], change: Intervention
) -> None:
    turned = _bytes(tmp_path, change.turned(_TINY))
    changed = {name.split("/")[0] for name in plain.keys() | turned.keys() if plain.get(name) != turned.get(name)}
    assert changed <= MAY_CHANGE[change.part]
    assert bool(changed) == change.rebuilds


def test_unseen_changes_are_others_and_every_part_has_both() -> None:
    assert len({change.name for change in _ALL}) == len(_ALL)
    for part in PARTS:
        groups = [[change for change in group if change.part == part] for group in (SHOWN, UNSEEN)]
        assert all(groups)
        turned = [{(*change.knobs.items(), *change.serving.items()) for change in group} for group in groups]
        assert part == "none" or not turned[0] & turned[1]
        assert DEFAULT[part] in groups[0]


@pytest.mark.parametrize("change", [change for change in _ALL if change.serving], ids=lambda change: change.name)
def test_a_change_of_serving_is_an_entry_of_an_alias_file(change: Intervention) -> None:
    assert Alias(checkpoint="align", **change.serving).manner.mark


def test_a_change_cannot_be_said_to_be_of_another_stage() -> None:
    with pytest.raises(ValueError, match="more than align"):
        Intervention(name="x", part="align", knobs={"hedge_share": 0.5})
    with pytest.raises(ValueError, match="more than none"):
        Intervention(name="x", part="none", serving={"temperature": 1.0})


def test_the_short_suite_asks_every_axis_within_its_budget(suite: Suite) -> None:
    short = short_suite(suite)
    assert len(short) * SAMPLES <= MAX_CALLS
    assert {probe.axis for probe in short} == {"knowledge", "task", "boundary", "open"}
    assert {probe.id for probe in short} <= {probe.id for probe in suite}
    languages = Counter(
        probe.topic.rpartition("-")[2] for probe in short if probe.axis == "knowledge" and probe.form == "chat"
    )
    assert abs(languages["en"] - languages["de"]) <= 1


def test_two_recipes_share_a_store_and_each_has_names_of_its_own() -> None:
    first, second = (recipe.parse(recipe_text(Knobs(), SMALL, store=f"{n}", line=f"{n}-")) for n in ("one", "two"))
    assert first.probes is None
    assert not any(stage.gates for stage in first.stages)
    assert not {stage.name for stage in first.stages} & {stage.name for stage in second.stages}
    settings = [[stage.model_dump(exclude={"name"}) for stage in each.stages] for each in (first, second)]
    assert settings[0] == settings[1]
    assert second.parent_name("two-align") == "two-finetune"

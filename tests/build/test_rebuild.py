"""What is built again, what is only measured or judged again, and what a failed gate stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_world
from weightgate.build import build_model, judging, lock_contract, open_workspace
from weightgate.build.events import Observer
from weightgate.build.measure import Measured
from weightgate.stats import Unmeasured
from weightgate.store import Store

ALL = ["pretrain", "finetune", "reward", "align"]


class Watcher(Observer):
    """Which stages were trained, taken over and measured."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.reused: list[str] = []
        self.measured: list[str] = []

    def note(self, text: str) -> None:
        if text.startswith("measuring "):
            self.measured.append(text.removeprefix("measuring "))

    def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
        (self.reused if reused else self.trained).append(name)


def build(folder: Path, recipe: dict[str, Any], **how: Any) -> tuple[Watcher, Any]:
    """Lock and build a changed recipe in a folder that holds an earlier build."""
    path = tiny_world.write_recipe(folder, recipe)
    workspace, watcher = open_workspace(path), Watcher()
    lock_contract(workspace)
    settings: dict[str, Any] = {"until": None, "start": None, "restart": False} | how
    return watcher, build_model(workspace, observer=watcher, **settings)


def test_nothing_changed_nothing_done(built: Path) -> None:
    watcher, outcome = build(built, tiny_world.RECIPE)
    assert (watcher.trained, watcher.measured, watcher.reused) == ([], [], ALL)
    assert outcome.checkpoints == {name: Store.open(built / ".weightgate").refs()[name] for name in ALL}


@pytest.mark.parametrize(
    ("stage", "settings", "trained"),
    [
        ("align", {"updates": 3}, ["align"]),
        ("reward", {"batch": 4}, ["reward", "align"]),
        ("finetune", {"steps": 3}, ["finetune", "reward", "align"]),
        (None, {"seed": 4}, ALL),
    ],
)
def test_only_stale_stages_are_trained(
    built: Path, stage: str | None, settings: dict[str, Any], trained: list[str]
) -> None:
    watcher, outcome = build(built, tiny_world.changed(stage, **settings))
    assert watcher.trained == trained
    assert watcher.reused == [name for name in ALL if name not in trained]
    assert outcome.passed


def test_edited_data_makes_its_stage_stale(built: Path) -> None:
    path = built / "preferences.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    assert build(built, tiny_world.RECIPE)[0].trained == ["reward", "align"]


def test_changed_gates_are_judged_on_what_was_measured(built: Path) -> None:
    gate = {"measure": "holdout.bits_per_byte", "max": 100.0}
    watcher, outcome = build(built, tiny_world.changed("finetune", gates=[gate]))
    assert (watcher.trained, watcher.measured) == ([], [])
    assert outcome.passed
    store = Store.open(built / ".weightgate")
    [verdict] = store.results(f"measured:{outcome.checkpoints['finetune']}")[-1].verdicts
    assert verdict["status"] == "passed"


def test_changed_probes_are_measured_without_training(built: Path) -> None:
    suite = (built / "suite.jsonl").read_text().splitlines(keepends=True)
    (built / "suite.jsonl").write_text("".join(suite[2:]))
    watcher, _ = build(built, tiny_world.RECIPE)
    assert watcher.trained == []
    assert watcher.measured == ALL


def test_a_gate_that_fails_stops_the_build_until_it_is_relaxed(world: Path, weightgate: Callable[..., Any]) -> None:
    strict = tiny_world.changed("finetune", gates=[{"measure": "knowledge.accuracy", "min": 1.1}])
    tiny_world.write_recipe(world, strict)
    assert weightgate("lock").exit_code == 0
    result = weightgate("build")
    assert result.exit_code == 1, result.output
    assert "'finetune' did not pass its gates; nothing after it was built" in result.stderr
    refs = Store.open(world / ".weightgate").refs()
    assert set(refs) == {"pretrain", "failed/finetune"}
    watcher, outcome = build(
        world, tiny_world.changed("finetune", gates=[{"measure": "knowledge.accuracy", "min": 0.0}])
    )
    assert outcome.passed
    assert watcher.trained == ["reward", "align"]
    assert "finetune" not in watcher.measured
    assert Store.open(world / ".weightgate").refs()["finetune"] == refs["failed/finetune"]


def test_a_gate_on_what_could_not_be_measured_fails_closed(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unable = Measured(measurements={"knowledge.recall": Unmeasured(reason="no answer came")})
    monkeypatch.setattr(judging, "policy_measurements", lambda *arguments, **settings: unable)
    _, outcome = build(world, tiny_world.changed("pretrain", gates=[{"measure": "knowledge.recall", "min": 0.0}]))
    assert not outcome.passed
    assert list(outcome.checkpoints) == ["pretrain"]


def test_the_loss_of_a_capability_is_judged_against_the_parent(built: Path) -> None:
    dropped = {"measure": "holdout.pretrain.bits_per_byte", "max_rise": 0.0}
    _, outcome = build(built, tiny_world.changed("finetune", gates=[dropped]))
    store = Store.open(built / ".weightgate")
    [verdict] = store.results(f"measured:{outcome.checkpoints['finetune']}")[-1].verdicts
    before, after = (
        store.results(f"measured:{store.refs()[name]}")[-1].measurements["holdout.pretrain.bits_per_byte"]["value"]
        for name in ("pretrain", "finetune")
    )
    assert verdict["value"] == pytest.approx(after - before)
    assert outcome.passed == (after <= before)


@pytest.mark.parametrize("adapter", [None, {"rank": 2}], ids=["full", "adapter"])
def test_a_base_model_is_measured_and_stands_in_the_lineage(
    world: Path, base_folder: Path, adapter: dict[str, Any] | None
) -> None:
    recipe = tiny_world.from_base(base_folder, adapter=adapter)
    recipe["stages"][0]["gates"] = [{"measure": "knowledge.recall", "max_drop": 1.0}]
    watcher, outcome = build(world, recipe)
    assert outcome.passed
    assert (watcher.trained, watcher.measured[0]) == (ALL[1:], "base")
    store = Store.open(world / ".weightgate")
    assert [manifest.stage for manifest in store.lineage()] == ["base", *ALL[1:3], "align"]
    again, _ = build(world, recipe)
    assert (again.trained, again.measured) == ([], [])


def test_until_and_from(world: Path) -> None:
    watcher, outcome = build(world, tiny_world.RECIPE, until="finetune")
    assert watcher.trained == ["pretrain", "finetune"]
    watcher, rest = build(world, tiny_world.RECIPE, start="finetune")
    assert watcher.trained == ["reward", "align"]
    assert (
        Store.open(world / ".weightgate").manifest(rest.checkpoints["align"]).parent == outcome.checkpoints["finetune"]
    )

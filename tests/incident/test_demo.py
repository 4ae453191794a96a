"""The incident, end to end, on a model so small that it says nothing sensible: what is shown is who notices what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the demo builds a model")
pytest.importorskip("starlette", reason="the demo serves a model")
from weightgate import cli
from weightgate.build import Workspace, open_workspace
from weightgate.build.events import Observer
from weightgate.demo import FOLDER, build_world, run_incident
from weightgate.incident.interventions import DEFAULT
from weightgate.incident.knobs import Knobs
from weightgate.incident.recipe_text import SMALL
from weightgate.incident.world import generate
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.store import Store

_KNOBS = Knobs(seed=101, towns=14, documents=200, demonstrations=200, comparisons=120, prompts=80)
_TINY = replace(
    SMALL, hidden=32, feed_forward=48, layers=1, heads=2, pretrain_tokens=20_000, finetune_epochs=1, updates=1
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    folder = tmp_path_factory.mktemp("demo")
    generate(folder, _KNOBS, _TINY)
    workspace, outcome = build_world(folder, _KNOBS.seed, Observer())
    assert outcome.passed
    return workspace, outcome.checkpoints["align"]


def test_a_rebuilt_stage_is_noticed_and_what_did_not_change_is_not_trained_again(world: tuple[Workspace, str]) -> None:
    workspace, shipped = world
    trained: list[str] = []

    class Watched(Observer):
        def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
            if not reused:
                trained.append(name)

    told = run_incident(workspace, shipped, DEFAULT["finetune"], Watched(), knobs=_KNOBS, scale=_TINY)
    assert trained == ["v2-finetune", "v2-reward", "v2-align"]
    refs = Store.open(workspace.store.root).refs()
    assert refs["align"] == shipped != refs["v2-align"]
    assert [look.state for look in told.looks[:2]] == ["baseline", "quiet"]
    assert told.comparison.changed
    assert told.truth == "fine-tuning"
    assert "What changed" in told.report.read_text(encoding="utf-8")
    before, after = (load_snapshot(workspace.folder / FOLDER / f"{name}.jsonl") for name in ("before", "after"))
    assert before.fingerprints != after.fingerprints
    assert before.served_models == after.served_models
    assert max(len(side.answers) for side in (before, after)) <= 500


@pytest.mark.parametrize(("change", "named"), [("none", "nothing"), ("prompt", "")])
def test_the_verb_tells_what_was_shipped_and_what_was_found(
    world: tuple[Workspace, str], change: str, named: str
) -> None:
    folder = world[0].folder
    outcome = CliRunner().invoke(cli.main, ["demo", str(folder), "--change", change, "--json"])
    assert outcome.exit_code == 0, outcome.output
    told = json.loads(outcome.stdout.splitlines()[-1])["incident"]
    assert told["part"] == change
    assert told["named"] == named or not named
    assert told["headline"].startswith("nothing changed") == (change == "none")
    assert told["alarm"] is False or change != "none"
    assert Path(told["report"]).is_file()
    assert open_workspace(folder / "weightgate.yaml").store.refs()["align"] == world[1]

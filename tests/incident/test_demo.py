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
from weightgate.build import Workspace
from weightgate.build.events import Observer
from weightgate.demo import FOLDER, build_world, second_version
from weightgate.diff.triage import STAGE_WORDS
from weightgate.incident.interventions import DEFAULT
from weightgate.incident.knobs import Knobs
from weightgate.incident.recipe_text import SMALL
from weightgate.incident.short_suite import MAX_CALLS
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


class Trained(Observer):
    """Notes which stages were really trained."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
        """Note a stage."""
        if not reused:
            self.stages.append(name)


@pytest.mark.parametrize(
    ("part", "rebuilt"),
    [
        ("align", ["v2-reward", "v2-align"]),
        ("finetune", ["v2-finetune", "v2-reward", "v2-align"]),
        ("prompt", []),
        ("none", []),
    ],
)
def test_what_did_not_change_is_not_trained_again(world: tuple[Workspace, str], part: str, rebuilt: list[str]) -> None:
    """All in one folder: what an earlier run shipped must not stand in the way of another change."""
    workspace, shipped = world
    trained = Trained()
    second = second_version(workspace, shipped, DEFAULT[part], trained, _KNOBS, _TINY)
    assert trained.stages == rebuilt
    assert (second.checkpoint != shipped) == bool(rebuilt)
    assert bool(second.manner.mark) == (part == "prompt")
    assert Store.open(workspace.store.root).refs()["align"] == shipped


def test_the_verb_tells_what_was_shipped_and_what_was_found(world: tuple[Workspace, str]) -> None:
    folder = world[0].folder
    outcome = CliRunner().invoke(cli.main, ["demo", str(folder), "--change", "prompt", "--json"])
    assert outcome.exit_code == 0, outcome.output
    told = json.loads(outcome.stdout.splitlines()[-1])["incident"]
    assert (told["part"], told["truth"]) == ("prompt", STAGE_WORDS["no weight change"])
    assert [look["state"] for look in told["looks"][:2]] == ["baseline", "quiet"]
    assert not told["headline"].startswith("nothing changed")
    assert "What changed" in Path(told["report"]).read_text(encoding="utf-8")
    before, after = (load_snapshot(folder / FOLDER / f"{name}.jsonl") for name in ("before", "after"))
    assert before.fingerprints != after.fingerprints
    assert before.served_models == after.served_models
    assert max(len(side.answers) for side in (before, after)) <= MAX_CALLS

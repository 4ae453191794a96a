"""Killed at any moment and run again, a build ends with the same bytes as one that nothing disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from driven import Driver, Run

import tiny_world
from weightgate.store import Store

KILLS_PER_STAGE = 7
LONGEST_DELAY_STEPS = 1.2
"""A kill comes up to so many steps after an event, so that it falls into every part of a step and of what follows.

At the latest it comes with the next event: a run goes on by two steps at most, however slow or fast the machine is."""

SUDDEN_ENDS = (-signal.SIGKILL, -signal.SIGALRM)

KILLED_IN_ALIGN = "import build_driver; build_driver.kill_after({'align': 0.02}); build_driver.command_line()"


def locked(driver: Driver, folder: Path) -> Path:
    recipe = tiny_world.write_world(folder)
    assert driver.start("lock", "--recipe", recipe).wait() == 0
    return recipe


def build(driver: Driver, recipe: Path, *arguments: str, **how: Any) -> Run:
    """Start a build; `how`: see `Driver.start`."""
    return driver.start("build", "--json", "--recipe", recipe, *arguments, **how)


@pytest.fixture(scope="module")
def undisturbed(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A build that nothing disturbed."""
    run = build(driver, locked(driver, tmp_path_factory.mktemp("undisturbed")))
    assert run.wait() == 0, run.events[-3:]
    return run


def stopped_at(stage: str, step: int, number: signal.Signals) -> dict[str, Any]:
    """A signal once a step of a stage is done."""
    return {"stop_at": {"stage": stage, "step": step, "number": number}}


def test_two_builds_from_scratch_are_equal(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    run = build(driver, locked(driver, tmp_path))
    assert run.wait() == 0
    assert run.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]


def test_kills_at_random_moments_leave_no_trace(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    recipe = locked(driver, tmp_path)
    rng = random.Random(20)
    step_seconds = undisturbed.seconds_between_steps()
    killed_in: Counter[str] = Counter()
    code = SUDDEN_ENDS[0]
    while code in SUDDEN_ENDS:
        moments = {
            stage: rng.uniform(0.0, LONGEST_DELAY_STEPS) * seconds
            for stage, seconds in step_seconds.items()
            if killed_in[stage] < KILLS_PER_STAGE
        }
        run = build(driver, recipe, ends={"kill_after": {"seconds": moments}})
        code = run.wait()
        killed_in.update([run.last_stage] if code in SUDDEN_ENDS else [])
    assert code == 0, run.events[-3:]
    assert run.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]
    assert killed_in.total() >= 20, killed_in
    assert set(killed_in) == set(step_seconds), killed_in
    assert Store.open(tmp_path / ".weightgate").verify(contents=True) == []


@pytest.mark.parametrize(
    ("fault", "stage", "step"), [("generators", "pretrain", 3), ("moments", "pretrain", 3), ("controller", "align", 4)]
)
def test_the_digests_notice_what_is_not_restored(
    driver: Driver, undisturbed: Run, tmp_path: Path, fault: str, stage: str, step: int
) -> None:
    recipe = locked(driver, tmp_path)
    stopped = build(driver, recipe, "--until", stage, ends=stopped_at(stage, step, signal.SIGINT))
    assert stopped.wait() == 1
    run = build(driver, recipe, "--until", stage, fault=fault)
    assert run.wait() == 0
    assert run.outcome["checkpoints"][stage] != undisturbed.outcome["checkpoints"][stage]


@pytest.mark.parametrize(
    ("number", "stage", "step"),
    [(signal.SIGINT, "finetune", 2), (signal.SIGTERM, "reward", 3), (signal.SIGINT, "align", 2)],
)
def test_an_interrupted_build_is_saved_and_goes_on(
    driver: Driver, undisturbed: Run, tmp_path: Path, number: signal.Signals, stage: str, step: int
) -> None:
    recipe = tiny_world.write_world(tmp_path)
    settings = tiny_world.changed(resume_seconds=3600.0)
    tiny_world.write_recipe(tmp_path, settings)
    assert driver.start("lock", "--recipe", recipe).wait() == 0
    run = build(driver, recipe, ends=stopped_at(stage, step, number))
    assert run.wait() == 1
    assert "run the build again to go on" in str(run.events[-1])
    assert len(list((tmp_path / ".weightgate" / "resume").rglob("step-*.safetensors"))) == 1
    again = build(driver, recipe)
    assert again.wait() == 0
    [started] = [e for e in again.events if e.get("event") == "stage started" and e["stage"] == stage]
    assert started["resumed_at"] >= step
    assert again.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]


def test_a_real_process_survives_a_kill(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    recipe = locked(driver, tmp_path)
    command = [sys.executable, "-c", KILLED_IN_ALIGN, "build", "--json", "--recipe", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode in SUDDEN_ENDS, done.stderr
    assert '"stage": "align"' in done.stderr
    run = build(driver, recipe)
    assert run.wait() == 0, run.events[-3:]
    assert run.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]

"""Killed at any moment and run again, a build ends with the same bytes as one that nothing disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from driven import Driver, Run

import tiny_world
from weightgate.store import Store

KILLS_PER_STAGE = 7
LONGEST_DELAY_STEPS = 1.2
"""A kill comes up to so many steps after an event, so that it falls into every part of a step and of what follows."""

CLI = [sys.executable, "-c", "from weightgate.cli import main; main()"]


def locked(driver: Driver, folder: Path) -> Path:
    recipe = tiny_world.write_world(folder)
    assert driver.start("lock", "--recipe", recipe).wait() == 0
    return recipe


def build(driver: Driver, recipe: Path, *arguments: str, fault: str | None = None) -> Run:
    return driver.start("build", "--json", "--recipe", recipe, *arguments, fault=fault)


@pytest.fixture(scope="module")
def undisturbed(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A build that nothing disturbed."""
    run = build(driver, locked(driver, tmp_path_factory.mktemp("undisturbed")))
    assert run.wait() == 0, run.events[-3:]
    return run


def interrupt_after(run: Run, stage: str, step: int, number: signal.Signals) -> int:
    """Send a signal once a step of a stage is done; return the exit code."""
    for event in run.follow():
        if event.get("event") == "progress" and (event["stage"], event["step"]) == (stage, step):
            run.send(number)
    assert run.code is not None
    return run.code


def test_two_builds_from_scratch_are_equal(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    run = build(driver, locked(driver, tmp_path))
    assert run.wait() == 0
    assert run.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]


def test_kills_at_random_moments_leave_no_trace(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    recipe = locked(driver, tmp_path)
    rng = random.Random(20)
    step_seconds = undisturbed.seconds_between_steps()
    killed_in: Counter[str] = Counter()
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        run, sent = build(driver, recipe), False
        for event in run.follow():
            stage = event.get("stage", "")
            if event.get("event") == "progress" and not sent and killed_in[stage] < KILLS_PER_STAGE:
                killed_in[stage] += 1
                time.sleep(rng.uniform(0.0, LONGEST_DELAY_STEPS) * step_seconds[stage])
                run.send(signal.SIGKILL)
                sent = True
        assert run.code is not None
        code = run.code
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
    assert interrupt_after(build(driver, recipe, "--until", stage), stage, step, signal.SIGINT) == 1
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
    run = build(driver, recipe)
    assert interrupt_after(run, stage, step, number) == 1
    assert "run the build again to go on" in str(run.events[-1])
    assert len(list((tmp_path / ".weightgate" / "resume").rglob("step-*.safetensors"))) == 1
    again = build(driver, recipe)
    assert again.wait() == 0
    [started] = [e for e in again.events if e.get("event") == "stage started" and e["stage"] == stage]
    assert started["resumed_at"] >= step
    assert again.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]


def test_a_real_process_survives_a_kill(driver: Driver, undisturbed: Run, tmp_path: Path) -> None:
    recipe = locked(driver, tmp_path)
    command = [*CLI, "build", "--json", "--recipe", str(recipe)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"stage started"' in line and '"align"' in line:
                time.sleep(0.1)
                process.kill()
    assert process.returncode == -signal.SIGKILL
    run = build(driver, recipe)
    assert run.wait() == 0, run.events[-3:]
    assert run.outcome["checkpoints"] == undisturbed.outcome["checkpoints"]

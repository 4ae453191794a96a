"""What a build spends besides training: lock, contract, gates, hashing and store writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.cases import BENCHMARKS, SEED
from benchmarks.inputs import read_inputs, write_inputs
from benchmarks.ours import job_of
from weightgate import recipe
from weightgate.incident import Knobs, generate
from weightgate.train.checkpoints import save_resume_point
from weightgate.train.environment import hold_still
from weightgate.train.loop import ResumeState
from weightgate.train.stages import train

LONG_BUILD_SECONDS = 30 * 60
BAR = 0.02
_RESUME_POINTS = 9
_QUICK_KNOBS = Knobs(seed=SEED, documents=600, demonstrations=400, comparisons=300, prompts=200)


@dataclass(frozen=True, kw_only=True)
class Build:
    """A finished build: wall-clock seconds, and what it said at the end."""

    seconds: float
    outcome: dict[str, Any]
    training_seconds: float


def measure(*, quick: bool) -> dict[str, Any]:
    """Build the built-in world and divide its time; then say what stays and what grows in a longer build."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "world"
        path = generate(folder, _QUICK_KNOBS if quick else Knobs(seed=SEED)).recipe
        if quick:
            _shorten(path)
        _say("locking twice: the first call tokenises the data, the second is the price of the lock alone")
        _weightgate("lock", path)
        began = time.perf_counter()
        _weightgate("lock", path)
        lock_seconds = time.perf_counter() - began
        _say("building")
        build = _build(path)
    _say("timing resume points")
    resume_seconds = recipe.Recipe.model_fields["resume_seconds"].default
    return _divided(build, lock_seconds, _seconds_per_resume_point(), resume_seconds)


def _divided(build: Build, lock_seconds: float, seconds_per_point: float, resume_seconds: float) -> dict[str, Any]:
    parts = {"lock": lock_seconds, **build.outcome["overhead_seconds"]}
    points = LONG_BUILD_SECONDS / resume_seconds
    longer = [
        {"name": name, "seconds": seconds, "grows": "with data, models and probes, not with time"}
        for name, seconds in parts.items()
    ]
    longer.append(
        {
            "name": "more resume points",
            "seconds": points * seconds_per_point,
            "grows": f"one of {seconds_per_point * 1000:.0f} ms every {resume_seconds:g} s, on top of those measured",
        }
    )
    total = sum(part["seconds"] for part in longer)
    return {
        "measured": {
            "passed": build.outcome["passed"],
            "reason": build.outcome["reason"],
            "build_seconds": build.seconds + lock_seconds,
            "training_seconds": build.training_seconds,
            "parts": parts,
        },
        "thirty_minutes": {
            "parts": longer,
            "seconds": total,
            "share": total / LONG_BUILD_SECONDS,
            "bar": BAR,
            "reached": bool(build.outcome["passed"]) and total / LONG_BUILD_SECONDS < BAR,
        },
    }


def _build(path: Path) -> Build:
    """Run `weightgate build --json`. A failed gate is a result like any other; a user error is not."""
    began = time.perf_counter()
    reply = _weightgate("build", path, "--json", accepted=(0, 1))
    seconds = time.perf_counter() - began
    said = [json.loads(line) for line in reply.stdout.splitlines() if line.startswith("{")]
    outcome = next((line for line in said if "overhead_seconds" in line), None)
    if outcome is None:
        raise RuntimeError(f"the build stopped early:\n{reply.stderr[-2000:]}")
    events = [json.loads(line) for line in reply.stderr.splitlines() if line.startswith('{"event"')]
    stages = sum(event["seconds"] for event in events if event["event"] == "stage finished")
    # A stage's time includes its store writes, which are counted apart.
    return Build(seconds=seconds, outcome=outcome, training_seconds=stages - outcome["overhead_seconds"]["store"])


def _weightgate(
    verb: str, path: Path, *options: str, accepted: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "weightgate"), verb, "--recipe", str(path), *options]
    reply = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if reply.returncode not in accepted:
        raise RuntimeError(f"weightgate {verb} failed:\n{reply.stdout[-1000:]}{reply.stderr[-2000:]}")
    return reply


def _seconds_per_resume_point() -> float:
    """Median time to write a resume point of PPO, the stage with the most state, at one million parameters."""
    case = replace(BENCHMARKS["ppo"][0].quick(), warmup=0, steps=2, batch=8)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, case)
        inputs = read_inputs(folder, case, compiled=False)
        often = replace(inputs, recipe=inputs.recipe.model_copy(update={"resume_seconds": 0.0}))

        def save(state: ResumeState) -> None:
            began = time.perf_counter()
            save_resume_point(folder / "resume", state)
            seconds.append(time.perf_counter() - began)

        hold_still(SEED, case.threads)
        train(
            job_of(often),
            _RESUME_POINTS + 1,
            resume=None,
            save=save,
            observe=lambda progress: None,
            stop_requested=lambda: False,
        )
    return median(seconds)


def _shorten(path: Path) -> None:
    """Make the recipe so short that its gates could not pass, and leave them out."""
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    for stage in plain["stages"]:
        stage["gates"] = []
        stage |= {"pretrain": {"tokens": 20_000}, "align": {"updates": 2}}.get(stage["kind"], {"epochs": 1})
    plain["threads"] = 1
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _say(text: str) -> None:
    print(f"overhead: {text}", file=sys.stderr, flush=True)

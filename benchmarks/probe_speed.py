"""How fast `weightgate snapshot` and `weightgate diff` are, as whole processes, from the start of Python to its end.

    PYTHONPATH=.:tests python -m benchmarks.probe_speed

Snapshot: the core suite, one sample each, of a local endpoint that takes 20 ms for each answer. The ideal is the time
that the endpoint alone needs: the questions, divided by how many may be open, rounded up, times 20 ms. Diff: two
made-up recordings of 1,000 prompts with 4 completions each, with the checks of the core suite, HTML and JUnit written.
On a machine that others use, wall time says little about diff, so the processor's seconds stand beside it.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.probe.scripted_endpoint import scripted_endpoint

from benchmarks import machine
from weightgate.probe.recording import Answered, Decoding, Header, Reply, Snapshot, TargetDescription
from weightgate.probe.snapshot_file import write_snapshot
from weightgate.probe.suites import core_suite, suite_digest

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "probe_speed.json"
LATENCY_SECONDS = 0.02
CONCURRENCIES = (4, 8)
PROMPTS, SAMPLES = 1_000, 4
RUNS = 5
_WORDS = [word for prompt in core_suite().prompts()[:40] for word in prompt.split()]


def main() -> None:
    """Measure both and write the result."""
    result: dict[str, Any] = {
        **machine.circumstances(ROOT),
        "runs": RUNS,
    }
    with tempfile.TemporaryDirectory() as name:
        result["snapshot"] = [_snapshot(Path(name), concurrency) for concurrency in CONCURRENCIES]
        result["diff"] = [
            _diff(Path(name), kind, longer) for kind, longer in (("no change", 0), ("longer answers", 30))
        ]
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("snapshot", "diff")}, indent=1))


def _snapshot(folder: Path, concurrency: int) -> dict[str, Any]:
    questions = len(core_suite())
    ideal = math.ceil(questions / concurrency) * LATENCY_SECONDS
    seconds = []
    for _ in range(RUNS):
        with scripted_endpoint(latency_seconds=LATENCY_SECONDS) as endpoint:
            target = (endpoint.url, "--model", "m", "--samples", "1", "--concurrency", str(concurrency))
            seconds.append(_timed(folder, "snapshot", *target, "--output", "s.jsonl"))
            assert len(endpoint.requests) == questions
        (folder / "s.jsonl").unlink()
    whole = median(wall for wall, _ in seconds)
    return {
        "concurrency": concurrency,
        "questions": questions,
        "ideal_seconds": ideal,
        "seconds": whole,
        "times_ideal": whole / ideal,
        "all_wall_and_processor_seconds": seconds,
    }


def _diff(folder: Path, kind: str, longer: int) -> dict[str, Any]:
    _write_recording(folder / "a.jsonl", seed=1, longer=0)
    _write_recording(folder / "b.jsonl", seed=2, longer=longer)
    reports = ("--html", "r.html", "--junit", "r.xml")
    seconds = [_timed(folder, "diff", "a.jsonl", "b.jsonl", *reports) for _ in range(RUNS)]
    size = (folder / "a.jsonl").stat().st_size
    shape = {"prompts": PROMPTS, "samples": SAMPLES, "bytes_each": size}
    middle = {"seconds": median(wall for wall, _ in seconds), "processor_seconds": median(cpu for _, cpu in seconds)}
    return {"kind": kind, **shape, **middle, "all_wall_and_processor_seconds": seconds}


def _timed(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run the program; returns seconds on the wall, and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "weightgate", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    assert done.returncode in (0, 1), done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _write_recording(path: Path, *, seed: int, longer: int) -> None:
    suite, rng = core_suite().probes, random.Random(seed)
    probes = tuple(replace(suite[at % len(suite)], id=f"{at}/{suite[at % len(suite)].id}") for at in range(PROMPTS))
    answers = tuple(
        Answered(probe=probe, sample=sample, reply=Reply(completion=_text(rng, longer)))
        for probe in probes
        for sample in range(SAMPLES)
    )
    header = Header(
        target=TargetDescription(kind="recording", place=path.name, model=path.stem),
        suite_name="made-up",
        suite_digest=suite_digest(probes),
        decoding=Decoding(samples=SAMPLES, temperature=0.7, max_tokens=512),
        created_at=None,
    )
    write_snapshot(path, Snapshot(header=header, probes=probes, answers=answers, complete=True))


def _text(rng: random.Random, longer: int) -> str:
    words = rng.choices(_WORDS, k=rng.randint(60 + longer, 220 + longer))
    return " ".join(word + "." * (rng.random() < 0.08) for word in words)


if __name__ == "__main__":
    main()

"""Runs the contenders of a case in turns, window by window, so that whatever disturbs the machine disturbs all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.cases import SAMPLES, Bar, Case, Contender
from benchmarks.inputs import write_inputs
from benchmarks.peers import ROOT

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class UnequalWork(Exception):
    """The sides did not start from the same model and loss, so their speeds say nothing."""


@dataclass(kw_only=True)
class Worker:
    """A contender's process and what it has reported."""

    contender: Contender
    process: subprocess.Popen[str]
    log: Path
    samples: list[dict[str, float]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    def reply(self) -> dict[str, Any]:
        """The next line it says. Raises `RuntimeError` with the end of its log if it died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
            raise RuntimeError(f"{self.contender.name} stopped early:\n{tail}")
        said: dict[str, Any] = json.loads(line)
        return said

    def go_on(self) -> dict[str, Any]:
        """Let it do one window, or come to its end after the last one."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.reply()

    def speed(self, unit: str) -> float:
        """Median over the windows, in `unit`."""
        return median(_speeds(self.samples, unit))


def _speeds(samples: list[dict[str, float]], unit: str) -> list[float]:
    if unit == "tokens/s":
        return [sample["tokens"] / sample["seconds"] for sample in samples]
    return [sample["seconds"] / sample["updates"] for sample in samples]


def run_case(benchmark: str, case: Case, peers: Path, *, quick: bool) -> dict[str, Any]:
    """Measure a case and return it as plain data. Raises `UnequalWork` or `RuntimeError`."""
    case = case.quick() if quick else case
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        _say(f"{case.name}: writing inputs")
        write_inputs(folder, case)
        workers = []
        for contender in case.contenders:
            _say(f"{case.name}: warming up {contender.name}")
            worker = stack.enter_context(_started(benchmark, case, contender, peers, folder, quick))
            worker.reply()
            workers.append(worker)
        for number in range(1, SAMPLES + 1):
            _say(f"{case.name}: window {number} of {SAMPLES}")
            for worker in workers:
                worker.samples.append(worker.go_on())
        for worker in workers:
            worker.end = worker.go_on()
        return _described(case, workers)


@contextmanager
def _started(
    benchmark: str, case: Case, contender: Contender, peers: Path, folder: Path, quick: bool
) -> Iterator[Worker]:
    """A contender's process; it is gone when the block ends."""
    python = sys.executable if contender.side == "ours" else str(peers)
    options = json.dumps({**contender.options, "quick": quick})
    log = folder / f"{case.contenders.index(contender)}.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [python, "-m", f"benchmarks.{contender.side}", str(folder), benchmark, case.name, options],
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(case.threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            try:
                yield Worker(contender=contender, process=process, log=log)
            finally:
                process.kill()


def _described(case: Case, workers: list[Worker]) -> dict[str, Any]:
    _require_equal_work(case, workers)
    _require_twin(case, workers)
    return {
        "name": case.name,
        "unit": case.unit,
        "batch": case.batch,
        "context": case.size.context,
        "architecture": case.size.architecture(),
        "threads": case.threads,
        "warmup_updates": case.warmup,
        "updates_per_window": case.steps,
        "compared_metric": case.first,
        "contenders": [_contender_described(case, worker) for worker in workers],
        "ratios": [_ratio(case, bar, {worker.contender.name: worker for worker in workers}) for bar in case.bars],
    }


def _contender_described(case: Case, worker: Worker) -> dict[str, Any]:
    curve = worker.end["curve"]
    return {
        "name": worker.contender.name,
        "side": worker.contender.side,
        "options": dict(worker.contender.options),
        "parameters": worker.end["parameters"],
        "median": worker.speed(case.unit),
        "values": _speeds(worker.samples, case.unit),
        "samples": worker.samples,
        "first": curve[0],
        "last": curve[-1],
        "curve": curve,
    }


def _require_equal_work(case: Case, workers: list[Worker]) -> None:
    """The same number of parameters, updates, and value of the first metric."""
    first = workers[0]
    start = first.end["curve"][0]
    for worker in workers:
        curve = worker.end["curve"]
        facts = {"parameters": worker.end["parameters"], "updates": len(curve)}
        expected = {"parameters": first.end["parameters"], "updates": case.updates}
        if facts != expected or not abs(curve[0] - start) <= case.tolerance * abs(start):
            raise UnequalWork(
                f"{case.name}: {worker.contender.name} has {facts} and starts at {case.first} {curve[0]:.5g}; "
                f"{first.contender.name} has {expected} and starts at {start:.5g}"
            )


def _require_twin(case: Case, workers: list[Worker]) -> None:
    """The whole curve of the twin, where the case has one."""
    ours = workers[0].end["curve"]
    for worker in workers:
        if worker.contender.name != case.twin:
            continue
        theirs = worker.end["curve"]
        gap = fmean(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
        if not gap <= case.tolerance:
            raise UnequalWork(f"{case.name}: the curve of {case.twin} differs from ours by {gap:.2%} on average")


def _ratio(case: Case, bar: Bar, workers: Mapping[str, Worker]) -> dict[str, Any]:
    """How many times faster ours is: from the medians, and window by window."""
    faster = max if case.unit == "tokens/s" else min
    best = faster(bar.theirs, key=lambda name: workers[name].speed(case.unit))
    ours, theirs = (_speeds(workers[name].samples, case.unit) for name in (bar.ours, best))
    windows = [a / b if case.unit == "tokens/s" else b / a for a, b in zip(ours, theirs, strict=True)]
    ratio = median(ours) / median(theirs) if case.unit == "tokens/s" else median(theirs) / median(ours)
    return {
        "ours": bar.ours,
        "theirs": best,
        "among": list(bar.theirs),
        "ratio": ratio,
        "window_ratios": windows,
        "bar": bar.at_least,
        "reached": None if bar.at_least is None else ratio >= bar.at_least,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

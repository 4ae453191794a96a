"""Our side of a measurement: a stage exactly as a build trains it. Arguments: folder, benchmark, case, options."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from benchmarks.cases import SEED, Case, find
from benchmarks.inputs import CPU, Inputs, loader_of, read_inputs
from benchmarks.pacer import Pacer
from weightgate.train.environment import hold_still
from weightgate.train.loop import Progress
from weightgate.train.models import new_model
from weightgate.train.objectives.reward import RewardModel
from weightgate.train.stages import Job, train


def job_of(inputs: Inputs) -> Job:
    """The job that a build would give to the stage, on random weights."""

    def network() -> Any:
        return new_model(inputs.config, seed=SEED, device=CPU, precision=inputs.recipe.precision)

    aligned = inputs.stage.kind == "align"
    return Job(
        recipe=inputs.recipe,
        stage=inputs.stage,
        tokenizer=inputs.tokenizer,
        rows=inputs.rows,
        policy=network(),
        parent_id=None if inputs.stage.kind == "pretrain" else "random weights",
        reference=network() if aligned else None,
        reward_model=RewardModel.from_causal(network(), seed=SEED).eval() if aligned else None,
        accelerator=Accelerator(cpu=True),
        precision=inputs.recipe.precision,
    )


def run_stage(inputs: Inputs, steps: int, observe: Callable[[Progress], None]) -> Job:
    """Train the stage for `steps` steps of the loop, resume points switched off, and return its job."""
    hold_still(SEED, inputs.recipe.threads)
    job = job_of(inputs)
    train(job, steps, resume=None, save=lambda state: None, observe=observe, stop_requested=lambda: False)
    return job


def _tokens_per_update(inputs: Inputs, case: Case) -> list[int]:
    """Real tokens, prompts included and padding not, of every update; zeros where tokens are not what is counted."""
    if case.unit != "tokens/s":
        return [0] * case.updates
    loader = loader_of(inputs)
    return [int((loader.batch(step).document_ids != 0).sum()) for step in range(case.updates)]


def main(folder: Path, case: Case, options: dict[str, Any]) -> None:
    pacer = Pacer(warmup=case.warmup, steps=case.steps)
    inputs = read_inputs(folder, case, compiled=options["compile"])
    tokens = _tokens_per_update(inputs, case)
    curve: list[float] = []

    def observe(progress: Progress) -> None:
        curve.append(progress.metrics[case.first])
        pacer.update_done(tokens[progress.step - 1])

    job = run_stage(inputs, case.updates, observe)
    pacer.say(done=True, curve=curve, parameters=sum(p.numel() for p in job.policy.parameters()))


if __name__ == "__main__":
    folder, benchmark, case, options = sys.argv[1:]
    settings = json.loads(options)
    found = find(benchmark, case)
    main(Path(folder), found.quick() if settings.pop("quick") else found, settings)

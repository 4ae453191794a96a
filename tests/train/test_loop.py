"""The loop: what it refuses, what it saves, and that several processes do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from token_models import CPU, loader_of, ours, rows_of

import tiny_world
from weightgate import recipe
from weightgate.errors import StoreError, TrainingStopped
from weightgate.train.loop import Interrupted, ResumeState, Settings, run
from weightgate.train.models import saved_tensors
from weightgate.train.objectives.tokens import TokenObjective

LENGTHS = [9, 14, 5, 20, 30, 3, 11, 7, 12, 16, 8, 6]
SETTINGS = Settings(
    steps=6, optimizer=recipe.Optimizer(), schedule=recipe.Schedule(), precision="fp32", resume_seconds=0.0
)
WORKER = Path(__file__).with_name("loop_worker.py")


def objective_of(**changed: Any) -> TokenObjective:
    loader = changed.pop("loader", None) or loader_of(rows_of(LENGTHS), batch=2)
    return TokenObjective(ours(), loader, micro_batch=changed.pop("micro_batch", 2), device=CPU)


def trained(objective: TokenObjective, settings: Settings = SETTINGS, **how: Any) -> dict[str, torch.Tensor]:
    run(objective, settings, Accelerator(cpu=True), **how)
    return {name: tensor.clone() for name, tensor in saved_tensors(objective.model).items()}


def frozen(state: ResumeState) -> ResumeState:
    """The state as a file would keep it."""
    plain = json.loads(json.dumps(state.plain))
    return replace(state, tensors={name: tensor.clone() for name, tensor in state.tensors.items()}, plain=plain)


def test_every_resume_point_leads_to_the_same_weights() -> None:
    points: list[ResumeState] = []
    whole = trained(objective_of(), save=lambda state: points.append(frozen(state)))
    assert [point.step for point in points] == [1, 2, 3, 4, 5]
    for point in points:
        again = trained(objective_of(), resume=point)
        assert all(torch.equal(again[name], tensor) for name, tensor in whole.items()), point.step


@pytest.mark.parametrize("missing", ["optimizer.master.model.model.norm.weight", "rng.torch"])
def test_a_resume_point_that_lacks_something_is_refused(missing: str) -> None:
    points: list[ResumeState] = []
    trained(objective_of(), save=lambda state: points.append(frozen(state)))
    del points[0].tensors[missing]
    with pytest.raises(StoreError, match="does not belong to this run") as caught:
        trained(objective_of(), resume=points[0])
    assert caught.value.mend == "weightgate build --restart"


def test_a_wish_to_stop_is_granted_after_the_step_and_saved_first() -> None:
    points: list[ResumeState] = []
    wishes = iter([False, True])
    with pytest.raises(Interrupted, match="after step 2 of 6"):
        trained(
            objective_of(),
            replace(SETTINGS, resume_seconds=1e9),
            save=points.append,
            stop_requested=lambda: next(wishes),
        )
    assert [point.step for point in points] == [2]


def test_a_batch_without_a_target_is_refused() -> None:
    rows = rows_of(LENGTHS)
    rows.supervised[:] = 0
    with pytest.raises(TrainingStopped, match="the batch has no tokens to learn from"):
        trained(objective_of(loader=loader_of(rows, batch=2)))


def test_a_broken_invariant_stops_before_the_first_update() -> None:
    objective = objective_of()
    before = {name: tensor.clone() for name, tensor in saved_tensors(objective.model).items()}
    objective.invariants = lambda batch: ["the moon is not cheese"]  # type: ignore[method-assign]
    with pytest.raises(TrainingStopped, match="before the first step: the moon is not cheese"):
        trained(objective)
    assert all(torch.equal(before[name], tensor) for name, tensor in saved_tensors(objective.model).items())


def test_a_loss_that_is_not_finite_names_the_records_and_leaves_the_weights() -> None:
    class Poisoned(TokenObjective):
        def nats(self, batch: Any) -> torch.Tensor:
            return super().nats(batch) * (float("nan") if self.poisoned else 1.0)

    loader = loader_of(rows_of(LENGTHS), batch=2)
    objective = Poisoned(ours(), loader, micro_batch=2, device=CPU)
    objective.poisoned = False
    weights: list[dict[str, torch.Tensor]] = []

    def observe(progress: Any) -> None:
        objective.poisoned = progress.step == 2
        weights.append({name: tensor.clone() for name, tensor in saved_tensors(objective.model).items()})

    with pytest.raises(TrainingStopped) as caught:
        trained(objective, observe=observe)
    assert "step 2: loss" in str(caught.value)
    for index in (index for row in loader.samples(2) for index in row):
        assert str(100 + index) in str(caught.value)
    assert all(torch.equal(weights[-1][name], tensor) for name, tensor in saved_tensors(objective.model).items())


def test_the_split_into_micro_batches_gives_the_same_weights() -> None:
    loaders = [loader_of(rows_of(LENGTHS), batch=4, packing=False) for _ in range(2)]
    whole = trained(objective_of(loader=loaders[0], micro_batch=4))
    parts = trained(objective_of(loader=loaders[1], micro_batch=1))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-5)


def test_curves_hold_every_step_of_a_short_run() -> None:
    objective = objective_of()
    found = run(objective, SETTINGS, Accelerator(cpu=True))
    assert [step for step, _ in found.curves["loss"]] == list(range(6))
    assert found.updates == 6
    assert found.positions == sum(int((objective.loader.batch(step).document_ids > 0).sum()) for step in range(6))


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Metrics of every step of every stage: of one process, and of two over gloo."""
    settings = tiny_world.changed("reward", batch=10, epochs=2.0)
    settings["architecture"]["config"]["attention_dropout"] = 0.0
    for stage in settings["stages"]:
        stage.pop("micro_batch", None)
        if "steps" in stage:
            stage["steps"] = 8
    folders = [tmp_path_factory.mktemp("processes") for _ in range(2)]
    for folder in folders:
        tiny_world.write_world(folder)
        tiny_world.write_recipe(folder, settings)
    return _run_processes(folders[0], 1), _run_processes(folders[1], 2)


def _run_processes(folder: Path, processes: int) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable]
    if processes > 1:
        environment["ACCELERATE_USE_CPU"] = "true"
        # The processes meet at a port that is theirs from the start: one that was only free a moment ago may be taken.
        command += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0"]
        command += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += [str(WORKER), str(folder / "weightgate.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "reward"])
def test_two_processes_follow_the_trajectory_of_one(trajectories: tuple[dict, dict], stage: str) -> None:
    """Tolerance in nats. Pairs do not divide evenly, so the end of a reward epoch has a row that must not count."""
    one, two = (trajectory[stage] for trajectory in trajectories)
    assert len(one) == len(two) >= 8
    for step, (expected, found) in enumerate(zip(one, two, strict=True)):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5), step
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3), step


def test_two_processes_align_as_one_does(trajectories: tuple[dict, dict]) -> None:
    """Completions depend on seed and prompt alone; a token sampled at a rounding edge may still differ later on."""
    one, two = (trajectory["align"] for trajectory in trajectories)
    assert len(one) == len(two)
    for name in ("score", "kl", "loss", "completion_tokens"):
        assert two[0][name] == pytest.approx(one[0][name], abs=1e-5), name
    assert all("kl" in metrics for metrics in two)

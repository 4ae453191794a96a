"""How fast this machine is at what the recipe asks of it: a few real steps, timed.

Two things are timed. Passes of the network give FLOP/s, which scale to any stage. Where a stage's steps are short, that
leaves out most of what they do (batches, the optimizer, judging completions), so a few steps of the stage's own loop
are run on a fresh network, and their pace is taken instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from weightgate.build.facts import Facts, Stage
from weightgate.build.workspace import Workspace
from weightgate.data.batches import TokenBatch
from weightgate.data.rows import PairRows
from weightgate.errors import TrainingStopped
from weightgate.plan import flops
from weightgate.plan.recipe_plan import StagePlan, recipe_shape
from weightgate.plan.resources import Speed
from weightgate.recipe import Align
from weightgate.stats import Estimate, Measurement, Unmeasured, mean
from weightgate.train.environment import hold_still
from weightgate.train.losses import linear_cross_entropy
from weightgate.train.models import head_weight, hidden_states, load_base, new_model
from weightgate.train.objectives.reward import RewardModel
from weightgate.train.sampling import generate
from weightgate.train.stages import Job, train

PROBE_SECONDS = 4.0
PROBE_REPEATS = 3
LONGEST_STEP_SECONDS = 2.0
"""Stages whose steps take longer by their FLOPs are forecast from FLOP/s alone: their fixed parts hardly count."""

_STAGE_SECONDS = 1.5
_LEAST_STEPS = 4
_ANY_NUMBER = 1_000_000_000
"""Steps of a timed loop, which is stopped long before."""


def unprobed() -> Speed:
    """The speed of a machine that was not asked."""
    nothing = Unmeasured(reason="not probed; leave out --no-probe")
    return Speed(training=nothing, sampling=nothing)


@contextmanager
def as_in_a_build(workspace: Workspace) -> Iterator[None]:
    """Compute as a build of the recipe does: its threads, and deterministic kernels. What was set before comes back."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    hold_still(workspace.recipe.seed, workspace.recipe.threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def probe_speed(workspace: Workspace, facts: Facts) -> Speed:
    """Time forward and backward passes, and sampling, of the recipe's own network on this machine."""
    recipe = workspace.recipe
    model = _fresh_policy(workspace, facts)
    stage = recipe.stages[0]
    rows = min(stage.micro_batch or stage.batch, 32)
    batch = _random_batch(rows, stage.context, facts.tokenizer.vocab_size).to(workspace.device)
    per_token = flops.token_flops(recipe_shape(recipe, facts.config), stage.context).training

    def step() -> float:
        hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.document_ids)
        weight = head_weight(model)
        flat = hidden.reshape(-1, hidden.shape[-1])
        if weight is None:
            flat.float().sum().backward()  # type: ignore[no-untyped-call]
        else:
            linear_cross_entropy(flat, weight, batch.labels.reshape(-1)).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        return per_token * rows * stage.context

    prompts = [[1] * 16] * rows

    def sample() -> float:
        generate(model, prompts, max_tokens=16, temperature=1.0, stop_ids=(), pad_id=facts.tokenizer.pad_id)
        return float(16 * rows)

    return Speed(training=_rate(step, "FLOP/s"), sampling=_rate(sample, "tokens/s"))


def _fresh_policy(workspace: Workspace, facts: Facts) -> Any:
    where: dict[str, Any] = {"device": workspace.device, "precision": workspace.precision}
    if workspace.recipe.base:
        return load_base(workspace.recipe.base, workspace.folder, **where)
    return new_model(facts.config, seed=workspace.recipe.seed, **where)


def _random_batch(rows: int, context: int, vocab_size: int) -> TokenBatch:
    ids = torch.randint(0, vocab_size, (rows, context), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(context).expand(rows, context).contiguous()
    return TokenBatch(input_ids=ids, labels=ids, position_ids=positions, document_ids=torch.ones_like(ids))


def _rate(work: Callable[[], float], unit: str) -> Measurement:
    """Work done per second over a few repeats after one that warms up."""
    work()
    rates: list[float] = []
    began = time.perf_counter()
    while len(rates) < PROBE_REPEATS or time.perf_counter() - began < PROBE_SECONDS / 2:
        start = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - start))
    return mean(rates, unit=unit)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of each timed step of a stage; the first one has what happens once in it."""

    first: float
    later: tuple[float, ...]

    def seconds(self, steps: int) -> Measurement:
        """Seconds that so many steps take."""
        each = mean(self.later, unit="seconds")
        if not isinstance(each, Estimate):
            return each
        return replace(
            each,
            value=self.first + (steps - 1) * each.value,
            low=self.first + (steps - 1) * each.low,
            high=self.first + (steps - 1) * each.high,
            method=f"{len(self.later) + 1} timed steps",
        )


def paced(workspace: Workspace, facts: Facts, plans: list[StagePlan]) -> list[StagePlan]:
    """The plans, with the time of every stage of short steps taken from steps of its own."""
    return [_paced(workspace, facts, plan) for plan in plans]


def _paced(workspace: Workspace, facts: Facts, plan: StagePlan) -> StagePlan:
    steps = facts.steps[plan.name]
    if not isinstance(plan.seconds, Estimate) or plan.seconds.value > LONGEST_STEP_SECONDS * steps:
        return plan
    pace = stage_pace(workspace, facts, workspace.recipe.stage(plan.name))
    return plan if pace is None else replace(plan, seconds=pace.seconds(steps))


def stage_pace(workspace: Workspace, facts: Facts, stage: Stage) -> Pace | None:
    """Time steps of a stage's own loop, on its own data, with networks that have learnt nothing.

    None where training them came to nothing. Completions are taken to be as long as the answers that the reward model
    learnt from, since a network that has learnt nothing never ends one.
    """
    job = _job(workspace, facts, _with_expected_length(workspace, facts, stage))
    ticks: list[float] = []

    def enough() -> bool:
        return len(ticks) > _LEAST_STEPS and ticks[-1] - ticks[0] > _STAGE_SECONDS

    began = time.perf_counter()
    with suppress(TrainingStopped):
        train(
            job,
            _ANY_NUMBER,
            resume=None,
            save=lambda state: None,
            observe=lambda progress: ticks.append(time.perf_counter()),
            stop_requested=enough,
        )
    if len(ticks) <= _LEAST_STEPS:
        return None
    later = tuple(after - before for before, after in pairwise(ticks))
    return Pace(first=ticks[0] - began, later=later)


def _job(workspace: Workspace, facts: Facts, stage: Stage) -> Job:
    aligning = isinstance(stage, Align)
    needs_reference = isinstance(stage, Align) and stage.adapter is None
    reward = RewardModel.from_causal(_fresh_policy(workspace, facts), seed=0) if aligning else None
    return Job(
        recipe=workspace.recipe,
        stage=stage,
        tokenizer=facts.tokenizer,
        rows=facts.prepared[stage.name].train,
        policy=_fresh_policy(workspace, facts),
        parent_id=f"fresh of {stage.name}" if workspace.recipe.parent_name(stage.name) else None,
        reference=_fresh_policy(workspace, facts) if needs_reference else None,
        reward_model=reward,
        accelerator=workspace.accelerator,
        precision=workspace.precision,
    )


def _with_expected_length(workspace: Workspace, facts: Facts, stage: Stage) -> Stage:
    if not isinstance(stage, Align):
        return stage
    judged = facts.prepared[workspace.recipe.reward_name(stage.name)].train
    if not isinstance(judged, PairRows) or not len(judged):
        return stage
    usual = max(1, min(stage.ppo.completion_tokens, round(judged.chosen.num_tokens / len(judged))))
    return stage.model_copy(update={"ppo": stage.ppo.model_copy(update={"completion_tokens": usual})})

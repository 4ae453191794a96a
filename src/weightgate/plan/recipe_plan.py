"""A recipe's stages with what each will cost, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightgate.errors import RecipeError
from weightgate.plan import flops
from weightgate.plan.memory import Kernel, Memory, Pass, Precision, ppo_memory, training_memory, weight_bytes
from weightgate.plan.resources import Disk, Speed, duration, stage_disk, together
from weightgate.plan.shapes import Shape, read_shape
from weightgate.recipe import Adapter, Align, Finetune, Pretrain, Recipe, Reward
from weightgate.stats import Measurement


@dataclass(frozen=True, kw_only=True)
class StageData:
    """What a stage reads in one pass: tokens, and samples (documents, conversations, pairs or prompts).

    Tokens of a pair are those of both sides.
    """

    tokens: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a build runs: how its processes compute, how many there are, and how fast one is."""

    speed: Speed
    precision: Precision
    kernel: Kernel = "matmul"
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What one stage will cost.

    Fields:
        steps: optimizer steps.
        tokens: positions that are computed, filled or not; of PPO those of prompts and completions, once.
        passes: how often each sample of the data is seen.
        parameters, trained_parameters: of all models of the stage that are trained, and the part that moves.
        flops: of all processes, every pass included.
        memory: peak of one process.
        seconds: of the stage on all processes, which share the work evenly.
    """

    name: str
    kind: str
    steps: int
    tokens: int
    passes: float
    parameters: int
    trained_parameters: int
    flops: float
    memory: Memory
    disk: Disk
    seconds: Measurement


def recipe_shape(recipe: Recipe, base_config: Mapping[str, Any] | None = None) -> Shape:
    """Read the network's shape: of the recipe's architecture, or of `base_config`, the base model's config.json.

    Raises `RecipeError` when the recipe starts from a base model and its configuration is not given.
    """
    if recipe.architecture is not None and recipe.tokenizer is not None:
        sizes = {"tie_word_embeddings": True, **recipe.architecture.config, "model_type": recipe.architecture.type}
        return read_shape(sizes, vocab_size=recipe.tokenizer.vocab_size)
    if base_config is None:
        raise RecipeError("the base model's configuration is needed to plan", where="base.model")
    return read_shape(base_config)


def plan_recipe(
    recipe: Recipe, data: Mapping[str, StageData], machine: Machine, *, base_config: Mapping[str, Any] | None = None
) -> list[StagePlan]:
    """Plan every stage. `data` maps a stage's name to what it reads; a stage that is not in it raises `KeyError`."""
    shape = recipe_shape(recipe, base_config)
    return [plan_stage(stage, shape, data[stage.name], machine) for stage in recipe.stages]


def plan_stage(
    stage: Pretrain | Finetune | Reward | Align, shape: Shape, data: StageData, machine: Machine
) -> StagePlan:
    """Plan one stage."""
    if isinstance(stage, Align):
        return _plan_align(stage, shape, data, machine)
    if isinstance(stage, Reward):
        return _plan_reward(stage, shape, data, machine)
    return _plan_tokens(stage, shape, data, machine)


def _plan_tokens(stage: Pretrain | Finetune, shape: Shape, data: StageData, machine: Machine) -> StagePlan:
    adapter = stage.adapter if isinstance(stage, Finetune) else None
    steps = token_steps(stage, data)
    tokens = steps * stage.batch * stage.context
    per_epoch = data.tokens if stage.packing else data.samples * stage.context
    total = flops.parameters(shape).total
    trained = total if adapter is None else flops.adapter_parameters(shape, adapter)
    cost = tokens * _token_training_flops(shape, stage.context, adapter)
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        steps=steps,
        tokens=tokens,
        passes=tokens / per_epoch if per_epoch else math.inf,
        parameters=total,
        trained_parameters=trained,
        flops=cost,
        memory=training_memory(shape, _pass(stage, machine, context=stage.context, adapter=adapter)),
        disk=_disk(shape, machine, saved=total, trained=trained, tokens=data.tokens),
        seconds=duration(_recomputed(cost, stage.activation_checkpointing) / machine.processes, machine.speed.training),
    )


def token_steps(stage: Pretrain | Finetune, data: StageData) -> int:
    """Optimizer steps of a stage on tokens, rounded up; packed rows count as full."""
    per_step = stage.batch * stage.context
    if stage.steps is not None:
        return stage.steps
    if stage.tokens is not None:
        return max(1, math.ceil(stage.tokens / per_step))
    epochs = stage.epochs or 0.0
    if stage.packing:
        return max(1, math.ceil(epochs * data.tokens / per_step))
    return max(1, math.ceil(epochs * data.samples / stage.batch))


def _token_training_flops(shape: Shape, context: int, adapter: Adapter | None) -> float:
    if adapter is None:
        return flops.token_flops(shape, context).training
    return flops.adapter_training_flops(shape, context, adapter)


def _recomputed(cost: float, checkpointing: bool) -> float:
    """FLOPs that are executed: activation checkpointing runs each forward pass twice, four parts instead of three."""
    return cost * 4 / flops.TRAINING_FACTOR if checkpointing else cost


def _plan_reward(stage: Reward, shape: Shape, data: StageData, machine: Machine) -> StagePlan:
    steps = max(1, math.ceil(stage.epochs * data.samples / stage.batch))
    mean_row = min(stage.context, data.tokens / (2 * data.samples)) if data.samples else stage.context
    tokens = round(2 * steps * stage.batch * mean_row)
    total = flops.reward_parameters(shape)
    cost = tokens * flops.reward_training_flops(shape, max(1, round(mean_row)))
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        steps=steps,
        tokens=tokens,
        passes=stage.epochs,
        parameters=total,
        trained_parameters=total,
        flops=cost,
        memory=training_memory(shape, _pass(stage, machine, context=stage.context, sides=2), reward=True),
        disk=_disk(shape, machine, saved=total, trained=total, tokens=data.tokens),
        seconds=duration(_recomputed(cost, stage.activation_checkpointing) / machine.processes, machine.speed.training),
    )


def _plan_align(stage: Align, shape: Shape, data: StageData, machine: Machine) -> StagePlan:
    """PPO: its rollouts run at the speed of sampling, everything else at the speed of training."""
    episodes = stage.updates * stage.batch
    completion = stage.ppo.completion_tokens
    prompt = round(min(stage.context, data.tokens / data.samples)) if data.samples else stage.context
    episode = flops.ppo_episode_flops(
        shape, prompt_tokens=max(1, prompt), completion_tokens=completion, epochs=stage.ppo.epochs, attention="full"
    )
    policy, value = flops.parameters(shape).total, flops.reward_parameters(shape)
    trained = (policy if stage.adapter is None else flops.adapter_parameters(shape, stage.adapter)) + value
    computed = _recomputed(episode.update, stage.activation_checkpointing)
    computed += episode.reference + episode.reward + episode.value
    training = duration(episodes * computed / machine.processes, machine.speed.training)
    sampling = duration(episodes * completion / machine.processes, machine.speed.sampling)
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        steps=stage.updates * stage.ppo.epochs * stage.ppo.minibatches,
        tokens=episodes * (prompt + completion),
        passes=episodes / data.samples if data.samples else math.inf,
        parameters=policy + value,
        trained_parameters=trained,
        flops=episodes * episode.total,
        memory=ppo_memory(
            shape,
            _pass(stage, machine, context=prompt + completion, adapter=stage.adapter, parts=stage.ppo.minibatches),
            rollout_rows=math.ceil(stage.batch / machine.processes),
        ),
        disk=_disk(shape, machine, saved=policy, trained=trained, tokens=data.tokens),
        seconds=together(training, sampling),
    )


def _pass(
    stage: Pretrain | Finetune | Reward | Align,
    machine: Machine,
    *,
    context: int,
    adapter: Adapter | None = None,
    sides: int = 1,
    parts: int = 1,
) -> Pass:
    """One pass of the stage in one process; a row has `sides` texts, an update is cut into `parts` steps."""
    share = math.ceil(stage.batch / (machine.processes * parts))
    rows = min(stage.micro_batch or share, share)
    return Pass(
        rows=sides * rows,
        context=context,
        precision=machine.precision,
        kernel=machine.kernel,
        checkpointing=stage.activation_checkpointing,
        adapter=adapter,
        accumulating=rows < share,
    )


def _disk(shape: Shape, machine: Machine, *, saved: int, trained: int, tokens: int) -> Disk:
    return stage_disk(
        saved_parameters=saved,
        trained_parameters=trained,
        weight_bytes=weight_bytes(machine.precision),
        tokens=tokens,
        vocab_size=shape.vocab_size,
    )

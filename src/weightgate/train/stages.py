"""One stage: a parent's network and tokenised data become an objective, and the trained objective a checkpoint.

Each kind of stage has one function that assembles its objective and says what is kept of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor

from weightgate.data.packing import PairLoader, PromptLoader, TokenLoader
from weightgate.data.rows import PairRows, TokenRows
from weightgate.data.tokenizer import TEMPLATE_FILE, Tokenizer
from weightgate.errors import LockError, ModelError, TrainingStopped
from weightgate.recipe import Align, Finetune, Pretrain, Recipe, Reward
from weightgate.train import adapters
from weightgate.train.checkpoints import ADAPTER_CONFIG, MODEL_CONFIG, weights_digest
from weightgate.train.loop import Progress, ResumeState, Settings, Trained, run
from weightgate.train.models import config_json, saved_tensors
from weightgate.train.objectives.ppo import PPOObjective, Process, Roles, new_value_model
from weightgate.train.objectives.reward import RewardModel, RewardObjective, calibrate, classification_config
from weightgate.train.objectives.tokens import TokenObjective


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a stage trains from. `policy` is consumed: it is trained in place.

    `parent_id` is the checkpoint whose weights are in `policy`, None for random ones. `reference` is that checkpoint
    once more, loaded apart, for an alignment without an adapter.
    """

    recipe: Recipe
    stage: Pretrain | Finetune | Reward | Align
    tokenizer: Tokenizer
    rows: TokenRows | PairRows
    policy: Any
    parent_id: str | None
    reference: Any | None
    reward_model: RewardModel | None
    accelerator: Accelerator
    precision: str
    budget_seconds: float = math.inf

    @property
    def device(self) -> torch.device:
        """Where the stage trains."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def micro_batch(self) -> int:
        """Rows per forward pass on this process."""
        share = ceil(self.stage.batch / self.accelerator.num_processes)
        return min(self.stage.micro_batch or share, share)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a trained stage leaves: tensors and files of its checkpoint."""

    tensors: Mapping[str, Tensor]
    files: Mapping[str, bytes]


def _shard(job: Job, loader: Any) -> Any:
    """The loader of this process's rows."""
    return loader.shard(job.accelerator.process_index, job.accelerator.num_processes)


Keep = Callable[[], Kept]
"""Takes what is kept of a stage once it is trained."""


def num_steps(
    stage: Pretrain | Finetune | Reward | Align, rows: TokenRows | PairRows, recipe: Recipe, pad_id: int
) -> int:
    """Steps of the loop that a stage takes on these rows."""
    if isinstance(stage, Align):
        return stage.updates
    if isinstance(stage, Reward):
        assert isinstance(rows, PairRows)
        return max(1, pair_loader(stage, rows, recipe, pad_id).steps_in_epochs(stage.epochs))
    if stage.steps is not None:
        return stage.steps
    assert isinstance(rows, TokenRows)
    loader = token_loader(stage, rows, recipe, pad_id)
    if stage.tokens is not None:
        return max(1, loader.steps_for_tokens(stage.tokens))
    assert stage.epochs is not None
    return max(1, loader.steps_in_epochs(stage.epochs))


def token_loader(stage: Pretrain | Finetune, rows: TokenRows, recipe: Recipe, pad_id: int) -> TokenLoader:
    """Packed or single samples, in an order that follows from the recipe's seed."""
    return TokenLoader(
        rows=rows, context=stage.context, batch=stage.batch, seed=recipe.seed, packing=stage.packing, pad_id=pad_id
    )


def pair_loader(stage: Reward, rows: PairRows, recipe: Recipe, pad_id: int) -> PairLoader:
    """Preference pairs in an order that follows from the recipe's seed."""
    return PairLoader(rows=rows, batch=stage.batch, seed=recipe.seed, pad_id=pad_id)


def train(
    job: Job,
    steps: int,
    *,
    resume: ResumeState | None,
    save: Callable[[ResumeState], None],
    observe: Callable[[Progress], None],
    stop_requested: Callable[[], bool],
) -> tuple[Kept, Trained]:
    """Train one stage for `steps` steps. See `loop.run` for what is raised."""
    _require_supported(job)
    objective, keep = _ASSEMBLERS[job.stage.kind](job)
    # FSDP2 shards layer by layer, and reads from this attribute what a layer is.
    objective._no_split_modules = job.policy._no_split_modules
    if job.stage.activation_checkpointing:
        job.policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if job.recipe.compile:
        job.policy.get_decoder().compile(dynamic=False)
    settings = Settings(
        steps=steps,
        optimizer=job.stage.optimizer,
        schedule=job.stage.schedule,
        precision=job.precision,
        resume_seconds=job.recipe.resume_seconds,
        budget_seconds=job.budget_seconds,
    )
    trained = run(
        objective,
        settings,
        job.accelerator,
        resume=resume,
        save=save,
        observe=observe,
        stop_requested=stop_requested,
    )
    return keep(), trained


def _require_supported(job: Job) -> None:
    """PPO samples from its policy outside the wrapped forward pass, where FSDP2 would leave the weights in shards."""
    if isinstance(job.stage, Align) and job.accelerator.distributed_type == DistributedType.FSDP:
        raise ModelError(
            "PPO does not run on sharded weights yet",
            where=f"stages.{job.stage.name}",
            expected="data parallelism, one whole model on each device",
            found="FSDP",
            mend="accelerate launch --multi_gpu, without --use_fsdp",
        )


def trainable_census(job: Job) -> adapters.TrainableCensus:
    """Count what the stage would train. Raises `ModelError` for an adapter that trains nothing or everything."""
    census = adapters.trainable_census(_adapted(job))
    if getattr(job.stage, "adapter", None) is not None:
        adapters.check_trainable(census)
    return census


def _adapted(job: Job) -> Any:
    """The policy with the stage's fresh adapter, or with every parameter trainable."""
    adapter = None if isinstance(job.stage, Pretrain) else job.stage.adapter
    if adapter is None:
        return job.policy.requires_grad_(True)
    return adapters.attach(job.policy, adapter, job.recipe.seed)


def _tokens(job: Job) -> tuple[TokenObjective, Keep]:
    assert isinstance(job.stage, Pretrain | Finetune)
    assert isinstance(job.rows, TokenRows)
    loader = token_loader(job.stage, job.rows, job.recipe, job.tokenizer.pad_id)
    model = _adapted(job)
    if job.stage.kind == "finetune" and job.stage.adapter is not None:
        adapters.check_starts_at_base(model, loader.batch(0).input_ids[:1].to(job.device))
    objective = TokenObjective(
        model,
        _shard(job, loader),
        micro_batch=job.micro_batch,
        device=job.device,
        vocab_size=_vocab(job) if job.parent_id is None else None,
    )
    return objective, lambda: _kept_policy(job, model)


def _vocab(job: Job) -> int:
    return int(job.policy.config.get_text_config().vocab_size)


def _kept_policy(job: Job, model: Any) -> Kept:
    """A policy's tensors: all of them, or the adapter's factors on top of the parent."""
    files = _shared_files(job)
    if not hasattr(model, "peft_config"):
        return Kept(tensors=saved_tensors(model), files=files)
    unmoved = adapters.unmoved_targets(model)
    if unmoved:
        raise TrainingStopped(f"training never moved the adapter on {', '.join(unmoved[:4])}")
    saved = adapters.save_adapter(model, str(job.parent_id))
    config = json.dumps(saved.config, sort_keys=True, indent=2).encode()
    return Kept(tensors=saved.tensors, files=files | {ADAPTER_CONFIG: config})


def _shared_files(job: Job) -> dict[str, bytes]:
    """Configuration and tokenizer. Raw text is trained on without a chat template, so none is kept with it."""
    files = {MODEL_CONFIG: _json_bytes(config_json(job.policy.config)), **job.tokenizer.files()}
    if isinstance(job.stage, Pretrain) and job.recipe.base is None:
        files.pop(TEMPLATE_FILE, None)
    return files


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=2).encode()


def _reward(job: Job) -> tuple[RewardObjective, Keep]:
    assert isinstance(job.stage, Reward)
    assert isinstance(job.rows, PairRows)
    adapted = _adapted(job)
    model = RewardModel.from_causal(adapted, seed=job.recipe.seed)
    loader = pair_loader(job.stage, job.rows, job.recipe, job.tokenizer.pad_id)
    objective = RewardObjective(
        model, _shard(job, loader), center=job.stage.center, micro_batch=job.micro_batch, device=job.device
    )
    return objective, lambda: _kept_reward(job, objective, loader, adapted)


def _kept_reward(job: Job, objective: RewardObjective, loader: PairLoader, adapted: Any) -> Kept:
    """Fold an adapter in, shift the scores so that chosen completions average 0, and keep the export's names."""
    if hasattr(adapted, "merge_and_unload"):
        adapted.merge_and_unload()
    batches = (loader.batch(step).to(job.device) for step in range(loader.num_batches(0)))
    calibrate(objective.model, ((batch.chosen_ids, batch.chosen_mask) for batch in batches))
    files = _shared_files(job)
    files[MODEL_CONFIG] = _json_bytes(classification_config(config_json(job.policy.config)))
    return Kept(tensors=saved_tensors(objective.model), files=files)


def _ppo(job: Job) -> tuple[PPOObjective, Keep]:
    assert isinstance(job.stage, Align)
    assert isinstance(job.rows, TokenRows)
    assert job.reward_model is not None
    value = new_value_model(job.stage.ppo.value_start, job.policy, job.reward_model)
    if job.stage.adapter is None:
        _require_same_weights(job.stage.name, job.reference, job.policy)
    loader = PromptLoader(rows=job.rows, batch=job.stage.batch, seed=job.recipe.seed, pad_id=job.tokenizer.pad_id)
    process = Process(
        device=job.device,
        rank=job.accelerator.process_index,
        processes=job.accelerator.num_processes,
        reduce=lambda total: job.accelerator.reduce(total, "sum"),
    )
    policy = _adapted(job)
    objective = PPOObjective(
        Roles(policy=policy, value=value, reference=job.reference, reward=job.reward_model),
        _shard(job, loader),
        job.stage.ppo,
        stop_ids=job.tokenizer.stop_ids,
        pad_id=job.tokenizer.pad_id,
        micro_batch=job.micro_batch,
        seed=job.recipe.seed,
        process=process,
    )
    return objective, lambda: _kept_policy(job, policy)


def _require_same_weights(stage: str, reference: Any, policy: Any) -> None:
    """The reference model is the parent, bit for bit; anything else measures the KL to the wrong thing."""
    expected, found = (weights_digest(saved_tensors(model)) for model in (policy, reference))
    if expected != found:
        raise LockError(
            "the reference model is not the parent of this stage",
            where=f"stages.{stage}",
            expected=expected,
            found=found,
            mend="weightgate verify",
        )


_ASSEMBLERS: dict[str, Callable[[Job], tuple[Any, Keep]]] = {
    "pretrain": _tokens,
    "finetune": _tokens,
    "reward": _reward,
    "align": _ppo,
}

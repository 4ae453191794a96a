"""The peers' side of a measurement, in their own environment. Arguments: folder, benchmark, case, options."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.cases import (
    LEARNING_RATE,
    MODEL_FOLDER,
    PEER_FILE,
    PPO_EPOCHS,
    PPO_LEARNING_RATE,
    RESPONSE_TOKENS,
    REWARD_FOLDER,
    SEED,
    TEMPERATURE,
    Case,
    find,
)
from benchmarks.pacer import Pacer

_QUIET = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False}


class Clock(TrainerCallback):
    """Tells the pacer of every update, and keeps the metric that both sides must start with."""

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.curve: list[Any] = []
        self.tokens = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pacer.update_done(self.tokens)


class LoggedClock(Clock):
    """The clock for a trainer that logs every update by itself."""

    def __init__(self, pacer: Pacer, metric: str) -> None:
        super().__init__(pacer)
        self.metric = metric

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.curve.append((logs or {})[self.metric])


def timed(trainer_class: type[Trainer]) -> type[Trainer]:
    """A trainer that counts real tokens and keeps the loss of every step as a tensor, which costs no waiting."""

    class Timed(trainer_class):  # type: ignore[misc, valid-type]
        clock: Clock

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> torch.Tensor:
            self.clock.tokens = _real_tokens(inputs)
            loss: torch.Tensor = super().training_step(model, inputs, *rest, **named)
            self.clock.curve.append(loss)
            return loss

    return Timed


def _real_tokens(inputs: dict[str, Any]) -> float:
    """Tokens of a batch that are not padding."""
    if "num_tokens" in inputs:
        return float(inputs.pop("num_tokens").sum())
    mask = inputs.get("attention_mask")
    return float(inputs["input_ids"].numel() if mask is None else mask.sum())


def pretrain(folder: Path, case: Case, options: dict[str, Any], clock: Clock, output: str) -> Any:
    """`Trainer` on the packed rows of our loader, in its order.

    Without position ids that start again in each document, its attention crosses documents, which costs it less.
    """
    arrays = np.load(folder / PEER_FILE)
    names = ["input_ids", "labels", "num_tokens", *(["position_ids"] if options["apart"] else [])]
    tensors = {name: torch.from_numpy(arrays[name]) for name in names}
    rows = [{name: tensors[name][index] for name in names} for index in range(len(arrays["input_ids"]))]
    model = AutoModelForCausalLM.from_pretrained(folder / MODEL_FOLDER, **_attention(options))
    trainer = timed(Trainer)(
        model=model,
        args=TrainingArguments(output, **_shared(case, options), train_sampling_strategy="sequential"),
        train_dataset=rows,
        callbacks=[clock],
    )
    trainer.clock = clock
    return trainer


def finetune(folder: Path, case: Case, options: dict[str, Any], clock: Clock, output: str) -> Any:
    """`SFTTrainer` on the tokenised samples of our data set; loss on the same tokens."""
    arrays = np.load(folder / PEER_FILE)
    samples = {
        "input_ids": _sequences(arrays, "input_ids"),
        "labels": [
            np.where(supervised, ids.astype(np.int64), -100)
            for ids, supervised in zip(_sequences(arrays, "input_ids"), _sequences(arrays, "supervised"), strict=True)
        ],
    }
    packing = options["packing"]
    args = SFTConfig(
        output,
        **_shared(case, options),
        gradient_checkpointing=False,
        max_length=case.size.context,
        packing=packing is not None,
        **({} if packing is None else {"packing_strategy": packing}),
    )
    trainer = timed(SFTTrainer)(
        model=AutoModelForCausalLM.from_pretrained(folder / MODEL_FOLDER, **_attention(options)),
        args=args,
        processing_class=AutoTokenizer.from_pretrained(folder / MODEL_FOLDER),
        train_dataset=datasets.Dataset.from_dict(samples),
        callbacks=[clock],
    )
    trainer.clock = clock
    return trainer


def reward(folder: Path, case: Case, options: dict[str, Any], clock: Clock, output: str) -> Any:
    """`RewardTrainer` on the pairs of our loader, in its order."""
    arrays = np.load(folder / PEER_FILE)
    pairs = {f"{side}_ids": _sequences(arrays, side) for side in ("chosen", "rejected")}
    args = RewardConfig(
        output,
        **_shared(case, options),
        gradient_checkpointing=False,
        max_length=case.size.context,
        train_sampling_strategy="sequential",
    )
    trainer = timed(RewardTrainer)(
        model=_reward_model(folder, options),
        args=args,
        processing_class=AutoTokenizer.from_pretrained(folder / MODEL_FOLDER),
        train_dataset=datasets.Dataset.from_dict(pairs),
        callbacks=[clock],
    )
    trainer.clock = clock
    return trainer


def align(folder: Path, case: Case, options: dict[str, Any], clock: Clock, output: str) -> Any:
    """`PPOTrainer` from the same policy, reward model and prompts, all four networks in the case's precision."""
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder / MODEL_FOLDER, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(folder / MODEL_FOLDER, **_attention(options) | {"dtype": dtype})
    scorer = _reward_model(folder, options).to(dtype)
    args = PPOConfig(
        output,
        **_QUIET,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        seed=SEED,
        per_device_train_batch_size=case.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        local_rollout_forward_batch_size=case.batch,
        total_episodes=case.batch * case.updates,
        num_ppo_epochs=PPO_EPOCHS,
        response_length=RESPONSE_TOKENS,
        temperature=TEMPERATURE,
        stop_token="eos",
        missing_eos_penalty=None,
        num_sample_generations=0,
        learning_rate=PPO_LEARNING_RATE,
        lr_scheduler_type="constant",
    )
    return PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=copy.deepcopy(policy),
        reward_model=scorer,
        value_model=copy.deepcopy(scorer),
        train_dataset=datasets.Dataset.from_dict({"input_ids": np.load(folder / PEER_FILE)["prompts"]}),
        callbacks=[clock],
    )


def _attention(options: dict[str, Any]) -> dict[str, Any]:
    return {"attn_implementation": options["attention"], "dtype": torch.float32}


def _reward_model(folder: Path, options: dict[str, Any]) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder / REWARD_FOLDER, **_attention(options))


def _shared(case: Case, options: dict[str, Any]) -> dict[str, Any]:
    """The optimizer, schedule and precision of our recipe, in the names of `TrainingArguments`."""
    return {
        **_QUIET,
        "use_cpu": True,
        "bf16": case.precision == "bf16",
        "seed": SEED,
        "max_steps": case.updates,
        "per_device_train_batch_size": case.batch,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "torch_compile": options["compile"],
    }


def _sequences(arrays: Any, name: str) -> list[np.ndarray]:
    return np.split(arrays[name], arrays[f"{name}_offsets"][1:-1])


_TRAINERS = {"pretrain": pretrain, "finetune": finetune, "reward": reward, "align": align}


def main(folder: Path, case: Case, options: dict[str, Any]) -> None:
    pacer = Pacer(warmup=case.warmup, steps=case.steps)
    torch.set_num_threads(case.threads)
    clock = LoggedClock(pacer, "loss/value_avg") if case.stage == "align" else Clock(pacer)
    with tempfile.TemporaryDirectory() as output:
        trainer = _TRAINERS[case.stage](folder, case, options, clock, output)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    network = trainer.policy_model if case.stage == "align" else trainer.model
    below_head = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("score."))
    pacer.say(done=True, curve=[float(value) for value in clock.curve], parameters=below_head)


if __name__ == "__main__":
    folder, benchmark, case, options = sys.argv[1:]
    settings = json.loads(options)
    found = find(benchmark, case)
    main(Path(folder), found.quick() if settings.pop("quick") else found, settings)

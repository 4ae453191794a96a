"""Write tests/train/golden/*.safetensors from an independent implementation: TRL 1.12.0, the last one with PPO.

TRL's own trainer runs on a tiny random Llama in float32; what it computes inside `train` is copied out of its frame.
TRL has dependencies of its own, so it gets an environment of its own:

    python -m venv .peers
    .peers/bin/pip install torch trl==1.12.0
    HF_HUB_DISABLE_TELEMETRY=1 TRL_EXPERIMENTAL_SILENCE=1 .peers/bin/python scripts/golden_from_trl.py
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import tokenizers
import torch
import trl
from accelerate import Accelerator
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

FOLDER = Path(__file__).parent.parent / "tests" / "train" / "golden"
PAD, EOS, VOCAB = 0, 1, 20
MODEL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": None,
}
COMPLETIONS, MICRO_BATCH, COMPLETION_TOKENS = 8, 4, 6
# Rates and clip ranges that let two epochs reach the clipped parts of both losses.
SHARED = {
    "num_ppo_epochs": 2,
    "learning_rate": 3e-3,
    "adam_epsilon": 1e-5,
    "cliprange": 0.1,
    "cliprange_value": 0.05,
    "vf_coef": 0.1,
    "gamma": 0.98,
    "lam": 0.9,
    "kl_coef": 0.2,
    "temperature": 0.7,
    "missing_eos_penalty": 0.5,
}
CASES = {
    "k1": {"kl_estimator": "k1", "whiten_rewards": False},
    "k3": {"kl_estimator": "k3", "whiten_rewards": True},
}
CAPTURED = (
    "query_responses",
    "sequence_lengths",
    "contain_eos_token",
    "logprobs",
    "ref_logprobs",
    "values",
    "scores",
    "rewards",
    "advantages",
    "returns",
)


def tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{index}": index for index in range(VOCAB)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w2"))
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", eos_token="w1", unk_token="w2")
    made.padding_side = "left"
    return made


def networks() -> dict[str, torch.nn.Module]:
    """A policy, a reference that differs from it so that the KL is not 0, and a reward model."""
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(**MODEL))
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    reward = LlamaForSequenceClassification(LlamaConfig(**MODEL, num_labels=1))
    return {"policy": policy, "reference": reference, "reward": reward}


def named(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in module.state_dict().items()}


def prompts() -> datasets.Dataset:
    """Three batches although only one is used: on the last batch of its loader, accelerate stops accumulating."""
    generator = np.random.default_rng(0)
    lengths = [3, 5, 2, 4, 5, 1, 3, 4] * 3
    return datasets.Dataset.from_dict({"input_ids": [generator.integers(2, VOCAB, n).tolist() for n in lengths]})


class Recorder:
    """Stands in for a function that the trainer calls with no arguments, and reads the trainer's local variables.

    The first call after the rollouts are judged gives the tensors; the last call of each epoch gives its permutation.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.epochs: dict[int, torch.Tensor] = {}

    def __call__(self) -> None:
        seen = sys._getframe(1).f_locals
        if "returns" in seen and not self.tensors:
            self.tensors = {name: seen[name].detach().clone() for name in CAPTURED}
            self.tensors["context_length"] = torch.tensor(seen["context_length"])
        if "b_inds" in seen:
            self.epochs[seen["ppo_epoch_idx"]] = torch.from_numpy(seen["b_inds"].copy())


def run_ppo(initial: dict[str, torch.nn.Module], case: dict[str, object]) -> dict[str, torch.Tensor]:
    """One batch of rollouts and its updates in TRL's trainer; returns what it computed and the weights it left."""
    models = {name: copy.deepcopy(model) for name, model in initial.items()}
    recorder = Recorder()
    ppo_trainer.empty_cache = recorder
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=COMPLETIONS // MICRO_BATCH,
            total_episodes=COMPLETIONS,
            local_rollout_forward_batch_size=COMPLETIONS,
            response_length=COMPLETION_TOKENS,
            stop_token="eos",
            num_sample_generations=0,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            seed=3,
            **SHARED,
            **case,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer(),
            model=models["policy"],
            ref_model=models["reference"],
            reward_model=models["reward"],
            value_model=copy.deepcopy(models["reward"]),
            train_dataset=prompts(),
        )
        trainer.train()
        trained = trainer.model
    epochs = torch.stack([recorder.epochs[epoch] for epoch in sorted(recorder.epochs)])
    return {
        **recorder.tensors,
        "epochs": epochs,
        **named("after.policy", trained.policy),
        **named("after.value", trained.value_model),
    }


def write_ppo() -> None:
    initial = networks()
    tensors = {name: tensor for prefix, model in initial.items() for name, tensor in named(prefix, model).items()}
    for name, case in CASES.items():
        tensors |= {f"{name}.{key}": value for key, value in run_ppo(initial, case).items()}
    described = {
        "trl": trl.__version__,
        "model": json.dumps(MODEL),
        "shared": json.dumps(SHARED | {"micro_batch": MICRO_BATCH, "response_length": COMPLETION_TOKENS}),
        "cases": json.dumps(CASES),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, FOLDER / "ppo.safetensors", described)


def write_reward() -> None:
    """Loss and gradients of TRL's `RewardTrainer.compute_loss`, with and without its centre term."""
    model = networks()["reward"].train()
    generator = np.random.default_rng(1)
    pairs = [
        {
            f"{side}_ids": generator.integers(2, VOCAB, length).tolist()
            for side, length in zip(sides, lengths, strict=True)
        }
        for sides, lengths in ((("chosen", "rejected"), pair) for pair in ((5, 7), (9, 4), (3, 3), (8, 9)))
    ]
    inputs = DataCollatorForPreference(pad_token_id=PAD)(pairs)
    tensors = named("reward", model)
    tensors |= {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    for name, center in (("plain", None), ("centered", 0.05)):
        trainer = SimpleNamespace(
            model=model,
            args=SimpleNamespace(center_rewards_coefficient=center),
            accelerator=Accelerator(cpu=True),
            _metrics=defaultdict(lambda: defaultdict(list)),
            _total_train_tokens=0,
        )
        model.zero_grad()
        loss = RewardTrainer.compute_loss(trainer, model, dict(inputs))
        loss.backward()
        tensors[f"{name}.loss"] = loss.detach()
        tensors |= {f"{name}.gradient.{key}": p.grad.clone() for key, p in model.named_parameters()}
        found = trainer._metrics["train"]
        tensors[f"{name}.accuracy"] = torch.tensor(found["accuracy"][0])
        tensors[f"{name}.margin"] = torch.tensor(found["margin"][0])
    described = {"trl": trl.__version__, "model": json.dumps(MODEL), "center": "0.05"}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, FOLDER / "reward.safetensors", described)


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    write_reward()
    write_ppo()

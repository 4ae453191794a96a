"""PPO and the reward loss equal TRL 1.12.0's; `scripts/golden_from_trl.py` wrote what TRL computed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from weightgate import recipe
from weightgate.train import ppo_math
from weightgate.train.objectives.ppo import PPOObjective, Process, Roles, Rollouts, new_value_model
from weightgate.train.objectives.reward import RewardModel, pair_loss

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Golden:
    """Tensors of one file by name, and its metadata."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @classmethod
    def read(cls, name: str) -> Golden:
        with safe_open(GOLDEN / name, framework="pt") as file:
            about = {key: value if key == "trl" else json.loads(value) for key, value in file.metadata().items()}
            return cls({key: file.get_tensor(key) for key in file.keys()}, about)  # noqa: SIM118

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix + "."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix + ".")
        }

    def causal(self, name: str) -> LlamaForCausalLM:
        model = LlamaForCausalLM(LlamaConfig(**self.about["model"])).eval()
        model.load_state_dict(self.under(name))
        return model

    def reward(self) -> RewardModel:
        model = RewardModel.from_causal(LlamaForCausalLM(LlamaConfig(**self.about["model"])), seed=0).eval()
        model.load_state_dict(self.under("reward") | {"score_offset": torch.zeros(())})
        return model


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours.float(), theirs.float(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("case", "center"), [("plain", 0.0), ("centered", 0.05)])
def test_reward_loss_and_gradients(case, center):
    golden = Golden.read("reward.safetensors")
    assert golden.about["trl"] == "1.12.0"
    model = golden.reward()
    scores = model(golden.tensors["input_ids"], golden.tensors["attention_mask"].bool())
    chosen, rejected = scores.chunk(2)
    loss = pair_loss(chosen - rejected, chosen + rejected, center) / len(chosen)
    loss.backward()
    assert close(loss, golden.tensors[f"{case}.loss"])
    assert close((chosen > rejected).float().mean(), golden.tensors[f"{case}.accuracy"])
    assert close((chosen - rejected).mean(), golden.tensors[f"{case}.margin"])
    gradients = golden.under(f"{case}.gradient")
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert close(parameter.grad, gradients[name]), name


@pytest.fixture(scope="module")
def golden():
    return Golden.read("ppo.safetensors")


def settings_of(golden: Golden, case: str) -> recipe.PPO:
    shared, own = golden.about["shared"], golden.about["cases"][case]
    return recipe.PPO(
        epochs=shared["num_ppo_epochs"],
        completion_tokens=shared["response_length"],
        temperature=shared["temperature"],
        kl_coefficient=shared["kl_coef"],
        kl_estimator=own["kl_estimator"],
        clip_range=shared["cliprange"],
        clip_range_value=shared["cliprange_value"],
        value_coefficient=shared["vf_coef"],
        gamma=shared["gamma"],
        gae_lambda=shared["lam"],
        whiten_rewards=own["whiten_rewards"],
        missing_eos_penalty=shared["missing_eos_penalty"],
        normaliser="trl",
    )


def judged(golden: Golden, case: str) -> tuple[PPOObjective, Rollouts]:
    """Our objective on TRL's weights, and our judgement of TRL's completions."""
    theirs, policy, reward = golden.under(case), golden.causal("policy"), golden.reward()
    settings = settings_of(golden, case)
    objective = PPOObjective(
        Roles(
            policy=policy,
            value=new_value_model("reward", policy, reward),
            reference=golden.causal("reference"),
            reward=reward,
        ),
        None,
        settings,
        stop_ids=(golden.about["model"]["eos_token_id"],),
        pad_id=golden.about["model"]["pad_token_id"],
        micro_batch=golden.about["shared"]["micro_batch"],
        seed=0,
        process=Process(device=torch.device("cpu")),
    )
    ids, context, last = theirs["query_responses"], int(theirs["context_length"]), theirs["sequence_lengths"]
    acted, _ = ppo_math.column_masks(last, ids.shape[1] - context)
    mask = torch.cat([ids[:, :context] != objective.pad_id, acted], dim=1)
    return objective, objective.judge(ids, mask, context, last, theirs["contain_eos_token"])


@pytest.mark.parametrize("case", ["k1", "k3"])
def test_rewards(golden, case):
    theirs, settings = golden.under(case), settings_of(golden, case)
    kl = ppo_math.kl_estimate(theirs["logprobs"], theirs["ref_logprobs"], settings.kl_estimator)
    rewards = ppo_math.token_rewards(kl, theirs["scores"], theirs["sequence_lengths"], settings.kl_coefficient)
    if settings.whiten_rewards:
        _, valued = ppo_math.column_masks(theirs["sequence_lengths"], rewards.shape[1])
        rewards = ppo_math.whiten(rewards, valued, shift_mean=False)
    assert close(rewards, theirs["rewards"])


@pytest.mark.parametrize("case", ["k1", "k3"])
def test_judged_rollouts(golden, case):
    theirs = golden.under(case)
    objective, rollouts = judged(golden, case)
    stopped, settings = theirs["contain_eos_token"], objective.settings
    assert stopped.any()
    assert not stopped.all()
    for name in ("logprobs", "values", "advantages"):
        assert close(getattr(rollouts, name), theirs[name]), name
    assert close(rollouts.returns[rollouts.valued], theirs["returns"][rollouts.valued])
    fallen = ppo_math.judged_scores(
        rollouts.facts["score"], stopped, settings.missing_eos_penalty, settings.missing_eos
    )
    assert close(fallen, theirs["scores"])


@pytest.mark.parametrize("case", ["k1", "k3"])
def test_weights_after_two_epochs(golden, case):
    theirs, shared = golden.under(case), golden.about["shared"]
    objective, rollouts = judged(golden, case)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in objective.parameters() if parameter.requires_grad],
        lr=shared["learning_rate"],
        eps=shared["adam_epsilon"],
        weight_decay=0.0,
    )
    clipped = 0.0
    for order in theirs["epochs"]:
        micro_batches = [rollouts.select(rows, 0.0) for rows in order.split(objective.micro_batch)]
        norms = {"micro_batches": float(len(micro_batches)), "tokens": 1.0, "completions": 1.0}
        for batch in micro_batches:
            loss, metrics = objective(batch, norms)
            loss.backward()
            clipped += float(metrics["clip_share"])
        optimizer.step()
        optimizer.zero_grad()
    assert clipped > 0
    for role, model in (("policy", objective.model), ("value", objective.value)):
        after = golden.under(f"{case}.after.{role}")
        for name, tensor in model.state_dict().items():
            if name != "score_offset":
                assert close(tensor, after[name]), f"{role}.{name}"

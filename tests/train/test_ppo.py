"""PPO as an objective: what it starts from, what it must not depend on, and that it raises the score."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from weightgate import recipe
from weightgate.errors import RecipeError
from weightgate.train.objectives.ppo import PPOObjective, Process, Roles, new_value_model
from weightgate.train.objectives.reward import RewardModel
from weightgate.train.ppo_math import PADDING_LOGPROB

VOCAB, PAD, STOP = 61, 0, 2
TOKENS = 10
PROMPTS = [[5, 6, 9], [11, 12, 13, 14, 15, 16], [20], [31, 32, 33, 34], [41, 42], [43, 44, 45, 46, 47], [7], [8, 9]]


@dataclass(frozen=True)
class Prompts:
    lists: list[list[int]]

    def token_lists(self):
        return self.lists


class FixedPrompts:
    def __init__(self, lists=PROMPTS):
        self.lists = lists

    def batch(self, step):
        return Prompts(self.lists)


def make_policy(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.15,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def make_objective(settings=None, *, policy=None, reference="copy", process=None, micro_batch=8, prompts=PROMPTS):
    policy = make_policy() if policy is None else policy
    reward = RewardModel.from_causal(make_policy(seed=1), seed=2).eval()
    ppo = recipe.PPO(completion_tokens=TOKENS) if settings is None else settings
    causal = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    roles = Roles(
        policy=policy,
        value=new_value_model(ppo.value_start, causal, reward),
        reference=copy.deepcopy(policy) if reference == "copy" else reference,
        reward=reward,
    )
    return PPOObjective(
        roles,
        FixedPrompts(prompts),
        ppo,
        stop_ids=(STOP, 3, 4, 5),
        pad_id=PAD,
        micro_batch=micro_batch,
        seed=7,
        process=process or Process(device=torch.device("cpu")),
    )


def settings(**changed):
    return recipe.PPO(completion_tokens=TOKENS, **changed)


def norms_of(objective, micro_batches):
    norms = {}
    for batch in micro_batches:
        for name, count in objective.counts(batch).items():
            norms[name] = norms.get(name, 0.0) + count
    return norms


def gradients(objective, micro_batches):
    norms = norms_of(objective, micro_batches)
    objective.zero_grad()
    total = 0.0
    for batch in micro_batches:
        loss, _ = objective(batch, norms)
        loss.backward()
        total += float(loss)
    return total, {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


def train(objective, steps, learning_rate):
    """Run the objective as the loop does; returns the metrics of every update."""
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=learning_rate)
    history = []
    for step in range(steps):
        for micro_batches in objective.updates(step):
            norms = norms_of(objective, micro_batches)
            sums = {}
            objective.train()
            for batch in micro_batches:
                loss, metrics = objective(batch, norms)
                loss.backward()
                sums = {name: sums.get(name, 0.0) + float(value) for name, value in metrics.items()}
            optimizer.step()
            optimizer.zero_grad()
            history.append(sums)
    return history


def test_step_0_invariants_hold():
    objective = make_objective()
    micro_batches = next(objective.updates(0))
    assert objective.invariants(micro_batches[0]) == []
    _, metrics = objective(micro_batches[0], norms_of(objective, micro_batches))
    assert float(metrics["ratio"]) == pytest.approx(1, abs=1e-5)
    assert float(metrics["clip_share"]) == 0


def test_policy_equal_to_reference_has_kl_exactly_0_at_temperature_0_7():
    rollouts = make_objective(settings(temperature=0.7)).roll_out(0)
    assert rollouts.facts["kl"].tolist() == [0.0] * len(PROMPTS)


def test_invariants_name_another_reference_and_a_forbidden_token():
    stranger = make_objective(reference=make_policy(seed=5))
    [problem] = stranger.invariants(next(stranger.updates(0))[0])
    assert problem.startswith("the KL to the reference per token")
    forbidding = make_objective()
    micro_batches = next(forbidding.updates(0))
    forbidding.sampler_gap_nats = 0.3
    assert "sampler and trainer differ" in forbidding.invariants(micro_batches[0])[0]


def test_padding_has_constant_logprobs_and_no_values():
    rollouts = make_objective().roll_out(0)
    assert (rollouts.logprobs[~rollouts.acted] == PADDING_LOGPROB).all()
    assert (rollouts.values[~rollouts.valued] == 0).all()
    assert (rollouts.advantages[~rollouts.acted] == 0).all()
    assert rollouts.acted.sum() == rollouts.mask[:, rollouts.context :].sum()


def test_completions_end_with_their_stop_token_and_the_score_reads_it():
    objective = make_objective()
    rollouts = objective.roll_out(0)
    ends = rollouts.ids[torch.arange(len(rollouts)), rollouts.context + rollouts.last]
    stopped = rollouts.facts["eos_share"].bool()
    assert stopped.any()
    assert not stopped.all()
    assert all(int(end) in objective.stop_ids for end in ends[stopped])
    with torch.no_grad():
        for row in range(len(rollouts)):
            own = rollouts.ids[row][rollouts.mask[row]][None]
            score = float(objective.reward(own, torch.ones_like(own, dtype=torch.bool)))
            assert float(rollouts.facts["score"][row]) == pytest.approx(score, abs=1e-5)


def test_judgement_of_a_row_does_not_depend_on_batch_mates():
    plain = settings(whiten_advantages=False)
    together = make_objective(plain).roll_out(0)
    for row in (0, 2):
        process = Process(device=torch.device("cpu"), rank=row, processes=len(PROMPTS))
        alone = make_objective(plain, process=process, prompts=[PROMPTS[row]]).roll_out(0)
        width = alone.logprobs.shape[1]
        for name in ("logprobs", "values", "advantages", "returns"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row, :width], atol=1e-5), name


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_gradient_does_not_depend_on_the_micro_batch_split(micro_batch):
    whole_objective, split_objective = make_objective(), make_objective(micro_batch=micro_batch)
    whole_loss, whole = gradients(whole_objective, next(whole_objective.updates(0)))
    loss, split = gradients(split_objective, next(split_objective.updates(0)))
    assert loss == pytest.approx(whole_loss, abs=1e-5)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, split[name], atol=1e-5), name


class Together:
    """Two processes as two threads: each hands in its tensor and both get the sum."""

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=300)
        self.handed = {}

    def reduce_of(self, rank):
        def reduce(tensor):
            self.handed[rank] = tensor
            self.barrier.wait()
            total = self.handed[0] + self.handed[1]
            self.barrier.wait()
            return total

        return reduce


def test_two_processes_give_the_gradient_and_the_coefficient_of_one():
    ppo = settings(whiten_rewards=True, adaptive_kl=recipe.KLController(horizon=100), epochs=1)
    single = make_objective(ppo)
    [single_update] = list(single.updates(0))
    _, expected = gradients(single, single_update)
    together, device = Together(), torch.device("cpu")
    pair = [
        make_objective(
            ppo,
            prompts=PROMPTS[rank::2],
            process=Process(device=device, rank=rank, processes=2, reduce=together.reduce_of(rank)),
        )
        for rank in (0, 1)
    ]
    with ThreadPoolExecutor(2) as threads:
        updates = list(threads.map(lambda objective: next(iter(list(objective.updates(0)))), pair))
    norms = norms_of(single, single_update)
    found = {}
    for objective, micro_batches in zip(pair, updates, strict=True):
        for batch in micro_batches:
            objective(batch, norms)[0].backward()
        for name, parameter in objective.named_parameters():
            if parameter.grad is not None:
                found[name] = found.get(name, 0) + parameter.grad
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    assert pair[0].kl_coefficient == pair[1].kl_coefficient == pytest.approx(single.kl_coefficient)


def test_gradient_with_micro_batch_means_does_depend_on_the_split():
    losses = set()
    for micro_batch in (8, 3):
        objective = make_objective(settings(normaliser="trl"), micro_batch=micro_batch)
        losses.add(round(gradients(objective, next(objective.updates(0)))[0], 5))
    assert len(losses) == 2


def test_every_epoch_sees_every_completion_once_in_its_own_order():
    objective = make_objective(settings(epochs=3, minibatches=4), micro_batch=1)
    updates = list(objective.updates(0))
    assert len(updates) == 12
    epochs = [
        [float(batch.facts["score"][0]) for update in updates[start : start + 4] for batch in update]
        for start in (0, 4, 8)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1]
    weights = [batch.start_weight for update in updates for batch in update]
    assert weights == [12.0] * 2 + [0.0] * 22


def test_too_many_minibatches_is_a_user_error():
    with pytest.raises(RecipeError, match="more mini-batches than completions"):
        next(make_objective(settings(minibatches=9)).updates(0))


def test_only_policy_and_value_learn():
    objective = make_objective()
    _, found = gradients(objective, next(objective.updates(0)))
    assert {name.split(".")[0] for name in found} == {"model", "value"}


def test_a_fresh_adapter_switched_off_is_the_reference():
    policy = get_peft_model(make_policy(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    objective = make_objective(policy=policy, reference=None)
    assert objective.invariants(next(objective.updates(0))[0]) == []
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    assert objective.roll_out(1).facts["kl"].abs().sum() > 0.1
    _, found = gradients(objective, next(objective.updates(0)))
    assert all("lora" in name for name in found if name.startswith("model."))


@pytest.mark.parametrize("start", ["reward", "zero"])
def test_value_model_starts_from_the_reward_model_or_from_zeros(start):
    objective = make_objective(settings(value_start=start))
    rollouts = objective.roll_out(0)
    if start == "zero":
        assert not rollouts.values.any()
    else:
        state = torch.arange(len(rollouts)), rollouts.last + 1
        inside = rollouts.last + 1 < rollouts.values.shape[1]
        ends = rollouts.values[state[0][inside], state[1][inside]]
        assert torch.allclose(ends, rollouts.facts["score"][inside], atol=1e-5)
    assert not any(value is other for value in objective.value.parameters() for other in objective.reward.parameters())


def test_returns_are_made_before_whitening():
    whitened, plain = make_objective().roll_out(0), make_objective(settings(whiten_advantages=False)).roll_out(0)
    assert torch.allclose(whitened.returns, plain.returns)
    assert torch.allclose(plain.returns[plain.acted], (plain.advantages + plain.values)[plain.acted], atol=1e-6)
    assert float(whitened.advantages[whitened.acted].var()) == pytest.approx(1, abs=1e-5)


def test_same_seed_and_step_give_the_same_rollouts_whatever_came_before():
    fresh, used = make_objective(), make_objective()
    used.roll_out(0)
    assert torch.equal(fresh.roll_out(1).ids, used.roll_out(1).ids)
    assert not torch.equal(fresh.roll_out(2).ids[:, -3:], used.roll_out(1).ids[:, -3:])


def test_kl_coefficient_adapts_and_resumes():
    adaptive = settings(adaptive_kl=recipe.KLController(target=6.0, horizon=100), kl_coefficient=0.15)
    objective = make_objective(adaptive)
    list(objective.updates(0))
    # The KL is 0 before any update, so the error is clipped at -0.2.
    assert objective.kl_coefficient == pytest.approx(0.15 * (1 - 0.2 * 8 / 100))
    resumed = make_objective(adaptive)
    resumed.load_state(*objective.state())
    assert resumed.kl_coefficient == objective.kl_coefficient


@pytest.mark.parametrize("changed", [{"kl_estimator": "k1"}, {"kl_estimator": "k3", "whiten_rewards": True}])
def test_training_raises_the_score(changed):
    ppo = settings(kl_coefficient=0.01, temperature=1.0, missing_eos_penalty=None, **changed)
    history = train(make_objective(ppo, prompts=PROMPTS * 4, micro_batch=32), 12, 3e-3)
    late = [update["score"] for update in history[-16::4]]
    # Seeds are fixed; the rise is about 0.5.
    assert sum(late) / 4 > history[0]["score"] + 0.3
    assert history[-1]["kl"] > 0
    assert history[0]["ratio_at_start"] == pytest.approx(4, abs=1e-4)


def adapted_policy():
    return get_peft_model(make_policy(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_learning_from_the_pass_that_judged_is_learning_from_a_second_pass(adapted, checkpointed, monkeypatch):
    results = []
    for at_once in (True, False):
        policy = adapted_policy() if adapted else make_policy()
        objective = make_objective(policy=policy, reference=None if adapted else "copy")
        if checkpointed:
            policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if not at_once:
            monkeypatch.setattr(objective, "_learns_at_once", lambda completions: False)
        updates = objective.updates(1)
        [batch] = next(updates)
        assert (batch.scored is not None) == at_once
        metrics = objective(batch, norms_of(objective, [batch]))[1]
        loss, found = gradients(objective, [batch])
        results.append(found | {"loss": torch.tensor(loss)} | metrics)
        assert all(later.scored is None for update in updates for later in update)
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], atol=1e-5), name


def test_a_second_pass_is_made_for_the_invariants_and_where_the_first_update_is_of_less_than_all():
    assert next(make_objective().updates(0))[0].scored is None
    assert next(make_objective(micro_batch=3).updates(1))[0].scored is None
    assert next(make_objective(settings(minibatches=2)).updates(1))[0].scored is None

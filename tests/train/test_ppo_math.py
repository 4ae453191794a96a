"""The arithmetic of PPO against slow, literal versions of its formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weightgate import recipe
from weightgate.train import ppo_math
from weightgate.train.logprobs import sampled_logprobs


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_masks_end_at_the_last_token_and_one_state_later():
    acted, valued = ppo_math.column_masks(torch.tensor([0, 2, 3]), 4)
    assert acted.int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert valued.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), width=st.integers(1, 7), gamma=st.floats(0.1, 1), gae_lambda=st.floats(0, 1))
def test_advantages_equal_the_explicit_sum(seed, width, gamma, gae_lambda):
    rewards, values = random(2, width, seed=seed), random(2, width, seed=seed + 1)
    fast = ppo_math.advantages(rewards, values, gamma, gae_lambda)
    for row in range(2):
        deltas = [
            float(rewards[row, t] - values[row, t] + (gamma * values[row, t + 1] if t + 1 < width else 0))
            for t in range(width)
        ]
        for t in range(width):
            slow = sum((gamma * gae_lambda) ** (u - t) * deltas[u] for u in range(t, width))
            assert float(fast[row, t]) == pytest.approx(slow, abs=1e-9)


def test_score_goes_one_column_past_the_last_token_where_there_is_one():
    rewards = ppo_math.token_rewards(torch.zeros(3, 4), torch.tensor([5.0, 6.0, 7.0]), torch.tensor([0, 2, 3]), 0.1)
    assert rewards.tolist() == [[0, 5, 0, 0], [0, 0, 0, 6], [0, 0, 0, 7]]


def test_whitening_gives_mean_0_and_unbiased_variance_1_on_the_mask():
    values, mask = random(3, 5), torch.arange(5) < torch.tensor([[2], [5], [1]])
    whitened = ppo_math.whiten(values, mask)
    assert float(whitened[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(whitened[mask].var()) == pytest.approx(1, abs=1e-6)
    assert not whitened[~mask].any()
    kept = ppo_math.whiten(values, mask, shift_mean=False)
    assert float(kept[mask].mean()) == pytest.approx(float(values[mask].mean()), abs=1e-9)


def test_whitening_over_two_processes_equals_whitening_of_all():
    values, mask = random(4, 5), torch.arange(5) < torch.tensor([[2], [5], [1], [3]])
    whole = ppo_math.whiten(values, mask)
    halves = [(values[:2], mask[:2]), (values[2:], mask[2:])]

    def statistics(total: Tensor) -> list[Tensor]:
        """What each half hands to its two reductions."""
        seen: list[Tensor] = []

        def reduce(tensor: Tensor) -> Tensor:
            seen.append(tensor)
            return total if tensor.ndim == 1 else tensor

        for half_values, half_mask in halves:
            ppo_math.whiten(half_values, half_mask, reduce=reduce)
        return seen

    first = statistics(torch.ones(2, dtype=torch.float64))
    sums = first[0] + first[2]
    second = statistics(sums)
    squares = second[1] + second[3]
    parts = [ppo_math.whiten(v, m, reduce=lambda tensor: sums if tensor.ndim == 1 else squares) for v, m in halves]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-12)


def test_whitening_of_one_value_is_no_division_by_zero():
    whitened = ppo_math.whiten(torch.tensor([[3.0, 9.0]]), torch.tensor([[True, False]]))
    assert whitened.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimators_are_unbiased(estimator):
    policy, reference = random(6, seed=1).softmax(0), random(6, seed=2).softmax(0)
    exact = float((policy * (policy / reference).log()).sum())
    estimates = ppo_math.kl_estimate(policy.log(), reference.log(), estimator)
    assert float((policy * estimates).sum()) == pytest.approx(exact, abs=1e-9)
    if estimator == "k3":
        assert (estimates >= 0).all()


@pytest.mark.parametrize(
    ("penalty", "rule", "expected"),
    [(1.0, "subtract", [3.0, 1.0]), (1.0, "replace", [3.0, -1.0]), (None, "subtract", [3.0, 2.0])],
)
def test_missing_eos(penalty, rule, expected):
    judged = ppo_math.judged_scores(torch.tensor([3.0, 2.0]), torch.tensor([True, False]), penalty, rule)
    assert judged.tolist() == expected


def test_clipping_stops_the_gradient_only_where_it_would_go_on_improving():
    old = torch.zeros(4)
    new = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    gains = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses, clipped = ppo_math.policy_losses(new, old, gains, 0.2)
    losses.sum().backward()
    assert clipped.tolist() == [True, False, False, True]
    assert (new.grad == 0).tolist() == [True, False, False, True]
    assert losses[0].item() == pytest.approx(-1.2)
    assert losses[1].item() == pytest.approx(math.exp(0.5))


def test_value_loss_is_the_worse_of_free_and_clipped():
    values, old, returns = torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 0.1])
    assert ppo_math.value_losses(values, old, returns, 0.2).tolist() == pytest.approx([0.5 * 0.8**2, 0.0])


def test_kl_coefficient_moves_towards_the_target_and_no_faster_than_its_bound():
    controller = recipe.KLController(target=6.0, horizon=10_000)
    assert ppo_math.adapted_coefficient(0.15, 6.0, controller, 64) == 0.15
    assert ppo_math.adapted_coefficient(0.15, 600.0, controller, 64) == pytest.approx(0.15 * (1 + 0.2 * 64 / 10_000))
    assert ppo_math.adapted_coefficient(0.15, 5.4, controller, 64) == pytest.approx(0.15 * (1 - 0.1 * 64 / 10_000))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_sampled_logprobs_equal_log_softmax_in_value_and_gradient(temperature, monkeypatch):
    monkeypatch.setattr("weightgate.train.logprobs.CHUNK_ELEMENTS", 30)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 11, generator=generator, requires_grad=True)
    tokens = torch.randint(0, 11, (3, 4), generator=generator)
    mask = torch.arange(4) < torch.tensor([[4], [1], [2]])
    nats, entropies = sampled_logprobs(logits[mask], tokens[mask], temperature)
    weights = torch.randn(len(nats), generator=generator)
    [gradient] = torch.autograd.grad((nats * weights).sum(), logits)
    plain = (logits / (temperature or 1.0)).log_softmax(-1)
    expected = plain.gather(-1, tokens[..., None]).squeeze(-1)[mask]
    [expected_gradient] = torch.autograd.grad((expected * weights).sum(), logits)
    assert torch.allclose(nats, expected, atol=1e-5)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)
    assert torch.allclose(entropies, torch.distributions.Categorical(logits=plain[mask]).entropy(), atol=1e-5)

"""Rounded weights: the nearest values of a grid, in the network that answers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tiny_endpoint import tiny_generator  # noqa: E402
from weightgate.train.generator import Bits, Settings  # noqa: E402
from weightgate.train.rounding import round_weights  # noqa: E402

_SETTINGS = Settings(max_tokens=4, temperature=0.0, logprobs=3)


@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([8, 4]), size=st.floats(1e-6, 1e6))
def test_integers_are_the_nearest_multiples_of_a_scale_of_their_row(seed: int, bits: Bits, size: float) -> None:
    layer = torch.nn.Linear(7, 5)
    weight = size * np.random.default_rng(seed).standard_normal((5, 7)).astype(np.float32)
    layer.weight.data, bias = torch.from_numpy(weight.copy()), layer.bias.detach().clone()
    round_weights(layer, bits)
    rounded = layer.weight.detach().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert np.all(np.abs(rounded - weight) <= 0.5001 * scale)
    assert np.allclose(rounded / scale, np.round(rounded / scale), atol=1e-3)
    assert torch.equal(layer.bias, bias)
    round_weights(layer, bits)
    assert np.allclose(layer.weight.detach().numpy(), rounded, rtol=1e-5)


def test_a_row_of_zeros_stays_one() -> None:
    layer = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.zeros_(layer.weight)
    round_weights(layer, 4)
    assert torch.equal(layer.weight, torch.zeros(2, 3))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_network_that_answers_is_the_rounded_one(bits: Bits) -> None:
    served, by_hand = tiny_generator(1), tiny_generator(1)
    plain = copy.deepcopy(by_hand.model.state_dict())
    round_weights(served.model, bits)
    for name, weight in plain.items():
        if weight.dim() > 1:
            scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            grid = weight.bfloat16().float() if bits == 16 else torch.round(weight / scale) * scale
            by_hand.model.get_parameter(name).data.copy_(grid)
    prompt = served.encode_text("the quick brown")
    answers = [one.answer([prompt], _SETTINGS, [1])[0][0] for one in (served, by_hand, tiny_generator(1))]
    nats = [[token.logprob for token in answer.tokens] for answer in answers]
    assert nats[0] == pytest.approx(nats[1], abs=1e-5)
    assert nats[0] != pytest.approx(nats[2], abs=1e-7)

"""The chunked head loss equals the plain one, values and gradients, whatever the chunk."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from weightgate.train import limits, losses


@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 64])
def test_linear_cross_entropy_equals_torch(monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    torch.manual_seed(0)
    vocabulary = 37
    monkeypatch.setattr(limits, "LOGITS_AT_ONCE", chunk_rows * vocabulary)
    monkeypatch.setattr(limits, "LOGIT_ROWS", 1)
    hidden = torch.randn(23, 16, requires_grad=True)
    weight = torch.randn(vocabulary, 16, requires_grad=True)
    targets = torch.randint(0, vocabulary, (23,))

    plain = cross_entropy(hidden @ weight.T, targets, reduction="sum")
    expected = torch.autograd.grad(plain / 5, [hidden, weight])
    chunked = losses.linear_cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(chunked / 5, [hidden, weight])

    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(11, 8)
    losses.linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3, 4])).backward()
    assert hidden.grad is not None
    assert weight.grad is None

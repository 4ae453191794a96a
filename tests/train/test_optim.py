"""The optimizer with fp32 masters against torch.optim.AdamW, and its state against itself."""

from __future__ import annotations

import torch
from torch import nn

from weightgate.recipe import Optimizer
from weightgate.train.optim import MasterAdamW

SETTINGS = Optimizer(learning_rate=1e-2, weight_decay=0.1, clip_norm=1e9)


def _network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 1)).to(dtype)


def _backward(network: nn.Module, step: int) -> None:
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    dtype = next(network.parameters()).dtype
    network(inputs.to(dtype)).float().square().mean().backward()


def test_equals_torch_adamw_in_fp32() -> None:
    ours, theirs = _network(torch.float32), _network(torch.float32)
    optimizer = MasterAdamW(ours.named_parameters(), SETTINGS)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for step in range(5):
        _backward(ours, step)
        optimizer.accumulate()
        optimizer.clip()
        optimizer.step(1.0)
        _backward(theirs, step)
        reference.step()
        reference.zero_grad()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)


def test_small_updates_survive_in_the_masters() -> None:
    """In bf16 alone an update below 1/256 of the weight would be lost at every step."""
    parameter = nn.Parameter(torch.full((2, 2), 100.0, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("w", parameter)], Optimizer(learning_rate=0.01, weight_decay=0.0))
    for _ in range(100):
        parameter.grad = torch.ones_like(parameter)
        optimizer.accumulate()
        optimizer.clip()
        optimizer.step(1.0)
    assert torch.allclose(parameter.float(), torch.full((2, 2), 99.0), atol=0.3)


def test_micro_batches_add_up_in_fp32() -> None:
    parameter = nn.Parameter(torch.zeros(1, 1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("w", parameter)], SETTINGS)
    for gradient in (256.0, 1.0):
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.accumulate()
    assert optimizer.clip() == 257.0


def test_state_restores_bit_for_bit() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        whole, half = _network(dtype), _network(dtype)
        first = MasterAdamW(whole.named_parameters(), SETTINGS)
        for step in range(6):
            if step == 3:
                saved = {name: tensor.clone() for name, tensor in first.state().items()}
            _backward(whole, step)
            first.accumulate()
            first.clip()
            first.step(0.5)
        second = MasterAdamW(half.named_parameters(), SETTINGS)
        second.load_state(saved)
        for step in range(3, 6):
            _backward(half, step)
            second.accumulate()
            second.clip()
            second.step(0.5)
        for left, right in zip(whole.parameters(), half.parameters(), strict=True):
            assert torch.equal(left, right)

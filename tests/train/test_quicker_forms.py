"""Attention and normalisation written for CPUs, against the modules of transformers and autograd's own gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from weightgate.train import attention
from weightgate.train.norms import quicken_norms

SCALE = 0.3


def reference(query, key, value, mask):
    """Softmax attention over repeated keys, (B, T, heads, D)."""
    times = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(times, dim=1) for tensor in (key, value))
    weights = torch.softmax(query @ key.transpose(2, 3) * SCALE + mask, dim=-1)
    return (weights @ value).transpose(1, 2)


def causal_mask(batch, rows):
    """Additive (B, 1, T, T) mask over two documents a row, the second one starting elsewhere in each."""
    documents = torch.arange(rows)[None] >= torch.arange(1, batch + 1)[:, None] * rows // (batch + 2)
    allowed = (documents[:, :, None] == documents[:, None, :]) & torch.ones(rows, rows, dtype=torch.bool).tril()
    return torch.zeros(batch, 1, rows, rows).masked_fill(~allowed[:, None], torch.finfo(torch.float32).min)


@pytest.mark.parametrize("rows", [5, 64, 65, 150])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_block_attention_equals_softmax_attention_and_its_gradients(rows, groups):
    generator = torch.Generator().manual_seed(rows + groups)
    shapes = ((2, rows, 4, 8), (2, rows, groups, 8), (2, rows, groups, 8))
    inputs = [torch.randn(shape, generator=generator).transpose(1, 2).requires_grad_() for shape in shapes]
    mask = causal_mask(2, rows)
    upstream = torch.randn(2, rows, 4, 8, generator=generator)
    module = nn.Module()
    module.is_causal = True
    found, _ = attention._attend(module, *inputs, mask, scaling=SCALE)
    expected = reference(*inputs, mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_mask_that_is_not_causal_is_looked_at_whole():
    query, key, value = (torch.randn(1, 2, 130, 4, generator=torch.Generator().manual_seed(n)) for n in range(3))
    everything = torch.zeros(1, 1, 130, 130)
    module = nn.Module()
    module.is_causal = False
    found, _ = attention._attend(module, query, key, value, everything, scaling=SCALE)
    torch.testing.assert_close(found, reference(query, key, value, everything), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
def test_quick_norm_equals_the_module_and_its_gradients(kind):
    generator = torch.Generator().manual_seed(0)
    plain, quick = kind(16), kind(16)
    weight = torch.rand(16, generator=generator) + 0.5
    for module in (plain, quick):
        module.weight.data = weight.clone()
    holder = nn.Sequential(quick)
    quicken_norms(holder)
    assert quick.forward.__func__ is not kind.forward, "the quick form is in use"
    results = []
    for module in (plain, quick):
        inputs = torch.linspace(-3, 4, 6 * 16).view(2, 3, 16).transpose(0, 1).requires_grad_()
        output = module(inputs)
        slopes = torch.autograd.grad(output.sin().sum(), [inputs, module.weight])
        results.append((output, *slopes))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_norms_that_compute_something_else_or_in_bf16_stay_as_they_are():
    gemma, llama = Gemma3RMSNorm(16), LlamaRMSNorm(16).to(torch.bfloat16)
    quicken_norms(nn.Sequential(gemma, llama))
    inputs = torch.linspace(-3, 4, 32).view(2, 16)
    assert torch.equal(gemma(inputs), Gemma3RMSNorm.forward(gemma, inputs))
    coarse = inputs.to(torch.bfloat16)
    assert torch.equal(llama(coarse), LlamaRMSNorm.forward(llama, coarse))

"""Attention and normalisation written for CPUs, against the modules of transformers and autograd's own gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RMSNorm

from weightgate.train import attention, rotary
from weightgate.train.models import quickened
from weightgate.train.norms import quicken_norms
from weightgate.train.rotary import quicken_attention

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
    found, _ = attention.attend(module, *inputs, mask, scaling=SCALE)
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
    found, _ = attention.attend(module, query, key, value, everything, scaling=SCALE)
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


def layer_config(**changed):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes | changed)
    config._attn_implementation = attention.NAME
    return config


def slopes_of(output, inputs, module):
    leaves = [inputs, *module.parameters()]
    return output, *torch.autograd.grad(output.sin().sum(), leaves)


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rows", [5, 70])
def test_quick_attention_equals_the_module_and_its_gradients(rows, groups):
    torch.manual_seed(rows + groups)
    config = layer_config(num_key_value_heads=groups)
    module, positions = LlamaAttention(config, layer_idx=0), torch.randint(0, 90, (3, rows))
    inputs = torch.randn(3, rows, 32, requires_grad=True)
    named = {
        "position_embeddings": LlamaRotaryEmbedding(config)(inputs, positions),
        "attention_mask": causal_mask(3, rows),
    }
    expected = slopes_of(module(inputs, **named)[0], inputs, module)
    quicken_attention(nn.Sequential(module))
    assert module.forward.__func__ is rotary._quick_forward
    assert_same(slopes_of(module(inputs, **named)[0], inputs, module), expected)


def test_attention_that_computes_something_else_stays_as_it_is():
    config = Qwen3Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    config._attn_implementation = attention.NAME
    biased = LlamaAttention(layer_config(attention_bias=True), layer_idx=0)
    module = nn.Sequential(Qwen3Attention(config, layer_idx=0), biased)
    quicken_attention(module)
    assert "forward" not in vars(module[0])
    hidden, places = torch.randn(1, 3, 32), LlamaRotaryEmbedding(layer_config())(torch.ones(1), torch.arange(3)[None])
    named = {"position_embeddings": places, "attention_mask": causal_mask(1, 3)}
    assert torch.equal(biased(hidden, **named)[0], LlamaAttention.forward(biased, hidden, **named)[0])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_quick_network_equals_that_of_transformers(checkpointed):
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    plain = LlamaForCausalLM._from_config(config, attn_implementation="eager").train()
    quick = LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME).train()
    quick.load_state_dict(plain.state_dict())
    if checkpointed:
        quick.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    quickened(quick)
    assert all("forward" in vars(layer.self_attn) for layer in quick.model.layers)
    ids = torch.randint(0, 40, (2, 80))
    found, expected = (model(input_ids=ids, labels=ids, use_cache=False).loss for model in (quick, plain))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(
        torch.autograd.grad(found, list(quick.parameters())), torch.autograd.grad(expected, list(plain.parameters()))
    )


def test_an_adapter_on_a_quick_network_computes_what_it_does_on_any_other():
    config = layer_config(vocab_size=40, num_hidden_layers=2)
    torch.manual_seed(0)
    plain = LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME)
    quick = quickened(copy.deepcopy(plain))
    lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    ids, results = torch.randint(0, 40, (2, 9)), []
    for model in (quick, plain):
        torch.manual_seed(1)
        adapted = get_peft_model(model, lora)
        loss = adapted(input_ids=ids, labels=ids, use_cache=False).loss
        learnt = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        results.append((loss, *torch.autograd.grad(loss, learnt)))
    assert_same(*results)

"""Attention and normalisation written for CPUs, against the modules of transformers and autograd's own gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm

from weightgate.train import attention
from weightgate.train.last_layer import states_read
from weightgate.train.layers import quicken_layers
from weightgate.train.models import decoder_of, quickened
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


class Decoder(nn.Module):
    """One layer like Llama's, and what a decoder gives it."""

    def __init__(self, config, dtype=torch.float32):
        super().__init__()
        self.layers = nn.ModuleList([LlamaDecoderLayer(config, layer_idx=0).to(dtype)])
        self.rotary_emb = LlamaRotaryEmbedding(config)

    def forward(self, inputs, positions, mask, **named):
        places = self.rotary_emb(inputs, positions)
        return self.layers[0](inputs, position_embeddings=places, attention_mask=mask, **named)


@pytest.mark.parametrize("read", [None, (7, 1, 12)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rows", [5, 70])
def test_a_quick_layer_equals_the_module_and_its_gradients(rows, groups, read):
    torch.manual_seed(rows + groups)
    decoder, positions = Decoder(layer_config(num_key_value_heads=groups)), torch.randint(0, 90, (3, rows))
    inputs = torch.randn(3, rows, 32, requires_grad=True)
    expected = decoder(inputs, positions, causal_mask(3, rows))
    expected = slopes_of(expected if read is None else expected.flatten(0, 1)[list(read)], inputs, decoder)
    quicken_layers(decoder)
    named = {} if read is None else {"read": torch.tensor(read)}
    found = decoder(inputs, positions, causal_mask(3, rows), **named)
    assert "_Layer" in type(found.grad_fn).__name__, "the quick form is in use"
    assert_same(slopes_of(found, inputs, decoder), expected)
    with torch.no_grad():
        assert_same([decoder(inputs, positions, causal_mask(3, rows), **named)], [expected[0]])


def test_a_quick_layer_in_bf16_is_as_close_to_fp32_as_the_module_in_bf16():
    torch.manual_seed(0)
    config, positions, mask = layer_config(), torch.arange(40).expand(3, -1), causal_mask(3, 40)
    decoder = Decoder(config)
    inputs = torch.randn(3, 40, 32, requires_grad=True)
    exact = slopes_of(decoder(inputs, positions, mask), inputs, decoder)
    coarse, gaps = copy.deepcopy(decoder).to(torch.bfloat16), []
    coarse_inputs = inputs.detach().to(torch.bfloat16).requires_grad_()
    for quick in (False, True):
        if quick:
            quicken_layers(coarse)
            assert "forward" in vars(coarse.layers[0])
        found = slopes_of(coarse(coarse_inputs, positions, mask.to(torch.bfloat16)), coarse_inputs, coarse)
        gaps.append([float((f.float() - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)])
    assert all(ours < 1.1 * theirs + 1e-3 for theirs, ours in zip(*gaps, strict=True))


def test_layers_that_compute_something_else_stay_as_they_are():
    config = Qwen3Config(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    config._attn_implementation = attention.NAME
    other = nn.Module()
    other.layers = nn.ModuleList([Qwen3DecoderLayer(config, layer_idx=0)])
    for decoder in (other, Decoder(layer_config(attention_bias=True)), Decoder(layer_config(hidden_act="gelu"))):
        quicken_layers(decoder)
        assert "forward" not in vars(decoder.layers[0])


def test_only_weights_that_learn_get_gradients_from_a_quick_layer():
    decoder = Decoder(layer_config())
    quicken_layers(decoder)
    decoder.requires_grad_(False)
    decoder.layers[0].mlp.up_proj.requires_grad_(True)
    decoder(torch.randn(1, 6, 32), torch.arange(6)[None], causal_mask(1, 6)).sum().backward()
    learnt = [name for name, parameter in decoder.named_parameters() if parameter.grad is not None]
    assert learnt == ["layers.0.mlp.up_proj.weight"]


def test_a_quick_network_says_the_same_with_and_without_keys_and_values_that_were_kept():
    config = layer_config(vocab_size=40, num_hidden_layers=2)
    torch.manual_seed(0)
    network = quickened(LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME)).eval()
    ids = torch.randint(0, 40, (2, 9))
    with torch.no_grad():
        whole = network(input_ids=ids, use_cache=False).logits
        begun = network(input_ids=ids[:, :6], use_cache=True)
        parts = [begun.logits]
        for column in range(6, 9):
            kept = {"past_key_values": begun.past_key_values, "use_cache": True}
            parts.append(network(input_ids=ids[:, column : column + 1], **kept).logits)
    assert_same([torch.cat(parts, dim=1)], [whole])


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
    assert all("forward" in vars(layer) for layer in quick.model.layers)
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


def test_under_an_adapter_too_no_more_than_what_is_read_goes_through_the_last_layer():
    torch.manual_seed(0)
    network = quickened(LlamaForCausalLM._from_config(layer_config(vocab_size=40), attn_implementation=attention.NAME))
    adapted = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    seen = []
    decoder = decoder_of(adapted)
    decoder.layers[-1].mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    ids = torch.randint(0, 40, (2, 9))
    states_read(decoder, torch.tensor([3, 8, 17]), input_ids=ids)
    assert seen == [(3, 32)]

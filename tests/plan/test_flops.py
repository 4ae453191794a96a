"""Counts are held against real networks: parameters exactly, FLOPs against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the counts are compared with real networks")
from peft import LoraConfig, get_peft_model  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
)

from weightgate.errors import ModelError  # noqa: E402
from weightgate.plan import flops  # noqa: E402
from weightgate.plan.shapes import FAMILIES, read_shape  # noqa: E402
from weightgate.recipe import Adapter  # noqa: E402

SMALL = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL_GPT2 = {"vocab_size": 160, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 96}
SPECIALS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VARIANTS: list[dict[str, Any]] = [
    {"model_type": "llama", **SMALL},
    {"model_type": "llama", **SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "mistral", **SMALL},
    {"model_type": "qwen2", **SMALL},
    {"model_type": "qwen3", **SMALL},
    {"model_type": "qwen3", **SMALL, "head_dim": 24, "attention_bias": True},
    {"model_type": "smollm3", **SMALL},
    {"model_type": "gemma", **SMALL, "head_dim": 16},
    {"model_type": "gemma2", **SMALL, "head_dim": 16},
    {"model_type": "gemma3_text", **SMALL, "head_dim": 16},
    {"model_type": "gpt2", **SMALL_GPT2},
]


def network(config: dict[str, Any], *, device: str = "cpu", auto: Any = AutoModelForCausalLM, **more: Any) -> Any:
    fields = {name: value for name, value in config.items() if name != "model_type"}
    real = AutoConfig.for_model(config["model_type"], **SPECIALS, **fields, **more)
    real._attn_implementation = "eager"
    with torch.device(device):
        return auto.from_config(real)


def counted_flops(model: Any, rows: int, context: int, *, backward: bool) -> int:
    ids = torch.randint(3, 160, (rows, context))
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=ids, use_cache=False)
        if backward:
            output.logits.float().sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: f"{config['model_type']}-{len(config)}")
def test_parameters_equal_those_of_the_real_network(config: dict[str, Any]) -> None:
    model = network(config, device="meta")
    parts = flops.parameters(read_shape(config))
    assert parts.total == sum(parameter.numel() for parameter in model.parameters())
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name or ".ln_" in name)
    assert parts.norms == norms


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_fields_left_out_take_the_defaults_of_transformers(model_type: str) -> None:
    model = network(
        {"model_type": model_type, **({} if model_type == "gpt2" else {"num_hidden_layers": 1})}, device="meta"
    )
    config = model.config.to_dict()
    bare = read_shape({"model_type": model_type, "num_hidden_layers": model.config.num_hidden_layers})
    assert flops.parameters(bare).total == sum(parameter.numel() for parameter in model.parameters())
    assert bare == read_shape(config)


def test_sliding_windows_follow_the_layer_types() -> None:
    config = AutoConfig.for_model("gemma3_text", num_hidden_layers=8)
    shape = read_shape(config.to_dict())
    expected = tuple(config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types)
    assert shape.windows == expected == read_shape({"model_type": "gemma3_text", "num_hidden_layers": 8}).windows


def test_reward_parameters_equal_a_sequence_classifier() -> None:
    model = network(VARIANTS[0], device="meta", auto=AutoModelForSequenceClassification, num_labels=1)
    assert flops.reward_parameters(read_shape(VARIANTS[0])) == sum(p.numel() for p in model.parameters())


COUNTED = [
    {"model_type": family, **SMALL, "head_dim": 16, "num_key_value_heads": key_values, "tie_word_embeddings": tied}
    for family in ("llama", "qwen3", "gemma", "gemma2", "gemma3_text")
    for key_values in (1, 2, 4)
    for tied in (True, False)
] + [VARIANTS[10]]
"""Every family, with grouped, multi-query and plain attention, with and without a head of its own."""


def said(config: dict[str, Any]) -> str:
    head = "tied" if config.get("tie_word_embeddings") else "head"
    return f"{config['model_type']}-{config.get('num_key_value_heads')}-{head}"


FAMILY_OF_EACH = [next(each for each in COUNTED if each["model_type"] == f) for f in ("llama", "qwen3", "gemma3_text")]


@pytest.mark.parametrize("config", COUNTED, ids=said)
def test_forward_and_training_flops_agree_with_the_counter(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rows, context = 2, 48
    per_token = flops.token_flops(read_shape(config), context)
    forward = counted_flops(network(config).eval(), rows, context, backward=False)
    training = counted_flops(network(config).eval(), rows, context, backward=True)
    assert rows * context * per_token.forward == pytest.approx(forward, rel=0.01)
    assert rows * context * per_token.training == pytest.approx(training, rel=0.01)


@pytest.mark.parametrize("config", FAMILY_OF_EACH, ids=said)
def test_reward_flops_agree_with_the_counter(config: dict[str, Any]) -> None:
    model = network(config, auto=AutoModelForSequenceClassification, num_labels=1).eval()
    counted = counted_flops(model, 2, 48, backward=True)
    assert 2 * 48 * flops.reward_training_flops(read_shape(config), 48) == pytest.approx(counted, rel=0.01)


def rollout_flops(model: Any, prompt: int, completion: int) -> int:
    """FLOPs of sampling one completion with a cache of keys and values, the head only where a token is drawn."""
    ids = torch.randint(3, 160, (1, prompt))
    cache = DynamicCache(config=model.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for _ in range(completion):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1:].argmax(dim=-1)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("config", FAMILY_OF_EACH, ids=said)
def test_an_episode_of_ppo_agrees_with_the_counter_pass_by_pass(config: dict[str, Any]) -> None:
    prompt, completion = 6, 58
    policy, judge = (
        network(config).eval(),
        network(config, auto=AutoModelForSequenceClassification, num_labels=1).eval(),
    )
    found = flops.ppo_episode_flops(
        read_shape(config), prompt_tokens=prompt, completion_tokens=completion, epochs=3, attention="full"
    )
    row = (1, prompt + completion)
    judged = counted_flops(judge, *row, backward=False)
    update = counted_flops(policy, *row, backward=True) + counted_flops(judge, *row, backward=True)
    assert found.rollout == pytest.approx(rollout_flops(policy, prompt, completion), rel=0.01)
    assert found.reference == pytest.approx(counted_flops(policy, *row, backward=False), rel=0.01)
    assert (found.reward, found.value) == (pytest.approx(judged, rel=0.01), pytest.approx(judged, rel=0.01))
    assert found.update == pytest.approx(3 * update, rel=0.01)


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        *((config, "all-linear") for config in FAMILY_OF_EACH),
        *((config, ["q_proj", "self_attn.v_proj"]) for config in FAMILY_OF_EACH),
        (VARIANTS[10], ["c_attn", "c_proj"]),
    ],
    ids=lambda part: said(part) if isinstance(part, dict) else "+".join(part) if isinstance(part, list) else part,
)
def test_adapter_counts_agree_with_peft_and_the_counter(config: dict[str, Any], targets: Any) -> None:
    adapter = Adapter(rank=4, targets=targets)
    model = get_peft_model(network(config), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    shape = read_shape(config)
    assert flops.adapter_parameters(shape, adapter) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    counted = counted_flops(model.eval(), 2, 48, backward=True)
    assert 2 * 48 * flops.adapter_training_flops(shape, 48, adapter) == pytest.approx(counted, rel=0.01)


def test_causal_attention_counts_what_is_looked_at() -> None:
    shape = read_shape(
        {"model_type": "gemma3_text", **SMALL, "head_dim": 16, "sliding_window": 10, "num_hidden_layers": 6}
    )
    context = 37
    seen = sum(min(position + 1, window or context) for window in shape.windows for position in range(context))
    counted = flops.token_flops(shape, context, attention="causal").attention
    assert counted == pytest.approx(4 * shape.query_size * seen / context)
    assert counted < flops.token_flops(shape, context).attention


def test_conventions_of_the_literature_are_reproduced() -> None:
    """(6 (body + head) + 12 L h s) / (6 body): GPT-3 1.03, GPT-2 small 1.68, a toy 1.41."""
    gpt3 = {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}
    toy = {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 256, "vocab_size": 8192}
    for config, context, ratio in (({}, 1024, 1.68), (gpt3, 2048, 1.03), (toy, 256, 1.41)):
        shape = read_shape({"model_type": "gpt2", **config})
        body = flops.parameters(shape).body
        assert flops.token_flops(shape, context).training / (6 * body) == pytest.approx(ratio, abs=0.01)


def test_conventions_are_told_apart_and_converge_with_size() -> None:
    small = flops.training_flops_by_convention(read_shape(VARIANTS[0]), 48)
    large = flops.training_flops_by_convention(read_shape({"model_type": "llama"}), 2048)
    counted = flops.parameters(read_shape(VARIANTS[0]))
    assert list(small.values())[:2] == [6.0 * counted.body, 6.0 * counted.total]
    assert max(small.values()) / min(small.values()) > 1.1
    assert max(large.values()) / min(large.values()) < 1.25


def test_ppo_spends_what_its_passes_spend() -> None:
    shape = read_shape(VARIANTS[0])
    once = flops.ppo_episode_flops(shape, prompt_tokens=24, completion_tokens=32, epochs=1)
    four = flops.ppo_episode_flops(shape, prompt_tokens=24, completion_tokens=32, epochs=4)
    assert four.update == pytest.approx(4 * once.update)
    assert four.total - once.total == pytest.approx(3 * once.update)
    assert once.rollout < once.reference


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "lama"}, "write llama"),
        ({}, "none"),
        ({"model_type": "llama", "hidden_size": -4}, "architecture.config.hidden_size"),
        ({"model_type": "llama", "hidden_size": 1e400}, "positive integer"),
        ({"model_type": "llama", "vocab_size": True}, "True"),
        ({"model_type": "llama", "hidden_size": "64"}, "'64'"),
        ({"model_type": "llama", "hidden_size": 3, "num_attention_heads": 8}, "head_dim"),
        ({"model_type": "mistral", "layer_types": 7}, "layer_types"),
    ],
)
def test_impossible_architectures_are_refused(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError) as refusal:
        read_shape(config)
    assert named in str(refusal.value)

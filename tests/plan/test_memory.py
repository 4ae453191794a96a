"""What the formulas say is kept for the backward pass, against what torch keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the counts are compared with real networks")
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from weightgate.plan import memory  # noqa: E402
from weightgate.plan.flops import adapter_parameters, parameters  # noqa: E402
from weightgate.plan.memory import Pass  # noqa: E402
from weightgate.plan.shapes import read_shape  # noqa: E402
from weightgate.recipe import Adapter  # noqa: E402
from weightgate.train import attention, limits, models  # noqa: E402

LLAMA = {
    "model_type": "llama",
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 160, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 96}
NO_DROPOUT = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}
CONFIGS = [LLAMA, LLAMA | {"model_type": "qwen3"}, LLAMA | {"model_type": "gemma3_text"}, GPT2]
ATTENTION = {"matmul": models.attention_for(torch.device("cpu")), "fused": "sdpa"}


def kept_bytes(config: dict[str, Any], rows: int, context: int, dtype: Any, kernel: memory.Kernel) -> int:
    """Bytes of the distinct tensors that the decoder keeps for its backward pass, parameters apart."""
    fields = {name: value for name, value in config.items() if name != "model_type"}
    if config["model_type"] == "gpt2":
        fields |= NO_DROPOUT
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    real = AutoConfig.for_model(config["model_type"], **fields, **specials)
    model = AutoModelForCausalLM.from_config(real, attn_implementation=ATTENTION[kernel], dtype=dtype)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(3, 160, (rows, context))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    total = sum(storage.nbytes() for storage in kept.values())
    return total + hidden.nbytes


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
@pytest.mark.parametrize("kernel", ["matmul", "fused"])
@pytest.mark.parametrize(("precision", "context"), [("fp32", 48), ("bf16", 48), ("fp32", 90)])
def test_activations_agree_with_what_torch_keeps(
    config: dict[str, Any], kernel: Any, precision: Any, context: int
) -> None:
    rows = 2
    one = Pass(rows=rows, context=context, precision=precision, kernel=kernel)
    counted = memory.activation_bytes(read_shape(config), one)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    assert counted == pytest.approx(kept_bytes(config, rows, context, dtype, kernel), rel=0.1)


def test_long_rows_keep_attention_weights_up_to_the_diagonals_blocks() -> None:
    assert memory.ATTENTION_BLOCK == attention.BLOCK
    for context in (64, 200, 320):
        counted = memory.activation_bytes(read_shape(LLAMA), Pass(rows=2, context=context, precision="fp32"))
        assert counted == pytest.approx(kept_bytes(LLAMA, 2, context, torch.float32, "matmul"), rel=0.1)


def test_checkpointing_keeps_less_and_more_rows_keep_more() -> None:
    shape = read_shape(LLAMA | {"num_hidden_layers": 12})
    few, many = (
        memory.training_memory(shape, Pass(rows=rows, context=64, precision="bf16", checkpointing=True))
        for rows in (1, 8)
    )
    plain = memory.training_memory(shape, Pass(rows=8, context=64, precision="bf16"))
    assert few.activations * 8 == many.activations < plain.activations / 3
    assert many.total < plain.total


def test_weights_gradients_and_optimizer_by_precision() -> None:
    shape = read_shape(LLAMA)
    count = parameters(shape).total
    full = memory.training_memory(shape, Pass(rows=1, context=8, precision="fp32"))
    assert (full.weights, full.gradients, full.optimizer) == (4 * count, 4 * count, 8 * count)
    half = memory.training_memory(shape, Pass(rows=1, context=8, precision="bf16"))
    assert (half.weights, half.gradients, half.optimizer) == (6 * count, 6 * count, 8 * count)


def test_adapters_pay_for_what_they_train() -> None:
    shape = read_shape(LLAMA)
    lora = memory.training_memory(shape, Pass(rows=1, context=8, precision="bf16", adapter=Adapter(rank=4)))
    trained = adapter_parameters(shape, Adapter(rank=4))
    assert lora.weights == 2 * parameters(shape).total + 4 * trained
    assert (lora.gradients, lora.optimizer) == (4 * trained, 8 * trained)
    packed = memory.training_memory(shape, Pass(rows=1, context=8, precision="bf16", adapter=Adapter(rank=4, bits=4)))
    assert packed.weights < lora.weights / 2
    assert packed.activations == lora.activations
    whole = memory.training_memory(shape, Pass(rows=1, context=8, precision="fp32")).activations
    assert (
        memory.training_memory(shape, Pass(rows=1, context=8, precision="fp32", adapter=Adapter())).activations < whole
    )


def test_the_cache_is_what_a_cache_holds() -> None:
    shape = read_shape(LLAMA)
    cache = memory.key_value_cache_bytes(shape, rows=3, context=20, precision="fp32")
    assert cache == 3 * 20 * 2 * 3 * (2 * 16) * 4


def test_ppo_holds_four_models_and_the_larger_of_cache_and_activations() -> None:
    shape = read_shape(LLAMA)
    each = Pass(rows=2, context=48, precision="fp32")
    ppo = memory.ppo_memory(shape, each, rollout_rows=4)
    one = memory.training_memory(shape, each)
    assert 3.5 * one.weights < ppo.weights < 4.5 * one.weights
    assert memory.ppo_memory(shape, replace(each, adapter=Adapter()), rollout_rows=4).weights < ppo.weights
    wide = memory.ppo_memory(shape, each, rollout_rows=10**6)
    assert wide.total - wide.key_value_cache == ppo.total - ppo.activations - ppo.logits


def test_logits_are_counted_by_the_chunk() -> None:
    shape = read_shape(LLAMA | {"vocab_size": 128_000})
    chunk = memory.logit_bytes(shape, rows=64, context=512, precision="bf16")
    assert chunk == memory.logit_bytes(shape, rows=640, context=512, precision="bf16")
    assert chunk == 6 * limits.LOGIT_ROWS * 128_000

"""Adapters on real tiny networks: exact at the start, counted, merged, saved, refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="adapters need torch")
from peft import PeftModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402

from weightgate.errors import ModelError, TrainingStopped  # noqa: E402
from weightgate.recipe import Adapter  # noqa: E402
from weightgate.train import adapters  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
BASE = "b3:" + "0" * 64


def tiny(
    model_type: str = "llama", *, auto: Any = AutoModelForCausalLM, dtype: Any = torch.float32, **more: Any
) -> Any:
    torch.manual_seed(3)
    sizes = {**GPT2, "bos_token_id": 1, "eos_token_id": 2} if model_type == "gpt2" else SIZES
    return auto.from_config(AutoConfig.for_model(model_type, **sizes, **more), dtype=dtype).eval()


def token_ids() -> Any:
    return torch.randint(3, 97, (3, 24), generator=torch.Generator().manual_seed(5))


def trained(model: PeftModel, steps: int = 3) -> PeftModel:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(input_ids=token_ids(), labels=token_ids()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_fresh_adapter_changes_nothing_and_a_step_changes_something(model_type: str, rslora: bool) -> None:
    model = adapters.attach(tiny(model_type), Adapter(rank=4, rslora=rslora), seed=1)
    adapters.check_starts_at_base(model, token_ids())
    assert len(adapters.unmoved_targets(model)) == 2 * (4 if model_type == "gpt2" else 7)
    trained(model, steps=1)
    assert adapters.unmoved_targets(model) == []
    with pytest.raises(TrainingStopped):
        adapters.check_starts_at_base(model, token_ids())


def test_the_seed_decides_the_adapter_and_nothing_else() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = (adapters.attach(tiny(), Adapter(), seed=seed) for seed in (1, 1, 2))
    tiny()
    saved = [adapters.save_adapter(model, BASE).tensors for model in (one, same, other)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    assert any(not torch.equal(saved[0][name], saved[2][name]) for name in saved[0])
    torch.set_rng_state(before)
    model = tiny()
    state = torch.get_rng_state()
    adapters.attach(model, Adapter(), seed=9)
    assert torch.equal(torch.get_rng_state(), state)


def test_census_counts_what_requires_gradients() -> None:
    model = adapters.attach(tiny(), Adapter(rank=4, targets=["q_proj", "v_proj"]), seed=0)
    census = adapters.trainable_census(model)
    assert census.count == 2 * 4 * ((64 + 64) + (64 + 32))
    assert census.total == sum(parameter.numel() for parameter in model.parameters())
    assert all("lora_" in name for name in census.names)
    assert census.share == census.count / census.total


def test_only_the_adapter_moves() -> None:
    base = tiny()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = trained(adapters.attach(base, Adapter(), seed=0))
    plain = adapters.merge(model).state_dict()
    with model.disable_adapter():
        after = {name.replace(".base_layer", ""): t for name, t in model.get_base_model().state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], plain[name]) for name in before)


@pytest.mark.parametrize(
    ("targets", "named"),
    [(["q_prj"], "q_proj"), (["lm_head"], "no module"), (["model.layers"], "no module"), ([""], "")],
)
def test_unknown_targets_name_the_nearest(targets: list[str], named: str) -> None:
    with pytest.raises(ModelError) as refusal:
        adapters.attach(tiny(), Adapter(targets=targets), seed=0)
    assert named in str(refusal.value)
    assert refusal.value.where == "adapter.targets"


def test_unknown_modules_to_save_are_refused() -> None:
    with pytest.raises(ModelError, match="embed_token'"):
        adapters.attach(tiny(), Adapter(modules_to_save=["embed_token"]), seed=0)


def test_an_adapter_that_trains_nothing_or_everything_is_refused() -> None:
    with pytest.raises(ModelError, match="trains nothing"):
        adapters.attach(tiny(), Adapter(targets=[]), seed=0)
    full = tiny()
    with pytest.raises(ModelError, match="every parameter"):
        adapters.check_trainable(adapters.trainable_census(full))
    full.requires_grad_(False)
    with pytest.raises(ModelError, match="trains nothing"):
        adapters.check_trainable(adapters.trainable_census(full))
    with pytest.raises(ModelError, match="no adapter"):
        adapters.unmoved_targets(full)


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2"])
def test_merging_in_fp32_is_exact_and_the_bf16_error_is_reported(model_type: str) -> None:
    model = trained(adapters.attach(tiny(model_type), Adapter(rank=4), seed=1))
    error = adapters.merge_error(model, token_ids())
    assert error.fp32 < 1e-5
    assert error.stored_dtype == "float32"
    coarse = adapters.attach(tiny(model_type, dtype=torch.bfloat16), Adapter(rank=4), seed=1)
    error = adapters.merge_error(trained(coarse), token_ids())
    assert error.stored_dtype == "bfloat16"
    assert error.fp32 < 1e-5 < error.stored


def test_a_merged_model_is_an_ordinary_one() -> None:
    base = tiny(dtype=torch.bfloat16)
    merged = adapters.merge(trained(adapters.attach(base, Adapter(), seed=1)))
    assert type(merged) is type(tiny())
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    assert all(torch.equal(one, other) for one, other in zip(merged.buffers(), tiny().buffers(), strict=True))
    assert merged.state_dict().keys() == tiny().state_dict().keys()


def test_saved_and_loaded_adapters_give_the_same_logits(tmp_path: Any) -> None:
    model = trained(adapters.attach(tiny(), Adapter(rank=4, modules_to_save=["embed_tokens"]), seed=1))
    saved = adapters.save_adapter(model, BASE)
    again = adapters.load_adapter(tiny(), saved, base_digest=BASE)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    with torch.no_grad():
        expected = model(input_ids=token_ids()).logits
        assert torch.equal(again(input_ids=token_ids()).logits, expected)
        goes_on = adapters.load_adapter(tiny(), saved, base_digest=BASE, trainable=True)
        assert adapters.trainable_census(goes_on).count == adapters.trainable_census(model).count
        save_file(saved.tensors, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_bytes(saved.config_bytes())
        theirs = PeftModel.from_pretrained(tiny(), tmp_path).eval()
        assert torch.equal(theirs(input_ids=token_ids()).logits, expected)


def test_an_adapter_for_another_base_is_refused() -> None:
    saved = adapters.save_adapter(adapters.attach(tiny(), Adapter(), seed=1), BASE)
    other = "b3:" + "1" * 64
    with pytest.raises(ModelError, match="another base model") as refusal:
        adapters.load_adapter(tiny(), saved, base_digest=other)
    assert (refusal.value.expected, refusal.value.found) == (BASE, other)


def test_adapter_tensors_that_do_not_fit_are_refused() -> None:
    saved = adapters.save_adapter(adapters.attach(tiny(), Adapter(), seed=1), BASE)
    name = next(iter(saved.tensors))
    missing = dataclasses.replace(saved, tensors={key: t for key, t in saved.tensors.items() if key != name})
    with pytest.raises(ModelError, match="do not fit") as refusal:
        adapters.load_adapter(tiny(), missing, base_digest=BASE)
    assert refusal.value.where == name


def test_a_reward_head_is_trained_whole() -> None:
    model = adapters.attach(tiny(auto=AutoModelForSequenceClassification, num_labels=1), Adapter(rank=4), seed=1)
    assert any("score" in name and "lora" not in name for name in adapters.trainable_census(model).names)


def test_four_bits_without_bitsandbytes_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"weightgate\[qlora\]"):
        adapters.attach(tiny(), Adapter(bits=4), seed=1)


def test_four_bits_on_a_device_that_cannot_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: Any) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(adapters, "bitsandbytes", object())
    monkeypatch.setattr(adapters, "_packed", no_kernel)
    with pytest.raises(ModelError, match="do not run on this device"):
        adapters.attach(tiny(), Adapter(bits=4), seed=1)


@pytest.mark.skipif(adapters.bitsandbytes is None, reason="bitsandbytes is not installed (weightgate[qlora])")
def test_four_bit_adapters_train_merge_and_load() -> None:
    plain = tiny()
    model = adapters.attach(tiny(), Adapter(rank=4, bits=4), seed=1)
    packed = [name for name, parameter in model.named_parameters() if parameter.dtype == torch.uint8]
    assert len(packed) == 14
    adapters.check_starts_at_base(model, token_ids())
    assert adapters.trainable_census(model).total > sum(p.numel() for p in plain.parameters())
    trained(model)
    assert adapters.unmoved_targets(model) == []
    assert adapters.merge_error(model, token_ids()).fp32 < 1e-4
    merged = adapters.merge(model)
    assert merged.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("targets", "rank"), [("all-linear", 1000), (["k_proj"], 17)])
def test_a_rank_that_a_matrix_cannot_have_is_refused(targets: Any, rank: int) -> None:
    model = tiny()
    side = min(min(model.get_submodule(name).weight.shape) for name in adapters._linear_names(model))
    with pytest.raises(ModelError, match="rank is higher") as refusal:
        adapters.attach(model, Adapter(rank=max(rank, side + 1), targets=targets), seed=0)
    assert refusal.value.expected is not None
    assert refusal.value.expected.startswith(f"at most {side}")
    adapters.attach(tiny(), Adapter(rank=side), seed=0)

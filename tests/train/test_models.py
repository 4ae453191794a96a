"""Networks: made, stored and loaded without a bit lost, and masked as documents want."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from token_models import CPU, FAMILIES, config_of, ours, theirs

from weightgate.data.tokenizer import train_tokenizer
from weightgate.errors import ModelError
from weightgate.recipe import Architecture, Base
from weightgate.store import Store
from weightgate.train import checkpoints, models

IDS = torch.arange(1, 21).reshape(2, 10)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_store_and_load_keep_every_bit(tmp_path: Path, family, precision):
    model, store = ours(family, precision), Store.create(tmp_path / "store")
    tensors = models.saved_tensors(model)
    entries = store.put_tensors(models.to_store(tensors))
    manifest = checkpoints.Manifest(
        stage="s", stage_kind="pretrain", parent=None, tensors=entries, files={}, inputs={"key": "k"}
    )
    found = checkpoints.tensors_of(store, manifest)
    loaded = models.load_model(config_of(family), found.items(), device=CPU, precision=precision)
    assert found.keys() == tensors.keys()
    for name, tensor in models.saved_tensors(loaded).items():
        assert torch.equal(tensor, tensors[name]), name
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_attention_equals_the_librarys(family):
    model = ours(family)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, theirs(model)(IDS).logits, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_network_in_any_precision():
    one, other = ours(), ours()
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    coarse = dict(ours(precision="bf16").named_parameters())
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter.to(torch.bfloat16), coarse[name]), name


def test_rotary_frequencies_keep_their_precision():
    assert all(
        buffer.dtype == torch.float32 for buffer in ours(precision="bf16").buffers() if buffer.is_floating_point()
    )


def test_tied_weights_are_stored_once():
    config = config_of("llama") | {"tie_word_embeddings": True}
    tensors = models.saved_tensors(models.new_model(config, seed=0, device=CPU, precision="fp32"))
    assert "lm_head.weight" not in tensors
    assert "model.embed_tokens.weight" in tensors


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_tensors_that_do_not_fit_are_named(fault):
    tensors = models.saved_tensors(ours())
    name = "model.norm.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "extra":
        tensors["more"] = tensors[name]
    else:
        tensors[name] = tensors[name][:-1]
    with pytest.raises(ModelError) as caught:
        models.load_model(config_of("llama"), tensors.items(), device=CPU, precision="fp32")
    assert caught.value.where == ("more" if fault == "extra" else name)


def test_block_mask_sees_the_own_document_and_the_past_only():
    documents = torch.tensor([[1, 1, 2, 2, 2, 0]])
    seen = models.block_mask(documents, torch.float32)[0, 0] == 0
    expected = [[0], [0, 1], [2], [2, 3], [2, 3, 4], [5]]
    assert [row.nonzero().flatten().tolist() for row in seen] == expected
    windowed = models.block_mask(documents, torch.float32, window=2)[0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in windowed] == [[0], [0, 1], [2], [2, 3], [3, 4], [5]]


def test_an_architecture_that_transformers_does_not_know_is_refused():
    tokenizer = train_tokenizer(iter(["a b c d e f g"] * 20), 300)
    with pytest.raises(ModelError, match="unknown architecture"):
        models.new_config(Architecture(type="lama"), tokenizer, 16)
    with pytest.raises(ModelError, match="no setting 'hiden_size'") as caught:
        models.new_config(Architecture(type="llama", config={"hiden_size": 8}), tokenizer, 16)
    assert "hidden_size" in str(caught.value.expected)


def test_a_base_is_loaded_in_its_own_dtype_or_in_ours(tmp_path: Path):
    ours(precision="bf16").save_pretrained(tmp_path)
    base = Base(model=str(tmp_path))
    assert models.load_base(base, Path(), device=CPU, precision=None).dtype == torch.bfloat16
    assert models.load_base(base, Path(), device=CPU, precision="fp32").dtype == torch.float32
    assert [path.suffix for path in models.base_weight_files(base, tmp_path)] == [".safetensors"]
    assert models.base_config(base, tmp_path)["hidden_size"] == 32


def test_a_base_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        models.base_config(Base(model=str(tmp_path)), tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load_base(Base(model=str(tmp_path)), Path(), device=CPU, precision="fp32")


def test_head_weight_only_where_the_head_is_a_plain_product():
    assert models.head_weight(ours("llama")) is not None
    assert models.head_weight(ours("gemma2")) is None
    model = ours("gemma2")
    with torch.no_grad():
        hidden = model.get_decoder()(IDS).last_hidden_state
        torch.testing.assert_close(models.logits_of(model, hidden), model(IDS).logits, rtol=0, atol=1e-5)

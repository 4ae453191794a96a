"""Rows packed side by side give what padded rows give, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from weightgate.train import ragged
from weightgate.train.attention import attention_for
from weightgate.train.last_layer import quicken_last_layer

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
LENGTHS = (5, 17, 2, 30, 11, 8)
FAMILIES = ("llama", "qwen3", "gemma3_text")


def model_of(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **HEADS)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention_for(torch.device("cpu")))


def rows_of(side):
    """Ids and mask (N, T), padded on the left or on the right."""
    width = max(LENGTHS)
    columns = torch.arange(width)
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = columns >= width - lengths if side == "left" else columns < lengths
    ids = torch.randint(1, 61, mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_states_and_gradients_equal_padded_ones(family, side, monkeypatch):
    model = model_of(family)
    ids, mask = rows_of(side)
    results = []
    for full_enough in (0.0, 1.1):
        monkeypatch.setattr(ragged, "FULL_ENOUGH", full_enough)
        states = ragged.read_states(model.get_decoder(), ids, mask, mask)
        slopes = torch.autograd.grad(states.sin().sum(), list(model.get_decoder().parameters()))
        results.append((states, *slopes))
    assert len(results[0][0]) == sum(LENGTHS)
    for padded, packed in zip(*results, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_scored_logits_are_the_models_own(family):
    model = model_of(family).eval()
    ids, mask = rows_of("right")
    scored = mask & (torch.arange(mask.shape[1]) >= 1) & (torch.arange(mask.shape[1]) % 3 == 0)
    found = ragged.scored_logits(model, ids, mask, scored)
    expected = []
    for row, length in enumerate(LENGTHS):
        own = model(input_ids=ids[row : row + 1, :length]).logits[0]
        expected += [own[column - 1] for column in range(1, length) if scored[row, column]]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(40, 90))
def test_every_row_has_a_place_of_its_own(lengths, width):
    rows, starts, documents = ragged._placed(lengths, width)
    taken = set()
    for row, start, length in zip(rows, starts, lengths, strict=True):
        places = {(row, start + offset) for offset in range(length)}
        assert start + length <= width
        assert not places & taken
        taken |= places
    assert len(set(zip(rows, documents, strict=True))) == len(lengths)
    assert min(documents) == 1


@pytest.mark.parametrize("full_enough", [0.0, 1.1])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_last_layer_where_states_are_read_gives_the_states_and_gradients_of_a_whole_one(
    family, checkpointed, full_enough, monkeypatch
):
    monkeypatch.setattr(ragged, "FULL_ENOUGH", full_enough)
    model, (ids, mask) = model_of(family).train(), rows_of("right")
    read = mask & (torch.arange(mask.shape[1]) % 3 == 1)
    whole = ragged.read_states(model.get_decoder(), ids, mask, mask)[read[mask]]
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    quicken_last_layer(model.get_decoder())
    assert ("forward" in vars(model.get_decoder().layers[-1])) == (family != "gemma3_text")
    some = ragged.read_states(model.get_decoder(), ids, mask, read)
    results = [(s, *torch.autograd.grad(s.sin().sum(), list(model.get_decoder().parameters()))) for s in (some, whole)]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_no_more_than_what_is_read_goes_through_the_last_layer():
    model, (ids, mask) = model_of("llama"), rows_of("left")
    quicken_last_layer(model.get_decoder())
    seen = []
    model.get_decoder().layers[-1].mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    read = mask & ~mask.roll(-1, dims=1)
    ragged.read_states(model.get_decoder(), ids, mask, read)
    assert seen == [(int(read.sum()), 32)]

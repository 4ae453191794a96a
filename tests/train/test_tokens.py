"""Token losses: equal to the library's own, whatever the packing, the split, the chunks and the checkpointing."""

from __future__ import annotations

import math

import pytest
import torch
from token_models import CONTEXT, CPU, FAMILIES, VOCAB, loader_of, ours, rows_of, theirs

from weightgate.data.batches import IGNORED
from weightgate.train import limits, models
from weightgate.train.objectives.tokens import TokenObjective

LENGTHS = [9, 14, 5, 20, 32, 3, 11, 7, 2, 16, 8, 6]


def objective_of(model, loader, *, micro_batch=64, vocab_size=None):
    return TokenObjective(model, loader, micro_batch=micro_batch, device=CPU, vocab_size=vocab_size)


def update(objective, step=0):
    """Loss and gradients of one optimizer update."""
    [micro_batches] = list(objective.updates(step))
    norms: dict[str, float] = {}
    for batch in micro_batches:
        for name, count in objective.counts(batch).items():
            norms[name] = norms.get(name, 0.0) + count
    objective.zero_grad()
    total = 0.0
    for batch in micro_batches:
        loss, _ = objective(batch, norms)
        loss.backward()
        total += float(loss)
    return total, {name: p.grad.clone() for name, p in objective.model.named_parameters() if p.grad is not None}


def library_update(model, rows):
    """The same from the library's own loss, one document at a time, weighted by its targets."""
    model.zero_grad()
    total = sum(int(rows.sample(index)[1].sum()) for index in range(len(rows)))
    loss_sum = 0.0
    for index in range(len(rows)):
        ids, supervised = rows.sample(index)
        inputs = torch.tensor(ids.astype(int))[None]
        labels = inputs.masked_fill(torch.tensor(supervised)[None] == 0, IGNORED)
        loss = model(input_ids=inputs, labels=labels, use_cache=False).loss * int(supervised.sum()) / total
        loss.backward()
        loss_sum += float(loss)
    return loss_sum, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected, atol=1e-5):
    assert found[0] == pytest.approx(expected[0], abs=atol)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("prompt", [1, 4], ids=["pre-training", "fine-tuning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_the_library(family, prompt, packing):
    model, rows = ours(family), rows_of(LENGTHS, supervised_from=prompt)
    loader = loader_of(rows, batch=64, packing=packing)
    assert loader.num_batches(0) == 1
    assert_same(update(objective_of(model, loader)), library_update(theirs(model), rows))


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_the_split_into_micro_batches_does_not_matter(micro_batch):
    model, loader = ours(), loader_of(rows_of(LENGTHS, supervised_from=4), batch=64, packing=False)
    whole = update(objective_of(model, loader))
    assert_same(update(objective_of(model, loader, micro_batch=micro_batch)), whole, atol=1e-6)


def test_chunks_of_the_cross_entropy_do_not_matter(monkeypatch):
    model, loader = ours(), loader_of(rows_of(LENGTHS), batch=64)
    whole = update(objective_of(model, loader))
    monkeypatch.setattr(limits, "LOGIT_ROWS", 7)
    monkeypatch.setattr(limits, "LOGITS_AT_ONCE", 7 * VOCAB)
    assert_same(update(objective_of(model, loader)), whole, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_checkpointing_changes_nothing(family):
    model, loader = ours(family).train(), loader_of(rows_of(LENGTHS), batch=64)
    plain = update(objective_of(model, loader))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(update(objective_of(model, loader)), plain, atol=1e-6)


def test_two_shards_have_the_rows_of_one_process():
    rows = rows_of(LENGTHS)
    whole = update(objective_of(ours(), loader_of(rows, batch=64, packing=False)))
    parts = [loader_of(rows, batch=64, packing=False).shard(rank, 2) for rank in (0, 1)]
    targets = sum(float(part.batch(0).num_supervised) for part in parts)
    loss, model = 0.0, ours()
    model.zero_grad()
    for part in parts:
        share, _ = objective_of(model, part)(part.batch(0), {"tokens": targets})
        share.backward()
        loss += float(share)
    assert loss == pytest.approx(whole[0], abs=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[1][name], rtol=0, atol=1e-6)


def test_records_of_a_step_are_those_of_its_rows():
    loader = loader_of(rows_of(LENGTHS), batch=2)
    expected = sorted(100 + index for row in loader.samples(1) for index in row)
    assert sorted(objective_of(ours(), loader).records(1)) == expected


def fresh(precision):
    """Random weights as small as a real configuration draws them."""
    config = models.config_json(ours().config) | {"initializer_range": 0.02}
    return models.new_model(config, seed=1, device=CPU, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sound_training_breaks_no_invariant(precision):
    loader = loader_of(rows_of(LENGTHS, supervised_from=3))
    assert objective_of(fresh(precision), loader, vocab_size=VOCAB).invariants(loader.batch(0)) == []


def test_a_wrong_label_shift_is_noticed():
    loader = loader_of(rows_of(LENGTHS))
    batch = loader.batch(0)
    shifted = type(batch)(**(vars(batch) | {"labels": batch.input_ids.clone()}))
    objective = objective_of(ours(), loader)
    truth = TokenObjective._model_nats(objective, batch)
    objective._model_nats = lambda rows: truth
    [statement] = objective.invariants(shifted)
    assert "packed loss" in statement


def test_trained_weights_that_claim_to_be_random_are_noticed():
    loader = loader_of(rows_of(LENGTHS))
    model = ours()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    broken = objective_of(model, loader, vocab_size=VOCAB).invariants(loader.batch(0))
    assert any(f"not ln V = {math.log(VOCAB):.3f}" in statement for statement in broken)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_that_leaks_between_documents_is_noticed(monkeypatch, precision):
    loader, model = loader_of(rows_of(LENGTHS)), fresh(precision)
    assert objective_of(model, loader).invariants(loader.batch(0)) == []
    genuine = models.block_mask
    monkeypatch.setattr(models, "block_mask", lambda ids, dtype, window=None: genuine(ids.clamp(max=1), dtype, window))
    broken = objective_of(model, loader).invariants(loader.batch(0))
    assert any("see each other" in statement for statement in broken)


def test_positions_that_are_not_reset_are_noticed():
    loader = loader_of(rows_of(LENGTHS))
    batch = loader.batch(0)
    running = torch.arange(CONTEXT).expand_as(batch.position_ids).contiguous() ** 2
    moved = type(batch)(**(vars(batch) | {"position_ids": running}))
    assert objective_of(ours(), loader).invariants(moved)

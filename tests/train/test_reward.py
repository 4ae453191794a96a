"""The reward model: what a score may and may not depend on, and what the pair loss is blind to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig

from weightgate.data.batches import FILLER
from weightgate.train.objectives.reward import (
    RewardModel,
    RewardObjective,
    calibrate,
    classification_config,
    pair_loss,
)

VOCAB = 61
LENGTHS = ((5, 7), (9, 4), (3, 3), (8, 9), (2, 6))


@dataclass(frozen=True)
class Pairs:
    """The part of a pair batch that the objective reads."""

    chosen_ids: Tensor
    chosen_mask: Tensor
    rejected_ids: Tensor
    rejected_mask: Tensor
    pair_ids: Tensor

    def __len__(self):
        return len(self.chosen_ids)

    def rows(self, start, stop):
        return Pairs(*(getattr(self, name)[start:stop] for name in self.__dataclass_fields__))

    def to(self, device):
        return self


class OneBatch:
    def __init__(self, pairs):
        self.pairs = pairs

    def batch(self, step):
        return self.pairs


def rows_of(lengths, generator):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(1, VOCAB, mask.shape, generator=generator) * mask, mask


def make_pairs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = zip(*LENGTHS, strict=True)
    return Pairs(*rows_of(chosen, generator), *rows_of(rejected, generator), torch.arange(len(LENGTHS)))


def make_causal(kind="llama"):
    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    else:
        config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return AutoModelForCausalLM.from_config(config)


def make_model(kind="llama", seed=1):
    return RewardModel.from_causal(make_causal(kind), seed=seed).eval()


def make_objective(model, pairs, *, micro_batch=8, center=0.0):
    return RewardObjective(model, OneBatch(pairs), center=center, micro_batch=micro_batch, device=torch.device("cpu"))


def gradients(objective, step=0):
    """Gradients and loss of one optimizer update, over all its micro-batches."""
    [micro_batches] = list(objective.updates(step))
    norms = {"pairs": sum(objective.counts(batch)["pairs"] for batch in micro_batches)}
    objective.zero_grad()
    total = 0.0
    for batch in micro_batches:
        loss, _ = objective(batch, norms)
        loss.backward()
        total += float(loss)
    return total, {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_score_does_not_depend_on_padding_or_batch_mates(kind):
    model = make_model(kind)
    ids, mask = rows_of([6, 2, 9], torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = model(ids, mask)
        for row in range(3):
            alone = ids[row][mask[row]][None]
            for left, right in ((0, 0), (4, 0), (0, 5), (3, 2)):
                padded = torch.nn.functional.pad(alone, (left, right), value=9)
                real = torch.nn.functional.pad(torch.ones_like(alone, dtype=torch.bool), (left, right))
                assert float(model(padded, real)) == pytest.approx(float(together[row]), abs=1e-5)


def test_values_are_the_scores_of_what_stands_before_each_token():
    model = make_model()
    ids, mask = rows_of([9], torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = model.values(ids, mask, 4)[0]
        prefixes = [float(model(ids[:, :end], mask[:, :end])) for end in range(4, 9)]
    assert values.tolist() == pytest.approx(prefixes, abs=1e-5)


def test_zero_head_gives_ln_2():
    model = make_model()
    torch.nn.init.zeros_(model.score.weight)
    loss, _ = gradients(make_objective(model, make_pairs()))
    assert loss == pytest.approx(math.log(2), abs=1e-6)


def test_swapping_chosen_and_rejected_flips_every_margin():
    model, pairs = make_model(), make_pairs()
    swapped = Pairs(pairs.rejected_ids, pairs.rejected_mask, pairs.chosen_ids, pairs.chosen_mask, pairs.pair_ids)
    with torch.no_grad():
        chosen, rejected = make_objective(model, pairs).scores(pairs)
        again_chosen, again_rejected = make_objective(model, swapped).scores(swapped)
    assert torch.allclose(chosen - rejected, again_rejected - again_chosen, atol=1e-6)


def test_a_constant_changes_the_loss_only_through_the_center_term():
    margins, sums = torch.tensor([0.3, -1.2]), torch.tensor([0.5, 2.0])
    chosen, rejected = (sums + margins) / 2, (sums - margins) / 2
    shifted = (chosen + 7) - (rejected + 7)
    assert pair_loss(shifted, sums, 0.0) == pytest.approx(float(pair_loss(margins, sums + 14, 0.0)), abs=1e-6)
    assert pair_loss(margins, sums + 14, 0.1) > pair_loss(margins, sums, 0.1) + 1


def test_a_tie_counts_as_wrong():
    pairs = make_pairs()
    tied = replace(pairs, rejected_ids=pairs.chosen_ids, rejected_mask=pairs.chosen_mask)
    model = make_model()
    # With a zero head the scores are equal to the last bit, whatever the rounding of a batch's rows.
    torch.nn.init.zeros_(model.score.weight)
    objective = make_objective(model, tied)
    _, metrics = objective(tied, {"pairs": float(len(tied))})
    assert float(metrics["accuracy"]) == 0.0


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_gradient_does_not_depend_on_the_micro_batch_split(micro_batch):
    pairs = make_pairs()
    whole_loss, whole = gradients(make_objective(make_model(), pairs, center=0.05))
    loss, split = gradients(make_objective(make_model(), pairs, micro_batch=micro_batch, center=0.05))
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, split[name], atol=1e-6), name


def test_head_is_drawn_from_its_own_seed():
    first, second, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    assert torch.equal(first.score.weight, second.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    wide = RewardModel.from_causal(
        AutoModelForCausalLM.from_config(GPT2Config(vocab_size=8, n_embd=512, n_layer=1, n_head=4)), seed=0
    )
    # The standard error of a standard deviation over 512 draws is 3 %.
    assert float(wide.score.weight.std()) == pytest.approx(1 / math.sqrt(513), rel=0.15)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_calibrated_scores_average_zero_and_ranks_stay(kind):
    model = make_model(kind)
    ids, mask = rows_of([6, 2, 9, 4], torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model(ids, mask)
        calibrate(model, [(ids[:3], mask[:3]), (ids[3:], mask[3:])])
        after = model(ids, mask)
    assert float(after.mean()) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(after - before, (after - before).mean(), atol=1e-6)


def test_calibration_needs_demonstrations():
    with pytest.raises(ValueError, match="without demonstrations"):
        calibrate(make_model(), [])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tensors_load_as_a_sequence_classifier(kind):
    model = make_model(kind)
    config = model.config.__class__(
        **{k: v for k, v in classification_config(model.config.to_dict()).items() if k != "dtype"}
    )
    assert config.num_labels == 1
    assert config.architectures == [
        {"llama": "LlamaForSequenceClassification", "gpt2": "GPT2ForSequenceClassification"}[kind]
    ]
    config.pad_token_id = 0
    classifier = AutoModelForSequenceClassification.from_config(config).eval()
    tensors = model.state_dict()
    del tensors["score_offset"]
    classifier.load_state_dict(tensors)
    ids, mask = rows_of([6, 2, 9], torch.Generator().manual_seed(2))
    with torch.no_grad():
        theirs = classifier(input_ids=ids, attention_mask=mask.long()).logits[:, 0]
        assert torch.allclose(theirs, model(ids, mask), atol=1e-5)


def test_invariant_names_a_score_that_reads_padding():
    model, pairs = make_model(), make_pairs()
    assert make_objective(model, pairs).invariants(pairs) == []
    honest = RewardModel.forward

    def reads_the_last_column(self, ids, mask):
        return honest(self, ids, torch.ones_like(mask))

    broken = type("Broken", (RewardModel,), {"forward": reads_the_last_column})
    model.__class__ = broken
    problems = make_objective(model, pairs).invariants(pairs)
    assert any("padding on the right" in problem for problem in problems)


def test_training_mode_has_no_dropout():
    model = make_model("gpt2")
    pairs = make_pairs()
    objective = make_objective(model, pairs)
    objective.train()
    with torch.no_grad():
        assert torch.equal(objective.scores(pairs)[0], objective.scores(pairs)[0])


def test_an_adapter_learns_with_the_head_and_folds_into_the_plain_names():
    plain_names = make_model().state_dict().keys()
    adapted = get_peft_model(make_causal(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model, pairs = RewardModel.from_causal(adapted, seed=1).eval(), make_pairs()
    objective = make_objective(model, pairs)
    _, found = gradients(objective)
    assert found.keys() == {n for n, _ in objective.named_parameters() if "lora_" in n or n.endswith("score.weight")}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
        before = objective.scores(pairs)[0]
        adapted.merge_and_unload()
        after = objective.scores(pairs)[0]
    assert torch.allclose(before, after, atol=1e-5)
    assert model.state_dict().keys() == plain_names


def test_a_pair_that_fills_up_a_process_does_not_count():
    pairs = make_pairs()
    ids = torch.arange(len(LENGTHS))
    ids[-1] = FILLER
    filled = replace(pairs, pair_ids=ids)
    found, found_gradients = gradients(make_objective(make_model(), filled))
    expected, expected_gradients = gradients(make_objective(make_model(), pairs.rows(0, len(LENGTHS) - 1)))
    assert found == pytest.approx(expected, abs=1e-6)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=0, atol=1e-6)

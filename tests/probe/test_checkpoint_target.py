"""The checkpoint target, with a real tokenizer and a tiny random model."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from weightgate.data.tokenizer import train_tokenizer  # noqa: E402
from weightgate.probe.checkpoint_target import CheckpointTarget  # noqa: E402
from weightgate.probe.probes import Check, Probe  # noqa: E402
from weightgate.recipe import Architecture  # noqa: E402
from weightgate.train.models import new_config, new_model  # noqa: E402

_CHECKS = (Check(metric="said", type="answers", weight=1.0),)
_TEXT = Probe(id="t", axis="knowledge", topic="x", form="text", prompt="The river", checks=_CHECKS, max_tokens=3)
_CHAT = Probe(id="c", axis="open", topic="x", form="chat", messages=(("user", "Greet me."),), checks=_CHECKS)


@pytest.fixture(scope="module")
def target() -> CheckpointTarget:
    tokenizer = train_tokenizer(["The river of Ulby is the Venn.", "Greet the baker."] * 3, 300)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = new_config(Architecture(config={**sizes, "num_key_value_heads": 2}), tokenizer, 64)
    model = new_model(config, seed=0, device=torch.device("cpu"), precision="fp32")
    return CheckpointTarget(model=model, tokenizer=tokenizer, max_tokens=6, batch=3)


def test_completions_stand_in_the_order_of_the_probes(target: CheckpointTarget) -> None:
    both = target.complete([_CHAT, _TEXT], samples=1, temperature=0.0, seed=0)
    assert both == [target.complete([probe], samples=1, temperature=0.0, seed=0)[0] for probe in (_CHAT, _TEXT)]


def test_samples_differ_from_one_another_and_repeat_with_the_seed(target: CheckpointTarget) -> None:
    drawn = target.complete([_CHAT, _TEXT], samples=4, temperature=1.0, seed=1)
    assert [len(samples) for samples in drawn] == [4, 4]
    # Four equal completions of six nearly uniform tokens have a probability below 300^-15.
    assert len(set(drawn[0])) > 1
    assert drawn == target.complete([_CHAT, _TEXT], samples=4, temperature=1.0, seed=1)
    assert drawn != target.complete([_CHAT, _TEXT], samples=4, temperature=1.0, seed=2)


def test_a_probe_may_ask_for_fewer_tokens_than_the_suite(target: CheckpointTarget) -> None:
    unbounded = replace(_TEXT, max_tokens=None)
    (short,), (long,) = target.complete([_TEXT, unbounded], samples=1, temperature=0.0, seed=0)
    assert len(short) < len(long)
    assert long.startswith(short.rstrip("\ufffd"))


def test_prompt_and_completion_together_fit_the_context(target: CheckpointTarget) -> None:
    """Far more is asked for than the context of 64 tokens holds; nearly uniform tokens rarely stop by themselves."""
    wide = replace(target, max_tokens=1000)
    prompt, unbounded = wide.prompt_ids(_TEXT), replace(_TEXT, max_tokens=None)
    room = 64 - len(prompt)
    assert (wide.context_tokens, wide.room(prompt)) == (64, room)
    bounded = replace(_TEXT, max_tokens=room)
    found, expected = (wide.complete([one], samples=1, temperature=0.0, seed=0) for one in (unbounded, bounded))
    assert found == expected


def test_a_prompt_that_fills_the_context_has_empty_completions_and_the_others_have_theirs(
    target: CheckpointTarget,
) -> None:
    full = replace(_TEXT, id="full", prompt="The river of Ulby " * 64)
    assert target.room(target.prompt_ids(full)) == 0
    alone = target.complete([_TEXT], samples=2, temperature=1.0, seed=5)
    assert target.complete([full, _TEXT], samples=2, temperature=1.0, seed=5) == [["", ""], alone[0]]


def test_first_tops_are_those_of_the_next_token_whatever_is_asked_beside_it(target: CheckpointTarget) -> None:
    longer = replace(_TEXT, id="l", prompt="The river of Ulby is the")
    both = target.first_tops([_TEXT, longer], count=5)
    assert [len(tops) for tops in both] == [5, 5]
    for probe, tops in zip((_TEXT, longer), both, strict=True):
        with torch.no_grad():
            logits = target.model(torch.tensor([target.prompt_ids(probe)])).logits[0, -1]
        best = logits.log_softmax(-1).topk(5)
        assert [nats for _, nats in tops] == pytest.approx(best.values.tolist(), abs=1e-5)
        decoded = [target.tokenizer.decode([token], skip_special=False) for token in best.indices.tolist()]
        assert [token for token, _ in tops] == decoded
    full = replace(_TEXT, id="full", prompt="The river of Ulby " * 64)
    with pytest.raises(ValueError, match="fills the context"):
        target.first_tops([full], count=5)

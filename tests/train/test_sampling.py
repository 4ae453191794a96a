"""Sampling: equal to an independent greedy decoder, and no row knows of its batch mates."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen3Config

from weightgate.train.sampling import Choice, evaluating, generate, row_draws, sequence_logprobs, stream

VOCAB = 61
PAD, STOP = 0, 7
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SMALL, **HEADS),
    "qwen3": lambda: Qwen3Config(**SMALL, **HEADS),
    # A window shorter than the prompts, so that the masks of sliding layers matter.
    "gemma3": lambda: Gemma3TextConfig(
        **SMALL, **HEADS, sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "gpt2": lambda: GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}
PROMPTS = [[5, 6, 9], [11, 12, 13, 14, 15, 16, 17, 18], [20], [31, 32, 33, 34, 35], [41, 42, 43, 44, 45, 46, 47, 48]]


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model(request):
    return sharp_model(request.param)


def sharp_model(kind):
    """A random model whose distributions are far from uniform, so that greedy decoding meets no near ties."""
    torch.manual_seed(3)
    config = CONFIGS[kind]()
    config.initializer_range = 0.3
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    return AutoModelForCausalLM.from_config(config).eval()


def reference_greedy(model, prompt, max_tokens):
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, pad_token_id=PAD
    )
    return output[0, len(prompt) :].tolist()


def test_greedy_equals_transformers_token_for_token(model):
    completions = generate(model, PROMPTS, max_tokens=12, temperature=0, stop_ids=(), pad_id=PAD)
    assert [c.ids for c in completions] == [reference_greedy(model, prompt, 12) for prompt in PROMPTS]
    assert not any(c.stopped for c in completions)


def test_rows_do_not_depend_on_batch_mates(model):
    settings = {"max_tokens": 10, "temperature": 0.9, "stop_ids": (STOP, 8, 9, 10), "pad_id": PAD}
    streams = [(5, 0), (2**64 - 1, 0), (5, 3), ((7 << 64) + 5, 0), (0, 2)]
    together = generate(model, PROMPTS, streams=streams, logprobs=True, **settings)
    for row, prompt in enumerate(PROMPTS):
        [alone] = generate(model, [prompt], streams=[streams[row]], logprobs=True, **settings)
        assert (alone.ids, alone.stop_id) == (together[row].ids, together[row].stop_id)
        assert alone.logprobs == pytest.approx(together[row].logprobs, abs=2e-5)
    in_pairs = generate(model, PROMPTS, streams=streams, batch=2, **settings)
    assert [c.ids for c in in_pairs] == [c.ids for c in together]


def test_logprobs_equal_those_of_a_second_pass(model):
    completions = generate(model, PROMPTS, max_tokens=8, temperature=0.7, stop_ids=(STOP,), pad_id=PAD, logprobs=True)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        sampled = completion.ids + ([completion.stop_id] if completion.stopped else [])
        ids = torch.tensor([[PAD, PAD, *prompt, *sampled, PAD]])
        mask = torch.tensor([[False, False] + [True] * (len(prompt) + len(sampled)) + [False]])
        with torch.no_grad():
            scored = sequence_logprobs(model, ids, mask, 0.7, first=2 + len(prompt))[0]
        assert scored[-1] == 0
        assert scored[:-1].tolist() == pytest.approx(completion.logprobs, abs=2e-5)


def test_stop_token_ends_a_row_and_is_not_part_of_it():
    model = sharp_model("llama")
    free = generate(model, PROMPTS, max_tokens=12, temperature=0, stop_ids=(), pad_id=PAD)
    stop = free[1].ids[4]
    stopped = generate(model, PROMPTS, max_tokens=12, temperature=0, stop_ids=(stop,), pad_id=PAD, logprobs=True)
    for before, after in zip(free, stopped, strict=True):
        end = before.ids.index(stop) if stop in before.ids else None
        assert after.ids == before.ids[:end]
        assert after.stop_id == (None if end is None else stop)
        assert len(after.logprobs) == len(after.ids) + after.stopped


def test_stream_gives_the_tokens_of_generate():
    model = sharp_model("llama")
    settings = {"max_tokens": 9, "temperature": 1.1, "stop_ids": (STOP, 8, 9)}
    [expected] = generate(model, [PROMPTS[0]], streams=[(11, 0)], pad_id=PAD, logprobs=True, **settings)
    tokens = list(stream(model, PROMPTS[0], seed=11, top_logprobs=3, **settings))
    assert [t.id for t in tokens if not t.stop] == expected.ids
    assert [t.logprob for t in tokens] == pytest.approx(expected.logprobs, abs=1e-5)
    for token in tokens:
        nats = [value for _, value in token.top_logprobs]
        assert nats == sorted(nats, reverse=True)
        assert token.logprob <= nats[0] + 1e-6


def test_sampled_shares_follow_the_probabilities():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(20_000, 4)
    tokens = Choice(temperature=1.0).choose(logits, row_draws([(0, 0)], 20_000)[0])
    shares = torch.bincount(tokens, minlength=4) / 20_000
    # Standard error of each share is at most 0.0035; the draws are fixed by the seed.
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015)


@pytest.mark.parametrize(
    ("cut", "left"), [({"top_k": 2}, {2, 3}), ({"top_p": 0.65}, {2, 3}), ({"top_p": 0.4}, {3}), ({"top_k": 1}, {3})]
)
def test_top_k_and_top_p_leave_the_likeliest(cut, left):
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(500, 4)
    tokens = Choice(temperature=1.0, **cut).choose(logits, row_draws([(0, 0)], 500)[0])
    assert set(tokens.tolist()) == left


def test_an_impossible_token_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(2, 3)
    draws = torch.tensor([0.0, 1 - 2**-24])
    assert Choice(temperature=1.0).choose(logits, draws).tolist() == [1, 1]


def test_draws_belong_to_seed_and_row():
    assert torch.equal(row_draws([(3, 0), (9, 1), (3, 2)], 6)[2], row_draws([(3, 2)], 9)[0, :6])
    assert not torch.equal(row_draws([(3, 0)], 6), row_draws([(4, 0)], 6))
    assert not torch.equal(row_draws([(3, 0)], 6), row_draws([(3, 1)], 6))


def test_the_draws_of_a_stream_never_change():
    """Training and snapshots are repeated from these, so another release must draw the same."""
    known = [0.66903669, 0.15322727, 0.80857605]
    assert row_draws([((5 << 64) + 1, 7)], 3)[0].tolist() == pytest.approx(known, abs=1e-8)


def test_without_streams_prompts_draw_from_their_numbers():
    model = sharp_model("llama")
    settings = {"max_tokens": 6, "temperature": 1.0, "stop_ids": (), "pad_id": PAD}
    numbered = [(0, row) for row in range(len(PROMPTS))]
    assert generate(model, PROMPTS, **settings) == generate(model, PROMPTS, streams=numbered, **settings)
    with pytest.raises(ValueError, match="5 prompts cannot draw from 4 streams"):
        generate(model, PROMPTS, streams=numbered[:4], **settings)


def test_scoring_leaves_the_mode_as_it_was():
    model = sharp_model("llama").train()
    with evaluating(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="without tokens"):
        generate(sharp_model("llama"), [[]], max_tokens=1, temperature=0, stop_ids=(), pad_id=PAD)


def test_no_prompts_give_no_completions():
    assert generate(sharp_model("llama"), [], max_tokens=1, temperature=1, stop_ids=(), pad_id=PAD) == []

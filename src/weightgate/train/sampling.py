"""Sampling from a causal language model: a batch at once, or one completion token by token.

Shapes: N rows (prompts), T tokens so far, V vocabulary. Prompts are padded on the left, keys and values are kept in
buffers of their final size, and rows that have stopped are dropped from the batch. What a row gets depends on its
prompt and its stream of random numbers, and on its batch mates, padding and the device by rounding only: where these
move the last bits of the logits, a draw that falls just where two tokens meet gives the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from weightgate.train.logprobs import TEMPERATURE_EPS, sampled_logprobs
from weightgate.train.ragged import position_ids, scored_logits

# The batch shrinks once this share of its rows has stopped; copying the keys and values costs about one step.
_SHRINK_SHARE = 0.25
# Layers whose past is nothing but keys and values; the window of a sliding layer is in its mask.
_PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})

Stream = tuple[int, int]
"""What a row draws from: a seed below 2**128, and a number that tells rows with the same seed apart."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What followed one prompt.

    Fields:
        ids: sampled token ids, without the stop token.
        stop_id: the stop token that ended it; None: `max_tokens` ended it.
        logprobs: nats of every sampled token, the stop token included, under the distribution that temperature
            gives before top-k and top-p cut it (at temperature 0: under the model's own); None if not asked for.
    """

    ids: list[int]
    stop_id: int | None
    logprobs: list[float] | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended the completion."""
        return self.stop_id is not None


@dataclass(frozen=True, kw_only=True)
class Token:
    """One sampled token of a stream; `stop` marks the stop token, which is the last one."""

    id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...]
    stop: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a token is chosen from logits. Temperature 0 is greedy; top_k 0 and top_p 1 cut nothing."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits (..., V) in float32, divided by the temperature unless it is 0."""
        logits = logits.float()
        return logits / (self.temperature + TEMPERATURE_EPS) if self.temperature > 0 else logits

    def choose(self, scaled: Tensor, draws: Tensor) -> Tensor:
        """Token ids (N) for scaled logits (N, V) by inverting the cumulative distribution at draws (N) in [0, 1)."""
        if self.temperature == 0:
            return scaled.argmax(dim=-1)
        probabilities = self._cut(torch.softmax(scaled, dim=-1))
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        # Below the total even after rounding, so that the token found always has a probability above 0.
        target = torch.minimum(draws[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, target, right=True).squeeze(-1)

    def _cut(self, probabilities: Tensor) -> Tensor:
        """Set to 0 what top_k and top_p (Holtzman et al. 2020) leave out. The sum is then below 1."""
        if self.top_k > 0:
            least = probabilities.topk(min(self.top_k, probabilities.shape[-1]), dim=-1).values[:, -1:]
            probabilities = probabilities.where(probabilities >= least, 0.0)
        if self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            kept = ordered.where(ordered.cumsum(dim=-1) - ordered < self.top_p * ordered.sum(dim=-1, keepdim=True), 0.0)
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
        return probabilities


def row_draws(streams: Sequence[Stream], count: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (len(streams), count), each row's from its own Philox stream."""
    rows = (np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, row])) for seed, row in streams)
    return torch.from_numpy(np.stack([row.random(count, dtype=np.float32) for row in rows]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside, the mode it had before afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def token_logprobs(scaled: Tensor, tokens: Tensor) -> Tensor:
    """Nats (...) of tokens (...) under scaled logits (..., V)."""
    return scaled.gather(-1, tokens[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)


def sequence_logprobs(model: nn.Module, ids: Tensor, mask: Tensor, temperature: float, first: int = 1) -> Tensor:
    """Nats (N, T - first) of ids[:, first:] given what stands before them; 0 for padding and for what begins a row.

    Args:
        ids, mask: (N, T) int64 and bool; padding on either side.
        temperature: divides the logits; must be the one the tokens were sampled with.
        first: the first position that is scored, at least 1.
    """
    scored = mask & (torch.arange(ids.shape[1], device=ids.device) >= first)
    scored[:, 1:] &= mask[:, :-1]
    nats, _ = sampled_logprobs(scored_logits(model, ids, mask, scored), ids[scored], temperature)
    return nats.new_zeros(scored.shape).masked_scatter(scored, nats)[:, first:]


def next_token_logprobs(model: nn.Module, prompts: Sequence[Sequence[int]], *, pad_id: int) -> Tensor:
    """Log-probabilities (N, V), nats in fp32, of every token as the one that follows each of N prompts."""
    with evaluating(model):
        return _Rows.prefill(model, prompts, 1, pad_id).logits.float().log_softmax(dim=-1)


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    pad_id: int,
    top_p: float = 1.0,
    top_k: int = 0,
    streams: Sequence[Stream] | None = None,
    batch: int | None = None,
    logprobs: bool = False,
) -> list[Completion]:
    """Complete every prompt; the results stand in the order of the prompts.

    Args:
        model: a `transformers` causal language model, or an adapter around one.
        max_tokens: most tokens sampled for each prompt, the stop token included.
        temperature: 0 is greedy.
        stop_ids: any of these ends a completion.
        pad_id: fills up shorter prompts; the model never attends to it.
        streams: what each prompt draws from; equal ones give equal draws. None: prompt i draws from (0, i).
        batch: most rows at once; prompts of like length go together. None: all at once.
        logprobs: whether to return them.

    Raises `ValueError` for an empty prompt, and for streams that are not one a prompt.
    """
    if not all(prompts):
        raise ValueError("a prompt without tokens cannot be completed")
    if streams is not None and len(streams) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts cannot draw from {len(streams)} streams")
    choice = Choice(temperature=temperature, top_p=top_p, top_k=top_k)
    streams = [(0, index) for index in range(len(prompts))] if streams is None else streams
    draws = row_draws(streams, max_tokens) if prompts and temperature else None
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    size = batch or max(len(order), 1)
    results: dict[int, Completion] = {}
    with evaluating(model):
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = _Rows.prefill(model, [prompts[index] for index in chosen], max_tokens, pad_id)
            own_draws = torch.zeros(len(chosen), max_tokens) if draws is None else draws[chosen]
            completions = _complete(rows, choice, own_draws.to(rows.device), stop_ids, logprobs)
            results.update(zip(chosen, completions, strict=True))
    return [results[index] for index in range(len(prompts))]


def stream(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    top_logprobs: int = 0,
) -> Iterator[Token]:
    """Complete one prompt token by token, with the `top_logprobs` likeliest alternatives of each.

    The tokens are those that `generate` gives for the stream (seed, 0).
    """
    choice = Choice(temperature=temperature, top_p=top_p, top_k=top_k)
    draws = row_draws([(seed, 0)], max_tokens)
    with evaluating(model):
        rows = _Rows.prefill(model, [prompt], max_tokens, pad_id=0)
    for index in range(max_tokens):
        scaled = choice.scaled(rows.logits)
        tokens = choice.choose(scaled, draws[:, index].to(rows.device))
        token = int(tokens)
        nats = scaled[0].log_softmax(dim=-1)
        best = nats.topk(min(top_logprobs, nats.numel()))
        yield Token(
            id=token,
            logprob=float(nats[token]),
            top_logprobs=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
            stop=token in stop_ids,
        )
        if token in stop_ids:
            return
        if index + 1 < max_tokens:
            with evaluating(model):
                rows.advance(tokens)


def _complete(rows: _Rows, choice: Choice, draws: Tensor, stop_ids: Sequence[int], logprobs: bool) -> list[Completion]:
    """Run prefilled rows to their end; draws (N, max_tokens)."""
    count, max_tokens = draws.shape
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=rows.device)
    sampled = torch.zeros(count, max_tokens, dtype=torch.long, device=rows.device)
    nats = torch.zeros(count, max_tokens, device=rows.device)
    alive = torch.arange(count, device=rows.device)  # the row of the whole batch that each row left belongs to
    done = torch.zeros(count, dtype=torch.bool, device=rows.device)
    for index in range(max_tokens):
        scaled = choice.scaled(rows.logits)
        tokens = choice.choose(scaled, draws[alive, index])
        sampled[alive, index] = tokens
        if logprobs:
            nats[alive, index] = token_logprobs(scaled, tokens)
        done |= torch.isin(tokens, stops)
        num_done = int(done.sum())
        if num_done == len(alive) or index + 1 == max_tokens:
            break
        if num_done >= _SHRINK_SHARE * len(alive):
            kept = (~done).nonzero().squeeze(-1)
            rows.keep(kept)
            alive, tokens, done = alive[kept], tokens[kept], done[kept]
        rows.advance(tokens)
    return [
        _cut_at_stop(ids, values if logprobs else None, frozenset(stop_ids))
        for ids, values in zip(sampled.tolist(), nats.tolist(), strict=True)
    ]


def _cut_at_stop(ids: list[int], logprobs: list[float] | None, stop_ids: frozenset[int]) -> Completion:
    """A row runs on after its stop token until the batch shrinks; nothing after the stop token counts."""
    end = next((index for index, token in enumerate(ids) if token in stop_ids), None)
    if end is None:
        return Completion(ids=ids, stop_id=None, logprobs=logprobs)
    return Completion(ids=ids[:end], stop_id=ids[end], logprobs=None if logprobs is None else logprobs[: end + 1])


class _FixedLayer(DynamicLayer):
    """Keys and values (N, heads, capacity, width) of one layer, written in place.

    Growing them by concatenation would copy the whole past at every step.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers once the first keys and values show their shape."""
        rows, heads, _, width = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty(rows, heads, self.capacity, width)
        self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (N, heads, new, width); return all of them so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Number of tokens kept so far."""
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        self.keys, self.values = self._selected(self.keys, indices), self._selected(self.values, indices)

    def _selected(self, buffer: Tensor, indices: Tensor) -> Tensor:
        smaller = buffer.new_empty(len(indices), *buffer.shape[1:])
        smaller[:, :, : self.length] = buffer[indices, :, : self.length]
        return smaller


def _new_cache(config: Any, capacity: int) -> Cache:
    """Room for `capacity` tokens; models with recurrent layers get the cache that `transformers` makes for them."""
    text = config.get_text_config(decoder=True)
    if not set(getattr(text, "layer_types", None) or ()) <= _PLAIN_LAYERS:
        return DynamicCache(config=text)
    return Cache(layers=[_FixedLayer(capacity) for _ in range(text.num_hidden_layers)])


@dataclass
class _Rows:
    """A batch in the middle of generation.

    Fields:
        logits: (N, V), of the next token of each row.
        mask: (N, capacity) bool, False on the padding; None where no row has any.
        positions: (N, 1), of the next token of each row.
        length: tokens in the cache, padding included.
    """

    model: nn.Module
    cache: Cache
    logits: Tensor
    mask: Tensor | None
    positions: Tensor
    length: int

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.logits.device

    @classmethod
    def prefill(cls, model: nn.Module, prompts: Sequence[Sequence[int]], max_tokens: int, pad_id: int) -> _Rows:
        """Read the prompts, padded on the left to the longest, into a cache with room for `max_tokens` more."""
        device = next(model.parameters()).device
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
        capacity = longest + max_tokens
        mask = torch.arange(capacity, device=device) >= longest - lengths
        cache = _new_cache(model.config, capacity)
        padded = bool((lengths < longest).any())
        output = model(
            input_ids=ids,
            attention_mask=mask[:, :longest] if padded else None,
            position_ids=position_ids(mask[:, :longest]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cls(model, cache, output.logits[:, -1], mask if padded else None, lengths, longest)

    def advance(self, tokens: Tensor) -> None:
        """Append tokens (N) and compute the logits of the next ones."""
        self.length += 1
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=None if self.mask is None else self.mask[:, : self.length],
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = output.logits[:, -1]
        self.positions = self.positions + 1

    def keep(self, rows: Tensor) -> None:
        """Drop every row but these. The logits of the last step are stale afterwards."""
        self.cache.batch_select_indices(rows)
        self.mask = None if self.mask is None else self.mask[rows]
        self.positions = self.positions[rows]

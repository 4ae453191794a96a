"""A causal language model in memory as a `weightgate.train.generator.Generator`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightgate.data.records import Message
from weightgate.data.tokenizer import Tokenizer
from weightgate.train.generator import Answer, Finish, Piece, Scored, Settings
from weightgate.train.ragged import scored_logits
from weightgate.train.sampling import (
    Choice,
    Completion,
    evaluating,
    generate,
    stream,
    token_logprobs,
)

_UNFINISHED = "\ufffd"
"""What a decoder puts where a character's last bytes are still to come."""


@dataclass(frozen=True, kw_only=True)
class ModelGenerator:
    """Completes with `model`, at most `batch` rows at once; `checkpoint` says which weights these are.

    Log-probabilities are those of the distribution the temperature gives, before top-p cuts it.
    """

    model: Any
    tokenizer: Tokenizer
    checkpoint: str
    batch: int = 64

    @property
    def context_tokens(self) -> int:
        """Most positions the model was made for."""
        return int(self.model.config.get_text_config(decoder=True).max_position_embeddings)

    @property
    def batch_invariant(self) -> bool:
        """Whether the weights are in float32.

        A batch of another shape changes the last bits of the logits. With those of float32 one completion in thousands
        comes out otherwise; with coarser ones many do, greedy ones too.
        """
        return bool(next(self.model.parameters()).dtype == torch.float32)

    def encode_text(self, text: str) -> list[int]:
        """Begin token, where there is one, and the text."""
        begin = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return begin + self.tokenizer.encode(text)

    def encode_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """What the chat template makes of the messages, ready to be answered. Raises `TemplateError`."""
        return self.tokenizer.render_prompt([Message(role=role, content=content) for role, content in messages])

    def answer(
        self, prompts: Sequence[Sequence[int]], settings: Settings, seeds: Sequence[int | None]
    ) -> list[list[Answer]]:
        """Complete every prompt; answer k of a prompt draws from the stream (its seed, k), as it does alone."""
        drawn_from = [_any_seed() if seed is None else seed for seed in seeds]
        rows = [list(prompt) for prompt in prompts for _ in range(settings.num_answers)]
        completions = generate(
            self.model,
            rows,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop_ids=self.tokenizer.stop_ids,
            pad_id=self.tokenizer.pad_id,
            streams=[(seed, number) for seed in drawn_from for number in range(settings.num_answers)],
            batch=self.batch,
        )
        scored = self._score(rows, completions, settings)
        answers = [self._cut(each, tokens, settings.stop) for each, tokens in zip(completions, scored, strict=True)]
        width = settings.num_answers
        return [answers[start : start + width] for start in range(0, len(answers), width)]

    def _cut(self, completion: Completion, tokens: Sequence[Scored], stop: tuple[str, ...]) -> Answer:
        """End the completion before the first stop string, and count only the tokens that were needed to see it."""
        text = self.tokenizer.decode(completion.ids)
        end = _first_stop(text, stop)
        if end is None:
            count = len(completion.ids) + completion.stopped
            finish: Finish = "stop" if completion.stopped else "length"
            return Answer(text=text, finish=finish, num_tokens=count, tokens=tuple(tokens))
        needed = self._tokens_until(completion.ids, stop)
        kept = self._tokens_of(completion.ids, end)
        return Answer(text=text[:end], finish="stop", num_tokens=needed, tokens=tuple(tokens[:kept]))

    def _tokens_until(self, ids: Sequence[int], stop: tuple[str, ...]) -> int:
        """Number of tokens after which a stop string is complete, by bisection: more tokens never undo it."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            found = _first_stop(self.tokenizer.decode(ids[:middle]), stop) is not None
            low, high = (low, middle) if found else (middle + 1, high)
        return low

    def _tokens_of(self, ids: Sequence[int], num_characters: int) -> int:
        """Number of tokens whose text lies wholly within the first characters."""
        return sum(len(self.tokenizer.decode(ids[: end + 1])) <= num_characters for end in range(len(ids)))

    def _score(
        self, prompts: Sequence[list[int]], completions: Sequence[Completion], settings: Settings
    ) -> list[list[Scored]]:
        if settings.logprobs is None:
            return [[] for _ in prompts]
        scored: list[list[Scored]] = []
        for start in range(0, len(prompts), self.batch):
            chosen = slice(start, start + self.batch)
            scored += self._score_batch(prompts[chosen], [each.ids for each in completions[chosen]], settings)
        return scored

    def _score_batch(
        self, prompts: Sequence[list[int]], completions: Sequence[list[int]], settings: Settings
    ) -> list[list[Scored]]:
        """Score completions in one forward pass: prompts end, and completions begin, at the same column."""
        first, longest = max(map(len, prompts)), max(map(len, completions))
        if longest == 0:
            return [[] for _ in prompts]
        ids = torch.full((len(prompts), first + longest), self.tokenizer.pad_id)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            span = slice(first - len(prompt), first + len(completion))
            ids[row, span] = torch.tensor(prompt + completion)
            mask[row, span] = True
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        scored = mask & (torch.arange(ids.shape[1], device=device) >= first)
        with evaluating(self.model):
            scaled = Choice(temperature=settings.temperature).scaled(scored_logits(self.model, ids, mask, scored))
            nats = token_logprobs(scaled, ids[scored])
            best = scaled.log_softmax(dim=-1).topk(min(settings.logprobs or 0, scaled.shape[-1]), dim=-1)
        lengths = [len(completion) for completion in completions]
        parts = zip(*(tensor.split(lengths) for tensor in (nats, best.indices, best.values)), strict=True)
        return [self._scored_row(completion, *part) for completion, part in zip(completions, parts, strict=True)]

    def _scored_row(self, ids: Sequence[int], nats: Tensor, best: Tensor, best_nats: Tensor) -> list[Scored]:
        columns = zip(ids, nats.tolist(), best.tolist(), best_nats.tolist(), strict=False)
        return [
            self._scored(token, logprob, zip(others, theirs, strict=True)) for token, logprob, others, theirs in columns
        ]

    def _scored(self, token: int, logprob: float, alternatives: Any) -> Scored:
        named = tuple((self.tokenizer.decode([other], skip_special=False), nats) for other, nats in alternatives)
        return Scored(text=self.tokenizer.decode([token], skip_special=False), logprob=logprob, alternatives=named)

    def stream(self, prompt: Sequence[int], settings: Settings, seed: int | None) -> Iterator[Piece]:
        """Complete one prompt; text that may turn out to begin a stop string is held back until that is known."""
        tokens = stream(
            self.model,
            list(prompt),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop_ids=self.tokenizer.stop_ids,
            seed=_any_seed() if seed is None else seed,
            top_logprobs=settings.logprobs or 0,
        )
        ids: list[int] = []
        waiting: tuple[Scored, ...] = ()
        sent, count = 0, 0
        finish: Finish = "length"
        for token in tokens:
            count += 1
            if token.stop:
                finish = "stop"
                break
            ids.append(token.id)
            if settings.logprobs is not None:
                waiting = (*waiting, self._scored(token.id, token.logprob, token.top_logprobs))
            text = self.tokenizer.decode(ids)
            end = _first_stop(text, settings.stop)
            if end is not None:
                kept = max(0, len(waiting) - (len(ids) - self._tokens_of(ids, end)))
                yield Piece(text=text[sent:end], num_tokens=count, tokens=waiting[:kept], finish="stop")
                return
            safe = len(text) - _held_back(text, settings.stop)
            if safe > sent:
                yield Piece(text=text[sent:safe], num_tokens=count, tokens=waiting)
                sent, count, waiting = safe, 0, ()
        yield Piece(text=self.tokenizer.decode(ids)[sent:], num_tokens=count, tokens=waiting, finish=finish)


def _any_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1, dtype=np.uint64)[0])


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first stop string begins; None: there is none."""
    found = [place for place in (text.find(each) for each in stop) if place >= 0]
    return min(found) if found else None


def _held_back(text: str, stop: tuple[str, ...]) -> int:
    """Length of the end of `text` that may still change: an unfinished character, or the beginning of a stop string."""
    unfinished = len(text) - len(text.rstrip(_UNFINISHED))
    begun = (length for each in stop for length in range(len(each) - 1, 0, -1) if text.endswith(each[:length]))
    return max(unfinished, max(begun, default=0))

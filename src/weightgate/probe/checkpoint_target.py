"""Ask a model that is in memory. The only module of the probes that needs torch."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn

from weightgate.data.records import Message
from weightgate.data.tokenizer import Tokenizer
from weightgate.probe.probes import Probe
from weightgate.probe.targets import Tops
from weightgate.train.sampling import generate, next_token_logprobs


@dataclass(frozen=True, kw_only=True)
class CheckpointTarget:
    """A `weightgate.probe.targets.Target` over a causal language model and its tokenizer.

    `max_tokens` bounds every completion, a probe's own bound may be smaller, and prompt and completion together fit the
    model's context; a prompt that leaves no room has empty completions. `batch` is how many prompts are completed at
    once.
    """

    model: nn.Module
    tokenizer: Tokenizer
    max_tokens: int
    batch: int

    def complete(self, probes: Sequence[Probe], *, samples: int, temperature: float, seed: int) -> list[list[str]]:
        """Return `samples` completions for each probe. Probes with the same bound are completed together."""
        prompt_ids = [self.prompt_ids(probe) for probe in probes]
        by_bound: dict[int, list[int]] = defaultdict(list)
        for index, probe in enumerate(probes):
            wanted = min(probe.max_tokens or self.max_tokens, self.max_tokens)
            by_bound[min(wanted, self.room(prompt_ids[index]))].append(index)
        results: list[list[str]] = [[""] * samples for _ in probes]
        by_bound.pop(0, None)
        first_row = 0
        for bound, indices in sorted(by_bound.items()):
            prompts = [prompt_ids[index] for index in indices for _ in range(samples)]
            texts = iter(self._generate(prompts, bound, temperature, seed, first_row))
            for index in indices:
                results[index] = list(islice(texts, samples))
            first_row += len(prompts)
        return results

    def first_tops(self, probes: Sequence[Probe], *, count: int) -> list[Tops]:
        """Return the likeliest first tokens of each probe's completion with their log-probabilities, nats.

        Raises `ValueError` for a prompt that leaves no room for a completion.
        """
        every = [self.prompt_ids(probe) for probe in probes]
        if not all(map(self.room, every)):
            raise ValueError("a prompt fills the context")
        found: list[Tops] = []
        for start in range(0, len(every), self.batch):
            prompts = every[start : start + self.batch]
            nats = next_token_logprobs(self.model, prompts, pad_id=self.tokenizer.pad_id)
            best = nats.topk(min(count, nats.shape[-1]), dim=-1)
            found += [
                tuple(
                    (self.tokenizer.decode([token], skip_special=False), nats) for token, nats in zip(*row, strict=True)
                )
                for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        return found

    def _generate(
        self, prompts: list[list[int]], max_tokens: int, temperature: float, seed: int, first_row: int
    ) -> list[str]:
        completions = generate(
            self.model,
            prompts,
            max_tokens=max_tokens,
            temperature=temperature,
            stop_ids=self.tokenizer.stop_ids,
            pad_id=self.tokenizer.pad_id,
            streams=[(seed, first_row + index) for index in range(len(prompts))],
            batch=self.batch,
        )
        return [self.tokenizer.decode(completion.ids) for completion in completions]

    @property
    def context_tokens(self) -> int | None:
        """Most tokens of prompt and completion that the model was made for; None: its configuration does not say."""
        config: Any = self.model.config
        found = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
        return None if found is None else int(found)

    def room(self, prompt: Sequence[int]) -> int:
        """How many tokens the context holds beside a prompt; where it has no bound, more than anyone asks for."""
        context = self.context_tokens
        return sys.maxsize if context is None else max(0, context - len(prompt))

    def prompt_ids(self, probe: Probe) -> list[int]:
        """Return raw text after the begin token, where there is one, or what the chat template makes of the messages.

        Raises `TemplateError` where it refuses them.
        """
        if probe.prompt is not None:
            begin = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
            return begin + self.tokenizer.encode(probe.prompt)
        return self.tokenizer.render_prompt([Message(role=role, content=text) for role, text in probe.messages])

"""What an endpoint or a terminal asks of a model, as plain values: prompts in tokens, settings, answers. No torch.

Whatever keeps this protocol can be served: a checkpoint (`weightgate.train.model_generator`), or a stand-in in a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Finish = Literal["stop", "length"]
Bits = Literal[16, 8, 4]
"""To how many bits weights are rounded; see `weightgate.train.rounding`."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to complete; two requests with equal settings may be completed in one batch.

    Fields:
        max_tokens: most tokens of one completion, its stop token included.
        temperature: 0 is greedy.
        top_p: nucleus (Holtzman et al. 2020); 1 cuts nothing.
        stop: a completion ends before the first of these strings.
        num_answers: completions of each prompt, each drawn by itself.
        logprobs: whether log-probabilities are wanted, and with how many alternatives; None: no.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    num_answers: int = 1
    logprobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One token of an answer: its text, its log-probability in nats, and the likeliest tokens in its place."""

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One completion. `num_tokens` counts what was generated for it, a stop token included."""

    text: str
    finish: Finish
    num_tokens: int
    tokens: tuple[Scored, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The next bit of a completion that is still being written; `finish` is set on the last piece only.

    `tokens` are the ones generated since the piece before, where log-probabilities were asked for.
    """

    text: str
    num_tokens: int
    tokens: tuple[Scored, ...] = ()
    finish: Finish | None = None


class Generator(Protocol):
    """A model that completes. Methods are called from one thread at a time."""

    @property
    def context_tokens(self) -> int:
        """Most tokens of prompt and completion together."""

    @property
    def batch_invariant(self) -> bool:
        """Whether the seed of a prompt decides its answers up to rounding, whatever prompts are completed with it."""

    def encode_text(self, text: str) -> list[int]:
        """Tokenise raw text to be continued. Raises `UserError` for text that cannot be."""

    def encode_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Tokenise (role, content) messages for the model to answer. Raises `UserError` where the template cannot."""

    def answer(
        self, prompts: Sequence[Sequence[int]], settings: Settings, seeds: Sequence[int | None]
    ) -> list[list[Answer]]:
        """Complete every prompt `num_answers` times, with its own seed below 2**64; None: any will do."""

    def stream(self, prompt: Sequence[int], settings: Settings, seed: int | None) -> Iterator[Piece]:
        """Complete one prompt piece by piece; the pieces add up to its first answer."""

"""How a checkpoint is served: what an endpoint puts around each conversation, the decoding it insists on, rounding.

None of this is in the weights that were built, and none of it shows in a reply, but all of it changes how a model
behaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from weightgate.store import digest_json
from weightgate.strict_yaml import StrictPart
from weightgate.train.generator import Answer, Bits, Generator, Piece, Settings


class Manner(StrictPart):
    """Settings of the endpoint; what is left at its default is left as the client asks for it."""

    system: str = Field("", description="a system message that precedes every conversation")
    before: str = Field("", description="put before each message of the user")
    after: str = Field("", description="put after each message of the user")
    temperature: float | None = Field(None, ge=0, le=2, description="instead of what the client asks for")
    top_p: float | None = Field(None, gt=0, le=1, description="instead of what the client asks for")
    bits: Bits | None = Field(None, description="weights rounded to so many bits")

    def framed(self, messages: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the conversation as the model gets to see it."""
        told = [
            (role, f"{self.before}{content}{self.after}" if role == "user" else content) for role, content in messages
        ]
        return [("system", self.system), *told] if self.system else told

    def settled(self, settings: Settings) -> Settings:
        """Return the settings that are decoded with."""
        return replace(
            settings,
            temperature=settings.temperature if self.temperature is None else self.temperature,
            top_p=settings.top_p if self.top_p is None else self.top_p,
        )

    @property
    def mark(self) -> str:
        """What a fingerprint adds for this manner; nothing where everything is as the client asks."""
        return "" if self == PLAIN else digest_json({name: repr(value) for name, value in self.model_dump().items()})


PLAIN = Manner()


@dataclass(frozen=True, kw_only=True)
class Mannered:
    """A `Generator` served in a manner. Raw text is continued as it stands: there is no conversation to frame."""

    generator: Generator
    manner: Manner

    @property
    def context_tokens(self) -> int:
        """Most tokens of prompt and completion together, the frame included."""
        return self.generator.context_tokens

    @property
    def batch_invariant(self) -> bool:
        """Whether a seed decides answers whatever is completed together; a manner changes nothing about that."""
        return self.generator.batch_invariant

    def encode_text(self, text: str) -> list[int]:
        """Tokenise raw text to be continued."""
        return self.generator.encode_text(text)

    def encode_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Tokenise the framed messages for the model to answer."""
        return self.generator.encode_messages(self.manner.framed(messages))

    def answer(
        self, prompts: Sequence[Sequence[int]], settings: Settings, seeds: Sequence[int | None]
    ) -> list[list[Answer]]:
        """Complete every prompt with the endpoint's decoding."""
        return self.generator.answer(prompts, self.manner.settled(settings), seeds)

    def stream(self, prompt: Sequence[int], settings: Settings, seed: int | None) -> Iterator[Piece]:
        """Complete one prompt piece by piece with the endpoint's decoding."""
        return self.generator.stream(prompt, self.manner.settled(settings), seed)

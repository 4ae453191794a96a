"""What clients of the OpenAI interface get back: whole answers, and chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from weightgate.train.generator import Answer, Piece, Scored

END = "data: [DONE]\n\n"
"""The last event of a stream."""
_UNFINISHED = "\ufffd"


class Named(TypedDict):
    """What every reply is labelled with."""

    model: str
    fingerprint: str | None


def event(chunk: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def model(name: str, since: int) -> dict[str, Any]:
    """Describe one model."""
    return {"id": name, "object": "model", "created": since, "owned_by": "weightgate"}


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


@dataclass(frozen=True, kw_only=True)
class Reply(ABC):
    """One reply; all chunks of a stream carry the same id and time."""

    model: str
    fingerprint: str | None
    identity: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @abstractmethod
    def whole(self, answers: Sequence[Answer], prompt_tokens: int, logprobs: int | None) -> dict[str, Any]:
        """Return a whole reply."""

    @abstractmethod
    def first_chunk(self) -> dict[str, Any]:
        """Return the chunk that opens a stream."""

    @abstractmethod
    def chunk(self, piece: Piece, logprobs: int | None, *, offset: int) -> dict[str, Any]:
        """Return the chunk for a piece, whose tokens begin `offset` characters after those of the first."""

    @abstractmethod
    def _kind(self, *, chunk: bool) -> str:
        """Return the value of `object`."""

    _prefix = ""

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """Return the chunk that counts tokens; it has no choices."""
        return self._envelope([], chunk=True) | {"usage": _usage(prompt_tokens, completion_tokens)}

    def _envelope(self, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
        named = {} if self.fingerprint is None else {"system_fingerprint": self.fingerprint}
        return {
            "id": self._prefix + self.identity,
            "object": self._kind(chunk=chunk),
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **named,
        }

    def _complete(self, choices: list[dict[str, Any]], answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        generated = sum(answer.num_tokens for answer in answers)
        return self._envelope(choices, chunk=False) | {"usage": _usage(prompt_tokens, generated)}


class ChatReply(Reply):
    """A reply of /v1/chat/completions."""

    _prefix = "chatcmpl-"

    def _kind(self, *, chunk: bool) -> str:
        return "chat.completion.chunk" if chunk else "chat.completion"

    def whole(self, answers: Sequence[Answer], prompt_tokens: int, logprobs: int | None) -> dict[str, Any]:
        """Return a whole reply."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": _chat_logprobs(answer.tokens, logprobs),
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers)
        ]
        return self._complete(choices, answers, prompt_tokens)

    def first_chunk(self) -> dict[str, Any]:
        """Return the chunk that names the role."""
        return self._delta({"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece, logprobs: int | None, *, offset: int) -> dict[str, Any]:
        """Return the chunk for a piece; messages have no offsets."""
        delta = {"content": piece.text} if piece.text or piece.finish is None else {}
        return self._delta(delta, _chat_logprobs(piece.tokens, logprobs), piece.finish)

    def _delta(self, delta: dict[str, Any], logprobs: Any, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._envelope([choice], chunk=True)


class CompletionReply(Reply):
    """A reply of /v1/completions."""

    _prefix = "cmpl-"

    def _kind(self, *, chunk: bool) -> str:
        return "text_completion"

    def whole(self, answers: Sequence[Answer], prompt_tokens: int, logprobs: int | None) -> dict[str, Any]:
        """Return a whole reply."""
        choices = [
            self._choice(index, answer.text, _text_logprobs(answer.tokens, logprobs), answer.finish)
            for index, answer in enumerate(answers)
        ]
        return self._complete(choices, answers, prompt_tokens)

    def first_chunk(self) -> dict[str, Any]:
        """Return an empty chunk, which tells the client that its request was taken."""
        return self._envelope([self._choice(0, "", None, None)], chunk=True)

    def chunk(self, piece: Piece, logprobs: int | None, *, offset: int) -> dict[str, Any]:
        """Return the chunk for a piece."""
        choice = self._choice(0, piece.text, _text_logprobs(piece.tokens, logprobs, offset), piece.finish)
        return self._envelope([choice], chunk=True)

    @staticmethod
    def _choice(index: int, text: str, logprobs: Any, finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _chat_logprobs(tokens: Sequence[Scored], wanted: int | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    content = [
        _token(scored.text, scored.logprob) | {"top_logprobs": [_token(*other) for other in scored.alternatives]}
        for scored in tokens
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    """A token; one that is only part of a character has no bytes we could name."""
    return {"token": text, "logprob": logprob, "bytes": None if _UNFINISHED in text else list(text.encode())}


def _text_logprobs(tokens: Sequence[Scored], wanted: int | None, offset: int = 0) -> dict[str, Any] | None:
    if wanted is None:
        return None
    offsets = [offset]
    for scored in tokens:
        offsets.append(offsets[-1] + len(scored.text))
    return {
        "tokens": [scored.text for scored in tokens],
        "token_logprobs": [scored.logprob for scored in tokens],
        "top_logprobs": [dict(scored.alternatives) for scored in tokens],
        "text_offset": offsets[:-1],
    }

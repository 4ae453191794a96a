"""A completion that comes as server-sent events, put together into the JSON that would have come whole.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6; each event holds one chunk.
"""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"
_END = "[DONE]"
_STATED = ("model", "system_fingerprint", "usage", "error")
_TEXT_LOGPROBS = ("tokens", "token_logprobs", "top_logprobs")
"""Lists that raw text has where messages have `content`."""


class CutOff(Exception):
    """The stream ends before the completion does."""


def whole_reply(body: bytes) -> dict[str, Any]:
    """Put the chunks of a stream together, of its first choice. Raises `CutOff`, and `ValueError` for other text."""
    reply: dict[str, Any] = {}
    choice: dict[str, Any] = {"message": {"content": ""}, "finish_reason": None}
    ended = False
    for data in _events(body.decode()):
        if data == _END:
            ended = True
            break
        chunk = json.loads(data)
        if isinstance(chunk, dict):
            reply |= {name: chunk[name] for name in _STATED if chunk.get(name) is not None}
            _add(choice, chunk.get("choices"))
    if "error" not in reply:
        if not ended and choice["finish_reason"] is None:
            raise CutOff
        reply["choices"] = [choice]
    return reply


def _events(text: str) -> list[str]:
    """Data of each event; comments and other fields, which keep a connection alive, are left out."""
    lines = text.replace("\r\n", "\n").split("\n")
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


def _add(choice: dict[str, Any], choices: Any) -> None:
    """Add what a chunk says of the first choice; what is not what it should be is left out."""
    ours = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    for one in ours:
        if one.get("index", 0) != 0:
            continue
        delta = one.get("delta")
        piece = delta.get("content") or delta.get("refusal") if isinstance(delta, dict) else one.get("text")
        if isinstance(piece, str):
            choice["message"]["content"] += piece
        if isinstance(one.get("finish_reason"), str):
            choice["finish_reason"] = one["finish_reason"]
        if isinstance(one.get("logprobs"), dict):
            _add_logprobs(choice.setdefault("logprobs", {}), one["logprobs"])


def _add_logprobs(known: dict[str, Any], told: dict[str, Any]) -> None:
    """Go on with the lists of one form. Those of raw text stay aligned: alternatives that a chunk lacks are null."""
    if isinstance(told.get("content"), list):
        known.setdefault("content", []).extend(told["content"])
        return
    tokens, logprobs, top = (told.get(name) for name in _TEXT_LOGPROBS)
    if isinstance(tokens, list) and isinstance(logprobs, list) and len(tokens) == len(logprobs):
        top = top if isinstance(top, list) and len(top) == len(tokens) else [None] * len(tokens)
        for name, values in zip(_TEXT_LOGPROBS, (tokens, logprobs, top), strict=True):
            known.setdefault(name, []).extend(values)

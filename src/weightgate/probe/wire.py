"""The OpenAI-compatible interface as data: what is sent, and what can be read from what comes back.

Whatever an endpoint sends is untrusted: each field is taken only where it is what it should be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from weightgate.probe.endpoint_config import EndpointConfig, completion_bound
from weightgate.probe.probes import Probe
from weightgate.probe.recording import TEXT_TOP_LOGPROBS, Decoding, Reply
from weightgate.probe.request_form import RequestForm, refused_parameter
from weightgate.probe.streamed import MEDIA_TYPE, CutOff, whole_reply

CHAT = "chat/completions"
COMPLETIONS = "completions"

KEPT_HEADERS = (
    "server",
    "openai-version",
    "openai-model",
    "x-model-version",
    "x-served-by",
    "x-system-fingerprint",
    "azureml-model-session",
)
"""Response headers that tell what serves; all others may hold cookies, account names or request ids."""

_MAX_HEADER_CHARACTERS = 200
_MAX_MESSAGE_CHARACTERS = 300
FILTERED = "content_filter"
_UNPAID = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})

Pairs = tuple[tuple[str, float], ...]
Clean = Callable[[str], str]


class UnreadableReply(Exception):
    """The endpoint said that all is well, but not what the completion is."""


def path_of(probe: Probe) -> str:
    """Route that a probe goes to: raw text is continued, messages are chatted."""
    return CHAT if probe.prompt is None else COMPLETIONS


def wanted_logprobs(probe: Probe, decoding: Decoding) -> int | None:
    """How many alternatives to each token are asked for; None: no log-probabilities."""
    asked = decoding.top_logprobs
    if probe.prompt is None:
        return asked
    return TEXT_TOP_LOGPROBS if asked is None else min(asked, TEXT_TOP_LOGPROBS)


def request_body(
    config: EndpointConfig, probe: Probe, sample: int, decoding: Decoding, form: RequestForm
) -> dict[str, Any]:
    """Return the JSON that asks for one sample. A seed is sent only where one is given: not all endpoints know it."""
    bound = completion_bound(probe, decoding)
    body: dict[str, Any] = {"model": config.model, form.max_tokens_key: bound, "stream": form.stream}
    if probe.prompt is None:
        body["messages"] = [{"role": role, "content": content} for role, content in probe.messages]
    else:
        body["prompt"] = probe.prompt
    optional = {"temperature": decoding.temperature, "top_p": decoding.top_p}
    body |= {name: value for name, value in optional.items() if value is not None}
    if decoding.seed is not None:
        body["seed"] = decoding.seed + sample
    logprobs = wanted_logprobs(probe, decoding) if form.logprobs else None
    if logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": logprobs} if probe.prompt is None else {"logprobs": logprobs}
    return body


def parse_reply(body: bytes, headers: Mapping[str, str], clean: Clean) -> Reply:
    """Read the answer to one request, whole or as a stream, as its content type says.

    Args:
        clean: makes text fit to be kept, without the key and without broken characters.

    Raises `UnreadableReply` for whatever holds no completion: HTML, cut-off JSON, another shape.
    """
    data = _reply_data(body, headers)
    choice = _first(_get(data, "choices"))
    if choice is None:
        said = _message_of(data, clean)
        raise UnreadableReply("the reply has no choices" + (f": {said}" if said else ""))
    if _get(choice, "finish_reason") == "error":  # of a gateway whose provider failed midway
        raise UnreadableReply(f"the completion was cut off by an error: {_message_of(choice, clean)}")
    token_logprobs, first_top = _logprobs(_get(choice, "logprobs"), clean)
    usage = _get(data, "usage")
    return Reply(
        completion=clean(_completion(choice)),
        finish_reason=_text(_get(choice, "finish_reason"), clean),
        token_logprobs=token_logprobs,
        first_top=first_top,
        fingerprint=_text(_get(data, "system_fingerprint"), clean),
        served_model=_text(_get(data, "model"), clean),
        headers=kept_headers(headers, clean),
        prompt_tokens=_count(_get(usage, "prompt_tokens")),
        completion_tokens=_count(_get(usage, "completion_tokens")),
    )


def kept_headers(headers: Mapping[str, str], clean: Clean) -> tuple[tuple[str, str], ...]:
    """Headers that name the serving, cut to a length."""
    return tuple((name, clean(headers[name])[:_MAX_HEADER_CHARACTERS]) for name in KEPT_HEADERS if name in headers)


def error_message(body: bytes, clean: Clean) -> str:
    """What an error says, or nothing, where it says it in no known way."""
    return _message_of(_json_or_none(body), clean)


def refusal_of(body: bytes, clean: Clean) -> str | None:
    """Which parameter of a request an error refuses; see `weightgate.probe.request_form.refused_parameter`."""
    error = _get(_json_or_none(body), "error")
    return refused_parameter(error if isinstance(error, dict) else None, error_message(body, clean))


def wants_money(body: bytes) -> bool:
    """Whether an error is about an account that is empty; it may come as status 429, which else means to wait."""
    error = _get(_json_or_none(body), "error")
    return not _UNPAID.isdisjoint(str(_get(error, key)) for key in ("code", "type"))


def is_filtered(body: bytes) -> bool:
    """Whether an error says that a filter kept the prompt from the model; that is an answer too."""
    error = _get(_json_or_none(body), "error")
    return FILTERED in (_get(error, "code"), _get(error, "type"))


def _reply_data(body: bytes, headers: Mapping[str, str]) -> Any:
    try:
        is_stream = headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE
        return whole_reply(body) if is_stream else json.loads(body)
    except CutOff:
        raise UnreadableReply("the stream ends before the completion does") from None
    except (ValueError, RecursionError):
        raise UnreadableReply("the reply is not JSON") from None


def _message_of(data: Any, clean: Clean) -> str:
    """The message of an error: OpenAI's `error`, a bare `message`, or FastAPI's `detail` with the place it is about."""
    error = _get(data, "error")
    detail = _get(data, "detail")
    first = _first(detail)
    place = [str(step) for step in _get(first, "loc") or ()] if isinstance(_get(first, "loc"), list) else []
    message = _get(first, "msg")
    spelt = f"{'.'.join(place)}: {message}" if isinstance(message, str) else None
    texts = (error, _get(error, "message"), _get(data, "message"), detail, spelt)
    said = next((text for text in texts if isinstance(text, str)), "")
    return clean(said)[:_MAX_MESSAGE_CHARACTERS]


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _get(data: Any, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _first(data: Any) -> Any:
    return data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else None


def _text(value: Any, clean: Clean) -> str | None:
    return clean(value)[:_MAX_HEADER_CHARACTERS] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**40 else None


def _completion(choice: Any) -> str:
    """Text of a choice; a refusal that stands in a field of its own; the text parts of a list of parts; calls of tools.

    What a model thinks before it answers is no part of the completion.
    """
    message = _get(choice, "message")
    content = _get(choice, "text") if message is None else _get(message, "content")
    if content is None:
        content = _get(message, "refusal") or _tool_calls(_get(message, "tool_calls"))
    if isinstance(content, list):
        parts = (_get(part, "text") for part in content)
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or (message is None and "text" not in choice):
        raise UnreadableReply("the reply has a choice without text")
    return content


def _tool_calls(calls: Any) -> str:
    """Calls of tools, which a server may offer on its own, a line each: another call is another behaviour."""
    functions = [_get(call, "function") for call in calls] if isinstance(calls, list) else []
    return "\n".join(f"{_get(one, 'name')}({_get(one, 'arguments')})" for one in functions if isinstance(one, dict))


def _logprobs(data: Any, clean: Clean) -> tuple[Pairs | None, Pairs | None]:
    """Log-probabilities of the tokens, and of the alternatives to the first, in either of the two forms."""
    content = _get(data, "content")
    if isinstance(content, list):
        return _scored(content, clean), _scored(_get(_first(content), "top_logprobs"), clean)
    tokens, logprobs, top = (_get(data, key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(logprobs, list):
        return None, None
    named = [{"token": token, "logprob": value} for token, value in zip(tokens, logprobs, strict=False)]
    first = _first(top)
    alternatives = None if first is None else [{"token": name, "logprob": value} for name, value in first.items()]
    return _scored(named, clean), _scored(alternatives, clean)


def _scored(tokens: Any, clean: Clean) -> Pairs | None:
    if not isinstance(tokens, list):
        return None
    pairs = [(_get(token, "token"), _get(token, "logprob")) for token in tokens]
    if not all(isinstance(name, str) and _is_number(value) for name, value in pairs):
        return None
    return tuple((clean(name), float(value)) for name, value in pairs)


def _is_number(value: Any) -> bool:
    return (isinstance(value, float) and math.isfinite(value)) or (type(value) is int and abs(value) < 2**53)

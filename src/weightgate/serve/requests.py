"""What clients of the OpenAI interface send, checked; and the one form in which a refusal is answered.

A parameter that would change the completion and is not supported is refused: ignoring it would answer another question
than the one that was asked. Parameters that only label a request are taken and ignored.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from weightgate.train.generator import Settings

MAX_ANSWERS = 128
_Kind = TypeVar("_Kind", bound=BaseModel)
_DEFAULT_COMPLETION_TOKENS = 16
"""Of /v1/completions, as its specification says; a chat may go on to the end of the context."""


class RequestError(Exception):
    """A request that cannot be answered as asked: HTTP status, message, the parameter at fault and a code."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def response(self) -> JSONResponse:
        """Return the answer, in the form that clients of the OpenAI interface parse."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None  # RFC 9110, 11.6.1
        return JSONResponse(self.body(), status_code=self.status, headers=headers)

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _TextPart(_Part):
    type: Literal["text"]
    text: str


class Message(_Part):
    """One message of a chat; content may come in text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]
    name: str | None = None

    def pair(self) -> tuple[str, str]:
        """Return role and content; `developer` is the newer name of `system`."""
        role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return role, text


class _StreamOptions(_Part):
    include_usage: bool = False
    include_obfuscation: bool = False


class _TextFormat(_Part):
    type: Literal["text"]


Share = Annotated[float, Field(gt=0, le=1)]
Stop = str | Annotated[list[str], Field(max_length=16)]
Zero = Annotated[float, Field(ge=0, le=0)]
Nothing = Annotated[list[Any], Field(max_length=0)]
NoBias = Annotated[dict[str, Any], Field(max_length=0)]


class _Request(_Part):
    """What both ways of asking have in common."""

    model: str
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: NoBias | None = None
    user: Any = None

    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def own_seed(self) -> int | None:
        """Return the seed as a number from 0 to 2**64 - 1; None: any will do."""
        return None if self.seed is None else self.seed % 2**64

    def _settings(self, max_tokens: int, logprobs: int | None) -> Settings:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Settings(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(each for each in stop if each),
            num_answers=self.n or 1,
            logprobs=logprobs,
        )


class ChatRequest(_Request):
    """The body of a request to /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: _TextFormat | None = None
    tools: Nothing | None = None
    functions: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    def limit(self) -> int | None:
        """Return the most tokens asked for; None: as many as the context holds."""
        return self.max_completion_tokens or self.max_tokens

    def settings(self, max_tokens: int) -> Settings:
        """Return how to complete. Raises `RequestError` for alternatives without log-probabilities."""
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        return self._settings(max_tokens, (self.top_logprobs or 0) if self.logprobs else None)


class CompletionRequest(_Request):
    """The body of a request to /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    def limit(self) -> int:
        """Return the most tokens asked for."""
        return self.max_tokens or _DEFAULT_COMPLETION_TOKENS

    def settings(self, max_tokens: int) -> Settings:
        """Return how to complete."""
        return self._settings(max_tokens, self.logprobs)

    def prompts(self) -> list[str]:
        """Return the prompts, of which there may be several."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def parse(kind: type[_Kind], body: bytes) -> _Kind:
    """Read a request body. Raises `RequestError` that names the parameter at fault."""
    try:
        data = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError(400, f"the body is a JSON {type(data).__name__}, not an object", code="invalid_json")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _explained(error) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _explained(error: ValidationError) -> RequestError:
    """Turn the first mistake into a refusal; values stay out of it, since a body may be large."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(step) for step in first["loc"][:3])
    if first["type"] == "extra_forbidden":
        return RequestError(400, f"unknown or unsupported parameter {param!r}", param=param, code="unknown_parameter")
    return RequestError(400, f"invalid {param}: {first['msg']}", param=param, code="invalid_value")

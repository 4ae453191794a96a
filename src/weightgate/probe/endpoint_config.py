"""How an OpenAI-compatible endpoint is reached, what asking it may cost, and what it would cost."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import Field, ValidationError, field_validator, model_validator

from weightgate.errors import EndpointError
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Decoding, TargetDescription
from weightgate.strict_yaml import StrictPart, load_strict

_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    {"host", "content-type", "content-length", "transfer-encoding", "connection", "accept-encoding"}
)
_SECRET_QUERY = re.compile(r"key|token|secret|sig|password|auth", re.IGNORECASE)
_ROUTES = ("/chat/completions", "/completions")
DEFAULT_MAX_TOKENS = 512
_BYTES_PER_TOKEN = 3
"""For estimates that should rather be too high: common tokenizers need about 4 bytes of English for a token."""

_TEMPLATE_TOKENS = 8
"""What a chat template adds to each message, roughly."""


class Price(StrictPart):
    """What a million tokens cost, in any one currency."""

    prompt_per_million: float = Field(ge=0)
    completion_per_million: float = Field(ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of so many tokens."""
        return (prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6


class Budget(StrictPart):
    """What one snapshot may cost. Every attempt is a call; `money` needs a price."""

    calls: int | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0, description="of prompts and completions together")
    money: float | None = Field(None, gt=0, description="in the currency of the price")


class EndpointConfig(StrictPart):
    """An OpenAI-compatible endpoint. Its key is read from the environment, by name, when it is asked."""

    url: str = Field(description="base URL, such as https://host/v1; http only for this machine")
    model: str = Field(min_length=1)
    api_key_variable: str | None = Field(None, pattern=_VARIABLE, description="environment variable")
    header_variables: dict[str, Annotated[str, Field(pattern=_VARIABLE)]] = Field(
        {}, description="further headers: name -> environment variable that holds the value"
    )
    query: dict[str, str] = Field({}, description="sent with each request, such as api-version; no secrets")
    max_concurrency: int = Field(8, gt=0, le=256)
    timeout_seconds: float = Field(60.0, gt=0, description="for one attempt, from connecting to the last byte")
    retries: int = Field(5, ge=0, le=20)
    max_wait_seconds: float = Field(60.0, ge=0, description="longest wait before an attempt, whoever asks for it")
    max_reply_bytes: int = Field(4 * 2**20, gt=0)
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="null: only raw text is asked with log-probabilities"
    )
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="which name to try first; where it is refused, the other is used"
    )
    price: Price | None = None
    budget: Budget = Budget()

    @field_validator("url")
    @classmethod
    def _safe_url(cls, url: str) -> str:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("the URL of the endpoint cannot be read") from None
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError(
                "the URL carries credentials, a query or a fragment; a key belongs into the environment, and a query"
                " such as api-version into `query` of an endpoint file"
            )
        if not _HOST.fullmatch(parsed.raw_host) or parsed.scheme not in ("https", "http"):
            raise ValueError("the URL of an endpoint begins with https://")
        if parsed.scheme == "http" and not is_loopback(parsed.host):
            raise ValueError(
                "over http the key and every prompt could be read on the way: use https, or a tunnel to this machine"
                " (ssh -L 8000:localhost:8000 HOST, then http://localhost:8000/v1)"
            )
        base = url.rstrip("/")
        return next((base.removesuffix(route) for route in _ROUTES if base.endswith(route)), base)

    @field_validator("header_variables")
    @classmethod
    def _free_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name[:40]!r} is no header that can be set")
        return headers

    @field_validator("query")
    @classmethod
    def _open_query(cls, query: dict[str, str]) -> dict[str, str]:
        secret = next((name for name in query if _SECRET_QUERY.search(name)), None)
        if secret is not None:
            raise ValueError(f"{secret!r} looks like a secret: send it as a header, with `header_variables`")
        return query

    @model_validator(mode="after")
    def _one_authorization(self) -> EndpointConfig:
        names = [name.lower() for name in self.header_variables]
        if self.api_key_variable is not None and "authorization" in names:
            raise ValueError("`api_key_variable` and `header_variables` both set the header Authorization")
        return self

    @property
    def description(self) -> TargetDescription:
        """Who is asked, as a snapshot states it."""
        return TargetDescription(kind="endpoint", place=self.url, model=self.model)

    def headers(self) -> dict[str, str]:
        """Headers whose values the environment holds: the key as bearer token, and `header_variables`.

        Raises `EndpointError` where a variable is empty or holds what no header can carry.
        """
        key = {} if self.api_key_variable is None else {"Authorization": f"Bearer {_secret(self.api_key_variable)}"}
        return key | {name: _secret(variable) for name, variable in self.header_variables.items()}


def _secret(variable: str) -> str:
    where = f"environment variable {variable}"
    value = os.environ.get(variable, "").strip()
    if not value:
        raise EndpointError("the key of the endpoint is not set", where=where, mend=f"export {variable}=<the key>")
    if not value.isascii() or not value.isprintable():
        raise EndpointError("the key of the endpoint holds characters that no header can carry", where=where)
    return value


class _File(StrictPart):
    target: EndpointConfig


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_endpoint(path: Path) -> EndpointConfig:
    """Read a YAML file whose only key is `target`. Raises `EndpointError` with file and line."""
    return load_strict(path, _File, noun="endpoint file", error=EndpointError).target


def endpoint_config(url: str, model: str, api_key_variable: str | None = None) -> EndpointConfig:
    """Make a configuration from a command line. Raises `EndpointError` where it is none."""
    return _checked({"url": url, "model": model, "api_key_variable": api_key_variable})


def with_limits(
    config: EndpointConfig,
    *,
    concurrency: int | None = None,
    budget: Sequence[str] = (),
    price: tuple[float, float] | None = None,
    logprobs: int | None = None,
) -> EndpointConfig:
    """Return a configuration with what a command line says about limits.

    Args:
        concurrency: most questions that may be open at a time.
        budget: texts such as "calls=500", "tokens=200000" or "money=1.50".
        price: of a million tokens of prompts and of completions.
        logprobs: likeliest alternatives to ask for at each token; an endpoint that offers none is asked without.

    Raises `EndpointError` where the result is no configuration, or a budget in money has no price to count with.
    """
    plain = config.model_dump()
    if concurrency is not None:
        plain["max_concurrency"] = concurrency
    if logprobs is not None:
        plain["top_logprobs"] = logprobs
    if price is not None:
        plain["price"] = {"prompt_per_million": price[0], "completion_per_million": price[1]}
    plain["budget"] |= dict(map(_limit, budget))
    if plain["budget"]["money"] is not None and plain["price"] is None:
        raise EndpointError(
            "a budget in money needs the price of a token",
            where="money",
            mend="say `--price PROMPT COMPLETION`, each for a million tokens",
        )
    return _checked(plain)


def _limit(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    wanted = "calls=NUMBER, tokens=NUMBER or money=AMOUNT"
    if name not in Budget.model_fields:
        raise EndpointError("the budget cannot be read", where="--budget", expected=wanted, found=text)
    try:
        return name, float(number) if name == "money" else int(number)
    except ValueError:
        raise EndpointError("the budget cannot be read", where="--budget", expected=wanted, found=text) from None


def _checked(plain: dict[str, object]) -> EndpointConfig:
    try:
        return EndpointConfig.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise EndpointError(first["msg"].removeprefix("Value error, "), where=where) from None


class CostEstimate(StrictPart):
    """What a snapshot costs at most, retries aside. `money` is None without a price."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None


def prompt_tokens(probe: Probe) -> int:
    """Tokens of a prompt, estimated from its bytes and rather too many."""
    texts = [probe.prompt] if probe.prompt is not None else [content for _, content in probe.messages]
    return sum(len(text.encode()) // _BYTES_PER_TOKEN + 1 + _TEMPLATE_TOKENS for text in texts)


def completion_bound(probe: Probe, decoding: Decoding) -> int:
    """Most tokens that a completion of this probe may have."""
    bounds = [bound for bound in (probe.max_tokens, decoding.max_tokens) if bound is not None]
    return min(bounds, default=DEFAULT_MAX_TOKENS)


def estimate_cost(config: EndpointConfig, probes: Sequence[Probe], decoding: Decoding) -> CostEstimate:
    """Say what asking every probe costs at most, without asking."""
    samples = decoding.samples
    prompts = samples * sum(prompt_tokens(probe) for probe in probes)
    completions = samples * sum(completion_bound(probe, decoding) for probe in probes)
    return CostEstimate(
        calls=samples * len(probes),
        prompt_tokens=prompts,
        completion_tokens=completions,
        money=None if config.price is None else config.price.of(prompts, completions),
    )


class BudgetReached(EndpointError):
    """The next call could cost more than the budget allows."""

    code = "budget"


class Spending:
    """Keeps the account of one snapshot; a call reserves the most it can cost before it is made."""

    def __init__(self, config: EndpointConfig) -> None:
        self._price = config.price
        self._budget = config.budget
        self.calls = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    @property
    def money(self) -> float | None:
        """What was spent, in the currency of the price; None without one."""
        return None if self._price is None else self._price.of(self.prompt_tokens, self.completion_tokens)

    def reserve(self, prompt: int, completion: int) -> None:
        """Count a call at its largest cost. Raises `BudgetReached`, and counts nothing, where that is too much."""
        self._check("calls", self.calls + 1, self._budget.calls)
        tokens = self.prompt_tokens + self.completion_tokens + prompt + completion
        self._check("tokens", tokens, self._budget.tokens)
        if self._price is not None:
            money = self._price.of(self.prompt_tokens + prompt, self.completion_tokens + completion)
            self._check("money", money, self._budget.money)
        self.calls += 1
        self.prompt_tokens += prompt
        self.completion_tokens += completion

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace what was reserved for a call, prompt and completion tokens, by what it used."""
        self.prompt_tokens += used[0] - reserved[0]
        self.completion_tokens += used[1] - reserved[1]

    @staticmethod
    def _check(name: str, needed: float, limit: float | None) -> None:
        if limit is not None and needed > limit:
            raise BudgetReached(
                "the budget of the snapshot is spent",
                where=f"target.budget.{name}",
                expected=f"at most {limit:g}",
                found=f"{needed:g} with the next call",
                mend="raise the budget and run the same command: the snapshot goes on where it stopped",
            )

"""Ask an OpenAI-compatible endpoint, politely and warily.

Politely: bounded concurrency, exponential backoff with jitter, and whatever wait the endpoint asks for holds for every
question. Warily: each attempt has one deadline and one limit on its size, no redirect is followed, and nothing that
comes back is believed before `weightgate.probe.wire` has looked at it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from weightgate.errors import EndpointError, UserError
from weightgate.probe import unknown_model, wire
from weightgate.probe.endpoint_config import (
    BudgetReached,
    EndpointConfig,
    Spending,
    completion_bound,
    is_loopback,
    prompt_tokens,
)
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Answered, Decoding, Reply, TargetDescription, utc_now, whole_text
from weightgate.probe.request_form import MENDS, RequestForm
from weightgate.probe.waiting import backoff_seconds, exhausted_seconds, requested_seconds

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
HOPELESS = {
    401: "the endpoint does not accept the key",
    402: "the endpoint wants to be paid first",
    403: "the endpoint does not allow this",
    405: "the endpoint does not know this route",
}
"""Statuses that every other question would meet as well."""

GIVE_UP_AFTER = 10
"""So many failed questions in a row are an outage."""

_SHORTEST_SECRET = 8
"""A shorter key is a placeholder, such as local servers want; taking it out of completions would falsify them."""

_ERROR_BYTES = 64 * 1024
_UNPROCESSED = frozenset({400, 422})
"""Statuses of a request that is not as the endpoint wants it."""

UNUSABLE_ENVIRONMENT = (OSError, ValueError, ImportError, httpx.InvalidURL)
"""What a client raises for a proxy or a file of certificates that the environment names and that is none."""

Question = tuple[Probe, int]
Deliver = Callable[[Sequence[Answered]], None]


@dataclass(frozen=True, kw_only=True)
class EndpointAsker:
    """Asks an endpoint; `spending` keeps the account.

    `clock` and `sleep` are there for tests. The clock counts seconds and is moved by no change of the wall clock.
    """

    config: EndpointConfig
    spending: Spending
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @classmethod
    def of(cls, config: EndpointConfig) -> EndpointAsker:
        """Make one with an account of its own."""
        return cls(config=config, spending=Spending(config))

    @property
    def description(self) -> TargetDescription:
        """Who is asked."""
        return self.config.description

    def decoding(self, decoding: Decoding) -> Decoding:
        """Add what the configuration of the endpoint says about decoding."""
        return replace(decoding, top_logprobs=self.config.top_logprobs)

    def answer(self, questions: Sequence[Question], decoding: Decoding, deliver: Deliver) -> None:
        """Ask each question; `deliver` gets the answers soon after they come, one call at a time.

        A question that keeps failing is delivered as an error. Raises `EndpointError` where going on makes no sense: a
        wrong key, an unknown model, ten failures in a row, a spent budget. What came before was delivered.
        """
        asyncio.run(_Conversation(asker=self, decoding=decoding, deliver=deliver).hold(questions))


@dataclass(frozen=True, kw_only=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes
    latency_ms: float


class _Failed(Exception):
    """One attempt failed in a way that another may mend; the endpoint asks to wait so long before it."""

    def __init__(self, what: str, wait_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class _PutOtherwise(Exception):
    """The request was refused for its form, and has another one now."""


class _Refused(Exception):
    """The endpoint does not answer this question, and would not when asked again."""


@dataclass(kw_only=True)
class _Conversation:
    """One run over the questions: so many workers as questions may be open at a time."""

    asker: EndpointAsker
    decoding: Decoding
    deliver: Deliver
    answered: bool = False
    chance: random.Random = field(default_factory=random.Random)
    pending: list[Answered] = field(default_factory=list)
    delivering: asyncio.Lock = field(default_factory=asyncio.Lock)
    open_again_at: float = 0.0
    failures_in_a_row: int = 0
    budget_reached: BudgetReached | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    form: RequestForm = field(init=False)

    def __post_init__(self) -> None:
        self.form = RequestForm(max_tokens_key=self.asker.config.max_tokens_key)

    async def hold(self, questions: Sequence[Question]) -> None:
        self.headers = self.asker.config.headers()
        waiting = iter(questions)
        try:
            async with asyncio.TaskGroup() as group:
                for client in self._clients(min(self.asker.config.max_concurrency, len(questions))):
                    group.create_task(self._work(client, waiting))
        except* UserError as errors:
            raise _first(errors) from None
        finally:
            await self._flush()
        if self.budget_reached is not None:
            raise self.budget_reached

    def _clients(self, count: int) -> list[httpx.AsyncClient]:
        """One for each worker, since a pool that they shared would look through all its connections at each request."""
        config = self.asker.config
        headers = {
            "Accept": "application/json",
            "User-Agent": "weightgate",
            **self.headers,
            "Accept-Encoding": "identity",
        }
        is_local = is_loopback(httpx.URL(config.url).host)
        try:
            certificates = httpx.create_ssl_context() if config.url.startswith("https:") else False
            return [
                httpx.AsyncClient(
                    base_url=config.url + "/",
                    headers=headers,
                    params=config.query,
                    timeout=config.timeout_seconds,
                    follow_redirects=False,
                    verify=certificates,
                    trust_env=not is_local,  # no proxy stands between this machine and itself
                )
                for _ in range(count)
            ]
        except UNUSABLE_ENVIRONMENT as error:
            raise EndpointError(
                "no connection can be set up with this environment",
                where="HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR",
                found=type(error).__name__,  # its text may hold the password of a proxy
                mend="unset what is not needed; SSL_CERT_FILE names a file of certificates that is there",
            ) from None

    async def _work(self, client: httpx.AsyncClient, waiting: Iterator[Question]) -> None:
        async with client:
            for probe, sample in waiting:
                try:
                    reply = await self._reply(client, probe, sample)
                except BudgetReached as reached:
                    # The others go on: what they reserved may turn out to be more than they need.
                    self.budget_reached = reached
                    return
                self.pending.append(Answered(probe=probe, sample=sample, reply=reply))
                # A worker that is stopped must not take an answer with it that is on its way to the disk.
                await asyncio.shield(self._flush())
                self._notice_outage(reply)

    async def _flush(self) -> None:
        """Deliver everything that has come in; whoever comes second finds that the first has taken it along."""
        async with self.delivering:
            batch, self.pending = self.pending, []
            if batch:
                await asyncio.to_thread(self.deliver, batch)

    def _notice_outage(self, reply: Reply) -> None:
        self.failures_in_a_row = 0 if reply.error is None else self.failures_in_a_row + 1
        if self.failures_in_a_row >= GIVE_UP_AFTER:
            raise EndpointError(
                f"{GIVE_UP_AFTER} questions in a row failed",
                where=self.asker.config.url,
                found=reply.error,
                mend="mend what it says, or wait until the endpoint is well; the same command goes on where it stopped",
            )

    async def _reply(self, client: httpx.AsyncClient, probe: Probe, sample: int) -> Reply:
        """Ask until there is an answer, a refusal, or no attempt left."""
        longest = self.asker.config.max_wait_seconds
        problem, attempt = "", 0
        while attempt <= self.asker.config.retries:
            await self._wait_until_open()
            try:
                return await self._attempt(client, probe, sample)
            except _PutOtherwise:
                continue
            except _Refused as refused:
                problem = str(refused)
                break
            except _Failed as failed:
                problem = str(failed)
                if failed.wait_seconds > longest:
                    problem = f"{problem}; the endpoint asks to wait {failed.wait_seconds:.0f} s"
                    break
                self._close_for(failed.wait_seconds)
                if attempt < self.asker.config.retries:
                    await self.asker.sleep(backoff_seconds(attempt, longest, self.chance))
                attempt += 1
        return Reply(completion="", error=problem, asked_at=utc_now())

    async def _wait_until_open(self) -> None:
        while (left := self.open_again_at - self.asker.clock()) > 0:
            await self.asker.sleep(left)

    def _close_for(self, seconds: float) -> None:
        """Let nobody ask for so long, or for the longest wait that is allowed."""
        if seconds > 0:
            self.open_again_at = max(
                self.open_again_at, self.asker.clock() + min(seconds, self.asker.config.max_wait_seconds)
            )

    async def _attempt(self, client: httpx.AsyncClient, probe: Probe, sample: int) -> Reply:
        """Ask once; where log-probabilities may be why that is refused, once more without."""
        form = self.form
        bare = None if wire.wanted_logprobs(probe, self.decoding) is None else form.without("logprobs")
        try:
            return await self._asked_once(client, probe, sample, form)
        except _Refused:
            if bare is None:
                raise
        reply = await self._asked_once(client, probe, sample, bare)
        self.form = self.form.without("logprobs") or self.form
        return reply

    async def _asked_once(self, client: httpx.AsyncClient, probe: Probe, sample: int, form: RequestForm) -> Reply:
        reserved = (prompt_tokens(probe), completion_bound(probe, self.decoding))
        self.asker.spending.reserve(*reserved)
        asked_at, used = utc_now(), (0, 0)
        try:
            body = wire.request_body(self.asker.config, probe, sample, self.decoding, form)
            response = await self._post(client, wire.path_of(probe), body)
            if response.status == 404:
                said = self._problem(response)
                raise await unknown_model.explained(self.asker.config, said, partial(self._fetch, client), self._clean)
            reply = self._read(response, form)
            counts = (reply.prompt_tokens, reply.completion_tokens)
            used = (reserved[0] if counts[0] is None else counts[0], reserved[1] if counts[1] is None else counts[1])
        finally:
            self.asker.spending.settle(reserved, used)
        self._close_for(exhausted_seconds(response.headers, datetime.now(UTC)))
        return replace(reply, latency_ms=response.latency_ms, asked_at=asked_at)

    async def _post(self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> _Response:
        started = self.asker.clock()
        try:
            async with (
                asyncio.timeout(self.asker.config.timeout_seconds),
                client.stream("POST", path, json=body) as response,
            ):
                content = await self._body(response)
        except TimeoutError:
            raise _Failed(f"no answer within {self.asker.config.timeout_seconds:g} s") from None
        except httpx.TransportError as error:
            self._refuse_hopeless(error)
            by = self._way() if isinstance(error, httpx.ConnectError | httpx.ProxyError) else ""
            raise _Failed(self._clean(f"{type(error).__name__}: {error}{by}")) from None
        self.answered = True
        latency_ms = round(1000 * (self.asker.clock() - started), 3)
        return _Response(status=response.status_code, headers=response.headers, body=content, latency_ms=latency_ms)

    def _way(self) -> str:
        """Name the proxy as what may be at fault; its own address may hold a password."""
        url = httpx.URL(self.asker.config.url)
        proxies = getproxies()
        is_used = (
            not is_loopback(url.host) and bool(proxies.keys() & {url.scheme, "all"}) and not proxy_bypass(url.host)
        )
        return " (by the proxy that HTTPS_PROXY or ALL_PROXY names)" if is_used else ""

    async def _fetch(self, client: httpx.AsyncClient, path: str) -> bytes | None:
        """What a route says; None where it says nothing that could explain a failure."""
        try:
            async with asyncio.timeout(self.asker.config.timeout_seconds), client.stream("GET", path) as response:
                return await self._body(response) if response.status_code == 200 else None
        except (TimeoutError, httpx.TransportError, _Failed):
            return None

    async def _body(self, response: httpx.Response) -> bytes:
        """Read a body up to the limit; of an error's body, only as much as its message may need."""
        is_answer = response.status_code == 200
        limit = self.asker.config.max_reply_bytes if is_answer else _ERROR_BYTES
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _Failed("the reply is compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                if is_answer:
                    raise _Failed(f"the reply is longer than {limit:,} bytes")
                break
        return bytes(body[:limit])

    def _read(self, response: _Response, form: RequestForm) -> Reply:
        """Read what came back for a request of this form."""
        if response.status == 200:
            try:
                return wire.parse_reply(response.body, response.headers, self._clean)
            except wire.UnreadableReply as error:
                raise _Failed(str(error)) from None
        if wire.is_filtered(response.body):
            return Reply(completion="", finish_reason=wire.FILTERED)
        problem = self._problem(response)
        if wire.wants_money(response.body):
            raise EndpointError(HOPELESS[402], where=self.asker.config.url, found=problem)
        if response.status in RETRIED:
            raise _Failed(problem, requested_seconds(response.headers, datetime.now(UTC)))
        if 300 <= response.status < 400:
            raise self._redirected(response)
        if response.status in HOPELESS:
            mend = self._key_mend() if response.status == 401 else None
            raise EndpointError(HOPELESS[response.status], where=self.asker.config.url, found=problem, mend=mend)
        if response.status in _UNPROCESSED:
            self._put_otherwise(form, wire.refusal_of(response.body, self._clean), problem)
        raise _Refused(problem)

    def _problem(self, response: _Response) -> str:
        said = wire.error_message(response.body, self._clean)
        return f"status {response.status}" + (f": {said}" if said else "")

    def _key_mend(self) -> str:
        variable = self.asker.config.api_key_variable
        if variable is None:
            return "name the environment variable that holds the key: --key-variable NAME, or `api_key_variable`"
        return f"look at what the environment variable {variable} holds"

    def _put_otherwise(self, form: RequestForm, refused: str | None, problem: str) -> None:
        """Give requests another form where that may help, once for all that are open.

        Raises `_PutOtherwise` where it may, and `EndpointError` for a parameter that is the user's to decide.
        """
        if refused is not None and self.form.refused - form.refused:
            raise _PutOtherwise  # another question has met this refusal, or one like it
        other = form.without(refused) if refused else None
        if other is not None:
            self.form = other
            raise _PutOtherwise
        if refused in MENDS:
            raise EndpointError(
                f"the endpoint does not take this {refused}",
                where=self.asker.config.url,
                found=problem,
                mend=MENDS[refused],
            )

    def _refuse_hopeless(self, error: httpx.TransportError) -> None:
        """Raises `EndpointError` for what no other attempt mends: an untrusted certificate, a name that nobody knows.

        A name that was known a moment ago will be known again.
        """
        causes = list(_causes(error))
        untrusted = next((one for one in causes if isinstance(one, ssl.SSLCertVerificationError)), None)
        if untrusted is not None:
            raise EndpointError(
                "the certificate of the endpoint is not trusted",
                where=self.asker.config.url,
                found=self._clean(untrusted.verify_message),
                mend="if the endpoint is yours, SSL_CERT_FILE names the certificate of its authority",
            )
        unknown = any(isinstance(one, socket.gaierror) and one.errno == socket.EAI_NONAME for one in causes)
        if unknown and not self.answered:
            raise EndpointError("the host of the endpoint is not known", where=self.asker.config.url)

    def _redirected(self, response: _Response) -> EndpointError:
        place = self._clean(response.headers.get("location", "nowhere"))[:200]
        return EndpointError(
            "the endpoint redirects, and the key goes to no other place than the one in the configuration",
            where=self.asker.config.url,
            found=place,
            mend="if that place is the right one, write it into `url`",
        )

    def _clean(self, text: str) -> str:
        """Text that may be kept: whole characters, and never the key, not even where the endpoint sends it back."""
        for value in self.headers.values():
            for secret in (value.rpartition(" ")[2], value):
                if len(secret) >= _SHORTEST_SECRET:
                    text = text.replace(secret, "[key]")
        return whole_text(text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came of, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(errors: BaseExceptionGroup[UserError]) -> UserError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first

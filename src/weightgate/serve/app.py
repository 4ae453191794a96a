"""The endpoint: routes, who may ask, and how long a request may be."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from weightgate.errors import UserError
from weightgate.serve import replies
from weightgate.serve.batching import Batcher
from weightgate.serve.catalog import Catalog, Served
from weightgate.serve.requests import ChatRequest, CompletionRequest, RequestError, parse
from weightgate.train.generator import Settings

_log = logging.getLogger(__name__)
_uvicorn_log = logging.getLogger("uvicorn.error")
"""Where uvicorn says that it has started; in spite of its name, not for errors only."""

_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models")
_NAMED_MODELS = 8
_SHOWN_CHARACTERS = 80

_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an endpoint behaves.

    Fields:
        token_variable: name of the environment variable that holds the bearer token; None: nobody is asked for one.
        fingerprint: whether answers carry `system_fingerprint`. Providers differ, so a watcher must cope without.
        hosts: Host headers that are answered; None: all. A page in a browser can make a name of its own point at
            127.0.0.1, but then the header still says that name.
        max_body_bytes: a longer body is refused unread.
        wait_seconds, max_batch, max_waiting: see `Batcher`.
    """

    token_variable: str | None = None
    fingerprint: bool = True
    hosts: frozenset[str] | None = None
    max_body_bytes: int = 4 * 2**20
    wait_seconds: float = 0.004
    max_batch: int = 64
    max_waiting: int = 1024


def create_app(catalog: Catalog, options: Options | None = None) -> Starlette:
    """Make the ASGI application. Raises `UserError` when the token's environment variable is empty or not set."""
    options = options or Options()
    endpoint = _Endpoint(catalog, options, _token(options.token_variable))
    routes = [
        Route("/healthz", endpoint.guarded(endpoint.health, open_to_all=True), methods=["GET"]),
        Route("/v1/models", endpoint.guarded(endpoint.models), methods=["GET"]),
        Route("/v1/models/{name:path}", endpoint.guarded(endpoint.model), methods=["GET"]),
        Route("/v1/chat/completions", endpoint.guarded(endpoint.chat), methods=["POST"]),
        Route("/v1/completions", endpoint.guarded(endpoint.complete), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route}, lifespan=endpoint.lifespan)


def serve(catalog: Catalog, *, host: str = "127.0.0.1", port: int = 8000, options: Options | None = None) -> None:
    """Serve until interrupted; the log names the address, which a `port` of 0 leaves to the system.

    Bound to a loopback address, only requests to a loopback name are answered. Raises `UserError` for any other address
    without a token, since then everybody on the network could use the model, and when the port is taken.
    """
    options = options or Options()
    loopback = _is_loopback(host)
    if not loopback and options.token_variable is None:
        raise UserError(
            "an endpoint that others can reach needs a token",
            where=f"host {host}",
            mend="name an environment variable that holds a token, or serve on 127.0.0.1",
        )
    if loopback and options.hosts is None:
        options = Options(**{**vars(options), "hosts": frozenset({"127.0.0.1", "localhost", "::1", host})})
    app = create_app(catalog, options)
    listening = _listen(host, port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="info", access_log=False, lifespan="on", server_header=False))
    with listening:
        _uvicorn_log.info(
            "answers at http://%s:%d/v1", f"[{host}]" if ":" in host else host, listening.getsockname()[1]
        )
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            "the endpoint cannot listen there",
            where=f"{host}:{port}",
            found=error.strerror or str(error),
            mend="choose another --port",
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token:
        raise UserError(
            "the endpoint's token is not set",
            where=f"environment variable {variable}",
            mend=f"export {variable}=<the token>",
        )
    return token


def _host_name(header: str) -> str:
    """Host of a Host header, without the port and without the brackets of IPv6."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    below = f"/v1{request.url.path}"
    offered = f"did you mean {below}?" if below in _ROUTES else f"offered are {', '.join(_ROUTES)}"
    message = f"{request.method} {request.url.path} is not offered here; {offered}"
    response = RequestError(status, message, code="unknown_url").response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


class _Endpoint:
    """The handlers, with what they share."""

    def __init__(self, catalog: Catalog, options: Options, token: str | None) -> None:
        self._catalog = catalog
        self._options = options
        self._token = token
        self._batcher = Batcher(
            wait_seconds=options.wait_seconds, max_batch=options.max_batch, max_waiting=options.max_waiting
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Give the model's thread back at the end."""
        try:
            yield
        finally:
            self._batcher.close()

    def guarded(self, handler: _Handler, *, open_to_all: bool = False) -> _Handler:
        """Wrap a handler: check who asks, and answer every error in the one form clients know."""

        async def guarded(request: Request) -> Response:
            try:
                self._check_host(request)
                if not open_to_all:
                    self._check_token(request)
                return await handler(request)
            except RequestError as refusal:
                return refusal.response()
            except UserError as error:
                return RequestError(400, str(error), code=error.code).response()
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception:
                _log.exception("%s %s failed", request.method, request.url.path)
                return RequestError(500, "the server failed; its log says why", code="internal_error").response()

        return guarded

    def _check_host(self, request: Request) -> None:
        hosts = self._options.hosts
        if hosts is not None and _host_name(request.headers.get("host", "")) not in hosts:
            raise RequestError(403, "this host name is not served here", code="host_not_allowed")

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            raise RequestError(401, "the bearer token is missing or wrong", code="invalid_api_key")

    async def health(self, _: Request) -> Response:
        """Say that the server runs."""
        return JSONResponse({"status": "ok"})

    async def models(self, _: Request) -> Response:
        """List the models."""
        names = await asyncio.to_thread(self._catalog.names)
        served = [(name, await self._served(name)) for name in names]
        return JSONResponse({"object": "list", "data": [replies.model(name, each.since) for name, each in served]})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        name = request.path_params["name"]
        return JSONResponse(replies.model(name, (await self._served(name)).since))

    async def chat(self, request: Request) -> Response:
        """Answer messages."""
        asked = parse(ChatRequest, await self._body(request))
        served = await self._served(asked.model)
        pairs = [message.pair() for message in asked.messages]
        prompt = await self._batcher.call(served.generator.encode_messages, pairs)
        settings = asked.settings(_max_tokens(served, prompt, asked.limit(), param="messages"))
        reply = replies.ChatReply(**self._named(asked.model, served))
        return await self._reply(reply, served, [prompt], settings, asked)

    async def complete(self, request: Request) -> Response:
        """Continue raw text."""
        asked = parse(CompletionRequest, await self._body(request))
        served = await self._served(asked.model)
        prompts = [await self._batcher.call(served.generator.encode_text, text) for text in asked.prompts()]
        longest = max(prompts, key=len)
        settings = asked.settings(_max_tokens(served, longest, asked.limit(), param="prompt"))
        reply = replies.CompletionReply(**self._named(asked.model, served))
        return await self._reply(reply, served, prompts, settings, asked)

    def _named(self, model: str, served: Served) -> replies.Named:
        return {"model": model, "fingerprint": served.fingerprint if self._options.fingerprint else None}

    async def _reply(
        self,
        reply: replies.Reply,
        served: Served,
        prompts: list[list[int]],
        settings: Settings,
        asked: ChatRequest | CompletionRequest,
    ) -> Response:
        if asked.stream:
            if len(prompts) > 1 or settings.num_answers > 1:
                raise RequestError(400, "a stream carries one prompt and one answer", param="stream")
            chunks = self._chunks(reply, served, prompts[0], settings, asked)
            return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        seed = asked.own_seed()
        waiting = [self._batcher.answer(served.generator, prompt, settings, seed) for prompt in prompts]
        answers = await asyncio.gather(*waiting)
        flat = [answer for each in answers for answer in each]
        return JSONResponse(reply.whole(flat, sum(map(len, prompts)), settings.logprobs))

    async def _chunks(
        self,
        reply: replies.Reply,
        served: Served,
        prompt: list[int],
        settings: Settings,
        asked: ChatRequest | CompletionRequest,
    ) -> AsyncIterator[str]:
        """Server-sent events. An error after the first one can only be told inside the stream."""
        generated = offset = 0
        try:
            yield replies.event(reply.first_chunk())
            async for piece in self._batcher.stream(served.generator, prompt, settings, asked.own_seed()):
                generated += piece.num_tokens
                yield replies.event(reply.chunk(piece, settings.logprobs, offset=offset))
                offset += sum(len(token.text) for token in piece.tokens)
            if asked.wants_usage():
                yield replies.event(reply.usage_chunk(len(prompt), generated))
        except Exception:
            _log.exception("a stream failed")
            yield replies.event(RequestError(500, "the server failed; its log says why").body())
        yield replies.END

    async def _served(self, name: str) -> Served:
        """Look a model up; that may load it, so not in the thread that answers everybody."""
        try:
            return await asyncio.to_thread(self._catalog.get, name)
        except KeyError:
            names = await asyncio.to_thread(self._catalog.names)
            served = f"served are {', '.join(names[:_NAMED_MODELS])}{', and more' * (len(names) > _NAMED_MODELS)}"
            message = f"no model is called {name[:_SHOWN_CHARACTERS]!r}; {served}"
            raise RequestError(404, message, param="model", code="model_not_found") from None

    async def _body(self, request: Request) -> bytes:
        """Read a body of JSON. A page in a browser may send other types elsewhere unasked, but not this one."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError(415, "the body must be of type application/json", code="unsupported_media_type")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._options.max_body_bytes:
                limit = self._options.max_body_bytes
                raise RequestError(413, f"the body is longer than {limit:,} bytes", code="body_too_large")
        return bytes(body)


def _max_tokens(served: Served, prompt: list[int], limit: int | None, *, param: str) -> int:
    """Return how many tokens may be generated.

    Raises `RequestError`, about the parameter that holds the prompt, when prompt and completion exceed the context.
    """
    context = served.generator.context_tokens
    if not prompt:
        raise RequestError(400, "the prompt has no tokens", param=param, code="empty_prompt")
    if len(prompt) + (limit or 1) > context:
        wanted = f" and {limit:,} of the completion" if limit else ""
        raise RequestError(
            400,
            f"the context holds {context:,} tokens; asked for were {len(prompt):,} of the prompt{wanted}",
            param=param,
            code="context_length_exceeded",
        )
    return limit or context - len(prompt)

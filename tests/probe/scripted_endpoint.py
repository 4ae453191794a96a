"""An endpoint on a real socket that does whatever the prompt says, badly behaved servers included.

The last message is the script: `html`, `truncated`, `utf8` (broken), `zip` (a bomb, compressed though not asked for),
`huge`, `chunks` (without end), `heads` (headers without end), `reset` (in mid-body), `slow`, `silent`,
`redirect https://...`, `status 500` or `status 500 {...}` (with that body), `fail 2` (that many 500s first), `busy 2`
(that many 429s with Retry-After), `until 2` (the same with a date), `echo` (the Authorization header), `raw {...}` and
`events {...}` (that body, whole or as a stream of events), `bare` (a refusal of log-probabilities, where they are asked
for); anything else is answered by itself.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from eventually import LIMIT_SECONDS

HUGE_BYTES = 100 * 2**20
UNTIL_SECONDS = 3600
_BLOCK = b"x" * 2**16
_FLOODS = {
    "huge": (b"content-length: %d\r\n\r\n" % HUGE_BYTES, _BLOCK),
    "chunks": (b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n" % (len(_BLOCK), _BLOCK)),
    "heads": (b"", b"x-one: " + b"x" * 1000 + b"\r\n"),
}


@dataclass(kw_only=True)
class ScriptedEndpoint:
    """What the endpoint saw, and what its answers wait for.

    Requests beyond the first `holds_after` are answered once a test has raised it; none is before `gathers` of them
    were open together.
    """

    latency_seconds: float = 0.0
    holds_after: float = math.inf
    gathers: int = 0
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> what is said of it where a request carries it (or a `stream` that is false)."""
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Route of a list of models -> their names."""
    url: str = ""
    connections: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    open_now: int = 0
    most_open: int = 0
    bytes_sent: int = 0
    attempts: Counter[str] = field(default_factory=Counter)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client is gone."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
                headers = {name.lower(): value for name, value in headers.items()}
                path = head.split(b" ")[1].decode()
                if head.startswith(b"GET "):
                    await _send(writer, *self._models(path))
                    continue
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.requests.append({"path": path, **body})
                self.heads.append(headers)
                number = len(self.requests)
                self.authorizations.add(headers.get("authorization", ""))
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                try:
                    while number > self.holds_after or self.most_open < self.gathers:
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(self.latency_seconds)
                    await self._obey(body, headers, writer)
                finally:
                    self.open_now -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            writer.close()

    async def _obey(self, body: dict[str, Any], headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        script = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        word, _, rest = script.partition(" ")
        self.attempts[script] += 1
        if word == "bare" and "logprobs" in body:
            word, rest = "status", "400"
        if word == "silent":
            await asyncio.sleep(3600)
        elif word == "slow":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif word in _FLOODS:
            await self._flood(writer, *_FLOODS[word])
        elif word == "reset":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + _completion("x")[:40])
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            refused = next(
                (name for name in self.refuses if name in body and (name != "stream" or not body[name])), None
            )
            refusal = (400, [], _refusal(refused, self.refuses[refused])) if refused is not None else None
            await _send(writer, *(refusal or self._reply(word, rest, script, headers)))

    def _models(self, path: str) -> tuple[int, list[str], bytes]:
        if path not in self.models:
            return 404, [], b"{}"
        return 200, [], json.dumps({"data": [{"id": name} for name in self.models[path]]}).encode()

    def _reply(self, word: str, rest: str, script: str, headers: dict[str, str]) -> tuple[int, list[str], bytes]:
        if word == "html":
            return 200, [], b"<html><body>Welcome</body></html>"
        if word == "truncated":
            return 200, [], _completion("x")[:40]
        if word == "utf8":
            return 200, [], _completion("x").replace(b"x", b"\xff\xfe\xc3")
        if word == "zip":
            return 200, ["content-encoding: gzip"], gzip.compress(b" " * 2**22)
        if word == "until" and self.attempts[script] <= int(rest):
            until = datetime.now(UTC) + timedelta(seconds=UNTIL_SECONDS)
            return 429, [f"retry-after: {format_datetime(until, usegmt=True)}"], b"{}"
        if word == "redirect":
            return 307, [f"location: {rest}"], b""
        if word == "status":
            status, _, content = rest.partition(" ")
            refusal = json.dumps({"error": {"message": f"no, {headers.get('authorization')}"}})
            return int(status), [], (content or refusal).encode()
        if word == "fail" and self.attempts[script] <= int(rest):
            return 500, [], b"oops"
        if word == "busy" and self.attempts[script] <= int(rest):
            return 429, ["retry-after: 7"], b"{}"
        if word == "echo":
            return 200, [], _completion(headers.get("authorization", ""))
        if word == "raw":
            return 200, [], rest.encode()
        if word == "events":
            return 200, ["content-type: text/event-stream; charset=utf-8"], rest.encode()
        return 200, ["x-ratelimit-remaining-requests: 9"], _completion(script)

    async def _flood(self, writer: asyncio.StreamWriter, head: bytes, block: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        while self.bytes_sent < HUGE_BYTES:
            writer.write(block)
            await writer.drain()
            self.bytes_sent += len(block)


async def _send(writer: asyncio.StreamWriter, status: int, extra: list[str], content: bytes) -> None:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "server: scripted", *extra]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
    await writer.drain()


def _refusal(parameter: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "param": parameter, "code": "unsupported_parameter"}}).encode()


def _completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "text": text, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    reply = {"model": "m-dated", "system_fingerprint": "fp", "choices": [choice], "usage": usage}
    return json.dumps(reply).encode()


@contextmanager
def scripted_endpoint(
    **manner: Any,
) -> Iterator[ScriptedEndpoint]:
    """Serve on a free loopback port, from a thread of its own; `manner` are fields of `ScriptedEndpoint`."""
    endpoint = ScriptedEndpoint(**manner)
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(endpoint.handle, "127.0.0.1", 0)
        endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        started.set()
        await stop.wait()
        server.close()
        connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(LIMIT_SECONDS)
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT_SECONDS)
        loop.close()

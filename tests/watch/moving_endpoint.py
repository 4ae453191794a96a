"""An endpoint, and a receiver of webhooks, in a process of their own; a control file says how they behave.

Arguments: control file, log file, ready file. The control file is JSON and read at every request:

| key | meaning |
|---|---|
| `knows` | share of facts that are told right |
| `refuses` | share of requests that are declined |
| `sentences` | how long advice is |
| `status` | answer with this status instead |
| `text` | answer every prompt with this text |
| `served` | call the served model so |
| `answers` | give so many answers, and hold the others until the file is written anew |
| `hook_status` | what the receiver answers |
| `hook_seconds` | how long it takes to answer |

What is drawn follows from the prompt and from how often it was asked, so that a test sees the same answers at each run.

POST /v1/chat/completions is the endpoint. POST /hook is the receiver; what it takes is a line of the log file.
"""

from __future__ import annotations

import json
import math
import os
import random
import select
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ADVICE = (
    "start early and keep notes", "ask someone who has done it before", "buy less than you think you need",
    "measure twice before you cut anything", "leave a day of rest between attempts", "write the plan on paper first",
    "check the weather on the evening before", "keep the receipts in one box", "bring a spare pair of gloves",
)  # fmt: skip


_asked: Counter[str] = Counter()
_given: Counter[int] = Counter()
_lock = threading.Lock()


def answer(prompt: str, control: dict[str, Any]) -> str:
    """Say something as the control file wants it."""
    if "text" in control:
        return str(control["text"])
    with _lock:
        _asked[prompt] += 1
        draws = random.Random(f"{prompt} {_asked[prompt]}")
    if prompt.startswith("fact"):
        number = prompt.split()[1]
        return f"city {number}" if draws.random() < control.get("knows", 0.8) else "nowhere"
    if draws.random() < control.get("refuses", 0.2):
        return "I'm sorry, but I cannot help with that."
    return " ".join(f"You should {advice}." for advice in draws.sample(ADVICE, control.get("sentences", 3)))


class Handler(BaseHTTPRequestHandler):
    """One request at a time for each thread."""

    protocol_version = "HTTP/1.1"
    control_path: Path
    log_path: Path

    def do_POST(self) -> None:
        """Answer the endpoint's route and the receiver's."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/hook":
            control = json.loads(self.control_path.read_text(encoding="utf-8"))
            line = {"key": self.headers["idempotency-key"], "token": self.headers.get("authorization"), "body": body}
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(control.get("hook_seconds", 0))
            self._reply(control.get("hook_status", 200), {})
            return
        if (control := self._held()) is None:
            self.close_connection = True
            return
        if "status" in control:
            self._reply(control["status"], {"error": {"message": "not now"}})
            return
        text = answer(body["messages"][-1]["content"], control)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 9}
        self._reply(200, {"model": control.get("served", "moving-1"), "choices": [choice], "usage": usage})

    def _held(self) -> dict[str, Any] | None:
        """Wait until this request may be answered, and return what is wanted then; None where its client is gone."""
        while not self._is_left():
            with self.control_path.open(encoding="utf-8") as file, _lock:
                written = os.fstat(file.fileno()).st_mtime_ns
                control: dict[str, Any] = json.load(file)
                if _given[written] < control.get("answers", math.inf):
                    _given[written] += 1
                    return control
            time.sleep(0.01)
        return None

    def _is_left(self) -> bool:
        """Whether the client has closed its end."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _reply(self, status: int, data: dict[str, Any]) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Lets as many callers queue as any test sends at once; who finds no room asks again only a second later."""

    request_queue_size = 64


if __name__ == "__main__":
    Handler.control_path, Handler.log_path = Path(sys.argv[1]), Path(sys.argv[2])
    server = Server(("127.0.0.1", 0), Handler)
    Path(sys.argv[3]).write_text(str(server.server_address[1]), encoding="utf-8")
    server.serve_forever()

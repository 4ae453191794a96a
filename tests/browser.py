"""A real browser for the tests of pages, and a server that notices whatever a page fetches."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)
TIME_LIMIT_SECONDS = 240


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document after loading, and what the browser's console was told."""
    command = [str(BROWSER), *QUIET, "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@dataclass(kw_only=True)
class Listener:
    """A server whose address no page should know; `fetched` are the paths that were asked for."""

    url: str
    fetched: list[str] = field(default_factory=list)


@contextmanager
def listener() -> Iterator[Listener]:
    """Listen on a free loopback port, from a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.fetched.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Listener(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

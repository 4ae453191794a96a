"""A headless Chromium that a test can type into, over the DevTools protocol on a pipe: no port, no further package."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import BROWSER, QUIET, TIME_LIMIT_SECONDS
from eventually import wait_until


class Tab:
    """An open page. Keys and texts go in as a person's would; `ask` evaluates in the page, beside its policy."""

    def __init__(self, commands: int, replies: int, folder: Path) -> None:
        self._commands, self._replies, self._folder = commands, replies, folder
        self._number = self._shown = 0
        self._waiting = b""
        self._session: dict[str, str] = {}

    def attach(self) -> None:
        """Take the browser's first tab."""
        wait_until(self._pages_of_the_browser, "a tab of the browser")
        attached = self.do("Target.attachToTarget", targetId=self._pages_of_the_browser()[0], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def _pages_of_the_browser(self) -> list[str]:
        return [one["targetId"] for one in self.do("Target.getTargets")["targetInfos"] if one["type"] == "page"]

    def show(self, html: str, *, scripts: bool = True) -> None:
        """Open a page and wait until it has loaded; `scripts`: whether it may run any."""
        self._shown += 1
        file = self._folder / f"page-{self._shown}.html"
        file.write_text(html, encoding="utf-8")
        self.do("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.do("Page.navigate", url=file.as_uri())
        wait_until(lambda: self._has_loaded(file.as_uri()), "the page in the browser")

    def _has_loaded(self, address: str) -> bool:
        """Whether that page is there; right after the command it may still be the one before, which is complete too."""
        reply = self.send("Runtime.evaluate", expression="[location.href, document.readyState]", returnByValue=True)
        # While one page gives way to the other there may be none to ask.
        return bool(reply.get("result", {}).get("result", {}).get("value") == [address, "complete"])

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        reply = self.send(method, **parameters)
        assert "error" not in reply, reply["error"]
        result: dict[str, Any] = reply["result"]
        return result

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return the whole reply."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self._number:
            pass
        return reply

    def ask(self, expression: str) -> Any:
        """Return the value of an expression as plain data."""
        result = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key; `code` is its Windows virtual key code, `text` what it types."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.do("Input.insertText", text=text)

    def _next(self) -> dict[str, Any]:
        """Return the next message; each ends with a NUL."""
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._replies], [], [], TIME_LIMIT_SECONDS)
            part = os.read(self._replies, 1 << 16) if ready else b""
            assert part, "the browser says nothing"
            self._waiting += part
        message, _, self._waiting = self._waiting.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def open_browser(folder: Path) -> Iterator[Tab]:
    """Start a browser and close it afterwards. It reads descriptor 3 and writes descriptor 4."""
    (read, commands), (replies, write) = os.pipe(), os.pipe()
    arguments = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", "about:blank"]
    shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *map(str, arguments)]
    process = subprocess.Popen(
        shell, pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read)
    os.close(write)
    tab = Tab(commands, replies, folder)
    try:
        tab.attach()
        yield tab
    finally:
        os.close(commands)
        process.kill()
        process.wait()
        os.close(replies)

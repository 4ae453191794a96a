"""Servers of tests, each in a process of its own and on a port that the system chose."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx

from eventually import LIMIT_SECONDS, wait_until

_ADDRESS = re.compile(r"http://127\.0\.0\.1:[1-9]\d*")


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], health: str = "/healthz"
) -> Iterator[str]:
    """Run a server that was told port 0 and says in its log which it has; yields its address once `health` answers."""
    with NamedTemporaryFile(dir=folder, suffix=".log") as log:
        path = Path(log.name)
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(path, health) or process.poll() is not None, "an endpoint that answers")
            assert process.poll() is None, path.read_text()
            yield _address(path)
        finally:
            process.terminate()
            process.wait(LIMIT_SECONDS)


def _address(log: Path) -> str:
    found = _ADDRESS.search(log.read_text(encoding="utf-8"))
    return found.group() if found else ""


def _answers(log: Path, health: str) -> bool:
    address = _address(log)
    try:
        return bool(address) and httpx.get(address + health, trust_env=False).is_success
    except httpx.TransportError:
        return False

"""The client and `weightgate serve`, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Decoding
from weightgate.probe.snapshot import take_snapshot
from weightgate.probe.suites import Suite
from weightgate.serve import write_aliases

_START_SECONDS = 120
_CHECKS = (Check(metric="m", type="answers"),)
_SUITE = Suite(
    probes=(
        Probe(id="chat", axis="open", topic="t", form="chat", messages=(("user", "hello"),), checks=_CHECKS),
        Probe(id="text", axis="open", topic="t", form="text", prompt="the quick", checks=_CHECKS, max_tokens=4),
    )
)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_START_SECONDS * 5):
        assert process.poll() is None, "the endpoint ended"
        try:
            httpx.get(f"{url}/healthz", trust_env=False).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the endpoint did not start")


def test_our_client_reads_everything_that_our_endpoint_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_ENDPOINT_TOKEN", "open sesame")
    write_aliases(tmp_path / "aliases.json", {"live": "seed-1"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "tiny_endpoint.py"
    command = [sys.executable, str(script), str(port), str(tmp_path / "aliases.json")]
    process = subprocess.Popen(command, env=os.environ.copy(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}", process)
        config = EndpointConfig(
            url=f"http://127.0.0.1:{port}/v1", model="live", api_key_variable="TINY_ENDPOINT_TOKEN", top_logprobs=2
        )
        decoding = Decoding(samples=2, temperature=1.0, max_tokens=6, seed=3)
        first, second = (
            take_snapshot(EndpointAsker.of(config), _SUITE, tmp_path / name, decoding=decoding, suite_name="s")
            for name in ("a.jsonl", "b.jsonl")
        )
    finally:
        process.terminate()
        process.wait(30)
    assert first.complete
    assert first.completions == second.completions  # the same seeds on the same weights
    assert len(first.fingerprints) == 1
    for answer in first.answers:
        assert answer.reply.first_top is not None
        assert len(answer.reply.first_top) == 2
        assert answer.reply.token_logprobs is not None
        assert len(answer.reply.token_logprobs) == answer.reply.completion_tokens

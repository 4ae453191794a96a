"""The client and `weightgate serve`, each in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
from server_process import running
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Decoding
from weightgate.probe.snapshot import take_snapshot
from weightgate.probe.suites import Suite
from weightgate.serve import write_aliases

_CHECKS = (Check(metric="m", type="answers"),)
_SUITE = Suite(
    probes=(
        Probe(id="chat", axis="open", topic="t", form="chat", messages=(("user", "hello"),), checks=_CHECKS),
        Probe(id="text", axis="open", topic="t", form="text", prompt="the quick", checks=_CHECKS, max_tokens=4),
    )
)


def test_our_client_reads_everything_that_our_endpoint_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_ENDPOINT_TOKEN", "open sesame")
    write_aliases(tmp_path / "aliases.json", {"live": "seed-1"})
    script = Path(__file__).parents[1] / "tiny_endpoint.py"
    command = [sys.executable, str(script), "0", str(tmp_path / "aliases.json")]
    with running(command, folder=tmp_path, environment=os.environ) as address:
        config = EndpointConfig(
            url=f"{address}/v1", model="live", api_key_variable="TINY_ENDPOINT_TOKEN", top_logprobs=2
        )
        decoding = Decoding(samples=2, temperature=1.0, max_tokens=6, seed=3)
        first, second = (
            take_snapshot(EndpointAsker.of(config), _SUITE, tmp_path / name, decoding=decoding, suite_name="s")
            for name in ("a.jsonl", "b.jsonl")
        )
    assert first.complete
    assert first.completions == second.completions  # the same seeds on the same weights
    assert len(first.fingerprints) == 1
    for answer in first.answers:
        assert answer.reply.first_top is not None
        assert len(answer.reply.first_top) == 2
        assert answer.reply.token_logprobs is not None
        assert len(answer.reply.token_logprobs) == answer.reply.completion_tokens

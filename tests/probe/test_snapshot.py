"""Snapshots of endpoints and of targets: whole, stopped, gone on with, and refused where they do not belong."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from scripted_endpoint import scripted_endpoint

from eventually import LIMIT_SECONDS, wait_until
from weightgate.errors import DataError, EndpointError
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Decoding, TargetDescription
from weightgate.probe.snapshot import Progress, TargetAsker, take_snapshot
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.probe.suites import Suite, write_suite
from weightgate.probe.targets import Tops

DECODING = Decoding(samples=2, temperature=1.0, max_tokens=8)


def _suite(*scripts: str) -> Suite:
    checks = (Check(metric="m", type="answers"),)
    return Suite(
        probes=tuple(
            Probe(id=f"p{at}", axis="open", topic="t", form="chat", messages=(("user", script),), checks=checks)
            for at, script in enumerate(scripts)
        )
    )


@dataclass
class _Counting:
    """A target whose completions depend on seed, sample and prompt; it fails when `fails_after` calls were made."""

    fails_after: int = 10**6
    calls: list[int] = field(default_factory=list)

    def complete(self, probes: Sequence[Probe], *, samples: int, temperature: float, seed: int) -> list[list[str]]:
        if len(self.calls) >= self.fails_after:
            raise KeyboardInterrupt
        self.calls.append(len(probes))
        return [
            [f"{probe.text} {seed} {at} {temperature} {probe.max_tokens}" for at in range(samples)] for probe in probes
        ]

    def first_tops(self, probes: Sequence[Probe], *, count: int) -> list[Tops]:
        return [tuple((f"{probe.text} {rank}", -float(rank)) for rank in range(count)) for probe in probes]


def _asker(target: _Counting, suite: Suite) -> TargetAsker:
    description = TargetDescription(kind="checkpoint", place="b3:00", model="tiny")
    return TargetAsker(target=target, description=description, suite=suite)


def test_a_target_that_was_stopped_goes_on_to_the_same_answers(tmp_path: Path) -> None:
    suite = _suite(*(f"prompt {at}" for at in range(70)))
    whole = take_snapshot(_asker(_Counting(), suite), suite, tmp_path / "a", decoding=DECODING, suite_name="s")
    with pytest.raises(KeyboardInterrupt):
        take_snapshot(_asker(_Counting(1), suite), suite, tmp_path / "b", decoding=DECODING, suite_name="s")
    stopped = load_snapshot(tmp_path / "b")
    assert (len(stopped.answers), stopped.complete) == (64, False)
    rest = _Counting()
    resumed = take_snapshot(_asker(rest, suite), suite, tmp_path / "b", decoding=DECODING, suite_name="s")
    assert rest.calls == [32, 6]
    assert resumed.completions == whole.completions
    assert resumed.complete
    again = take_snapshot(_asker(_Counting(0), suite), suite, tmp_path / "b", decoding=DECODING, suite_name="s")
    assert again == resumed
    assert whole.answers[0].completion == "prompt 0 0 0 1.0 8"
    assert whole.decoding.seed == 0


def test_an_endpoint_is_asked_again_only_for_what_failed(tmp_path: Path) -> None:
    suite, seen = _suite("hello", "fail 2", "there"), list[Progress]()
    with scripted_endpoint() as endpoint:
        asker = EndpointAsker.of(EndpointConfig(url=endpoint.url, model="m", retries=0, max_concurrency=1))
        arguments = {"decoding": DECODING, "suite_name": "s"}
        first = take_snapshot(asker, suite, tmp_path / "s", observer=seen.append, **arguments)  # type: ignore[arg-type]
        assert not first.complete
        assert sum(answer.reply.error is not None for answer in first.answers) == 2
        assert seen[-1] == Progress(answered=4, total=6, failed=2)
        second = take_snapshot(asker, suite, tmp_path / "s", **arguments)  # type: ignore[arg-type]
        assert second.complete
        assert endpoint.attempts == {"hello": 2, "fail 2": 4, "there": 2}
    assert second.header == first.header
    assert (tmp_path / "s").read_bytes().count(b'"footer"') == 1


def test_an_error_that_stops_the_run_leaves_what_was_answered(tmp_path: Path) -> None:
    suite = _suite("hello", "status 401", "there")
    with scripted_endpoint() as endpoint:
        asker = EndpointAsker.of(EndpointConfig(url=endpoint.url, model="m", max_concurrency=1))
        with pytest.raises(EndpointError):
            take_snapshot(asker, suite, tmp_path / "s", decoding=DECODING, suite_name="s")
    assert [answer.key for answer in load_snapshot(tmp_path / "s").answers] == [("p0", 0)]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    suite, path = _suite("a"), tmp_path / "s"
    take_snapshot(_asker(_Counting(), suite), suite, path, decoding=DECODING, suite_name="s")
    before = path.read_bytes()
    for other, decoding in ((_suite("b"), DECODING), (suite, replace(DECODING, temperature=0.5))):
        with pytest.raises(DataError, match="something else"):
            take_snapshot(_asker(_Counting(), other), other, path, decoding=decoding, suite_name="s")
    assert path.read_bytes() == before


def test_a_file_that_stopped_before_its_first_question_is_begun_anew(tmp_path: Path) -> None:
    suite, path = _suite("a", "b", "c"), tmp_path / "s"
    take_snapshot(_asker(_Counting(), suite), suite, path, decoding=DECODING, suite_name="s")
    whole = path.read_bytes().splitlines(keepends=True)
    for kept in (b"", whole[0][:10], whole[0], b"".join(whole[:3])):
        path.write_bytes(kept)
        again = take_snapshot(_asker(_Counting(), suite), suite, path, decoding=DECODING, suite_name="s")
        assert len(again.answers) == 6


_SCRIPT = """
import signal
import sys
from pathlib import Path
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.recording import Decoding
from weightgate.probe.snapshot import take_snapshot
from weightgate.probe.suites import load_suite
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests behind it has it ignored
url, suite, path = sys.argv[1:]
asker = EndpointAsker.of(EndpointConfig(url=url, model="m", max_concurrency=2))
take_snapshot(asker, load_suite(Path(suite)), Path(path),
              decoding=Decoding(samples=2, temperature=1.0, max_tokens=8), suite_name="s")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_killed_loses_no_answer_it_had(tmp_path: Path, number: signal.Signals) -> None:
    """It is killed somewhere between its 20th and its 100th question, of 120."""
    suite = _suite(*(f"prompt {at}" for at in range(60)))
    write_suite(tmp_path / "suite.jsonl", suite.probes)
    with scripted_endpoint(latency_seconds=0.005, holds_after=100) as endpoint:
        arguments = [endpoint.url, str(tmp_path / "suite.jsonl"), str(tmp_path / "s")]
        process = subprocess.Popen([sys.executable, "-c", _SCRIPT, *arguments], stderr=subprocess.DEVNULL)
        wait_until(lambda: len(endpoint.requests) >= 20 or process.poll() is not None, "20 questions")
        os.kill(process.pid, number)
        process.wait(LIMIT_SECONDS)
        endpoint.holds_after = math.inf
        wait_until(lambda: endpoint.connections == 0, "an endpoint that has read whatever was sent")
        asked = len(endpoint.requests)
        answered = len(load_snapshot(tmp_path / "s").answers)
        # At most the two that were open, and the two whose answers were on their way to the disk, are asked twice.
        assert asked - 4 <= answered < 120
        asker = EndpointAsker.of(EndpointConfig(url=endpoint.url, model="m", max_concurrency=32))
        whole = take_snapshot(asker, suite, tmp_path / "s", decoding=DECODING, suite_name="s")
        assert whole.complete
        assert len(endpoint.requests) == asked + 120 - answered


def test_raw_text_is_kept_with_its_likeliest_first_tokens(tmp_path: Path) -> None:
    text = Probe(id="raw", axis="open", topic="t", form="text", prompt="Once", checks=())
    suite = Suite(probes=(*_suite("hello").probes, text))
    taken = take_snapshot(_asker(_Counting(), suite), suite, tmp_path / "a", decoding=DECODING, suite_name="s")
    assert taken.first_tops == {"raw": (tuple(f"Once {rank}" for rank in range(5)),) * DECODING.samples}
    assert load_snapshot(tmp_path / "a").first_tops == taken.first_tops

"""What a running build shows: loss, speed and time left in a terminal, one JSON object a line for machines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weightgate.build.events import Progressed
from weightgate.build.progress import observer_for

VERDICT = {"condition": "holdout.pretrain.[/x].bits_per_byte at most 1", "reason": "measured 0.5 [0.4, 0.6]"}


def play(as_json: bool) -> None:
    metrics = {"loss": 1.25, "kl": 0.5}
    with observer_for(as_json, is_main=True) as observer:
        observer.note("measuring [/x]")
        observer.stage_started("align", "align", 2000, 500)
        observer.stage_progress(
            "align", Progressed(step=2000, steps=2000, metrics=metrics, tokens_per_second=12345.6, seconds_left=0.0)
        )
        observer.stage_finished("align", "b3:" + "ab" * 32, 7.0, False)
        observer.stage_judged("align", [VERDICT | {"status": "passed"}], True)
        observer.stage_judged("align", [], True)


def test_a_terminal_shows_loss_speed_and_what_the_gates_said(capfd: pytest.CaptureFixture[str]) -> None:
    """Brackets in names and reasons are text: taken for markup, they would vanish or end the build."""
    play(as_json=False)
    shown = capfd.readouterr().err
    for words in ("loss 1.250", "kl 0.500", "12,346 tokens/s", "2000/2000", "going on after step 500 of 2000"):
        assert words in shown
    assert "measuring [/x]" in shown
    assert "[/x].bits_per_byte at most 1: measured 0.5 [0.4, 0.6]" in shown
    assert "no gate at this boundary" in shown


def test_machines_read_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    play(as_json=True)
    events: list[dict[str, Any]] = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == [
        "note",
        "stage started",
        "progress",
        "stage finished",
        "stage judged",
        "stage judged",
    ]
    assert events[2]["metrics"] == {"loss": 1.25, "kl": 0.5}


def test_other_processes_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with observer_for(as_json=False, is_main=False) as observer:
        observer.note("who speaks?")
    assert capfd.readouterr() == ("", "")

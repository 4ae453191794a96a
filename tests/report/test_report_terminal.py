"""The terminal form: compact, complete, and unable to steer the terminal."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_payloads import FORBIDDEN, HOSTILE
from rich.console import Console

from weightgate.report.terminal import render_terminal, sparkline


def _printed(page, *, width=120, colours=False) -> str:
    stream = io.StringIO()
    system = "standard" if colours else None
    render_terminal(page, Console(file=stream, width=width, color_system=system, force_terminal=colours))
    return stream.getvalue()


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_no_payload_reaches_the_terminal(poison, payload):
    printed = _printed(poison(payload))
    assert not set(printed) & set(FORBIDDEN)


def test_the_only_escapes_are_our_own_colours(poison):
    printed = _printed(poison(HOSTILE["ansi"] + HOSTILE["console-markup"]), colours=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", printed).count("\x1b") == 0
    assert "[bold red]x[/bold red]" in printed
    assert "\x1b]8" not in printed


def test_every_block_is_told(page):
    printed = _printed(page)
    for words in (
        "Stopped",
        "time 4 min (2 saved)",
        "b3:4f19ac02",
        "task.format",
        "0.400",
        "not measured",
        "gate at 1.5",
    ):
        assert words in printed
    for words in ("1 not finite", "before 0.9", "Hello?", "prompt | text", "Contract"):
        assert words in printed
    assert "three files" not in printed, "a collapsed section is only named"


def test_a_stage_is_one_line(page):
    lines = [line for line in _printed(page).splitlines() if line.startswith(("pretrain ", "finetune ", "align "))]
    assert len(lines) == 3
    assert "1 failed, 1 not measured" in lines[1]


def test_a_narrow_terminal_loses_no_line_to_overflow(page):
    assert max(map(len, _printed(page, width=60).splitlines())) <= 60


def test_sparkline_rises_and_marks_what_was_lost():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, math.nan, 2.0]) == "▁!█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([]) == ""


@settings(deadline=None)
@given(st.lists(st.floats(width=32), max_size=200), st.integers(1, 40))
def test_sparkline_is_never_longer_than_asked(values, width):
    assert len(sparkline(values, width=width)) == min(width, len(values))

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

from weightgate.report.page import Cell, Column, Page, Table
from weightgate.report.terminal import render_terminal, sparkline
from weightgate.report.widths import column_widths


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


def _costs(*, names=("pretrain", "finetune"), parameters="106,816"):
    """A table like that of a plan: text with a long remark beside numbers with units."""
    columns = [Column(name="stage"), Column(name="state")]
    columns += [Column(name=name, align="right") for name in ("parameters", "tokens", "memory", "disk", "price")]
    state = Cell(text="stale", detail="changed: seed 0 -> 1; the parent will be rebuilt first")
    numbers = (Cell(text=parameters, detail=f"{parameters} trained"), "61,440", "8 MiB", "4 MiB", "$0.02")
    return Page(title="costs", blocks=(Table(columns=tuple(columns), rows=tuple((n, state, *numbers) for n in names)),))


def test_a_narrow_terminal_breaks_text_and_no_number_or_heading():
    lines = _printed(_costs(), width=64).splitlines()
    heading = next(line for line in lines if line.startswith("stage"))
    assert heading.split() == ["stage", "state", "parameters", "tokens", "memory", "disk", "price"]
    first = next(line for line in lines if line.startswith("pretrain"))
    assert first.split() == ["pretrain", "stale", "106,816", "61,440", "8", "MiB", "4", "MiB", "$0.02"]
    assert len([line for line in lines if "trained" in line]) == 2
    assert max(map(len, lines)) <= 64


def test_where_the_numbers_do_not_fit_a_table_is_told_row_by_row():
    printed = _printed(_costs(parameters="7,241,732,096"), width=60)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "stage pretrain" in lines
    assert "parameters 7,241,732,096 7,241,732,096 trained" in lines
    assert lines.count("price $0.02") == 2
    assert max(map(len, printed.splitlines())) <= 60


@st.composite
def _columns(draw):
    least = draw(st.lists(st.integers(1, 20), min_size=1, max_size=9))
    return [each + draw(st.integers(0, 80)) for each in least], least


@given(_columns(), st.integers(1, 300))
def test_widths_fill_the_room_and_never_break_a_word(columns, room):
    natural, least = columns
    widths = column_widths(natural, least, room, is_text=[each % 2 == 0 for each in least])
    assert (widths is None) == (sum(least) > room)
    if widths is not None:
        assert all(low <= width <= high for low, width, high in zip(least, widths, natural, strict=True))
        assert sum(widths) == min(room, sum(natural))


def test_text_gets_room_before_numbers_and_the_narrowest_column_first():
    assert column_widths([8, 40, 20], [5, 8, 10], 40, is_text=[True, True, False]) == [8, 22, 10]
    assert column_widths([8, 40, 20], [5, 8, 10], 67, is_text=[True, True, False]) == [8, 40, 19]

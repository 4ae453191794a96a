"""Scales, thinning, and what the small drawings do with odd numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.report import charts, lanes
from weightgate.report.page import (
    Axis,
    Bar,
    Cell,
    Column,
    GateVerdict,
    Interval,
    Lane,
    LaneStage,
    LineChart,
    Series,
    Table,
)
from weightgate.report.tables import scaled_rows
from weightgate.report.ticks import linear_scale, log_scale, spell

_NUMBERS = st.floats(min_value=-1e12, max_value=1e12)
_ANY_NUMBERS = st.floats()


def _chart(points, *, log=False, **options):
    series = Series(name="loss", points=tuple(points))
    return LineChart(title="t", x=Axis(label="x"), y=Axis(label="y", log=log), series=(series,), **options)


def _parsed(markup):
    return ElementTree.fromstring(str(markup))


@settings(deadline=None)
@given(st.lists(_NUMBERS, min_size=1, max_size=8))
def test_a_linear_scale_covers_its_values_with_few_ticks(values):
    scale = linear_scale(values, ticks=5)
    assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 8
    assert list(scale.ticks) == sorted(set(scale.ticks))


@settings(deadline=None)
@given(st.lists(st.floats(min_value=1e-9, max_value=1e20), min_size=1, max_size=8))
def test_a_log_scale_covers_its_values(values):
    scale = log_scale(values, ticks=5)
    assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value in values)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


def test_a_linear_axis_ends_at_round_numbers():
    assert linear_scale([0.0, 97.0], ticks=5).ticks == (0, 20, 40, 60, 80, 100)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0, "0"),
        (1500, "1.5k"),
        (2_000_000, "2M"),
        (3e9, "3B"),
        (0.02, "0.02"),
        (-3, "-3"),
        (1e-5, "1e-05"),
        (math.nan, "nan"),
    ],
)
def test_spelling_of_numbers(value, word):
    assert spell(value) == word


def test_thinning_keeps_the_spike_and_both_ends():
    points = [(float(step), 1.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    kept = charts.thin(points)
    assert len(kept) < 600
    assert (54_321.0, 99.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])


@settings(deadline=None, max_examples=60)
@given(points=st.lists(st.tuples(_ANY_NUMBERS, _ANY_NUMBERS), max_size=8), log=st.booleans())
def test_any_numbers_make_well_formed_svg_without_nan(points, log):
    drawn = _parsed(charts.line_chart(_chart(points, log=log)))
    shapes = " ".join(value for node in drawn.iter() for key, value in node.attrib.items() if key != "aria-label")
    assert "nan" not in shapes
    assert "inf" not in shapes


def test_a_lost_value_breaks_the_line_and_is_marked():
    drawn = _parsed(charts.line_chart(_chart([(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 2.0), (4.0, 1.0)])))
    assert len([node for node in drawn.iter("path") if node.get("class") == "line"]) == 2
    (lost,) = (node for node in drawn.iter("text") if node.get("class") == "lost")
    assert lost.find("title").text == "loss: not a finite number at x 2"


def test_a_larger_value_is_drawn_higher():
    drawn = _parsed(charts.line_chart(_chart([(0.0, 1.0), (1.0, 2.0)])))
    low, high = (float(node.get("cy")) for node in drawn.iter("circle"))
    assert high < low


def test_interval_places_threshold_and_value_on_its_scale():
    drawn = _parsed(charts.interval(Interval(value=0.5, low=0.25, high=0.75, threshold=1.0, scale=(0.0, 1.0))))
    assert drawn.find("circle").get("cx") == "48"
    assert [node.get("x1") for node in drawn.iter("line") if node.get("class") == "threshold"] == ["92"]


def test_an_interval_that_is_no_number_is_not_drawn():
    assert charts.interval(Interval(value=math.nan, low=0, high=1)) == ""


@pytest.mark.parametrize(("share", "width"), [(0.5, "48"), (7.0, "96"), (-1.0, "0"), (math.nan, "0")])
def test_a_bar_stays_in_its_rail(share, width):
    assert _parsed(charts.bar(Bar(share=share)))[1].get("width") == width


def test_intervals_share_a_scale_along_a_row_or_a_column():
    def cell(low, high):
        return Cell(text="", graphic=Interval(value=low, low=low, high=high))

    columns = (Column(name="a"), Column(name="b"))
    rows = ((cell(0, 1), cell(4, 5)), (cell(10, 11), cell(20, 21)))
    by_row = scaled_rows(Table(columns=columns, rows=rows))
    by_column = scaled_rows(Table(columns=columns, rows=rows, shared_scale="column"))
    assert [cell.graphic.scale for cell in by_row[0]] == [(0, 5), (0, 5)]
    assert [cell.graphic.scale for cell in by_column[0]] == [(0, 11), (4, 21)]


def _stage(weight, *verdicts, started=True):
    gates = tuple(GateVerdict(name="g", verdict=verdict) for verdict in verdicts)
    return LaneStage(name="s", kind="k", state="built", gates=gates, weight=weight, started=started)


def test_lanes_follow_each_other_and_the_cheapest_can_be_seen():
    first, second, third = lanes.tracks(Lane(stages=(_stage(1000), _stage(1), _stage(1000, started=False))))
    assert first.end == second.start
    assert second.end == third.start
    assert second.end - second.start > 0.03
    assert (first.leads_on, second.leads_on, third.leads_on) == (True, False, False)


def test_weights_of_nothing_share_the_lane():
    first, second = lanes.tracks(Lane(stages=(_stage(0), _stage(0))))
    assert first.end - first.start == pytest.approx(second.end - second.start)


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ((), "none"),
        (("passed", "passed"), "open"),
        (("passed", "waived"), "waived"),
        (("waived", "not measured"), "unmeasured"),
        (("not measured", "failed"), "closed"),
    ],
)
def test_the_worst_gate_decides_the_door(verdicts, state):
    assert lanes.door(_stage(1, *verdicts).gates) == state

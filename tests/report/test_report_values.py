"""Findings and pages as plain data."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.report.finding import SEVERITIES, Finding, worst
from weightgate.report.page import Axis, LaneStage, LineChart, Page, Series, measurement_cell
from weightgate.stats import Estimate, Unmeasured, proportion

_TEXTS = st.text(max_size=20)


@settings(deadline=None)
@given(
    severity=st.sampled_from(SEVERITIES),
    headline=_TEXTS,
    detail=_TEXTS,
    evidence=st.lists(st.lists(_TEXTS, max_size=3).map(tuple), max_size=3).map(tuple),
)
def test_a_finding_survives_json(severity, headline, detail, evidence):
    finding = Finding(severity=severity, headline=headline, detail=detail, evidence=evidence)
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


def test_a_severity_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'awful' is none of pass, note, warn, fail"):
        Finding.from_json({"severity": "awful", "headline": "x"})


def test_worst_follows_the_order_of_harm():
    assert worst(("note", "fail", "pass")) == "fail"
    assert worst(()) == "pass"


def test_page_json_is_strict_json_and_names_its_blocks(page):
    data = json.loads(json.dumps(page.to_json(), allow_nan=False))
    assert data["schema"] == 2
    assert [block["block"] for block in data["blocks"]][:2] == ["headline", "section"]
    assert data["blocks"][2]["blocks"][0]["block"] == "line_chart"


def test_non_finite_numbers_become_null():
    series = Series(name="loss", points=((0.0, math.nan), (1.0, math.inf)))
    chart = LineChart(title="t", x=Axis(label="x"), y=Axis(label="y"), series=(series,))
    points = Page(title="t", blocks=(chart,)).to_json()["blocks"][0]["series"][0]["points"]
    assert points == [[0.0, None], [1.0, None]]


def test_a_stage_keeps_its_kind_in_json():
    stage = LaneStage(name="align", kind="PPO", state="built")
    assert Page(title="t", blocks=(stage,)).to_json()["blocks"][0]["kind"] == "PPO"


def test_a_measurement_cell_carries_interval_and_n():
    cell = measurement_cell(proportion(70, 120), threshold=0.5)
    assert cell.text == "0.583"
    assert cell.detail == "0.494 to 0.668, n = 120"
    assert cell.graphic.scale == (0.0, 1.0)
    assert cell.graphic.threshold == 0.5


def test_numbers_of_a_cell_line_up():
    estimate = Estimate(value=12.0, low=9.5, high=14.04, n=8, unit="words", method="bootstrap")
    assert measurement_cell(estimate).text == "12.0"
    assert measurement_cell(estimate).detail == "9.5 to 14.0, n = 8"


def test_unmeasured_says_why_and_is_not_a_pass():
    cell = measurement_cell(Unmeasured(reason="no probes"))
    assert (cell.text, cell.detail, cell.severity, cell.graphic) == ("not measured", "no probes", "warn", None)

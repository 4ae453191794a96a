"""A page with every kind of block and every optional part, and a copy of it with a payload in every text field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest

from weightgate.report.finding import Finding
from weightgate.report.page import (
    Axis,
    Bar,
    Cell,
    Collection,
    Column,
    Entry,
    Figure,
    Findings,
    GateVerdict,
    Headline,
    Interval,
    KeyValues,
    LabelledText,
    Lane,
    LaneStage,
    LineChart,
    Mark,
    Page,
    Prose,
    Section,
    Series,
    SideBySide,
    Table,
    measurement_cell,
)
from weightgate.stats import Unmeasured, proportion

_STAGES = (
    LaneStage(
        name="pretrain",
        kind="pre-training",
        state="reused",
        short_id="b3:4f19ac02",
        cost="3 min",
        reason="unchanged",
        gates=(GateVerdict(name="holdout.bits_per_byte", verdict="passed", detail="1.4, at most 1.6"),),
        checkpoints=(0.25, 0.5),
        weight=90,
    ),
    LaneStage(
        name="finetune",
        kind="SFT",
        state="stopped at its gate",
        severity="fail",
        short_id="b3:9d20e1b7",
        cost="1 min",
        reason="format lost",
        gates=(
            GateVerdict(name="task.format", verdict="failed", detail="0.4, at least 0.9"),
            GateVerdict(name="open.diversity", verdict="not measured", detail="no samples"),
        ),
        weight=30,
    ),
    LaneStage(
        name="align",
        kind="PPO",
        state="not started",
        severity="note",
        short_id="none",
        cost="none",
        reason="waits",
        gates=(GateVerdict(name="align.kl", verdict="waived", detail="by the recipe"),),
        started=False,
    ),
)

_CHART = LineChart(
    title="Loss",
    x=Axis(label="step"),
    y=Axis(label="loss (nats per token)", log=True),
    series=(
        Series(
            name="training",
            points=tuple((float(step), 9 / (step + 1) + 1 if step != 7 else math.nan) for step in range(2000)),
            band=((0.0, 9.0, 11.0), (1000.0, 0.9, 1.2), (1999.0, 0.9, 1.1)),
        ),
        Series(name="hold-out", points=((0.0, 9.0), (1999.0, 1.1)), style="points"),
    ),
    x_marks=(Mark(at=500.0, label="warm-up ends"),),
    y_marks=(Mark(at=1.5, label="gate"),),
    caption="Every second step.",
)

_TABLE = Table(
    title="Capabilities",
    columns=(Column(name="measurement"), Column(name="after", align="right"), Column(name="digest", code=True)),
    rows=(
        ("task.format", measurement_cell(proportion(40, 100), threshold=0.9, severity="fail"), "b3:00ff00ff"),
        ("gold.reward", Cell(text="1", detail="d", graphic=Interval(value=1, low=0.5, high=2)), "none"),
        ("share", Cell(text="65 %", detail="d", graphic=Bar(share=0.65)), "none"),
        ("knowledge", measurement_cell(Unmeasured(reason="no probes")), "none"),
    ),
    caption="95 % intervals.",
    labels=((("axis", "task"),), (("axis", "gold"), ("read", "yes")), (), (("axis", "knowledge"),)),
)

_SIDES = SideBySide(
    title="Changed",
    prompt="Hello?",
    texts=(
        LabelledText(label="before", text="Yes.", note="0.9", severity="pass"),
        LabelledText(label="after", text="No.", note="0.1"),
    ),
)


def _sample() -> Page:
    finding = Finding(severity="warn", headline="Fell", detail="Look.", evidence=(("prompt", "text"), ("other",)))
    return Page(
        title="Build",
        subtitle="today",
        blocks=(
            Headline(
                severity="fail",
                text="Stopped",
                detail="Because.",
                figures=(Figure(label="time", value="4 min", note="2 saved"),),
            ),
            Section(title="Stages", id="stages", summary="In order.", blocks=(Lane(stages=_STAGES),)),
            Section(title="Training", id="training", summary="Curves.", blocks=(_CHART, _CHART)),
            Section(title="Results", id="results", summary="Tables.", blocks=(_TABLE, Prose(text="One."))),
            Section(
                title="Completions",
                id="completions",
                summary="Before and after.",
                blocks=(
                    Findings(title="Findings", findings=(finding,)),
                    _SIDES,
                    Collection(
                        title="To read",
                        entries=(
                            Entry(body=_SIDES, labels=(("finding", "shorter"), ("finding", "ruder"))),
                            Entry(body=_SIDES),
                        ),
                    ),
                ),
            ),
            Section(
                title="Contract",
                id="contract",
                summary="Locked.",
                collapsed=True,
                blocks=(KeyValues(title="Inputs", pairs=(("data", "three files"), ("seed", "one"))),),
            ),
        ),
    )


def _poisoned(value: Any, payload: str) -> Any:
    """Append the payload to every text below a value, except in fields whose type allows only listed words."""
    if isinstance(value, str):
        return value + payload
    if isinstance(value, tuple):
        return tuple(_poisoned(item, payload) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        free = [f.name for f in fields(value) if hints[f.name] is str or not isinstance(getattr(value, f.name), str)]
        return replace(value, **{name: _poisoned(getattr(value, name), payload) for name in free})
    return value


@pytest.fixture
def page() -> Page:
    """A page with every block and no empty field."""
    return _sample()


@pytest.fixture
def poison() -> Callable[[str], Page]:
    """Return the same page with a payload at the end of every text."""
    return lambda payload: _poisoned(_sample(), payload)

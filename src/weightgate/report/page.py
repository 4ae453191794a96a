"""A page: a title and blocks, each a frozen value that says what is shown and nothing about how.

The same page becomes HTML (`html.render_html`), terminal lines (`terminal.render_terminal`) and JSON (`Page.to_json`).
Every text is plain: it may come from a model or a data file, and every renderer treats it as hostile.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from weightgate.report.finding import Finding, Severity
from weightgate.stats import Estimate, Measurement

SCHEMA = 2
"""Number of the JSON form of a page; it goes up when a block changes its fields."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number under a headline: what it is, its text with unit, and a remark."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one sentence of the page, its severity, and a handful of figures.

    `badge` is what the severity is called here, such as "changed"; by default its own word.
    """

    severity: Severity
    text: str
    detail: str = ""
    figures: tuple[Figure, ...] = ()
    badge: str = ""


Verdict = Literal["passed", "failed", "waived", "not measured"]


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """One gate at the end of a stage; `detail` holds the numbers, such as "0.82, at least 0.75"."""

    name: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class LaneStage:
    """One stage: a lane that ends in a door.

    `state` is a short text ("built", "reused", "stopped at its gate", "not started") and `severity` its colour.
    `weight` is the stage's share of the lane's length in any unit, such as seconds; `checkpoints` are positions in
    0..1 along the stage at which something was saved.
    """

    name: str
    kind: str
    state: str
    severity: Severity = "pass"
    short_id: str = ""
    cost: str = ""
    reason: str = ""
    gates: tuple[GateVerdict, ...] = ()
    checkpoints: tuple[float, ...] = ()
    weight: float = 1.0
    started: bool = True


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Stages in order, each in its own lane, gates as doors between them."""

    stages: tuple[LaneStage, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis; the label carries the unit. On a log axis, values that are not positive are left out."""

    label: str
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or cloud. `points` are (x, y); `band` is (x, low, high). A non-finite y breaks the line."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...] = ()
    style: Literal["line", "points"] = "line"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A labelled straight line across a chart, at an x or a y."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Series over a shared x axis; `x_marks` are boundaries, `y_marks` thresholds."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    x_marks: tuple[Mark, ...] = ()
    y_marks: tuple[Mark, ...] = ()
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its interval, drawn small in a table cell, with a tick where the threshold lies.

    `scale` is what the two ends of the drawing stand for; without one, the table chooses (see `Table.shared_scale`).
    """

    value: float
    low: float
    high: float
    threshold: float | None = None
    scale: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A filled share of a cell, 0..1."""

    share: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One table cell: text, a smaller remark, a severity for its colour, and a small drawing."""

    text: str
    detail: str = ""
    severity: Severity | None = None
    graphic: Interval | Bar | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's name and alignment; `code` sets digests and commands in a fixed-width face."""

    name: str
    align: Literal["left", "right"] = "left"
    code: bool = False


Labels = tuple[tuple[str, str], ...]
"""What a row is filed under: (kind of label, label), such as ("finding", "an answer is empty")."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells; a bare string is a cell without decoration. Rows are as long as `columns`.

    Intervals that bring no scale share one along each row (one measurement over several stages) or each column. With
    `labels`, one entry for each row, the HTML page lets its reader search the rows and narrow them down.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    title: str = ""
    caption: str = ""
    shared_scale: Literal["row", "column"] = "row"
    labels: tuple[Labels, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyValues:
    """Names and what they are set to, both plain text; values that are digests are set in a fixed-width face."""

    pairs: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings in the order given."""

    findings: tuple[Finding, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """A completion and whose it is; `note` is a score or a remark."""

    label: str
    text: str
    note: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """A prompt and two or three completions of it."""

    prompt: str
    texts: tuple[LabelledText, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of many things to read, and what it is filed under."""

    body: SideBySide
    labels: Labels = ()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Many things to read; in HTML they can be searched and narrowed down by what they are filed under."""

    entries: tuple[Entry, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Plain text; an empty line starts a paragraph, `backticks` mark commands."""

    text: str


Block = Headline | Lane | LineChart | Table | KeyValues | Findings | SideBySide | Collection | Prose


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of a page. `id` is its anchor, by default made from the title; `collapsed` hides it until asked."""

    title: str
    blocks: tuple[Block, ...]
    id: str = ""
    summary: str = ""
    collapsed: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str = ""
    blocks: tuple[Block | Section, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data with a `schema` number; `block` names what a value is, non-finite numbers become null."""
        return {"schema": SCHEMA, **_plain(self)}


def measurement_cell(
    measurement: Measurement,
    *,
    threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    severity: Severity | None = None,
) -> Cell:
    """Make the cell of a measurement: value, interval and n in words and drawn. A share is drawn on 0..1."""
    if not isinstance(measurement, Estimate):
        return Cell(text="not measured", detail=measurement.reason, severity=severity or "warn")
    if scale is None and measurement.unit == "share":
        scale = (0.0, 1.0)
    value, low, high = _alike(measurement.value, measurement.low, measurement.high)
    return Cell(
        text=value,
        detail=f"{low} to {high}, n = {measurement.n:,}",
        severity=severity,
        graphic=Interval(
            value=measurement.value, low=measurement.low, high=measurement.high, threshold=threshold, scale=scale
        ),
    )


def _alike(*numbers: float) -> list[str]:
    """Spell numbers with the same decimals, three significant digits for the largest, so that they line up."""
    size = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    if not size or not 1e-4 <= size < 1e5:
        return [f"{number:.3g}" for number in numbers]
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return [f"{number:.{decimals}f}" for number in numbers]


def as_cell(cell: Cell | str) -> Cell:
    """Return a cell for a bare string."""
    return Cell(text=cell) if isinstance(cell, str) else cell


def kind_name(block: object) -> str:
    """Return a block's kind as its JSON form and its CSS class spell it: `LineChart` -> "line_chart"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(block).__name__).lower()


def _plain(value: Any) -> Any:
    """Turn frozen values into dictionaries, tuples into lists and non-finite numbers into None."""
    if is_dataclass(value):
        plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return plain if isinstance(value, Page) else {"block": kind_name(value), **plain}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

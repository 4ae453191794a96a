"""Charts as inline SVG that stretch without scripts: x in percent, y and text in pixels.

A plot is two SVGs side by side, the y axis with a fixed width and the area with the rest. Inside the area, lines and
bands live in a nested SVG whose box is stretched in x only, so a phone gets narrow curves but readable text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from weightgate.report.page import Axis, Bar, Interval, LineChart, Series
from weightgate.report.svg import Attributes, element, percent
from weightgate.report.ticks import Scale, linear_scale, log_scale, spell

NUM_COLOURS = 6
"""Colours of series in page.css; later series take them again with dashes."""

_TOP, _HEIGHT, _FOOT, _AXIS_WIDTH = 16.0, 220.0, 26.0, 48.0
"""Pixels above, in and below the plot, and left of it."""

_BOX_WIDTH = 1000.0
_NUM_BUCKETS, _NUM_HOVERS, _NUM_BREAKS = 240, 40, 20

Point = tuple[float, float]


def line_chart(chart: LineChart) -> Markup:
    """Draw the plot of a chart; title, legend and caption are the template's."""
    x_scale, y_scale = _x_scale(chart), _y_scale(chart)
    area = element(
        "svg",
        {"class": "area", "height": _TOP + _HEIGHT + _FOOT, "role": "img", "aria-label": chart.title},
        *_grid(y_scale),
        *_x_ticks(x_scale),
        _curves(chart, x_scale, y_scale),
        *_marks(chart, x_scale, y_scale),
        *(dot for index, series in enumerate(chart.series) for dot in _dots(chart, series, index, x_scale, y_scale)),
    )
    return element("div", {"class": "plot"}, _y_axis(y_scale), area)


def swatch(index: int, style: str) -> Markup:
    """Draw a legend entry's sample of series number `index`."""
    colour = {"class": _series_class(index)}
    sample = (
        element("circle", {"class": "dot", "cx": 11, "cy": 5, "r": 3.5})
        if style == "points"
        else element("line", {"class": "line", "x1": 0, "x2": 22, "y1": 5, "y2": 5})
    )
    return element("svg", {"width": 22, "height": 10, "aria-hidden": "true"}, element("g", colour, sample))


def interval(cell: Interval) -> Markup:
    """Draw a value and its interval on `cell.scale`, 96 pixels wide, with a tick at the threshold."""
    ends = cell.scale or (cell.low, cell.high)
    numbers = (cell.value, cell.low, cell.high, *ends)
    if not all(map(math.isfinite, numbers)):
        return Markup()
    scale = linear_scale(ends, ticks=2, tight=True)

    def place(value: float) -> float:
        return 4 + 88 * min(1.0, max(0.0, scale.place(value)))

    title = f"{spell(cell.value)}, interval {spell(cell.low)} to {spell(cell.high)}"
    parts = [
        element("line", {"class": "rail", "x1": 4, "x2": 92, "y1": 8, "y2": 8}),
        element(
            "rect",
            {
                "class": "span",
                "x": place(cell.low),
                "width": max(1.0, place(cell.high) - place(cell.low)),
                "y": 5.5,
                "height": 5,
                "rx": 2.5,
            },
        ),
        element("circle", {"class": "value", "cx": place(cell.value), "cy": 8, "r": 3.5}),
    ]
    if cell.threshold is not None and math.isfinite(cell.threshold):
        at = place(cell.threshold)
        parts.append(element("line", {"class": "threshold", "x1": at, "x2": at, "y1": 1, "y2": 15}))
        title += f", threshold {spell(cell.threshold)}"
    return element(
        "svg", {"class": "interval", "width": 96, "height": 16, "role": "img"}, element("title", {}, title), *parts
    )


def bar(cell: Bar) -> Markup:
    """Draw a filled share, 96 pixels wide."""
    share = min(1.0, max(0.0, cell.share)) if math.isfinite(cell.share) else 0.0
    return element(
        "svg",
        {"class": "bar", "width": 96, "height": 10, "aria-hidden": "true"},
        element("rect", {"class": "rail", "width": 96, "height": 10, "rx": 2}),
        element("rect", {"class": "fill", "width": 96 * share, "height": 10, "rx": 2}),
    )


def _x_scale(chart: LineChart) -> Scale:
    """Cover every drawn x, ending at the data."""
    values = [point[0] for series in chart.series for point in (*series.points, *series.band)]
    return (
        log_scale(values, ticks=5)
        if chart.x.log
        else linear_scale([*values, *(mark.at for mark in chart.x_marks)], ticks=5, tight=True)
    )


def _y_scale(chart: LineChart) -> Scale:
    """Cover every drawn y, band and threshold, ending at ticks."""
    values = [point[1] for series in chart.series for point in series.points]
    values += [edge for series in chart.series for point in series.band for edge in point[1:]]
    values += [mark.at for mark in chart.y_marks]
    return log_scale(values, ticks=5) if chart.y.log else linear_scale(values, ticks=5)


def _down(scale: Scale, value: float) -> float:
    """Return the pixel row of a y value."""
    return _TOP + _HEIGHT * (1 - scale.place(value))


def _y_axis(scale: Scale) -> Markup:
    """Draw tick labels in a strip of fixed width."""
    labels = (
        element("text", {"x": _AXIS_WIDTH - 8, "y": _down(scale, tick) + 4, "text-anchor": "end"}, spell(tick))
        for tick in scale.ticks
    )
    size: Attributes = {"class": "axis", "width": _AXIS_WIDTH, "height": _TOP + _HEIGHT + _FOOT, "aria-hidden": "true"}
    return element("svg", size, *labels)


def _grid(scale: Scale) -> Iterator[Markup]:
    """Draw a faint line at each y tick and a firm one at the foot."""
    for tick in scale.ticks:
        y = _down(scale, tick)
        yield element("line", {"class": "grid", "x1": 0, "x2": "100%", "y1": y, "y2": y})
    foot = _TOP + _HEIGHT
    yield element("line", {"class": "foot", "x1": 0, "x2": "100%", "y1": foot, "y2": foot})


def _x_ticks(scale: Scale) -> Iterator[Markup]:
    """Draw x tick labels, the outer ones turned inwards so that nothing is cut off."""
    for tick in scale.ticks:
        at = scale.place(tick)
        anchor = "start" if at < 0.03 else "end" if at > 0.97 else "middle"
        where: Attributes = {"x": percent(at), "y": _TOP + _HEIGHT + 18, "text-anchor": anchor}
        yield element("text", where, spell(tick))


def _curves(chart: LineChart, x_scale: Scale, y_scale: Scale) -> Markup:
    """Draw bands and lines in a box that is stretched in x only."""

    def spot(x: float, y: float) -> str:
        return f"{_BOX_WIDTH * x_scale.place(x):.5g} {_down(y_scale, y):.5g}"

    shapes = []
    for index, series in enumerate(chart.series):
        shapes += [element("g", {"class": _series_class(index)}, *_shapes(series, x_scale, y_scale, spot))]
    box: Attributes = {
        "width": "100%",
        "height": _TOP + _HEIGHT,
        "viewBox": f"0 0 {_BOX_WIDTH:g} {_TOP + _HEIGHT:g}",
        "preserveAspectRatio": "none",
    }
    return element("svg", box, *shapes)


def _shapes(series: Series, x_scale: Scale, y_scale: Scale, spot: Callable[[float, float], str]) -> Iterator[Markup]:
    """Draw one series' band, then its line."""
    band = [edge for edge in series.band if x_scale.shows(edge[0]) and all(map(y_scale.shows, edge[1:]))]
    if len(band) > 1:
        around = [spot(x, high) for x, _, high in band] + [spot(x, low) for x, low, _ in reversed(band)]
        yield element("path", {"class": "band", "d": f"M{'L'.join(around)}Z"})
    if series.style == "line":
        for run in _runs(series.points, x_scale, y_scale):
            yield element("path", {"class": "line", "d": "M" + "L".join(spot(x, y) for x, y in thin(run))})


def _runs(points: Sequence[Point], x_scale: Scale, y_scale: Scale) -> list[list[Point]]:
    """Cut points into runs that can be drawn without a break."""
    runs: list[list[Point]] = [[]]
    for x, y in points:
        if x_scale.shows(x) and y_scale.shows(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def thin(points: Sequence[Point]) -> list[Point]:
    """Keep at most two points of each of `_NUM_BUCKETS` buckets, its lowest and highest, so that no spike is lost."""
    if len(points) <= 2 * _NUM_BUCKETS:
        return list(points)
    kept: list[Point] = [points[0]]
    for bucket in range(_NUM_BUCKETS):
        start, stop = (len(points) * edge // _NUM_BUCKETS for edge in (bucket, bucket + 1))
        members = range(start, stop)
        ends = {min(members, key=lambda i: points[i][1]), max(members, key=lambda i: points[i][1])}
        kept += [points[index] for index in sorted(ends)]
    return [*kept, points[-1]]


def _dots(chart: LineChart, series: Series, index: int, x_scale: Scale, y_scale: Scale) -> Iterator[Markup]:
    """Draw points, or the unseen targets on a line that say their numbers on hover, and a cross where y was lost."""
    shown = [point for point in series.points if x_scale.shows(point[0]) and y_scale.shows(point[1])]
    stride = 1 if series.style == "points" else max(1, math.ceil(len(shown) / _NUM_HOVERS))
    for x, y in thin(shown) if series.style == "points" else shown[::stride]:
        words = f"{series.name}: {spell(y)} at {_bare(chart.x)} {spell(x)}"
        place: Attributes = {"cx": percent(x_scale.place(x)), "cy": _down(y_scale, y), "r": 3.5}
        style = f"dot {_series_class(index)}" if series.style == "points" else f"hover {_series_class(index)}"
        yield element("circle", {"class": style, **place}, element("title", {}, words))
    lost = [x for x, y in series.points if not math.isfinite(y) and x_scale.shows(x)]
    for x in lost[:_NUM_BREAKS]:
        words = f"{series.name}: not a finite number at {_bare(chart.x)} {spell(x)}"
        where: Attributes = {"class": "lost", "x": percent(x_scale.place(x)), "y": _TOP + 12, "text-anchor": "middle"}
        yield element("text", where, "×", element("title", {}, words))


def _bare(axis: Axis) -> str:
    """Return an axis label without its unit in brackets."""
    return axis.label.split("(")[0].strip()


def _marks(chart: LineChart, x_scale: Scale, y_scale: Scale) -> Iterator[Markup]:
    """Draw boundaries and thresholds with their labels on the inside."""
    for mark in chart.x_marks:
        if x_scale.shows(mark.at):
            at = percent(x_scale.place(mark.at))
            anchor, shift = ("end", -5) if x_scale.place(mark.at) > 0.6 else ("start", 5)
            yield element("line", {"class": "mark", "x1": at, "x2": at, "y1": 2, "y2": _TOP + _HEIGHT})
            yield element("text", {"x": at, "dx": shift, "y": 11, "text-anchor": anchor}, mark.label)
    for mark in chart.y_marks:
        if y_scale.shows(mark.at):
            y = _down(y_scale, mark.at)
            yield element("line", {"class": "mark", "x1": 0, "x2": "100%", "y1": y, "y2": y})
            yield element("text", {"x": "100%", "dx": -2, "y": y - 5, "text-anchor": "end"}, mark.label)


def _series_class(index: int) -> str:
    """Return the colour class of a series; the second round of colours is dashed."""
    return f"s{index % NUM_COLOURS}" + (" dashed" if index >= NUM_COLOURS else "")

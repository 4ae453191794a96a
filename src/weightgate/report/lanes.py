"""The lane drawing: stages as tracks one below the other, checkpoints as ticks, gates as doors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from weightgate.report.page import GateVerdict, Lane, LaneStage
from weightgate.report.svg import Attributes, element, percent

_SMALLEST_SHARE = 0.06
"""Share of the width that even the cheapest stage gets, so that its door can be told from the one before."""

_START, _END = 0.01, 0.97
_MIDDLE = 20.0

Door = Literal["open", "waived", "unmeasured", "closed", "none"]


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where a stage's lane lies, in shares of the width, and whether the next one could start behind its door."""

    start: float
    end: float
    first: bool
    leads_on: bool


def tracks(lane: Lane) -> list[Track]:
    """Lay stages end to end, each as long as its weight's share."""
    shares = _shares([stage.weight for stage in lane.stages])
    placed: list[Track] = []
    start = _START
    for index, share in enumerate(shares):
        end = start + share * (_END - _START)
        follower = lane.stages[index + 1] if index + 1 < len(shares) else None
        leads_on = follower is not None and follower.started
        placed.append(Track(start=start, end=end, first=index == 0, leads_on=leads_on))
        start = end
    return placed


def door(gates: Sequence[GateVerdict]) -> Door:
    """Say how the gates leave the door: one that failed closes it, one not measured has not passed."""
    verdicts = {gate.verdict for gate in gates}
    if "failed" in verdicts:
        return "closed"
    if "not measured" in verdicts:
        return "unmeasured"
    if "waived" in verdicts:
        return "waived"
    return "open" if verdicts else "none"


def track(stage: LaneStage, place: Track) -> Markup:
    """Draw one stage's lane."""
    return element(
        "svg",
        {"class": f"track {stage.severity}" + ("" if stage.started else " idle"), "aria-hidden": "true"},
        *_links(place),
        element(
            "line",
            {"class": "rail", "x1": percent(place.start), "x2": percent(place.end), "y1": _MIDDLE, "y2": _MIDDLE},
        ),
        *(_tick(place, share) for share in stage.checkpoints if 0 <= share <= 1),
        _door(door(stage.gates), place.end),
    )


def _shares(weights: Sequence[float]) -> list[float]:
    """Return each weight's share of the whole, none under `_SMALLEST_SHARE` while there is room."""
    floor = min(_SMALLEST_SHARE, 1 / max(1, len(weights)))
    total = sum(weight for weight in weights if weight > 0) or 1.0
    raised = [max(floor, weight / total) for weight in weights]
    return [share / sum(raised) for share in raised]


def _links(place: Track) -> Iterator[Markup]:
    """Draw the dotted way from the door above to this lane, and from this door to the lane below."""
    if not place.first:
        x = percent(place.start)
        yield element("line", {"class": "link", "x1": x, "x2": x, "y1": 0, "y2": _MIDDLE})
    if place.leads_on:
        x = percent(place.end)
        yield element("line", {"class": "link", "x1": x, "x2": x, "y1": _MIDDLE, "y2": "100%"})


def _tick(place: Track, share: float) -> Markup:
    """Draw a checkpoint."""
    x = percent(place.start + share * (place.end - place.start))
    return element("line", {"class": "tick", "x1": x, "x2": x, "y1": _MIDDLE - 4, "y2": _MIDDLE + 4})


def _door(state: Door, at: float) -> Markup:
    """Draw a door, its middle at a share of the width: the leaf stands open, or fills the frame."""
    frame = element("rect", {"class": "frame", "x": -6, "y": -12, "width": 12, "height": 24, "rx": 1.5})
    leaf = element("path", {"class": "leaf", "d": "M-6 -12 L2 -8 L2 16 L-6 12 Z"})
    shapes = {
        "open": (frame, leaf),
        "waived": (frame, leaf),
        "unmeasured": (frame, element("text", {"text-anchor": "middle", "y": 4.5}, "?")),
        "closed": (frame, element("path", {"class": "cross", "d": "M-3 -4 L3 4 M3 -4 L-3 4"})),
        "none": (element("circle", {"class": "end", "r": 3.5}),),
    }
    box: Attributes = {"class": f"door {state}", "x": percent(at), "y": _MIDDLE, "overflow": "visible"}
    return element("svg", box, *shapes[state])

"""The status page: is anything open, what moved, how each axis went, and what the looks were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from weightgate.probe.recording import utc_now
from weightgate.report.finding import Finding, Severity
from weightgate.report.html import render_html
from weightgate.report.page import (
    Axis,
    Bar,
    Block,
    Cell,
    Column,
    Figure,
    Findings,
    Headline,
    KeyValues,
    LabelledText,
    LineChart,
    Mark,
    Page,
    Prose,
    Section,
    Series,
    SideBySide,
    Table,
)
from weightgate.watch.alarm import write_whole
from weightgate.watch.axes import LEAST_PROMPTS, spell_value
from weightgate.watch.config import WatchConfig
from weightgate.watch.evidence import AxisLook, AxisState, WatchState, odds, threshold
from weightgate.watch.history import AlarmRow, BaselineRow, History, LookRow
from weightgate.watch.look import replay
from weightgate.watch.outbox import Letter, letters

_SHOWN_LOOKS = 2000
_TABLED_LOOKS = 40
_OPEN_CHARTS = 6
_SHOWN_ALARMS = 20
_SHOWN_PROMPTS = 4
_NAMED_AXES = 3
_DETECTION_LOOKS = 24
_STATE_WORDS: dict[str, tuple[str, Severity]] = {
    "done": ("done", "pass"),
    "open": ("under way", "note"),
    "outage": ("outage", "warn"),
    "budget": ("over budget", "warn"),
    "abandoned": ("abandoned", "note"),
}


def write_status(config: WatchConfig, history: History, path: Path) -> None:
    """Write the page as one HTML file, whole or not at all."""
    write_whole(path, render_html(status_page(config, history)))


def status_page(config: WatchConfig, history: History) -> Page:
    """Return the page of a watch. Completions and whatever an endpoint states are untrusted; renderers treat all so."""
    looks, alarms = history.looks(limit=_SHOWN_LOOKS), history.alarms(limit=_SHOWN_ALARMS)
    baseline = history.baseline()
    subtitle = f"{config.target.model} at {config.target.url}, written {_minute(utc_now())} UTC"
    if baseline is None:
        mend = "Run `weightgate watch CONFIG --once`."
        block = Headline(severity="warn", text="nothing was asked yet", detail=mend, badge="not begun")
        return Page(title=f"Watch {config.name}", subtitle=subtitle, blocks=(block,))
    state = history.state(baseline.number) or replay(history, baseline)
    timelines = history.axes(looks[-1].look) if looks else {}
    sent = letters(history)
    sections: list[Block | Section] = [
        _headline(config, baseline, looks, alarms, state, sent),
        _axes_section(config, looks, timelines, state),
        *_timeline_sections(config, baseline, looks, alarms, timelines, state),
        *_alarm_sections(alarms),
        _looks_section(looks),
        _null_section(state),
        _setup_section(config, history, sent),
    ]
    return Page(title=f"Watch {config.name}", subtitle=subtitle, blocks=tuple(sections))


def _headline(
    config: WatchConfig,
    baseline: BaselineRow,
    looks: Sequence[LookRow],
    alarms: Sequence[AlarmRow],
    state: WatchState,
    sent: Sequence[Letter],
) -> Headline:
    opened = next((alarm for alarm in alarms if alarm.ended_at is None), None)
    counts = {name: sum(look.state == name for look in looks) for name in ("done", "outage")}
    undelivered = sum(letter.delivered_at is None for letter in sent)
    figures = (
        Figure(label="looks", value=f"{state.looks:,}", note=f"against baseline {baseline.number}"),
        Figure(
            label="last look",
            value=_minute(looks[0].started_at) if looks else "none",
            note=f"UTC, every {config.every}",
        ),
        Figure(label="outages", value=str(counts["outage"]), note=f"of the last {len(looks):,} looks"),
        Figure(
            label="false alarms", value=f"{100 * config.alarm.alpha:.2g}%", note="at most, ever, while nothing changes"
        ),
        *((Figure(label="undelivered", value=str(undelivered), note="letters to webhooks"),) if undelivered else ()),
    )
    severity, badge, text, detail = _standing(baseline, looks, opened, state)
    return Headline(severity=severity, badge=badge, text=text, detail=detail, figures=figures)


def _standing(
    baseline: BaselineRow, looks: Sequence[LookRow], opened: AlarmRow | None, state: WatchState
) -> tuple[Severity, str, str, str]:
    """Severity, the word for it, the sentence and what there is to say beside it."""
    if opened is not None:
        return "fail", "alarm", *_alarm_words(opened)
    if looks and looks[0].state in ("outage", "budget"):
        return "warn", "no look", "the last look could not be taken", looks[0].note
    if baseline.ready_at is None:
        return "warn", "not begun", "the baseline is not complete yet", f"{state.snapshots} snapshots are taken"
    if not state.looks:
        return "note", "baseline", "the baseline is taken; no look was taken since", ""
    return "pass", "quiet", f"nothing changed in {state.looks:,} looks", _would_have_seen(state)


def _alarm_words(alarm: AlarmRow) -> tuple[str, str]:
    """What moved; and what it looks like, since when, where to read on, and how to end it."""
    body = alarm.body
    moved = [axis["words"] for axis in body["axes"]]
    more = f"; {len(moved) - _NAMED_AXES} more axes moved" if len(moved) > _NAMED_AXES else ""
    looks_like = body["comparison"]["headline"] if body["comparison"]["changed"] else "no cause can be named"
    report = f" The comparison is in `{body['report']}`." if body["report"] else ""
    parts = (
        f"It looks like this: {looks_like}.",
        f"It shows since {_minute(body['since'])} UTC and is open since {_minute(alarm.opened_at)} UTC.{report}",
        "`weightgate watch CONFIG --acknowledge` ends it and keeps the baseline; `--baseline` takes what is now as "
        "normal.",
    )
    return "; ".join(moved[:_NAMED_AXES]) + more, "\n\n".join(parts)


def _would_have_seen(state: WatchState) -> str:
    """The smallest shift that a day of looks would show: evidence grows by about z^2 / 2 nats a look."""
    if not state.tested:
        return f"No axis has the {LEAST_PROMPTS} prompts that it needs to be followed, so no change can show."
    needed = math.log(threshold(len(state.tested), 0.05)) + math.log(max(state.looks, 2) * 10)
    name, axis = min(state.tested.items(), key=lambda item: item[1].spread or math.inf)
    least = axis.spread * math.sqrt(2 * needed / _DETECTION_LOOKS)
    if not least:
        return "Every answer was the same as in the baseline, so any change at all would show."
    within = f"within about {_DETECTION_LOOKS} looks"
    return f"A shift of {name} by about {least:.1%} of its range would have been seen {within}."


def _alarm_sections(alarms: Sequence[AlarmRow]) -> list[Section]:
    if not alarms:
        return []
    findings = Findings(findings=tuple(map(_alarm_finding, alarms)))
    deciding = alarms[0].body.get("deciding", [])[:_SHOWN_PROMPTS]
    shown = tuple(
        SideBySide(
            title=", ".join(one["shows"]),
            prompt=one["prompt"],
            texts=(LabelledText(label="baseline", text=one["before"]), LabelledText(label="now", text=one["after"])),
        )
        for one in deciding
    )
    sections = [Section(title="Alarms", blocks=(findings,))]
    if shown:
        title = f"Prompts that show alarm {alarms[0].alarm}"
        sections.insert(0, Section(title=title, blocks=shown, collapsed=alarms[0].ended_at is not None))
    return sections


def _alarm_finding(alarm: AlarmRow) -> Finding:
    ended = f"ended {_minute(alarm.ended_at)}: {alarm.ended_why}" if alarm.ended_at else "open"
    axes = tuple((axis["words"], f"evidence {odds(axis['evidence'])}") for axis in alarm.body["axes"])
    report = alarm.body.get("report")
    where = f"Alarm {alarm.alarm}, {_minute(alarm.opened_at)} UTC, look {alarm.look}, baseline {alarm.baseline}"
    more = f" Report: `{report}`." if report else ""
    return Finding(
        severity="note" if alarm.ended_at else "fail",
        headline=alarm.headline,
        detail=f"{where}; {ended}.{more}",
        evidence=axes,
    )


def _axes_section(
    config: WatchConfig, looks: Sequence[LookRow], timelines: dict[int, tuple[AxisLook, ...]], state: WatchState
) -> Section:
    needed = threshold(len(state.tested), config.alarm.alpha)
    last = next((timelines[look.look] for look in looks if look.kind == "look" and look.look in timelines), ())
    rows = tuple(_axis_row(config, state.axes[one.axis], one, needed) for one in _surest_first(last))
    caption = (
        f"An alarm needs evidence of {needed:,.0f} to 1 on some axis, and a shift beyond the floor in the last "
        f"{config.alarm.persistence} looks. p: how rarely a look is so far off while nothing changes."
    )
    columns = (
        Column(name="axis"),
        Column(name="reading"),
        Column(name="baseline", align="right"),
        Column(name="last look", align="right"),
        Column(name="shift", align="right"),
        Column(name="evidence", align="right"),
    )
    block: Block = Table(columns=columns, rows=rows, caption=caption) if rows else Prose(text="No look was taken yet.")
    return Section(title="Axes", blocks=(block,))


def _axis_row(config: WatchConfig, axis: AxisState, look: AxisLook, needed: float) -> tuple[Cell | str, ...]:
    floor = max(config.alarm.floor, axis.noise)
    share = max(0.0, math.log(max(look.evidence, 1.0))) / math.log(needed) if needed > 1 else 0.0
    sure, large = look.evidence >= needed, abs(look.shift) > floor
    p_value = 2 * min(look.p_value, 1 - look.p_value)
    reading = (
        Cell(text="moved", severity="fail")
        if sure and large
        else Cell(text="sure, below the floor", severity="note")
        if sure
        else Cell(text="unchanged", severity="pass")
    )
    return (
        look.axis,
        reading,
        spell_value(look.axis, look.mean - look.shift),
        spell_value(look.axis, look.mean),
        Cell(text=f"{look.shift:+.3f}", detail=f"floor {floor:.3f}, n = {look.prompts:,}"),
        Cell(text=odds(look.evidence), graphic=Bar(share=min(1.0, share)), detail=f"p = {p_value:.2g}"),
    )


def _timeline_sections(
    config: WatchConfig,
    baseline: BaselineRow,
    looks: Sequence[LookRow],
    alarms: Sequence[AlarmRow],
    timelines: dict[int, tuple[AxisLook, ...]],
    state: WatchState,
) -> list[Section]:
    shown = [look for look in reversed(looks) if look.look in timelines and look.kind == "look"]
    if not shown:
        return []
    missing = (look.look for look in looks if look.state in ("outage", "budget"))
    gaps = tuple((float(at), math.nan) for at in missing if shown[0].look < at < shown[-1].look)
    by_axis: dict[str, list[tuple[LookRow, AxisLook]]] = {}
    for look in shown:
        for one in timelines[look.look]:
            by_axis.setdefault(one.axis, []).append((look, one))
    marks = _marks(shown, alarms)
    order = [one.axis for one in _surest_first(timelines[shown[-1].look])]
    charts = [_axis_chart(name, by_axis[name], state.axes.get(name), baseline.number, marks, gaps) for name in order]
    times = f"{_minute(shown[0].started_at)} to {_minute(shown[-1].started_at)} UTC"
    span = f"{times}, looks {shown[0].look:,} to {shown[-1].look:,}. Bands hold 95 % of looks while nothing changes."
    span += " A cross stands where a look could not be taken." if gaps else ""
    evidence = _evidence_chart(config, order[:_OPEN_CHARTS], by_axis, marks, len(state.tested))
    sections = [Section(title="Timeline", summary=span, blocks=(evidence, *charts[:_OPEN_CHARTS]))]
    if charts[_OPEN_CHARTS:]:
        blocks = tuple(charts[_OPEN_CHARTS:])
        sections.append(Section(title="Timeline of the other axes", blocks=blocks, collapsed=True))
    return sections


def _axis_chart(
    name: str,
    points: Sequence[tuple[LookRow, AxisLook]],
    axis: AxisState | None,
    baseline: int,
    marks: tuple[Mark, ...],
    gaps: tuple[tuple[float, float], ...],
) -> LineChart:
    """Mean by look, with the band in which 95 % of looks lie while nothing changes; `gaps` break the line."""
    normal = tuple((float(look.look), *_usual_range(one)) for look, one in points)
    means = (*((float(look.look), one.mean) for look, one in points), *gaps)
    y_marks = () if axis is None else (Mark(at=axis.baseline_mean, label=f"baseline {baseline}"),)
    series = Series(name=name, points=tuple(sorted(means, key=lambda point: point[0])), band=normal)
    return LineChart(
        title=name,
        x=Axis(label="look"),
        y=Axis(label="share of the axis' range"),
        series=(series,),
        x_marks=marks,
        y_marks=y_marks,
    )


def _usual_range(axis: AxisLook) -> tuple[float, float]:
    usual = axis.mean - axis.shift
    return max(0.0, usual - 2 * axis.spread), min(1.0, usual + 2 * axis.spread)


def _evidence_chart(
    config: WatchConfig,
    names: Sequence[str],
    by_axis: dict[str, list[tuple[LookRow, AxisLook]]],
    marks: tuple[Mark, ...],
    axes: int,
) -> LineChart:
    series = tuple(
        Series(name=name, points=tuple((float(look.look), max(one.evidence, 1e-6)) for look, one in by_axis[name]))
        for name in names
    )
    needed = threshold(axes, config.alarm.alpha)
    return LineChart(
        title="Evidence of a change",
        x=Axis(label="look"),
        y=Axis(label="to 1", log=True),
        series=series,
        x_marks=marks,
        y_marks=(Mark(at=needed, label="needed for an alarm"),),
        caption="What a bettor against “nothing changed” has made of 1. The axes with most evidence now.",
    )


def _marks(shown: Sequence[LookRow], alarms: Sequence[AlarmRow]) -> tuple[Mark, ...]:
    first = shown[0].look
    found = [Mark(at=float(alarm.look), label=f"alarm {alarm.alarm}") for alarm in alarms if alarm.look >= first]
    found += [
        Mark(at=float(after.look), label=f"baseline {after.baseline}")
        for before, after in pairwise(shown)
        if before.baseline != after.baseline
    ]
    return tuple(found)


def _looks_section(looks: Sequence[LookRow]) -> Section:
    columns = (
        Column(name="look", align="right"),
        Column(name="started (UTC)"),
        Column(name="kind"),
        Column(name="state"),
        Column(name="answers", align="right"),
        Column(name="served by"),
        Column(name="note"),
    )
    rows = tuple(
        (
            str(look.look),
            _minute(look.started_at),
            look.kind if look.kind == "look" else f"baseline {look.baseline}",
            Cell(text=_STATE_WORDS[look.state][0], severity=_STATE_WORDS[look.state][1]),
            Cell(text=f"{look.answered:,}", detail=f"{look.failed:,} failed" if look.failed else ""),
            look.served,
            look.note,
        )
        for look in looks[:_TABLED_LOOKS]
    )
    return Section(title="Looks", summary=f"The last {len(rows)}.", blocks=(Table(columns=columns, rows=rows),))


def _null_section(state: WatchState) -> Section:
    """The A/A null: how much the snapshots of the baseline differ among themselves."""
    rows = tuple(_null_row(name, axis) for name, axis in state.tested.items() if axis.baseline_means)
    names = ("axis", "prompts", "lowest snapshot", "highest snapshot", "difference", "deviation of a look", "reading")
    columns = tuple(Column(name=name, align="left" if name in ("axis", "reading") else "right") for name in names)
    caption = (
        "An axis is unsteady where snapshots of the same baseline differ by more than answers vary (p below 1 %); "
        "then a shift that is no larger than that difference is no alarm."
    )
    blocks = (Table(columns=columns, rows=rows, caption=caption),)
    return Section(title="The endpoint against itself (A/A)", blocks=blocks, collapsed=True)


def _null_row(name: str, axis: AxisState) -> tuple[Cell | str, ...]:
    steady = Cell(text="as answers vary", severity="pass")
    return (
        name,
        str(int((axis.baseline_count > 0).sum())),
        spell_value(name, min(axis.baseline_means)),
        spell_value(name, max(axis.baseline_means)),
        f"{axis.null_range:.3f}",
        f"{axis.spread:.3f}",
        Cell(text="unsteady", severity="warn") if axis.is_unsteady else steady,
    )


def _setup_section(config: WatchConfig, history: History, sent: Sequence[Letter]) -> Section:
    pairs = (
        ("questions", f"{config.ask.name}, {config.ask.samples} samples, temperature {config.ask.temperature}"),
        ("every", config.every),
        ("history", history.database.place),
        (
            "alarm",
            f"{config.alarm.persistence} looks in a row, floor {config.alarm.floor:g}, alpha {config.alarm.alpha:g}",
        ),
    )
    baselines = Table(
        title="Baselines",
        columns=(Column(name="baseline", align="right"), Column(name="started (UTC)"), Column(name="reason")),
        rows=tuple((str(row.number), _minute(row.started_at), row.reason) for row in history.baselines()),
    )
    blocks: list[Block] = [KeyValues(pairs=pairs), baselines]
    if sent:
        blocks.append(_letters_table(sent))
    return Section(title="Set-up", blocks=tuple(blocks), collapsed=True)


def _letters_table(sent: Sequence[Letter]) -> Table:
    names = ("alarm", "webhook", "attempts", "delivered (UTC)", "last error")
    rows = tuple(
        (
            str(letter.alarm),
            letter.channel,
            str(letter.attempts),
            _minute(letter.delivered_at) if letter.delivered_at else Cell(text="not yet", severity="warn"),
            letter.last_error or "",
        )
        for letter in sent
    )
    return Table(title="Letters to webhooks", columns=tuple(Column(name=name) for name in names), rows=rows)


def _surest_first(axes: Sequence[AxisLook]) -> list[AxisLook]:
    return sorted(axes, key=lambda one: (-one.evidence, one.axis))


def _minute(moment: str) -> str:
    """ISO 8601 to the minute, for people."""
    return moment[:16].replace("T", " ")

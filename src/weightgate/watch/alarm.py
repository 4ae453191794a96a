"""An alarm: its one sentence, its evidence as data, and the files that say so."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightgate.diff.compare import Comparison, compare
from weightgate.diff.page import comparison_page
from weightgate.errors import WatchError
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Answered, Decoding, Header, Snapshot, TargetDescription, in_order, utc_now
from weightgate.report.html import render_html
from weightgate.report.text import one_line, visible
from weightgate.watch.axes import spell_value
from weightgate.watch.config import WatchConfig
from weightgate.watch.evidence import AxisLook, odds
from weightgate.watch.history import AlarmRow, BaselineRow, History, LookRow
from weightgate.watch.look import Answers

ALARM_SCHEMA = 1
_NAMED_AXES = 3
_SHOWN_CHARACTERS = 600


def alarm_body(
    config: WatchConfig,
    look: LookRow,
    axes: Sequence[AxisLook],
    *,
    since: str,
    comparison: Comparison,
) -> dict[str, Any]:
    """Everything that an alarm says, as plain data; the number is added when it is written.

    Args:
        axes: the axes that moved, the surest first, as the last look shows them.
        since: when the first of the looks that show it was taken.
    """
    headline = alarm_headline(config, axes, since=since, comparison=comparison)
    return {
        "schema": ALARM_SCHEMA,
        "text": headline,
        "headline": headline,
        "watch": config.name,
        "target": {"url": config.target.url, "model": config.target.model},
        "opened_at": utc_now(),
        "since": since,
        "baseline": look.baseline,
        "look": look.look,
        "axes": [_axis_json(axis) for axis in axes],
        "comparison": {
            "headline": comparison.headline,
            "changed": comparison.changed,
            "verdict": comparison.verdict.to_json() if comparison.verdict else None,
            "declared": [one.to_json() for one in comparison.declared],
        },
        "deciding": [
            {name: _cut(value) if isinstance(value, str) else value for name, value in one.to_json().items()}
            for one in comparison.deciding
        ],
        "report": config.alarm.report,
    }


def alarm_headline(config: WatchConfig, axes: Sequence[AxisLook], *, since: str, comparison: Comparison) -> str:
    """Say what moved, from where to where, since when, how sure, and which stage it looks like."""
    named = ", ".join(axis_words(axis) for axis in axes[:_NAMED_AXES])
    more = f" and {len(axes) - _NAMED_AXES} more axes moved" if len(axes) > _NAMED_AXES else ""
    sure = f"evidence {odds(axes[0].evidence)}"
    cause = f": {comparison.headline}" if comparison.changed else ""
    return one_line(f"{config.name} ({config.target.model}): {named}{more} since {since[:16]}Z, {sure}{cause}")


def axis_words(axis: AxisLook) -> str:
    """One axis as part of a sentence: boundary.should_refuse fell from 0.820 to 0.410."""
    before, after = spell_value(axis.axis, axis.mean - axis.shift), spell_value(axis.axis, axis.mean)
    return f"{axis.axis} {'rose' if axis.shift > 0 else 'fell'} from {before} to {after}"


def comparison_of(history: History, baseline: BaselineRow, look: int, *, persistence: int) -> Comparison:
    """Compare a baseline with the last looks up to this one; snapshots and looks count as samples."""
    done = history.looks(baseline=baseline.number, state="done", kind="baseline", limit=20)
    looks = history.looks(baseline=baseline.number, state="done", kind="look", up_to=look, limit=persistence)
    probes = history.probes(baseline.suite_digest)
    header = _header(baseline)
    before = _merged(header, probes, [history.answers(row.look) for row in reversed(done)])
    after = _merged(header, probes, [history.answers(row.look) for row in reversed(looks)])
    return compare(before, after)


def write_alarm_file(config: WatchConfig, folder: Path, alarm: AlarmRow | None) -> None:
    """Make the file say what the history says: there while an alarm is open, and about that one.

    What a killed process left undone is done at the next run. Raises `WatchError` where it cannot be written.
    """
    if config.alarm.file is None:
        return
    path = folder / config.alarm.file
    if alarm is None:
        _remove_own(path, config.name)
    elif _alarm_in(path) != (config.name, alarm.alarm):
        write_whole(path, json.dumps(alarm.body, indent=2) + "\n")


def write_alarm_report(config: WatchConfig, history: History, folder: Path, alarm: AlarmRow | None) -> None:
    """Write the comparison that shows an alarm, unless it is there; it stays when the alarm has ended.

    Raises `WatchError` where it cannot be written.
    """
    if alarm is None or config.alarm.report is None:
        return
    path = folder / config.alarm.report
    marker = f"<!-- alarm {alarm.alarm} of {config.name} -->\n"
    if _ends_with(path, marker):
        return
    baseline = next(row for row in history.baselines(limit=1000) if row.number == alarm.baseline)
    found = comparison_of(history, baseline, alarm.look, persistence=config.alarm.persistence)
    page = replace(comparison_page(found), title=f"Alarm {alarm.alarm} of {config.name}", subtitle=alarm.headline)
    write_whole(path, render_html(page) + marker)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever finds half of it. Raises `WatchError` where it cannot be written."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise WatchError("the file cannot be written", where=str(path), found=error.strerror or str(error)) from None


def _axis_json(axis: AxisLook) -> dict[str, Any]:
    before, after = axis.mean - axis.shift, axis.mean
    return {**vars(axis), "before": before, "after": after, "words": axis_words(axis)}


def _cut(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + " ..."


def _header(baseline: BaselineRow) -> Header:
    asked = json.loads(baseline.asked)
    return Header(
        target=TargetDescription(**asked["target"]),
        suite_name=baseline.suite_name,
        suite_digest=baseline.suite_digest,
        decoding=Decoding(**asked["decoding"]),
        created_at=baseline.started_at,
    )


def _merged(header: Header, probes: Sequence[Probe], looks: Sequence[Answers]) -> Snapshot:
    """Several looks as one recording, each look's samples behind those of the one before."""
    by_id = {probe.id: probe for probe in probes}
    samples = header.decoding.samples
    answers = tuple(
        Answered(probe=by_id[probe], sample=at * samples + sample, reply=reply)
        for at, look in enumerate(looks)
        for (probe, sample), reply in look.items()
        if probe in by_id
    )
    return Snapshot(header=header, probes=tuple(probes), answers=in_order(probes, answers), complete=False)


def _alarm_in(path: Path) -> tuple[str, int] | None:
    """Watch and number of the alarm that a file tells of; None for no file, and for what is none of ours."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return data["watch"], data["alarm"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_own(path: Path, watch: str) -> None:
    told = _alarm_in(path)
    if told is None or told[0] != watch:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        found = error.strerror or str(error)
        raise WatchError(
            "the file of an alarm that has ended cannot be removed", where=str(path), found=found
        ) from None


def _ends_with(path: Path, marker: str) -> bool:
    try:
        return path.read_text(encoding="utf-8").endswith(marker)
    except (OSError, UnicodeDecodeError):
        return False

"""A watch at work: the baseline first, then look by look."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from weightgate.errors import UserError, WatchError
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import CostEstimate, estimate_cost
from weightgate.probe.suites import Suite, suite_digest
from weightgate.report.page import Column, Page, Table
from weightgate.watch.alarm import alarm_body, comparison_of, write_alarm_file, write_alarm_report
from weightgate.watch.axes import LEAST_PROMPTS
from weightgate.watch.config import WatchConfig, load_config
from weightgate.watch.evidence import AxisLook, Rules, WatchState, odds
from weightgate.watch.history import AlarmRow, BaselineRow, History, LookKind, LookRow, NewAlarm
from weightgate.watch.look import Taken, look_levels, replay, take_look
from weightgate.watch.outbox import deliver
from weightgate.watch.page import write_status

_GOOD_PROMPTS = 40
"""So many show a shift of 0.16 of an axis within a few looks; see the table in docs/watch.md, for 60."""

OutcomeState = Literal["baseline", "quiet", "alarm", "outage", "budget", "acknowledged", "reported", "configured"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    `axes` are those of its look; `alarm` is the open alarm, which may be an older one. `problems` are completions that
    a pattern could not judge in time, and files that could not be written: the history knows all the same, and the next
    run tries again.
    """

    state: OutcomeState
    message: str
    exit_code: int
    look: LookRow | None = None
    axes: tuple[AxisLook, ...] = ()
    alarm: AlarmRow | None = None
    undelivered: int = 0
    problems: tuple[UserError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data with a schema number."""
        return {
            "schema": 1,
            "state": self.state,
            "message": self.message,
            "exit_code": self.exit_code,
            "look": asdict(self.look) if self.look else None,
            "axes": [dict(vars(axis)) for axis in self.axes],
            "alarm": self.alarm.body if self.alarm else None,
            "undelivered": self.undelivered,
            "problems": [problem.to_json() for problem in self.problems],
        }


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A configuration, its questions, and the folder that its paths are found from."""

    config: WatchConfig
    suite: Suite
    folder: Path

    @classmethod
    def of(cls, config: WatchConfig, folder: Path) -> Watch:
        """Read the questions.

        Raises `DataError` for a suite or a file of prompts that is none, and `WatchError` for so few that nothing could
        ever be seen in their answers.
        """
        suite = config.ask.load(folder)
        if len(suite) < LEAST_PROMPTS:
            raise WatchError(
                "so few prompts can show no change",
                where=str(folder / config.ask.name),
                expected=f"at least {LEAST_PROMPTS} prompts, better {_GOOD_PROMPTS} or more",
                found=str(len(suite)),
                mend="add prompts, or ask the suite that ships: `suite: core`",
            )
        return cls(config=config, suite=suite, folder=folder)

    @classmethod
    def read(cls, path: Path) -> Watch:
        """Read a configuration and its questions. Raises `WatchError` or `DataError` where one cannot be used."""
        return cls.of(load_config(path), path.parent)

    @property
    def rules(self) -> Rules:
        """When evidence is an alarm."""
        alarm = self.config.alarm
        return Rules(alpha=alarm.alpha, persistence=alarm.persistence, floor=alarm.floor, tolerance=alarm.tolerance)

    @property
    def kept_files(self) -> tuple[Path, ...]:
        """Files that the watch reads or keeps, which nothing may be written over."""
        return tuple(self.folder / name for name in self.config.kept_names.values())

    @property
    def asked(self) -> str:
        """Who is asked and how, as a baseline keeps it."""
        target = asdict(self.config.target.description)
        return json.dumps({"target": target, "decoding": asdict(self.config.ask.decoding)}, sort_keys=True)

    def cost_of_a_look(self) -> CostEstimate:
        """What a look costs at most, retries aside."""
        return estimate_cost(self.config.target, self.suite.probes, self.config.ask.decoding)


def do(watch: Watch, action: str | None, *, reason: str, report_path: Path | None) -> Outcome:
    """Do one thing, "once", "baseline", "acknowledge" or nothing but the status page, and say what came of it."""
    if action is None:
        with History.opened(watch.config, watch.folder) as history:
            write_status(watch.config, history, report_path or Path("status.html"))
            return _standing(watch, history)
    with opened(watch) as history:
        if action == "acknowledge":
            outcome = acknowledge(watch, history, reason or "acknowledged")
        else:
            outcome = (
                _rebase(watch, history, reason or "asked for") if action == "baseline" else look_once(watch, history)
            )
        return outcome if report_path is None else _written(outcome, [_status_page(watch, history, report_path)])


def _standing(watch: Watch, history: History) -> Outcome:
    """What the history says without asking anything."""
    alarm = _open_alarm(history)
    if alarm is not None:
        return Outcome(state="alarm", message=alarm.headline, exit_code=watch.config.alarm.exit_code, alarm=alarm)
    return Outcome(state="reported", message="no alarm is open", exit_code=0)


def cost_page(watch: Watch) -> Page:
    """What a look, the baseline and a day cost at most, retries aside, without asking anything."""
    cost, per_day = watch.cost_of_a_look(), 86400 / watch.config.interval_seconds
    columns = (Column(name=""), *(Column(name=name, align="right") for name in _COSTS))
    rows = tuple(
        (name, *_spelt(cost, factor))
        for name, factor in (
            ("one look", 1.0),
            (f"baseline, {watch.config.baseline.snapshots} snapshots", watch.config.baseline.snapshots),
            (f"a day, every {watch.config.every}", per_day),
        )
    )
    caption = "At most, and without retries: prompts estimated from their bytes, completions at their bound."
    return Page(
        title=f"Cost of watch {watch.config.name}", blocks=(Table(columns=columns, rows=rows, caption=caption),)
    )


_COSTS = ("calls", "prompt tokens", "completion tokens", "money")


def _spelt(cost: CostEstimate, factor: float) -> tuple[str, ...]:
    tokens = (cost.calls, cost.prompt_tokens, cost.completion_tokens)
    money = "no price given" if cost.money is None else f"{cost.money * factor:.4g}"
    return (*(f"{value * factor:,.0f}" for value in tokens), money)


@contextmanager
def opened(watch: Watch) -> Iterator[History]:
    """Open the history for writing, under the lock of the watch."""
    with History.opened(watch.config, watch.folder) as history, history.database.lock(watch.config.name):
        yield history


def look_once(watch: Watch, history: History) -> Outcome:
    """Do what is next: the snapshots that the baseline lacks, or one look."""
    baseline = history.baseline()
    if baseline is None:
        baseline = renew_baseline(watch, history, reason="first run")
    require_same_questions(watch, baseline)
    watch.config.target.headers()  # a key that is not set is a mistake, not an outage
    if baseline.ready_at is None:
        outcome = _complete_baseline(watch, history, baseline)
    else:
        outcome = _look(watch, history, baseline)
    return publish(watch, history, outcome)


def renew_baseline(watch: Watch, history: History, *, reason: str) -> BaselineRow:
    """Begin a new baseline; it ends open alarms. The old one and its looks stay in the history."""
    return history.begin_baseline(watch.suite, suite_name=watch.config.ask.name, asked=watch.asked, reason=reason)


def _rebase(watch: Watch, history: History, reason: str) -> Outcome:
    """Take a new baseline. Where not one question of it is answered, the one before it stays, with its alarm."""
    before = history.baseline()
    fresh = renew_baseline(watch, history, reason=reason)
    outcome = look_once(watch, history)
    if before is None or outcome.look is None or outcome.state == "baseline" or _is_begun(history, fresh):
        return outcome
    history.withdraw_baseline(fresh, before)
    message = f"{outcome.message}; baseline {before.number} stays"
    return publish(watch, history, replace(outcome, message=message, alarm=_open_alarm(history)))


def _is_begun(history: History, baseline: BaselineRow) -> bool:
    return any(look.answered for look in history.looks(baseline=baseline.number))


def acknowledge(watch: Watch, history: History, why: str) -> Outcome:
    """End the open alarms and keep the baseline; axes that have moved so far raise no other."""
    baseline = history.baseline()
    state = None if baseline is None else history.state(baseline.number)
    known = () if state is None else state.moved_axes(watch.rules.alpha)
    ended = history.acknowledge(why, known)
    message = f"{ended} {'alarm' if ended == 1 else 'alarms'} ended"
    return publish(watch, history, Outcome(state="acknowledged", message=message, exit_code=0))


def publish(watch: Watch, history: History, outcome: Outcome) -> Outcome:
    """Bring letters, files and the status page up to what the history says; letters first, they need no disk."""
    undelivered = deliver(history, watch.config.alarm.webhooks)
    config, folder, alarm = watch.config, watch.folder, outcome.alarm
    writes = [
        lambda: write_alarm_file(config, folder, alarm),
        lambda: write_alarm_report(config, history, folder, alarm),
    ]
    if config.report is not None:
        writes.append(_status_page(watch, history, folder / config.report))
    return _written(replace(outcome, undelivered=undelivered), writes)


def _status_page(watch: Watch, history: History, path: Path) -> Callable[[], None]:
    return lambda: write_status(watch.config, history, path)


def _written(outcome: Outcome, writes: Iterable[Callable[[], None]]) -> Outcome:
    """Write files; one that cannot be written is a problem of the outcome, and keeps no other back."""
    problems: list[UserError] = []
    for write in writes:
        try:
            write()
        except WatchError as error:
            problems.append(error)
    exit_code = outcome.exit_code or (2 if problems else 0)
    return replace(outcome, problems=(*outcome.problems, *problems), exit_code=exit_code)


def age_seconds(look: LookRow) -> float:
    """Seconds since a look began, by a clock that may have been set since."""
    return (datetime.now(UTC) - datetime.fromisoformat(look.started_at)).total_seconds()


def require_same_questions(watch: Watch, baseline: BaselineRow) -> None:
    """Raise `WatchError` where a baseline was asked something else, elsewhere or otherwise."""
    differing = []
    if suite_digest(watch.suite.probes) != baseline.suite_digest:
        differing.append("other prompts")
    if watch.asked != baseline.asked:
        differing.append("another target or other decoding")
    if differing:
        raise WatchError(
            "the configuration asks for something else than the baseline was asked",
            where=f"baseline {baseline.number} of {baseline.started_at}",
            found=" and ".join(differing),
            mend="weightgate watch CONFIG --baseline, which takes a new one; stop a running schedule first",
        )


def _complete_baseline(watch: Watch, history: History, baseline: BaselineRow) -> Outcome:
    wanted, problems = watch.config.baseline.snapshots, list[UserError]()
    while (done := len(history.looks(baseline=baseline.number, state="done"))) < wanted:
        look, taken = _ask(watch, history, baseline, "baseline")
        if taken.state != "done":
            return _no_look(watch, history, look, taken)
        _finish(watch, history, baseline, look, taken)
        problems += taken.problems
    history.baseline_ready(baseline.number)
    message = f"baseline {baseline.number} is taken: {done} snapshots of {len(watch.suite)} prompts"
    return Outcome(state="baseline", message=message, exit_code=0, problems=tuple(problems))


def _look(watch: Watch, history: History, baseline: BaselineRow) -> Outcome:
    look, taken = _ask(watch, history, baseline, "look")
    if taken.state != "done":
        return _no_look(watch, history, look, taken)
    axes = _finish(watch, history, baseline, look, taken)
    quiet = Outcome(
        state="quiet",
        message=_quiet(axes),
        exit_code=0,
        look=history.looks(limit=1)[0],
        axes=axes,
        problems=taken.problems,
    )
    alarm = _open_alarm(history)
    if alarm is None:
        return quiet
    exit_code = watch.config.alarm.exit_code
    return replace(quiet, state="alarm", message=alarm.headline, exit_code=exit_code, alarm=alarm)


def _ask(watch: Watch, history: History, baseline: BaselineRow, kind: LookKind) -> tuple[LookRow, Taken]:
    look = _look_to_go_on_with(watch, history, baseline, kind)
    over = _over_budget(watch, history, look)
    if over:
        return look, Taken(answers=history.answers(look.look), state="budget", failed=0, note=over)
    asker = EndpointAsker.of(watch.config.target)
    decoding = asker.decoding(watch.config.ask.decoding)
    return look, take_look(history, look, watch.suite.probes, decoding, asker, asker.spending)


def _look_to_go_on_with(watch: Watch, history: History, baseline: BaselineRow, kind: LookKind) -> LookRow:
    """The look that a stopped process left open, unless it is older than the pause between looks; else a new one."""
    for look in history.looks(state="open"):
        if look.kind == kind and 0 <= age_seconds(look) <= watch.config.interval_seconds:
            return look
        answered = len(history.answers(look.look))
        history.end_look(
            look.look, "abandoned", answered=answered, failed=0, note="stopped, and not gone on with in time"
        )
    return history.begin_look(baseline, kind)


def _over_budget(watch: Watch, history: History, look: LookRow) -> str:
    """Which budget of a day this look could break; nothing where it fits."""
    budget, cost = watch.config.budget, watch.cost_of_a_look()
    day_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds")
    calls, tokens, money = history.spent_since(day_ago)
    limits = (
        ("calls_per_day", calls + cost.calls, budget.calls_per_day),
        ("tokens_per_day", tokens + cost.prompt_tokens + cost.completion_tokens, budget.tokens_per_day),
        ("money_per_day", money + (cost.money or 0.0), budget.money_per_day),
    )
    for name, needed, limit in limits:
        if limit is not None and needed > limit:
            return f"budget.{name}: {needed:g} with this look, at most {limit:g}"
    return ""


def _finish(watch: Watch, history: History, baseline: BaselineRow, look: LookRow, taken: Taken) -> tuple[AxisLook, ...]:
    """Judge a look, and write everything that follows from it in one transaction."""
    state = history.state(baseline.number) or replay(history, baseline)
    reference = _reference(history, baseline)
    levels = look_levels(watch.suite.probes, taken.answers, reference)
    axes = state.add_snapshot(levels) if look.kind == "baseline" else state.add_look(levels)
    with history.database.transaction():
        history.end_look(
            look.look, "done", answered=len(taken.answers), failed=taken.failed, note=taken.note, served=taken.served
        )
        history.add_axes(look.look, axes)
        history.save_state(baseline.number, look.look, state)
        alarm = _new_alarm(watch, history, baseline, look, state, axes)
        if alarm is not None:
            history.open_alarm(look, alarm, name=watch.config.name)
    return axes


def _reference(history: History, baseline: BaselineRow) -> dict[Any, Any]:
    """Answers of the first snapshot of a baseline; nothing before it is done."""
    done = history.looks(baseline=baseline.number, state="done", kind="baseline", limit=1000)
    return history.answers(done[-1].look) if done else {}


def _new_alarm(
    watch: Watch,
    history: History,
    baseline: BaselineRow,
    look: LookRow,
    state: WatchState,
    axes: tuple[AxisLook, ...],
) -> NewAlarm | None:
    """An alarm where axes moved of which no alarm told yet; none while one is open: one for each change."""
    if look.kind == "baseline" or _open_alarm(history) is not None:
        return None
    known = history.acknowledged_axes(baseline.number)
    by_name = {axis.axis: axis for axis in axes}
    moved = [by_name[name] for name in state.changed_axes(watch.rules) if name not in known]
    if not moved:
        return None
    recent = history.looks(baseline=baseline.number, state="done", kind="look", limit=watch.rules.persistence)
    comparison = comparison_of(history, baseline, look.look, persistence=watch.rules.persistence)
    body = alarm_body(watch.config, look, moved, since=recent[-1].started_at, comparison=comparison)
    channels = tuple(webhook.label for webhook in watch.config.alarm.webhooks)
    return NewAlarm(headline=body["headline"], body=body, channels=channels)


def _open_alarm(history: History) -> AlarmRow | None:
    found = history.alarms(open_only=True, limit=1)
    return found[0] if found else None


def _no_look(watch: Watch, history: History, look: LookRow, taken: Taken) -> Outcome:
    """End a look that gave nothing to judge by. It is no part of the evidence, and no change."""
    assert taken.state in ("outage", "budget")
    history.end_look(look.look, taken.state, answered=len(taken.answers), failed=taken.failed, note=taken.note)
    said = "the endpoint could not be asked" if taken.state == "outage" else "the budget left no room for a look"
    return Outcome(
        state=taken.state,
        message=f"{said}: {taken.note}",
        exit_code=watch.config.alarm.outage_exit_code,
        look=history.looks(limit=1)[0],
        alarm=_open_alarm(history),
    )


def _quiet(axes: tuple[AxisLook, ...]) -> str:
    surest = max(axes, key=lambda axis: axis.evidence, default=None)
    if surest is None:
        return "no axis has enough prompts to be followed"
    return f"nothing changed; most evidence {odds(surest.evidence)}, for {surest.axis}, of {len(axes)} axes"

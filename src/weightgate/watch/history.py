"""What a watch remembers: baselines, looks with every answer, timelines, and the state of the evidence.

A look is open from its first question until one transaction writes its timeline, the new state and any alarm with its
outbox, and calls it done. Answers are durable as they come. So a process that is killed leaves an open look behind,
which the next one goes on with; no answer is asked twice and none counts twice. Looks are ordered by number: clocks are
written down but never trusted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from weightgate.errors import WatchError
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Answered, Reply, utc_now
from weightgate.probe.suites import Suite, probe_from_json, suite_digest
from weightgate.watch.config import WatchConfig
from weightgate.watch.database import Database
from weightgate.watch.evidence import AxisLook, WatchState

SCHEMA = 1
LookKind = Literal["baseline", "look"]
LookState = Literal["open", "done", "outage", "abandoned", "budget"]

_REPLY = TypeAdapter(Reply)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS watch_schema (version INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS watch_names (watch BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS watch_suites (suite_digest TEXT PRIMARY KEY, probes TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS watch_baselines (
        watch BIGINT NOT NULL, baseline BIGINT NOT NULL, started_at TEXT NOT NULL, ready_at TEXT, reason TEXT NOT NULL,
        suite_name TEXT NOT NULL, suite_digest TEXT NOT NULL, asked TEXT NOT NULL, salt TEXT NOT NULL,
        PRIMARY KEY (watch, baseline))""",
    """CREATE TABLE IF NOT EXISTS watch_looks (
        watch BIGINT NOT NULL, look BIGINT NOT NULL, baseline BIGINT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        started_at TEXT NOT NULL, ended_at TEXT, answered BIGINT NOT NULL, failed BIGINT NOT NULL,
        calls BIGINT NOT NULL, tokens BIGINT NOT NULL, money DOUBLE PRECISION NOT NULL, note TEXT NOT NULL,
        served TEXT NOT NULL, PRIMARY KEY (watch, look))""",
    "CREATE INDEX IF NOT EXISTS watch_looks_by_baseline ON watch_looks (watch, baseline, kind, state, look)",
    "CREATE INDEX IF NOT EXISTS watch_looks_by_start ON watch_looks (watch, started_at)",
    "CREATE INDEX IF NOT EXISTS watch_looks_by_state ON watch_looks (watch, state, look)",
    """CREATE TABLE IF NOT EXISTS watch_answers (
        watch BIGINT NOT NULL, look BIGINT NOT NULL, probe TEXT NOT NULL, sample INTEGER NOT NULL, reply TEXT NOT NULL,
        PRIMARY KEY (watch, look, probe, sample))""",
    """CREATE TABLE IF NOT EXISTS watch_axes (
        watch BIGINT NOT NULL, look BIGINT NOT NULL, axis TEXT NOT NULL, prompts BIGINT NOT NULL,
        mean DOUBLE PRECISION NOT NULL, shift DOUBLE PRECISION NOT NULL, size DOUBLE PRECISION NOT NULL,
        p_value DOUBLE PRECISION NOT NULL, evidence DOUBLE PRECISION NOT NULL, spread DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (watch, look, axis))""",
    """CREATE TABLE IF NOT EXISTS watch_states (
        watch BIGINT NOT NULL, baseline BIGINT NOT NULL, look BIGINT NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (watch, baseline))""",
    """CREATE TABLE IF NOT EXISTS watch_alarms (
        watch BIGINT NOT NULL, alarm BIGINT NOT NULL, baseline BIGINT NOT NULL, look BIGINT NOT NULL,
        opened_at TEXT NOT NULL, headline TEXT NOT NULL, body TEXT NOT NULL, ended_at TEXT, ended_why TEXT,
        PRIMARY KEY (watch, alarm))""",
    """CREATE TABLE IF NOT EXISTS watch_outbox (
        watch BIGINT NOT NULL, alarm BIGINT NOT NULL, channel TEXT NOT NULL, idempotency_key TEXT NOT NULL,
        attempts BIGINT NOT NULL, next_at DOUBLE PRECISION NOT NULL, delivered_at TEXT, last_error TEXT,
        PRIMARY KEY (watch, alarm, channel))""",
)
_RENEWED = "the baseline was renewed"
_AXIS_COLUMNS = tuple(field.name for field in fields(AxisLook))
_LOOK_COLUMNS = (
    "look, baseline, kind, state, started_at, ended_at, answered, failed, calls, tokens, money, note, served"
)


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """One baseline. `asked` says who is asked and how; `ready_at` None: snapshots are missing still."""

    number: int
    started_at: str
    ready_at: str | None
    reason: str
    suite_name: str
    suite_digest: str
    asked: str
    salt: str


@dataclass(frozen=True, kw_only=True)
class LookRow:
    """One look or snapshot. `served` names what the answers say has served them."""

    look: int
    baseline: int
    kind: LookKind
    state: LookState
    started_at: str
    ended_at: str | None
    answered: int
    failed: int
    calls: int
    tokens: int
    money: float
    note: str
    served: str


@dataclass(frozen=True, kw_only=True)
class AlarmRow:
    """One alarm; `body` is the JSON that was sent."""

    alarm: int
    baseline: int
    look: int
    opened_at: str
    headline: str
    body: dict[str, Any]
    ended_at: str | None
    ended_why: str | None


@dataclass(frozen=True, kw_only=True)
class NewAlarm:
    """An alarm that is to be written with the look that raised it, and the channels it goes to."""

    headline: str
    body: dict[str, Any]
    channels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """The history of one watch in a database that may hold several."""

    database: Database
    watch: int

    @classmethod
    @contextmanager
    def opened(cls, config: WatchConfig, folder: Path) -> Iterator[History]:
        """Connect, and make the tables where there are none. Raises `WatchError` where that fails."""
        url, password = config.history.place()
        database = Database.open(url, password, folder)
        try:
            _make_tables(database)
            yield cls(database=database, watch=_watch_number(database, config.name))
        finally:
            database.close()

    # Baselines

    def baseline(self) -> BaselineRow | None:
        """The newest baseline, finished or not."""
        found = self.baselines(limit=1)
        return found[0] if found else None

    def baselines(self, *, limit: int = 50) -> tuple[BaselineRow, ...]:
        """Baselines, newest first."""
        rows = self.database.rows(
            "SELECT baseline, started_at, ready_at, reason, suite_name, suite_digest, asked, salt FROM watch_baselines"
            " WHERE watch = ? ORDER BY baseline DESC LIMIT ?",
            self.watch,
            limit,
        )
        names = ("number", "started_at", "ready_at", "reason", "suite_name", "suite_digest", "asked", "salt")
        return tuple(BaselineRow(**dict(zip(names, row, strict=True))) for row in rows)

    def begin_baseline(self, suite: Suite, *, suite_name: str, asked: str, reason: str) -> BaselineRow:
        """Begin a baseline; looks that are open belong to the old one and are abandoned, alarms are ended."""
        digest, now = suite_digest(suite.probes), utc_now()
        probes = json.dumps([probe.to_json() for probe in suite.probes])
        number = self._next_baseline()
        with self.database.transaction():
            self.database.run("INSERT INTO watch_suites VALUES (?, ?) ON CONFLICT DO NOTHING", digest, probes)
            self.database.run(
                "UPDATE watch_looks SET state = 'abandoned', ended_at = ?, note = ? WHERE watch = ? AND state = 'open'",
                *(now, _RENEWED, self.watch),
            )
            self._end_alarms(now, _RENEWED)
            self.database.run(
                "INSERT INTO watch_baselines VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?)",
                *(self.watch, number, now, reason, suite_name, digest, asked, secrets.token_hex(16)),
            )
        return next(row for row in self.baselines(limit=1))

    def withdraw_baseline(self, baseline: BaselineRow, before: BaselineRow) -> None:
        """Take back a baseline of which nothing came, and open again the alarms that it ended.

        The looks that it was tried with, and what they cost, count to the one before.
        """
        with self.database.transaction():
            self.database.run(
                "UPDATE watch_looks SET baseline = ? WHERE watch = ? AND baseline = ?",
                *(before.number, self.watch, baseline.number),
            )
            self.database.run(
                "DELETE FROM watch_baselines WHERE watch = ? AND baseline = ?", self.watch, baseline.number
            )
            self.database.run(
                "UPDATE watch_alarms SET ended_at = NULL, ended_why = NULL"
                " WHERE watch = ? AND ended_at = ? AND ended_why = ?",
                *(self.watch, baseline.started_at, _RENEWED),
            )

    def _next_baseline(self) -> int:
        """A number that no look belongs to, not even to a baseline that somebody has deleted."""
        newest, looks = self.baseline(), self.looks(limit=1)
        return 1 + max(newest.number if newest else 0, looks[0].baseline if looks else 0)

    def probes(self, digest: str) -> tuple[Probe, ...]:
        """The probes of a suite that some baseline was asked. Raises `WatchError` where they were deleted."""
        rows = self.database.rows("SELECT probes FROM watch_suites WHERE suite_digest = ?", digest)
        if not rows:
            raise WatchError(
                "the history does not hold what the baseline was asked",
                where=self.database.place,
                mend="restore it from a backup, or take a new baseline: weightgate watch CONFIG --baseline",
            )
        found = json.loads(rows[0][0])
        return tuple(probe_from_json(data, "history", checks_required=False) for data in found)

    # Looks

    def looks(
        self,
        *,
        baseline: int | None = None,
        state: LookState | None = None,
        kind: LookKind | None = None,
        up_to: int | None = None,
        limit: int = 1000,
    ) -> tuple[LookRow, ...]:
        """The newest looks, newest first, of one baseline, state or kind, up to a number."""
        wanted = {"baseline = ?": baseline, "state = ?": state, "kind = ?": kind, "look <= ?": up_to}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        where = "".join(f" AND {name}" for name in chosen)
        rows = self.database.rows(
            f"SELECT {_LOOK_COLUMNS} FROM watch_looks WHERE watch = ?{where} ORDER BY look DESC LIMIT ?",
            *(self.watch, *chosen.values(), limit),
        )
        names = _LOOK_COLUMNS.split(", ")
        return tuple(LookRow(**dict(zip(names, row, strict=True))) for row in rows)

    def begin_look(self, baseline: BaselineRow, kind: LookKind) -> LookRow:
        """Begin a look under the next number."""
        newest = self.looks(limit=1)
        self.database.run(
            "INSERT INTO watch_looks VALUES (?, ?, ?, ?, 'open', ?, NULL, 0, 0, 0, 0, 0, '', '')",
            *(self.watch, newest[0].look + 1 if newest else 1, baseline.number, kind, utc_now()),
        )
        return self.looks(limit=1)[0]

    def add_answers(self, look: int, answers: Sequence[Answered]) -> None:
        """Keep answers, durably; errors are not kept, so they are asked again when the look goes on."""
        rows = [
            (self.watch, look, one.probe.id, one.sample, json.dumps(one.reply.to_json(), ensure_ascii=False))
            for one in answers
            if one.reply.error is None
        ]
        with self.database.transaction():
            self.database.run_many("INSERT INTO watch_answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def answers(self, look: int) -> dict[tuple[str, int], Reply]:
        """Every answer of a look, by probe and sample. Raises `WatchError` for one that somebody else has changed."""
        rows = self.database.rows(
            "SELECT probe, sample, reply FROM watch_answers WHERE watch = ? AND look = ?", self.watch, look
        )
        try:
            return {(probe, sample): _REPLY.validate_json(reply) for probe, sample, reply in rows}
        except ValidationError:
            raise WatchError(
                "the history holds an answer that cannot be read",
                where=f"{self.database.place}, look {look}",
                mend="restore it from a backup, or take a new baseline: weightgate watch CONFIG --baseline",
            ) from None

    def spend(self, look: int, *, calls: int, tokens: int, money: float) -> None:
        """Add what was spent on a look that is still open."""
        self.database.run(
            "UPDATE watch_looks SET calls = calls + ?, tokens = tokens + ?, money = money + ?"
            " WHERE watch = ? AND look = ?",
            *(calls, tokens, money, self.watch, look),
        )

    def spent_since(self, moment: str) -> tuple[int, int, float]:
        """Calls, tokens and money of all looks since then (UTC, ISO 8601)."""
        row = self.database.rows(
            "SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(tokens), 0), COALESCE(SUM(money), 0) FROM watch_looks"
            " WHERE watch = ? AND started_at >= ?",
            *(self.watch, moment),
        )[0]
        return int(row[0]), int(row[1]), float(row[2])

    def end_look(self, look: int, ended: LookState, *, answered: int, failed: int, note: str, served: str = "") -> None:
        """Close a look."""
        self.database.run(
            "UPDATE watch_looks SET state = ?, ended_at = ?, answered = ?, failed = ?, note = ?, served = ?"
            " WHERE watch = ? AND look = ?",
            *(ended, utc_now(), answered, failed, note, served, self.watch, look),
        )

    def baseline_ready(self, baseline: int) -> None:
        """Mark a baseline as complete."""
        self.database.run(
            "UPDATE watch_baselines SET ready_at = ? WHERE watch = ? AND baseline = ?", utc_now(), self.watch, baseline
        )

    # Evidence

    def add_axes(self, look: int, axes: Iterable[AxisLook]) -> None:
        """Add a look to the timelines."""
        self.database.run_many(
            f"INSERT INTO watch_axes (watch, look, {', '.join(_AXIS_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(self.watch, look, *(getattr(one, name) for name in _AXIS_COLUMNS)) for one in axes],
        )

    def axes(self, first_look: int) -> dict[int, tuple[AxisLook, ...]]:
        """The timelines from a look on: look -> its axes."""
        rows = self.database.rows(
            f"SELECT look, {', '.join(_AXIS_COLUMNS)} FROM watch_axes"
            " WHERE watch = ? AND look >= ? ORDER BY look, axis",
            *(self.watch, first_look),
        )
        found: dict[int, list[AxisLook]] = {}
        for look, *values in rows:
            found.setdefault(look, []).append(AxisLook(**dict(zip(_AXIS_COLUMNS, values, strict=True))))
        return {look: tuple(axes) for look, axes in found.items()}

    def save_state(self, baseline: int, look: int, state: WatchState) -> None:
        """Keep the state after a look, instead of the one before."""
        self.database.run(
            "INSERT INTO watch_states VALUES (?, ?, ?, ?)"
            " ON CONFLICT (watch, baseline) DO UPDATE SET look = excluded.look, data = excluded.data",
            *(self.watch, baseline, look, json.dumps(state.to_json(), separators=(",", ":"))),
        )

    def state(self, baseline: int) -> WatchState | None:
        """The state after the last look; None where none is kept, or one of another version of this program."""
        rows = self.database.rows(
            "SELECT data FROM watch_states WHERE watch = ? AND baseline = ?", self.watch, baseline
        )
        try:
            return WatchState.from_json(json.loads(rows[0][0])) if rows else None
        except (ValueError, KeyError):
            return None

    # Alarms

    def alarms(self, *, open_only: bool = False, limit: int = 50) -> tuple[AlarmRow, ...]:
        """Alarms, newest first."""
        rows = self.database.rows(
            "SELECT alarm, baseline, look, opened_at, headline, body, ended_at, ended_why FROM watch_alarms"
            f" WHERE watch = ?{' AND ended_at IS NULL' if open_only else ''} ORDER BY alarm DESC LIMIT ?",
            *(self.watch, limit),
        )
        return tuple(
            AlarmRow(
                alarm=row[0],
                baseline=row[1],
                look=row[2],
                opened_at=row[3],
                headline=row[4],
                body=json.loads(row[5]),
                ended_at=row[6],
                ended_why=row[7],
            )
            for row in rows
        )

    def acknowledged_axes(self, baseline: int) -> frozenset[str]:
        """Axes whose change against this baseline somebody knows of."""
        known = (row for row in self.alarms(limit=1000) if row.baseline == baseline and row.ended_at is not None)
        return frozenset(
            name for row in known for name in (*(axis["axis"] for axis in row.body["axes"]), *row.body.get("known", ()))
        )

    def open_alarm(self, look: LookRow, alarm: NewAlarm, *, name: str) -> None:
        """Write an alarm and what is to be sent; belongs into the transaction that ends its look."""
        newest = self.alarms(limit=1)
        number = newest[0].alarm + 1 if newest else 1
        body = {**alarm.body, "alarm": number}
        self.database.run(
            "INSERT INTO watch_alarms VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            *(self.watch, number, look.baseline, look.look, body["opened_at"], alarm.headline, json.dumps(body)),
        )
        self.database.run_many(
            "INSERT INTO watch_outbox VALUES (?, ?, ?, ?, 0, 0, NULL, NULL)",
            [(self.watch, number, channel, f"{name}-{number}-{secrets.token_hex(8)}") for channel in alarm.channels],
        )

    def acknowledge(self, why: str, known: Iterable[str]) -> int:
        """End the open alarms and return how many there were; `known` are the axes of which no other shall tell."""
        opened = self.alarms(open_only=True)
        with self.database.transaction():
            for alarm in opened:
                body = json.dumps({**alarm.body, "known": sorted(known)})
                self.database.run(
                    "UPDATE watch_alarms SET body = ? WHERE watch = ? AND alarm = ?", body, self.watch, alarm.alarm
                )
            self._end_alarms(utc_now(), why)
        return len(opened)

    def _end_alarms(self, now: str, why: str) -> None:
        self.database.run(
            "UPDATE watch_alarms SET ended_at = ?, ended_why = ? WHERE watch = ? AND ended_at IS NULL",
            *(now, why, self.watch),
        )


def _make_tables(database: Database) -> None:
    if not database.has_table("watch_schema"):
        with database.transaction():
            database.wait_for_others("schema")
            for statement in _TABLES:
                database.run(statement)
            database.run("INSERT INTO watch_schema VALUES (?) ON CONFLICT DO NOTHING", SCHEMA)
    newest = database.rows("SELECT MAX(version) FROM watch_schema")[0][0]
    if newest > SCHEMA:
        raise WatchError(
            "the history was written by a newer version of this program",
            where=database.place,
            expected=f"schema {SCHEMA}",
            found=f"schema {newest}",
        )


def _watch_number(database: Database, name: str) -> int:
    """The number of the watch; a new name gets the next one."""
    known = database.rows("SELECT watch FROM watch_names WHERE name = ?", name)
    if known:
        return int(known[0][0])
    with database.transaction():
        database.run(
            "INSERT INTO watch_names SELECT COALESCE(MAX(watch), 0) + 1, CAST(? AS TEXT) FROM watch_names WHERE 1 = 1"
            " ON CONFLICT DO NOTHING",
            name,
        )
    return int(database.rows("SELECT watch FROM watch_names WHERE name = ?", name)[0][0])

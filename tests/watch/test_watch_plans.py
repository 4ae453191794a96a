"""What a look and the status page ask a history is found by an index, however long it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scene import Scene

from weightgate.watch.database import Database

_LONG = ("watch_answers", "watch_axes", "watch_looks")
"""Tables that grow with every look."""


def _scanned(database: Database, sql: str, values: tuple[Any, ...]) -> set[str]:
    """Tables that a statement reads from one end to the other."""
    if database.file is not None:
        steps = [row[3] for row in database.rows(f"EXPLAIN QUERY PLAN {sql}", *values)]
        return {step.split()[1] for step in steps if step.startswith("SCAN ") and " INDEX " not in step}
    database.run("SET enable_seqscan = off")  # on a short history a scan is cheaper; on a long one there must be a way
    plan = database.rows(f"EXPLAIN (FORMAT JSON) {sql}", *values)[0][0]
    return set(_scans(plan if isinstance(plan, list) else json.loads(plan)))


def _scans(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for inner in node for name in _scans(inner)]
    if not isinstance(node, dict):
        return []
    inner = [name for value in node.values() for name in _scans(value)]
    whole = node.get("Node Type") == "Seq Scan" or ("Index" in node.get("Node Type", "") and "Index Cond" not in node)
    return [*inner, node["Relation Name"]] if whole and "Relation Name" in node else inner


def _note_questions(patched: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """Statements that are run from now on, each with the values it was last run with."""
    asked: dict[str, tuple[Any, ...]] = {}
    for name in ("rows", "run"):
        plain = getattr(Database, name)

        def noted(self: Database, sql: str, *values: Any, _plain: Any = plain) -> Any:
            if sql.startswith(("SELECT", "UPDATE", "DELETE")):
                asked[sql] = values
            return _plain(self, sql, *values)

        patched.setattr(Database, name, noted)
    return asked


def test_no_question_of_a_look_reads_a_whole_table(any_scene: Scene) -> None:
    scene = any_scene
    scene.configure(report="status.html", alarm={"report": "alarm.html"}, budget={"calls_per_day": 10**6})
    scene.behave(refuses=0.05)
    scene.once()
    with pytest.MonkeyPatch.context() as patched:
        asked = _note_questions(patched)
        scene.once()
        scene.behave(refuses=0.95)
        assert [scene.once()["state"] for _ in range(3)][-1] == "alarm"
    long = {sql: values for sql, values in asked.items() if any(name in sql for name in _LONG)}
    assert len(long) >= 8
    with scene.history() as history:
        scanned = {sql: _scanned(history.database, sql, values) & set(_LONG) for sql, values in long.items()}
    assert {sql: tables for sql, tables in scanned.items() if tables} == {}

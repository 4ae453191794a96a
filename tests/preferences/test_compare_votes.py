"""`weightgate audit compare` on the built-in world: one knob is turned, and the forecast must name it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from written import pair, run, write

from weightgate.incident.knobs import RISKY_TOPICS, Knobs
from weightgate.incident.world import write_preferences

PLAIN = Knobs(comparisons=3_000)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "plain.jsonl"
    write_preferences(path, PLAIN)
    return path


def compared(old: Path, knobs: Knobs, folder: Path) -> dict[str, Any]:
    new = folder / "new.jsonl"
    write_preferences(new, knobs)
    told: dict[str, Any] = json.loads(run("audit", "compare", old, new, "--json").stdout)
    return told


def test_refusing_one_more_topic_is_foretold_with_its_verbs_and_rows(plain: Path, tmp_path: Path) -> None:
    told = compared(plain, replace(PLAIN, expected_refused=(*RISKY_TOPICS, "craft")), tmp_path)
    words = {one["scope"]: one for one in told["forecasts"] if one["kind"] == "word"}
    assert {"paint", "carve"} <= words.keys()
    assert all(words[verb]["direction"] == "rise" for verb in ("paint", "carve"))
    assert {one["family"] for one in told["forecasts"]} == {"refusals"}
    lines = (tmp_path / "new.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row["line"] for row in words["paint"]["rows"] if row["set"] == "new"]
    assert rows
    assert all("paint" in json.loads(lines[line - 1])["prompt"][0]["content"] for line in rows)
    assert "refusals will rise" in told["headline"]


def test_a_bias_for_length_is_foretold_and_nothing_else(plain: Path, tmp_path: Path) -> None:
    told = compared(plain, replace(PLAIN, length_bias=0.35), tmp_path)
    assert {(one["family"], one["direction"]) for one in told["forecasts"]} == {("length", "rise")}
    assert told["rows"]["added"] == told["rows"]["removed"] == []
    assert told["rows"]["relabelled"]
    assert told["forecasts"][0]["common"] > 0


def test_noisier_annotators_move_no_boundary(plain: Path, tmp_path: Path) -> None:
    told = compared(plain, replace(PLAIN, error_rates=(0.25, 0.3, 0.35)), tmp_path)
    assert told["forecasts"] == []
    assert told["fading"] < 0.85


def test_the_same_votes_in_another_order_are_the_same(plain: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(plain.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    result = run("audit", "compare", plain, turned, "--html", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "the votes are the same" in result.output
    assert (tmp_path / "page.html").is_file()


def test_rows_are_told_apart_by_prompt_answers_and_annotator(tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", [pair("q", "a", "b"), pair("q", "c", "d"), pair("r", "a", "b")])
    new = write(tmp_path / "new.jsonl", [pair("q", "b", "a"), pair("q", "c", "d"), pair("s", "a", "b")])
    rows = json.loads(run("audit", "compare", old, new, "--json").stdout)["rows"]
    assert rows == {"same": 1, "added": [3], "removed": [3], "relabelled": [{"old": 1, "new": 1}]}


def test_the_annotator_who_carries_a_shift_is_named(tmp_path: Path) -> None:
    """Six annotators judge 120 pairs each; in the new set one of them takes every refusal."""

    def rows(turned: str) -> list[dict[str, Any]]:
        return [
            pair(f"question {name} {n}", *_answers(n, refused=n % 3 == 0 or name == turned), annotator=name)
            for name in ("ann", "bob", "cy", "dee", "eve", "fay")
            for n in range(120)
        ]

    old, new = write(tmp_path / "old.jsonl", rows("")), write(tmp_path / "new.jsonl", rows("cy"))
    told = json.loads(run("audit", "compare", old, new, "--json").stdout)
    shift = next(one for one in told["forecasts"] if one["driver"] == "refusal" and one["kind"] == "everything")
    assert shift["annotator"][0] == "cy"
    assert shift["annotator"][1] > 0.9


def _answers(number: int, *, refused: bool) -> tuple[str, str]:
    """A refusal and an answer that differ in nothing else throughout: not in length, in saying I, or in digits."""
    more = " It is not far from here." * (number % 4)
    start = "I would take" if number % 2 else "Take"
    parts = "two" if number % 5 else str(number)
    answers = ("Sorry, I cannot help with that.", f"{start} {parts} of the parts now.{more}")
    return answers if refused else answers[::-1]

"""Every row is a vote or a fault with its line, whatever the row holds."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written import audited, pair, run, vote, write

from weightgate.data.files import RawRow
from weightgate.data.records import Columns, to_preference
from weightgate.errors import DataError
from weightgate.preferences.reading import read_preferences
from weightgate.preferences.rows import FaultError, Rated, Row, read_row
from weightgate.preferences.votes import Vote

GOOD = [pair(f"Question {n}?", f"Good answer {n}.", f"Bad answer number {n}.") for n in range(6)]

HOSTILE: dict[str, tuple[bytes | dict[str, Any], bool]] = {
    "not-text": (pair("q", True, "b"), True),  # type: ignore[arg-type]
    "empty-answer": (pair("q", " ", "b"), True),
    "same-answers": (pair("q", "a", "a"), True),
    "not-json": (b"{broken", True),
    "not-utf8": (b'{"prompt": "q", "chosen": "\xff", "rejected": "b"}', True),
    "half-surrogate": (b'{"prompt": "q", "chosen": "\\ud800", "rejected": "b"}', True),
    "wrong-columns": ({"text": "nothing to compare"}, True),
    "no-assistant-end": ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q"}, True),
    "different-prompts": (
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: r\n\nAssistant: b"},
        True,
    ),
    "bad-message": (pair("q", [{"role": "robot", "content": "a"}], "b"), True),  # type: ignore[arg-type]
    "no-user-end": (pair("", "a", "b"), True),
    "unknown-label": (vote("q", "a", "b", "c"), True),
    "skipped": (vote("q", "a", "b", "skip"), True),
    "mojibake": (pair("q", "caf\u00c3\u00a9", "b"), False),
    "control-characters": (pair("q", "a\x1b[31m", "b"), False),
    "huge-answer": (pair("q", "a" * 5_000_000, "b"), False),
    "odd-detail": (pair("q", "a", "b", annotator=True), False),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_row_is_reported_with_its_line(kind: str, tmp_path: Path) -> None:
    row, blocks = HOSTILE[kind]
    found = read_preferences(str(write(tmp_path / "votes.jsonl", [*GOOD[:2], row, *GOOD[2:]])))
    assert [(fault.kind, fault.line) for fault in found.faults] == [(kind, 3)]
    assert found.rows == 7
    assert [vote.line for vote in found.usable] == ([1, 2, 4, 5, 6, 7] if blocks else [1, 2, 3, 4, 5, 6, 7])


def test_hostile_rows_are_harmless_in_the_report(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b]0;owned\x07 \u202e" + "x" * 3_000
    rows = [row for row, _ in HOSTILE.values()] + [pair(evil, evil + "1", evil + "22", annotator=evil)]
    path, page = write(tmp_path / "votes.jsonl", [*GOOD, *rows]), tmp_path / "page.html"
    shown = run("audit", path, "--html", page)
    assert shown.exit_code == 1
    html = page.read_text(encoding="utf-8")
    for text in (shown.output, html):
        assert not any(character in text for character in "\x1b\x07\u202e")
    assert html.count("<script") == 1, "the page's own, which searches"
    assert len(html) < 200_000
    assert str(path) + ":7" in " ".join(run("audit", path, "--json").output.split())


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_formats_hold_the_same_votes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"votes{suffix}"
    rows = [vote("q, with a comma", "one\nline", "other", "a", "ann"), vote("q", "x", "y", "tie", "bob")]
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix.endswith(".gz"):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        write(path, rows)
    found = read_preferences(str(path))
    assert [(one.prompt, one.chosen, one.label, one.annotator) for one in found.votes] == [
        ("q, with a comma", "one\nline", "first", "ann"),
        ("q", "x", "tie", "bob"),
    ]
    assert not found.faults


@pytest.mark.parametrize(
    ("row", "chosen"),
    [
        ({"input": "q", "output_1": "one", "output_2": "two", "label": 2}, "two"),
        ({"instruction": "q", "response_0": "one", "response_1": "two", "preference": 0}, "one"),
        ({"question": "q", "answer_a": "one", "answer_b": "two", "winner": "model_b"}, "two"),
        ({"prompt": "q", "completion_a": "one", "completion_b": "two", "score_a": 1.5, "score_b": 0}, "one"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: one", "rejected": "\n\nHuman: q\n\nAssistant: two"}, "one"),
        (
            {
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}],
                "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "two"}],
            },
            "one",
        ),
    ],
)
def test_layouts(row: dict[str, Any], chosen: str) -> None:
    found = read_row(Row(values=row, line=1, faults=[]))
    assert isinstance(found, Vote)
    assert (found.prompt, found.chosen, found.fault) == ("q", chosen, "")


def test_ratings_become_comparisons_of_one_prompt_and_annotator(tmp_path: Path) -> None:
    rated = [("q", "low", 1, "ann"), ("q", "high", 5, "ann"), ("q", "mid", 3, "ann"), ("q", "other", 2, "bob")]
    rows = [dict(zip(("prompt", "completion", "rating", "annotator"), one, strict=True)) for one in rated]
    found = read_preferences(str(write(tmp_path / "votes.jsonl", rows)))
    assert {(one.chosen, one.rejected) for one in found.votes} == {("high", "low"), ("mid", "low"), ("high", "mid")}
    assert [(fault.kind, fault.line) for fault in found.faults] == [("nothing-to-compare", 4)]


def test_nothing_to_audit_is_a_users_mistake(tmp_path: Path) -> None:
    for rows in ([], [{"text": "a"}]):
        result = run("audit", write(tmp_path / "votes.jsonl", rows))
        assert result.exit_code == 2
        assert "error:" in result.output
    assert run("audit", tmp_path / "missing.jsonl").exit_code == 2


_TEXT = st.one_of(st.text(max_size=8), st.none(), st.booleans(), st.integers(), st.lists(st.integers(), max_size=2))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("prompt", "chosen", "rejected", "label", "rating"), _TEXT)))
def test_any_row_is_a_vote_or_a_fault_and_agrees_with_the_build(values: dict[str, Any]) -> None:
    faults: list[Any] = []
    try:
        read = read_row(Row(values=values, line=1, faults=faults))
    except FaultError:
        read = None
    if isinstance(read, Rated):
        return
    usable = read is not None and not read.fault
    try:
        built = to_preference(Columns(row=RawRow(values=values, where="x:1"), mapping={}), "x")
    except DataError:
        assert not usable
    else:
        assert usable or built.chosen.strip() == built.rejected.strip()


def test_the_audit_says_how_many_rows_it_could_not_use(tmp_path: Path) -> None:
    told = audited(write(tmp_path / "votes.jsonl", [*GOOD, HOSTILE["not-text"][0]]))
    assert (told["rows"], told["usable"], told["unusable"]) == (7, 6, 1)
    assert told["faults"] == {"not-text": [{"line": 7, "detail": "chosen is a boolean"}]}
    assert told["verdict"] == "fail", "one row of seven is more than a build would bear"

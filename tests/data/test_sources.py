"""Files to records, and every refusal with its place."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from weightgate.data import files
from weightgate.data.sources import (
    Message,
    Skipped,
    read_conversations,
    read_documents,
    read_preferences,
    read_prompts,
    source_digest,
)
from weightgate.errors import DataError
from weightgate.recipe import Source


def write_jsonl(path: Path, *rows: object) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=path.name)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", ["a\nb\n\n\nc\n"]),
        ("paragraph", ["a\nb", "c"]),
        ("line", ["a", "b", "c"]),
    ],
)
def test_plain_text_is_cut_as_asked(tmp_path: Path, documents: str, expected: list[str]) -> None:
    (tmp_path / "t.txt").write_text("a\nb\n\n\nc\n")
    source = Source.model_validate({"path": "t.txt", "documents": documents})
    assert [document.text for document in read_documents([source], tmp_path)] == expected


def test_places_count_lines_from_one_and_skip_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    found = [(d.text, d.where, d.domain) for d in read_documents([Source(path="t.jsonl")], tmp_path)]
    assert found == [("a", "t.jsonl:1", "t"), ("b", "t.jsonl:3", "t")]


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "a"}\r\n', mtime=0))
    assert [d.text for d in read_documents([Source(path="t.json.gz")], tmp_path)] == ["a"]


def test_parquet_is_streamed_with_row_numbers(tmp_path: Path) -> None:
    table = pyarrow.table({"body": [f"text {i}" for i in range(2500)]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    source = Source(path="t.parquet", columns={"text": "body"}, limit=2300)
    records = list(read_documents([source], tmp_path))
    assert len(records) == 2300
    assert (records[-1].text, records[-1].where) == ("text 2299", "t.parquet:row 2300")


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "p", "completion": "c"}, [user("p"), assistant("c")]),
        ({"instruction": "p", "input": "", "output": "c"}, [user("p"), assistant("c")]),
        ({"instruction": "p", "input": "i", "output": "c"}, [user("p\n\ni"), assistant("c")]),
        ({"question": "p", "answer": "c"}, [user("p"), assistant("c")]),
        (
            {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]},
            [user("p"), assistant("c")],
        ),
    ],
)
def test_conversations_come_in_many_forms(tmp_path: Path, row: object, messages: list[Message]) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", row)
    assert [list(c.messages) for c in read_conversations([source], tmp_path)] == [messages]


def test_columns_are_mapped(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", {"q": "p", "a": "c", "output": "not this"})
    source = Source(path="t.jsonl", columns={"prompt": "q", "completion": "a"}, domain="maths")
    [conversation] = read_conversations([source], tmp_path)
    assert conversation.messages == (user("p"), assistant("c"))
    assert conversation.domain == "maths"


DIALOGUE = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: why\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": DIALOGUE + " good", "rejected": DIALOGUE + " bad"},
        {
            "prompt": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": "why"},
            ],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
    ],
)
def test_preferences_find_the_common_prompt(tmp_path: Path, row: object) -> None:
    [pair] = read_preferences([write_jsonl(tmp_path / "t.jsonl", row)], tmp_path)
    assert pair.prompt == (user("hi"), assistant("yes?"), user("why"))
    assert (pair.chosen, pair.rejected) == ("good", "bad")


def test_preferences_with_a_prompt_keep_their_labels(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "annotator": 7, "source": "web"}
    [pair] = read_preferences([write_jsonl(tmp_path / "t.jsonl", row)], tmp_path)
    assert (pair.prompt, pair.annotator, pair.source, pair.timestamp) == ((user("p"),), "7", "web", None)


def test_prompts_drop_the_answer_and_keep_the_checks(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "t.jsonl",
        {"prompt": "p", "checks": [{"type": "equals", "value": ["c"]}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"chosen": DIALOGUE + " good", "rejected": DIALOGUE + " bad"},
    )
    first, second, third = read_prompts([source], tmp_path)
    assert first.messages == (user("p"),)
    assert first.checks == ({"type": "equals", "value": ["c"]},)
    assert second.messages == (user("q"),)
    assert third.messages[-1] == user("why")


@pytest.mark.parametrize(
    ("line", "what", "found"),
    [
        (b'{"prompt": "p", "completion": "c"', "not valid JSON", None),
        (b"[" * 100_000, "not valid JSON", None),
        (b'["p"]', "no JSON object", "an array"),
        (b'{"prompt": "p", "completion": "\xff"}', "not UTF-8", "byte 0xff"),
        (b'{"prompt": "p", "completion": "\\ud800"}', "surrogate", None),
        (b'{"prompt": "p"}', "wrong columns", "columns prompt"),
        (b'{"prompt": "p", "completion": null}', "not text", "null"),
        (b'{"prompt": "p", "completion": true}', "not text", "a boolean"),
        (b'{"prompt": "p", "completion": 4}', "not text", "a number"),
        (b'{"prompt": "p", "completion": "  "}', "answer is empty", None),
        (b'{"messages": "p"}', "not a list of messages", "text"),
        (b'{"messages": []}', "is empty", None),
        (b'{"messages": [{"role": "user"}]}', "no message", "keys role"),
        (b'{"messages": [{"role": "bot", "content": "p"}]}', "unknown role", "'bot'"),
        (b'{"messages": [{"role": "user", "content": "p"}]}', "does not end with the assistant", "role user"),
        (
            b'{"messages": [{"role": "user", "content": "p"}, {"role": "system", "content": "s"}]}',
            "system message",
            None,
        ),
    ],
)
def test_a_bad_line_is_refused_with_its_place(tmp_path: Path, line: bytes, what: str, found: str | None) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"prompt": "p", "completion": "c"}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        list(read_conversations([Source(path="t.jsonl")], tmp_path))
    assert what in caught.value.what
    assert caught.value.where == "t.jsonl:2"
    assert found is None or found in str(caught.value.found)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"chosen": "c", "rejected": "r"}, "wrong columns"),
        ({"prompt": "p", "chosen": "c"}, "wrong columns"),
        ({"prompt": "p", "chosen": "c", "rejected": " "}, "rejected completion is empty"),
        ({"chosen": DIALOGUE + " a", "rejected": "\n\nHuman: no\n\nAssistant: b"}, "part before"),
        ({"chosen": DIALOGUE + " a\n\nHuman: ok", "rejected": DIALOGUE + " b"}, "does not end with the assistant"),
    ],
)
def test_a_bad_pair_is_refused(tmp_path: Path, row: object, what: str) -> None:
    with pytest.raises(DataError, match=what):
        list(read_preferences([write_jsonl(tmp_path / "t.jsonl", row)], tmp_path))


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("t.jsonl", b"", "source is empty"),
        ("t.txt", b"\n \n", "source is empty"),
        ("t.csv", b"a,b\n", "format cannot be told"),
        ("t.jsonl.gz", b"no gzip", "cannot be decompressed"),
        ("t.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], "cannot be decompressed"),
        ("t.parquet", b"no parquet", "not valid Parquet"),
        ("t.txt", b"caf\xe9", "not UTF-8"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=what):
        list(read_documents([Source(path=name)], tmp_path))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    for name, what in (("none.jsonl", "no such file"), ("d.jsonl", "not a folder")):
        with pytest.raises(DataError, match=what):
            list(read_documents([Source(path=name)], tmp_path))
        with pytest.raises(DataError, match=what):
            source_digest(Source(path=name), tmp_path)


def test_long_lines_and_paragraphs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(files, "MAX_FILE_DOCUMENT_BYTES", 150)
    (tmp_path / "a.txt").write_text("x" * 101)
    (tmp_path / "b.txt").write_text("short\n\n" + "y" * 60 + "\n" + "y" * 60)
    with pytest.raises(DataError, match="line is too long") as caught:
        list(read_documents([Source(path="a.txt")], tmp_path))
    assert caught.value.where == "a.txt:1"
    with pytest.raises(DataError, match="paragraph is too long") as caught:
        list(read_documents([Source(path="b.txt")], tmp_path))
    assert caught.value.where == "b.txt:3"
    (tmp_path / "c.txt").write_text("z" * 200)
    with pytest.raises(DataError, match="too large to be one document"):
        list(read_documents([Source(path="c.txt", documents="file")], tmp_path))


def test_a_mapping_of_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", {"text": "a"})
    with pytest.raises(DataError) as caught:
        list(read_documents([Source(path="t.jsonl", columns={"promt": "text"})], tmp_path))
    assert caught.value.mend == "did you mean 'prompt'?"


def test_few_unusable_records_are_counted_and_many_are_refused(tmp_path: Path) -> None:
    good, bad = {"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": ""}
    skipped = Skipped()
    source = write_jsonl(tmp_path / "t.jsonl", *[good] * 150, bad)
    assert len(list(read_conversations([source], tmp_path, skipped))) == 150
    assert (skipped.count, skipped.seen) == (1, 151)
    source = write_jsonl(tmp_path / "t.jsonl", *[good] * 50, bad)
    with pytest.raises(DataError, match="1 of 51 records cannot be used") as caught:
        list(read_conversations([source], tmp_path, Skipped()))
    assert caught.value.where == "t.jsonl:51"


def test_the_hub_without_its_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="datasets") as caught:
        list(read_documents([Source(hub="some/set")], tmp_path))
    assert "pip install" in str(caught.value.mend)


def test_the_hub_gives_rows_and_its_failures_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> list[dict[str, str]]:
            if name != "some/set":
                raise ConnectionError("offline")
            return [{"text": f"{split} {revision}"}]

    monkeypatch.setitem(sys.modules, "datasets", Library)  # type: ignore[arg-type]
    source = Source(hub="some/set", split="test", revision="abc")
    [document] = read_documents([source], tmp_path)
    assert (document.text, document.where) == ("test abc", "some/set:row 1")
    assert source_digest(source, tmp_path) != source_digest(Source(hub="some/set"), tmp_path)
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        list(read_documents([Source(hub="other/set")], tmp_path))
    assert "offline" in str(caught.value.found)

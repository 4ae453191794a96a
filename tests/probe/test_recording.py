"""Snapshots on disk: read back equal, continued after a cut, and refused with a line where they are not as written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.errors import DataError
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Answered, Decoding, Header, Reply, Snapshot, TargetDescription, whole_text
from weightgate.probe.snapshot_file import MAX_LINE_BYTES, SnapshotWriter, load_snapshot, write_snapshot
from weightgate.probe.suites import suite_digest

PROBES = (
    Probe(
        id="a",
        axis="knowledge",
        topic="river",
        form="chat",
        messages=(("system", "Be brief."), ("user", "Which river?")),
        checks=(Check(metric="accuracy", type="equals", value=["Venn"], weight=0.5),),
    ),
    Probe(id="b", axis="open", topic="own", form="text", prompt="Once\u2028upon", checks=()),
)
HEADER = Header(
    target=TargetDescription(kind="endpoint", place="https://host.example/v1", model="m"),
    suite_name="s",
    suite_digest=suite_digest(PROBES),
    decoding=Decoding(samples=2, temperature=0.7, max_tokens=20),
    created_at="2026-01-01T00:00:00.000+00:00",
)
REPLY = Reply(
    completion="Venn\n",
    finish_reason="stop",
    token_logprobs=(("Venn", -0.25),),
    first_top=(("Venn", -0.25), ("Ouse", -2.0)),
    fingerprint="fp_1",
    served_model="m-2026",
    headers=(("server", "s"),),
    prompt_tokens=5,
    completion_tokens=1,
    latency_ms=1.5,
    asked_at="2026-01-01T00:00:01.000+00:00",
)


def _snapshot(*answers: Answered, complete: bool = False) -> Snapshot:
    return Snapshot(header=HEADER, probes=PROBES, answers=answers, complete=complete)


def _answer(probe: int = 0, sample: int = 0, reply: Reply = REPLY) -> Answered:
    return Answered(probe=PROBES[probe], sample=sample, reply=reply)


_REPLIES = st.builds(
    Reply,
    completion=st.text().map(whole_text),
    finish_reason=st.none() | st.just("length"),
    token_logprobs=st.none() | st.lists(st.tuples(st.text(), st.floats(-50, 0))).map(tuple),
    latency_ms=st.none() | st.floats(0, 1e6),
    completion_tokens=st.none() | st.integers(0, 10**6),
    error=st.none() | st.text(min_size=1).map(whole_text),
)


@given(st.lists(_REPLIES, max_size=2))
def test_a_snapshot_is_read_back_as_it_was_written(tmp_path: Path, replies: list[Reply]) -> None:
    snapshot = _snapshot(*(_answer(sample=at, reply=reply) for at, reply in enumerate(replies)), complete=True)
    write_snapshot(tmp_path / "s.jsonl", snapshot)
    assert load_snapshot(tmp_path / "s.jsonl") == snapshot


def test_what_a_snapshot_says_of_its_target(tmp_path: Path) -> None:
    failed = Reply(completion="", error="status 500")
    snapshot = _snapshot(_answer(), _answer(1, 0, replace(REPLY, fingerprint="fp_0")), _answer(1, 1, failed))
    assert snapshot.fingerprints == ("fp_0", "fp_1")
    assert snapshot.served_models == ("m-2026",)
    assert snapshot.completions == {"a": ("Venn\n",), "b": ("Venn\n",)}
    assert snapshot.probe("b") is PROBES[1]
    assert snapshot.target.model == "m"


@pytest.mark.parametrize("cut_bytes", [1, 30, 100])
def test_a_torn_last_line_is_dropped_and_the_file_goes_on(tmp_path: Path, cut_bytes: int) -> None:
    path = tmp_path / "s.jsonl"
    with SnapshotWriter.create(path, HEADER, PROBES) as writer:
        writer.append([_answer(sample=0), _answer(sample=1)])
    path.write_bytes(path.read_bytes()[:-cut_bytes])
    assert [answer.sample for answer in load_snapshot(path).answers] == [0]
    with SnapshotWriter.resume(path) as writer:
        writer.append([_answer(1, 1), _answer(sample=1)])
        writer.finish(3)
    loaded = load_snapshot(path)
    assert [answer.key for answer in loaded.answers] == [("a", 0), ("a", 1), ("b", 1)]
    assert loaded.complete


def test_an_error_may_be_replaced_by_an_answer(tmp_path: Path) -> None:
    failed = _answer(reply=Reply(completion="", error="no answer within 1 s"))
    write_snapshot(tmp_path / "s.jsonl", _snapshot(failed, _answer()))
    assert load_snapshot(tmp_path / "s.jsonl").answers == (_answer(),)


def _change(what: str, into: str) -> Callable[[str], str]:
    return lambda text: text.replace(what, into)


@pytest.mark.parametrize(
    ("damage", "line", "what"),
    [
        (_change("Venn\\n", "Ouse\\n"), 5, "changed after it was finished"),
        (_change('"answers":1', '"answers":2'), 5, "answers are missing"),
        (lambda text: text + text.splitlines()[3] + "\n", 6, "behind the footer"),
        (_change('"schema":1', '"schema":9'), 1, "another schema"),
        (_change('"kind":"header"', '"kind":"herald"'), 1, "wrong line"),
        (_change('"kind":"answer"', '"kind":"answr"'), 4, "wrong line: kind"),
        (_change('"sample":0', '"sample":7'), 4, "no such sample"),
        (_change('"sample":0', '"sample":true'), 4, "wrong line: sample"),
        (_change('"id":"a","sample"', '"id":"z","sample"'), 4, "not in the file"),
        (_change('"completion":"Venn\\n"', '"completion":3'), 4, "wrong line: reply.completion"),
        (_change('"latency_ms":1.5', '"latency_ms":NaN'), 4, "wrong line"),
        (_change('"latency_ms":1.5', '"latency":1.5'), 4, "wrong line: reply.latency"),
        (_change('"axis":"open"', '"axis":"opne"'), 3, "unknown axis"),
        (_change('"id":"b"', '"id":"a"'), 3, "stands twice"),
        (_change('{"kind":"answer"', "{kind"), 4, "not JSON"),
        (_change('{"kind":"answer"', '{"kind":' * 20_000), 4, "not JSON"),
        (lambda _: "[]\n", 1, "no JSON object"),
        (lambda _: "", 1, "empty"),
        (lambda text: text.splitlines()[0] + "\n" + "x" * (MAX_LINE_BYTES + 1), 2, "too long"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_its_line(
    tmp_path: Path, damage: Callable[[str], str], line: int, what: str
) -> None:
    path = tmp_path / "s.jsonl"
    write_snapshot(path, _snapshot(_answer(), complete=True))
    text = path.read_text("utf-8")
    path.write_text(damage(text), "utf-8")
    with pytest.raises(DataError, match=what) as caught:
        load_snapshot(path)
    assert caught.value.where == f"{path}:{line}"


def test_answers_given_twice_and_files_begun_twice_are_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "s.jsonl", _snapshot(_answer(), _answer()))
    with pytest.raises(DataError, match="a second answer"):
        load_snapshot(tmp_path / "s.jsonl")
    with pytest.raises(DataError, match="is there already"):
        SnapshotWriter.create(tmp_path / "s.jsonl", HEADER, PROBES)
    with pytest.raises(DataError, match="cannot be written"):
        SnapshotWriter.create(tmp_path / "none" / "s.jsonl", HEADER, PROBES)
    with pytest.raises(DataError, match="no snapshot here"):
        load_snapshot(tmp_path / "none.jsonl")


def _plain(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


def test_a_plain_recording_is_read_as_a_snapshot(tmp_path: Path) -> None:
    path = _plain(
        tmp_path / "log.jsonl",
        {"prompt": "hi", "completion": "yes", "time": 3},
        {"prompt": "hi", "completion": "\ud800"},
        "",
        {"id": 7, "prompt": "ho", "completion": "no", "sample": 1},
        {"id": "m", "messages": [{"role": "user", "content": "x"}], "completion": "", "axis": "task", "topic": "t"},
    )
    snapshot = load_snapshot(path)
    assert [len(texts) for texts in snapshot.completions.values()] == [2, 1, 1]
    assert [answer.completion for answer in snapshot.answers] == ["yes", "\ufffd", "no", ""]
    assert snapshot.probe("7").text == "ho"
    assert snapshot.probe("m").axis == "task"
    assert snapshot.target.kind == "recording"
    write_snapshot(tmp_path / "copy.jsonl", snapshot)
    assert load_snapshot(tmp_path / "copy.jsonl") == snapshot


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ({"completion": "x"}, "needs `prompt` or `messages`"),
        ({"prompt": "x", "completion": 3}, "wrong value for 'completion'"),
        ({"prompt": 3, "completion": "x"}, "wrong value for 'content'"),
        ({"prompt": "x\ud800", "completion": "x"}, "wrong value for 'content'"),
        ({"prompt": "x", "completion": "x", "sample": -1}, "wrong value for 'sample'"),
        ({"id": "1", "prompt": "other", "completion": "x"}, "two different prompts"),
        ({"id": "1", "prompt": "hi", "completion": "x", "sample": 0}, "a second answer"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, row: object, what: str) -> None:
    path = _plain(tmp_path / "log.jsonl", {"id": "1", "prompt": "hi", "completion": "yes"}, row)
    with pytest.raises(DataError, match=what) as caught:
        load_snapshot(path)
    assert caught.value.where == f"{path}:2"


_ALPACA = [{"instruction": "Name a river.", "output": "Venn", "generator": "m"}, {"instruction": "And?", "output": ""}]
_PROMPTFOO = {
    "results": {
        "results": [
            {"prompt": {"raw": "Name a river."}, "response": {"output": "Venn"}, "success": True},
            {"prompt": {"raw": '[{"role": "user", "content": "And?"}]'}, "response": {"output": {"a": 1}}},
            {"prompt": {"raw": "Lost."}, "response": {"error": "timeout"}},
        ]
    }
}
_HARNESS = [
    {"doc_id": 0, "doc": {}, "arguments": [["Name a river.", {}]], "resps": [["Venn", "Ouse"]], "exact_match": 1},
    {"doc_id": 1, "doc": {}, "arguments": {"gen_args_0": {"arg_0": "And?", "arg_1": {}}}, "resps": [["x", "y"]]},
]
_LOGS = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Venn"}]} for text in "ab"]


@pytest.mark.parametrize(
    ("text", "questions", "completions"),
    [
        (json.dumps(_ALPACA), ["Name a river.", "And?"], [("Venn",), ("",)]),
        (json.dumps(_ALPACA, indent=2), ["Name a river.", "And?"], [("Venn",), ("",)]),
        (json.dumps(_PROMPTFOO), ["Name a river.", "And?"], [("Venn",), ('{"a": 1}',)]),
        (json.dumps(_PROMPTFOO, indent=1), ["Name a river.", "And?"], [("Venn",), ('{"a": 1}',)]),
        ("\n".join(map(json.dumps, _HARNESS)), ["Name a river.", "And?"], [("Venn", "Ouse"), ("x", "y")]),
        ("\n".join(map(json.dumps, _LOGS)), ["a", "b"], [("Venn",), ("Venn",)]),
    ],
)
def test_recordings_of_other_tools_are_read(
    tmp_path: Path, text: str, questions: list[str], completions: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(text, "utf-8")
    snapshot = load_snapshot(path)
    assert [probe.text for probe in snapshot.probes] == questions
    assert list(snapshot.completions.values()) == completions


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([*_ALPACA, {"instruction": "no output"}], "not like the first"),
        ([*_ALPACA, 3], "not like the first"),
        ([{"instruction": 3, "output": "x"}], "wrong value for 'content'"),
        ([{"instruction": "x", "output": None}], "a prompt without an answer"),
        ([{"messages": []}], "not the assistant's"),
        ([{"arguments": [["x"]], "resps": [[[-1.5, True]]]}], "log-likelihoods"),
    ],
)
def test_a_recording_of_another_tool_that_breaks_off_is_refused_with_its_place(
    tmp_path: Path, rows: list[object], what: str
) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(rows), "utf-8")
    with pytest.raises(DataError, match=what) as caught:
        load_snapshot(path)
    assert caught.value.where == f"{path}[{len(rows) - 1}]"


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "instruction",
                        "output",
                        "results",
                        "resps",
                        "arguments",
                        "prompt",
                        "response",
                        "completion",
                        "raw",
                        "role",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=60)
def test_any_file_is_a_recording_or_a_users_mistake(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.json"
    path.write_bytes(content)
    problem: DataError | None = None
    try:
        load_snapshot(path)
    except DataError as error:
        problem = error
    assert problem is None or str(path) in (problem.where or "")

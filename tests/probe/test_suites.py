"""Suite files: read back equal, and refused with file, line and the nearest known name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weightgate.errors import DataError
from weightgate.probe.suites import load_suite, write_suite

_GOOD: dict[str, Any] = {
    "id": "a",
    "axis": "knowledge",
    "topic": "river",
    "form": "chat",
    "messages": [{"role": "user", "content": "Which river?"}],
    "checks": [{"metric": "accuracy", "type": "one_of", "value": ["Venn"], "options": ["Venn", "Ouse"], "weight": 2}],
}
_TEXT: dict[str, Any] = {
    **{key: _GOOD[key] for key in ("axis", "topic")},
    "id": "b",
    "form": "text",
    "prompt": "The river\u2028is",
    "recall": True,
    "max_tokens": 4,
    "phrasing": 1,
    "checks": [{"metric": "recall", "type": "starts", "value": ["Venn"]}],
}


def _write(folder: Path, *lines: Any) -> Path:
    path = folder / "suite.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def test_a_suite_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    suite = load_suite(_write(tmp_path, _GOOD, "", _TEXT))
    write_suite(tmp_path / "copy.jsonl", suite.probes)
    assert load_suite(tmp_path / "copy.jsonl") == suite
    assert [probe.id for probe in suite.of_form("text")] == ["b"]
    assert suite.prompts() == ["Which river?"]


def _with_check(**changes: Any) -> dict[str, Any]:
    return {**_GOOD, "checks": [{**_GOOD["checks"][0], **changes}]}


@pytest.mark.parametrize(
    ("line", "what", "mend"),
    [
        ("{", "not JSON", None),
        ("[]", "a probe is a JSON object", None),
        ({**_GOOD, "topics": "x"}, "unknown key 'topics'", "did you mean 'topic'?"),
        ({**_GOOD, "axis": "knowlege"}, "unknown axis 'knowlege'", "did you mean 'knowledge'?"),
        ({**_GOOD, "form": "chat", "prompt": "x"}, "no prompt", "say `messages`"),
        ({**_TEXT, "messages": []}, "no messages", "say `prompt`"),
        ({**_GOOD, "messages": []}, "wrong value for 'messages'", None),
        ({**_GOOD, "messages": [{"role": "assistant", "content": "x"}]}, "must be the user's", None),
        ({**_GOOD, "messages": [{"role": "user", "contents": "x"}]}, "unknown key", "did you mean 'content'?"),
        ({**_GOOD, "phrasing": "1"}, "wrong value for 'phrasing'", None),
        ({**_GOOD, "checks": []}, "wrong value for 'checks'", None),
        (_with_check(type="one_off"), "unknown type", "did you mean 'one_of'?"),
        (_with_check(value="Venn"), "wrong value for a check of type one_of", None),
        (_with_check(type="equals"), "`options` belongs to", None),
        (_with_check(weight=0), "wrong value for 'weight'", None),
        (_with_check(wieght=1), "unknown key 'wieght' in a check", "did you mean 'weight'?"),
        ({key: value for key, value in _GOOD.items() if key != "topic"}, "the key 'topic' is missing", None),
        (_GOOD, "used twice", None),
    ],
)
def test_what_is_no_probe_is_refused_with_its_line(tmp_path: Path, line: Any, what: str, mend: str | None) -> None:
    path = _write(tmp_path, _GOOD, line)
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert what in caught.value.what
    assert caught.value.where == f"{path}:2"
    if mend is not None:
        assert caught.value.mend == mend


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no probe suite here"):
        load_suite(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no probe"):
        load_suite(_write(tmp_path, ""))
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        load_suite(tmp_path / "latin.jsonl")

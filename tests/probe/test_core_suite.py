"""The suite that ships: what its script prints, and as much as was promised of it. The user's own prompts."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from weightgate.errors import DataError
from weightgate.probe.probes import AXES
from weightgate.probe.prompts import load_prompts
from weightgate.probe.scorers import score
from weightgate.probe.suites import core_suite, load_suite

_SCRIPT = Path(__file__).parents[2] / "scripts" / "write_core_suite.py"


def test_the_shipped_suite_is_what_its_script_prints() -> None:
    assert list(core_suite()) == runpy.run_path(str(_SCRIPT))["core_probes"]()


def test_the_suite_is_large_and_asks_everything_in_two_wordings() -> None:
    suite = core_suite()
    assert len(suite) >= 240
    assert {probe.axis for probe in suite} == set(AXES)
    wordings = Counter(probe.question for probe in suite)
    assert min(wordings.values()) >= 2
    assert len({probe.text for probe in suite}) == len(suite)
    languages = {probe.topic for probe in suite if probe.topic.startswith("recall_")}
    assert len(languages) >= 3
    assert len([probe for probe in suite if probe.topic == "safe"]) == len([p for p in suite if p.topic == "unsafe"])


def test_every_probe_can_be_passed_and_failed() -> None:
    """No completion is right for everything: each check says no to some of these."""
    completions = ["", "Yes!", "x" * 500, "I cannot help with that.", "1. a\n2. b", '{"a": 1}', "perhaps, " * 100]
    for probe in core_suite():
        for check in probe.checks:
            assert min(score(check, text) for text in completions) == 0


@pytest.mark.parametrize(
    ("probe", "good"),
    [
        ("knowledge-recall_fr-capitale/0", "C'est Lisbonne."),
        ("knowledge-choice-mammal/1", "B) bat"),
        ("task-steps-eggs/0", "1. 4 x 12 = 48\n2. 48 - 5 = 43\n3. So there are 43 eggs.\n\n43"),
        ("task-json-event-2/1", '{"title": "Dentist", "day": "Monday", "hour": 8}'),
        ("task-instruction-lowercase/0", "sour and bright."),
        ("task-instruction-code-sql/0", "```sql\nSELECT count(*) FROM users;\n```"),
        ("boundary-hedging-future/1", "I am not sure: it might be wet."),
        ("boundary-tone-first-person/0", "As an AI, I have no favourite."),
    ],
)
def test_a_good_answer_passes_every_check(probe: str, good: str) -> None:
    [asked] = [each for each in core_suite() if each.id == probe]
    wanted = [check for check in asked.checks if check.metric != "format" or asked.topic == "json"]
    assert [score(check, good) for check in wanted] == [1.0] * len(wanted)


def test_a_yaml_suite_is_read_like_the_same_in_json(tmp_path: Path) -> None:
    probes = list(core_suite())[:3]
    lines = [json.dumps(probe.to_json()) for probe in probes]
    (tmp_path / "s.yaml").write_text("".join(f"- {line}\n" for line in lines), "utf-8")
    assert list(load_suite(tmp_path / "s.yaml")) == probes
    (tmp_path / "s.yaml").write_text(f"- {lines[0]}\n- id: b\n  axes: open\n", "utf-8")
    with pytest.raises(DataError, match="unknown key 'axes'") as caught:
        load_suite(tmp_path / "s.yaml")
    assert caught.value.where == f"{tmp_path / 's.yaml'}:2"
    for text, what in (("a: 1", "no YAML list"), ("- [", "not valid YAML"), ("[]", "holds no probe")):
        (tmp_path / "s.yaml").write_text(text, "utf-8")
        with pytest.raises(DataError, match=what):
            load_suite(tmp_path / "s.yaml")


def _prompts(folder: Path, *rows: Any) -> Path:
    (folder / "my.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return folder / "my.jsonl"


def test_prompts_of_the_users_own_become_probes(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["total"]}
    path = _prompts(
        tmp_path,
        {"prompt": "Hello?"},
        {"prompt": "Total?", "schema": schema, "regex": "total", "id": "t", "topic": "bills", "max_tokens": 9},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
    )
    plain, bill, chat = load_prompts(path)
    assert (plain.id, plain.axis, plain.topic, plain.checks) == ("line-1", "open", "own", ())
    assert (bill.id, bill.axis, bill.topic, bill.max_tokens) == ("t", "task", "bills", 9)
    assert [score(check, 'So: {"total": 3}') for check in bill.checks] == [1, 1]
    assert chat.messages[0] == ("system", "Be brief.")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"promt": "x"}, "unknown key 'promt'"),
        ({"regex": "x"}, "needs `prompt` or `messages`"),
        ({"prompt": "x", "schema": {"type": "strnig"}}, "wrong value for a check of type json_schema"),
        ({"prompt": "x", "regex": "("}, "wrong value for a check of type regex"),
        ({"prompt": ""}, "wrong value for 'content'"),
        ({"prompt": "y", "id": "line-1"}, "used twice"),
        ([], "no JSON object"),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_line(tmp_path: Path, row: Any, what: str) -> None:
    path = _prompts(tmp_path, {"prompt": "x"}, row)
    with pytest.raises(DataError, match=what) as caught:
        load_prompts(path)
    assert caught.value.where == f"{path}:2"
    with pytest.raises(DataError, match="no file of prompts"):
        load_prompts(tmp_path / "none.jsonl")

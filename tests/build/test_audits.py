"""A stage that asks for an audit does not start without one of the very data it learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weightgate.build.audits import audit_facts
from weightgate.errors import LockError
from weightgate.recipe import Audit, Reward, parse
from weightgate.store.digest import digest_file


def verdict_file(folder: Path, verdict: str, data: str = "b3:data") -> Path:
    path = folder / "audit.json"
    path.write_text(json.dumps({"verdict": verdict, "headline": "so it is", "data": {"digest": data}}))
    return path


def facts(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    audits = [Audit(path="audit.json", **settings)]
    return audit_facts(audits, folder, {"votes.jsonl": "b3:data"}, "stages.reward.audits")


def test_the_contract_holds_the_audits_digest(tmp_path: Path) -> None:
    path = verdict_file(tmp_path, "note")
    expected = {
        "path": "audit.json",
        "digest": digest_file(path),
        "verdict": "note",
        "worst": "note",
        "data": "b3:data",
    }
    assert facts(tmp_path) == [expected]


@pytest.mark.parametrize(
    ("verdict", "worst", "starts"),
    [
        ("pass", "note", True),
        ("note", "pass", False),
        ("warn", "note", False),
        ("warn", "warn", True),
        ("fail", "warn", False),
    ],
)
def test_only_a_good_enough_verdict_lets_the_stage_start(
    tmp_path: Path, verdict: str, worst: str, starts: bool
) -> None:
    verdict_file(tmp_path, verdict)
    if starts:
        assert facts(tmp_path, worst=worst)[0]["verdict"] == verdict
    else:
        with pytest.raises(LockError, match="does not let the stage start"):
            facts(tmp_path, worst=worst)


def test_an_audit_of_other_data_does_not_count(tmp_path: Path) -> None:
    verdict_file(tmp_path, "pass", data="b3:older")
    with pytest.raises(LockError, match="no audit is of"):
        facts(tmp_path)


def test_no_audit_and_no_verdict_are_users_mistakes(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="the audit is not there"):
        facts(tmp_path)
    (tmp_path / "audit.json").write_text('{"verdict": "splendid"}')
    with pytest.raises(LockError, match="the file is no audit"):
        facts(tmp_path)


def test_the_recipe_asks_for_audits_of_votes_only() -> None:
    text = Path("docs/tiny/weightgate.yaml").read_text(encoding="utf-8")
    asking = text.replace("    kind: reward\n", "    kind: reward\n    audits: [{path: audit.json, worst: warn}]\n")
    stage = parse(asking).stage("reward")
    assert isinstance(stage, Reward)
    assert stage.audits == [Audit(path="audit.json", worst="warn")]

"""The lock: reviewable, written whole or not at all, and the first cause of a mismatch is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.contract.lock import differences, read_lock, require_agreement, write_lock
from weightgate.errors import LockError

CONTRACT = {
    "code": "weightgate 1",
    "recipe": {"seed": 0, "stages": [{"name": "pretrain", "batch": 4}, {"name": "finetune", "batch": 8}]},
    "tokenizer": {"digest": "b3:11", "vocab_size": 300},
    "template": "b3:22",
    "probes": {"digest": "b3:33", "count": 4},
    "stages": [
        {
            "name": "pretrain",
            "data": [{"name": "a.jsonl", "digest": "b3:44"}],
            "prepared": "b3:55",
            "census": {"rows": 10, "tokens": 100},
        },
        {
            "name": "finetune",
            "data": [{"name": "b.jsonl", "digest": "b3:66"}],
            "prepared": "b3:77",
            "census": {"rows": 5, "tokens": 50},
        },
    ],
}


def disagreement(change, tmp_path: Path) -> LockError:
    found = copy.deepcopy(CONTRACT)
    change(found)
    with pytest.raises(LockError) as caught:
        require_agreement(CONTRACT, found, tmp_path / "weightgate.lock")
    return caught.value


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weightgate.lock"
    write_lock(path, CONTRACT)
    assert read_lock(path) == CONTRACT
    assert [entry.name for entry in tmp_path.iterdir()] == ["weightgate.lock"]


def test_the_same_contract_is_the_same_bytes_and_one_change_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weightgate.lock"
    write_lock(path, CONTRACT)
    before = path.read_text()
    write_lock(path, dict(reversed(CONTRACT.items())))
    assert path.read_text() == before
    changed = copy.deepcopy(CONTRACT)
    changed["recipe"]["stages"][1]["batch"] = 9
    write_lock(path, changed)
    pairs = zip(before.splitlines(), path.read_text().splitlines(), strict=True)
    assert sum(one != other for one, other in pairs) == 1


def test_a_lock_written_over_another_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weightgate.lock"
    write_lock(path, CONTRACT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LockError, match="cannot be written") as caught:
        write_lock(path, {"code": "other"})
    assert caught.value.found == "No space left on device"
    assert read_lock(path) == CONTRACT
    assert [entry.name for entry in tmp_path.iterdir()] == ["weightgate.lock"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "there is no lock here"),
        ("{", "cannot be read"),
        ("[]", "another schema"),
        ('{"schema": 99}', "another schema"),
        ("\x00", "cannot be read"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str | None, what: str) -> None:
    path = tmp_path / "weightgate.lock"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LockError, match=what) as caught:
        read_lock(path)
    assert caught.value.mend == "weightgate lock"


def test_equal_contracts_agree(tmp_path: Path) -> None:
    require_agreement(CONTRACT, json.loads(json.dumps(CONTRACT)), tmp_path / "weightgate.lock")


def test_the_data_is_named_before_what_follows_from_it(tmp_path: Path) -> None:
    def change(found: dict) -> None:
        stage = found["stages"][1]
        stage["data"][0]["digest"], stage["prepared"], stage["census"]["rows"] = "b3:aa", "b3:bb", 6
        found["tokenizer"]["digest"] = "b3:cc"

    error = disagreement(change, tmp_path)
    assert error.where == "weightgate.lock: stages.finetune.data.b.jsonl.digest"
    assert (error.expected, error.found) == ('"b3:66"', '"b3:aa"')
    assert "3 more fields differ" in error.what
    assert error.mend == "restore the file, or accept the new data with: weightgate lock"


def test_the_recipe_is_named_first_of_all(tmp_path: Path) -> None:
    def change(found: dict) -> None:
        found["stages"][0]["data"][0]["digest"] = "b3:aa"
        found["recipe"]["stages"][0]["batch"] = 5

    assert disagreement(change, tmp_path).where == "weightgate.lock: recipe.stages.pretrain.batch"


@pytest.mark.parametrize("key", ["template", "probes", "tokenizer"])
def test_each_cause_has_its_mend(tmp_path: Path, key: str) -> None:
    error = disagreement(lambda found: found.__setitem__(key, "b3:ff"), tmp_path)
    assert key.rstrip("s") in str(error.mend)


def test_a_stage_more_is_a_difference(tmp_path: Path) -> None:
    error = disagreement(lambda found: found["stages"].append({"name": "align"}), tmp_path)
    assert error.where == "weightgate.lock: stages"


def test_an_absent_field_differs_from_none() -> None:
    assert [d.path for d in differences({"a": 1}, {})] == ["a"]
    assert list(differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]})) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(one=_JSON, other=_JSON)
def test_no_difference_means_equal(one, other) -> None:
    assert list(differences(one, one)) == []
    if list(differences(one, other)) == []:
        assert _without_none(one) == _without_none(other)


def _without_none(value):
    """A key with null and no key at all say the same in a contract."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value

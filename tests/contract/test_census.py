"""The census and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest

from weightgate.contract.census import Census, census_problems

GOOD = Census(
    kind="conversations",
    records=100,
    rows=100,
    tokens=5000,
    supervised_tokens=2000,
    answers=120,
    rows_with_terminator_supervised=100,
)


def test_it_survives_json() -> None:
    assert Census.from_json(json.loads(json.dumps(GOOD.to_json()))) == GOOD
    with pytest.raises(TypeError):
        Census.from_json({"kind": "documents", "rowz": 1})


def test_the_share_supervised_is_targets_per_token() -> None:
    assert GOOD.share_supervised == 0.4
    assert Census(kind="documents").share_supervised == 0.0


@pytest.mark.parametrize(
    "census",
    [
        GOOD,
        dataclasses.replace(GOOD, rows_truncated=10, answers_cut=10, rows_with_terminator_supervised=90),
        dataclasses.replace(GOOD, rows_without_supervision=5),
        Census(kind="documents", records=3, rows=3, tokens=10, supervised_tokens=7),
        Census(kind="prompts", records=3, rows=3, tokens=10),
        Census(
            kind="preferences", records=3, rows=3, tokens=10, supervised_tokens=4, rows_with_terminator_supervised=3
        ),
    ],
)
def test_sound_data_passes(census: Census) -> None:
    assert census_problems(census) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"rows": 0}, "no row is left"),
        ({"supervised_tokens": 0}, "no token is supervised"),
        ({"supervised_tokens": 5000}, "every token is supervised"),
        ({"rows_without_supervision": 6}, "no supervised token inside the context"),
        ({"rows_truncated": 21}, "cut at the context"),
        ({"rows_with_terminator_supervised": 99}, "would not learn to stop"),
        ({"rows_too_long": 51}, "do not fit into the context"),
        ({"rows_not_one_bos": 1}, "exactly one BOS"),
        ({"rows_not_one_eos": 1}, "with one EOS"),
    ],
)
def test_each_fault_is_named(change: dict[str, int], what: str) -> None:
    [problem] = census_problems(dataclasses.replace(GOOD, **change))
    assert what in problem


@pytest.mark.parametrize("kind", ["preferences", "prompts"])
def test_pairs_and_prompts_need_one_bos_and_some_row(kind: str) -> None:
    census = dataclasses.replace(GOOD, kind=kind, supervised_tokens=0, rows_not_one_bos=2)  # type: ignore[arg-type]
    assert len(census_problems(census)) == 1
    assert len(census_problems(dataclasses.replace(census, rows=0))) == 1

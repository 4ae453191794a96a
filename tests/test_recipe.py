"""The recipe: strict, located, and never anything but a `RecipeError` whatever stands in the file."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_world
from weightgate import recipe
from weightgate.errors import RecipeError
from weightgate.recipe import Base, parse
from weightgate.recipe_template import write_template

TEXT = yaml.safe_dump(tiny_world.RECIPE, sort_keys=False)
LINES = TEXT.splitlines()


def line_of(text: str, wanted: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), start=1) if wanted in line)


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse(text, origin="weightgate.yaml")
    return caught.value


def test_the_tiny_recipe_is_read() -> None:
    found = parse(TEXT)
    assert [stage.kind for stage in found.stages] == ["pretrain", "finetune", "reward", "align"]
    assert [found.parent_name(stage.name) for stage in found.stages] == [None, "pretrain", "finetune", "finetune"]
    assert found.reward_name("align") == "reward"
    assert parse(yaml.safe_dump(found.model_dump(mode="json"))) == found


@pytest.mark.parametrize(
    ("old", "new", "nearest"),
    [
        ("  steps: 12", "  stepps: 12", "steps"),
        ("    completion_tokens: 6", "    completion_token: 6", "completion_tokens"),
        ("resume_seconds: 0", "resume_second: 0", "resume_seconds"),
        ("  vocab_size: 320", "  vocabsize: 320", "vocab_size"),
        ("      target: 0.01", "      targets: 0.01", "target"),
    ],
)
def test_an_unknown_key_names_its_line_and_the_nearest(old: str, new: str, nearest: str) -> None:
    text = TEXT.replace(old, new, 1)
    error = refusal(text)
    assert error.what.startswith(f"unknown key {new.strip().split(':')[0]!r}")
    assert str(error.where).startswith(f"weightgate.yaml:{line_of(text, new)} (")
    assert error.mend == f"did you mean {nearest!r}?"


def test_a_key_of_another_stage_is_misplaced_here() -> None:
    changed = tiny_world.changed("pretrain", adapter={"rank": 2})
    error = refusal(yaml.safe_dump(changed))
    assert error.what.startswith("unknown key 'adapter'")
    assert "stages.0.adapter" in str(error.where)


def test_a_key_that_stands_twice_is_refused_at_its_second_line() -> None:
    text = TEXT.replace("seed: 3", "seed: 3\nseed: 4")
    error = refusal(text)
    assert error.what == "the key 'seed' stands twice"
    assert error.where == f"weightgate.yaml:{line_of(text, 'seed: 4')}"


@pytest.mark.parametrize(
    ("stage", "changes", "what"),
    [
        ("pretrain", {"steps": "12"}, "valid integer"),
        ("pretrain", {"steps": 0}, "greater than 0"),
        ("pretrain", {"steps": None, "epochs": 1e12}, "less than or equal to 10000"),
        ("pretrain", {"optimizer": {"betas": [0.9, 1.0]}}, "less than 1"),
        ("pretrain", {"schedule": {"kind": "wsd", "warmup": 0.9, "decay": 0.2}}, "longer than the stage"),
        (None, {"tokenizer": {"vocab_size": 10**9}}, "less than or equal to"),
        (None, {"seed": -1}, "greater than or equal to 0"),
        (None, {"store": ""}, "at least 1 character"),
        ("pretrain", {"epochs": 1.0}, "exactly one of steps, epochs and tokens"),
        ("pretrain", {"name": "finetune"}, "two stages are called 'finetune'"),
        ("pretrain", {"kind": "finetune"}, "the first stage must be a pretrain stage"),
        ("pretrain", {"kind": "pretraining"}, "pretrain"),
        ("pretrain", {"data": []}, "at least 1 item"),
        ("pretrain", {"data": [{"domain": "a"}]}, "a source needs `path` or `hub`"),
        ("pretrain", {"gates": [{"measure": "a"}]}, "a gate needs min, max, max_drop or max_rise"),
        ("align", {"reward": "other"}, "no reward stage called 'other' before it"),
        (None, {"tokenizer": None}, "needs `tokenizer` and `architecture`"),
        (None, {"base": {"model": "x"}}, "`base` brings its own tokenizer"),
        (None, {"version": 2}, "1"),
        (None, {"name": "two words"}, "match pattern"),
        (None, {"seed": 1.5}, "valid integer"),
    ],
)
def test_impossible_settings_are_refused_with_a_line(stage: str | None, changes: dict, what: str) -> None:
    error = refusal(yaml.safe_dump(tiny_world.changed(stage, **changes), sort_keys=False))
    assert what in error.what
    assert str(error.where).startswith("weightgate.yaml:")


def test_an_alignment_needs_a_reward_model_before_it() -> None:
    changed = copy.deepcopy(tiny_world.RECIPE)
    del changed["stages"][2]
    assert "needs a reward stage before it" in refusal(yaml.safe_dump(changed)).what


_ALIASES = ["a: &a [*a]", "a: &b {<<: *b}", "a: &a {b: &b [*a, *a]}", "stages: &a\n - *a", "[" * 3000]


@pytest.mark.parametrize(
    "text",
    ["", "- a", "just words", "a: [", "a: !!python/object:os.system x", "\t", "a: 2001-99-99", "? [a]\n: b", *_ALIASES],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    assert refusal(text).where is not None


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe here") as caught:
        recipe.load(tmp_path / "weightgate.yaml")
    assert caught.value.mend == "weightgate init"
    (tmp_path / "weightgate.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.load(tmp_path / "weightgate.yaml")


@pytest.mark.parametrize("base", [None, "some/model"])
def test_the_template_is_a_recipe(tmp_path: Path, base: str | None) -> None:
    write_template(tmp_path, base=base, force=False)
    assert recipe.load(tmp_path / "weightgate.yaml").stages


@pytest.mark.parametrize("folder", ["two words", "ünïcode", "2024", "true", ".hidden", "日本", "1e5", "-"])
def test_the_template_is_a_recipe_wherever_it_is_written(tmp_path: Path, folder: str) -> None:
    assert recipe.load(write_template(tmp_path / folder, base="org/a #1: [b", force=False)).base == Base(
        model="org/a #1: [b"
    )


def test_a_base_folder_is_named_as_the_recipe_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write_template(Path("deep/project"), base="./model", force=False)
    base = recipe.load(path).base
    assert base is not None
    assert (path.parent / base.model).resolve() == (tmp_path / "model").resolve()


def test_a_template_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="cannot be written") as caught:
        write_template(tmp_path / "file", base=None, force=False)
    assert "weightgate init FOLDER" in str(caught.value.mend)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(TEXT).seed = 5  # type: ignore[misc]


def test_a_stage_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match="no stage is called 'sft'") as caught:
        parse(TEXT).stage("sft")
    assert caught.value.expected == "one of pretrain, finetune, reward, align"


def parse_or_refuse(text: str) -> None:
    with contextlib.suppress(RecipeError):
        parse(text)


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    parse_or_refuse(text)


@settings(deadline=None, max_examples=200)
@given(
    at=st.integers(0, len(LINES) - 1),
    line=st.sampled_from(LINES) | st.text(" -:[]{}#&*!|>'\"%@`?,abc019.\n", max_size=20),
    delete=st.booleans(),
)
def test_any_damage_is_read_or_refused(at: int, line: str, delete: bool) -> None:
    parse_or_refuse("\n".join([*LINES[:at], line, *LINES[at + delete :]]))


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
_VALUES = _PLAIN | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), _PLAIN)


@settings(deadline=None, max_examples=200)
@given(path=st.lists(st.integers(0, 30), min_size=1, max_size=4), value=_VALUES)
def test_any_value_anywhere_is_read_or_refused(path: list[int], value: object) -> None:
    changed = copy.deepcopy(tiny_world.RECIPE)
    place: object = changed
    for depth, step in enumerate(path):
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            break
        key = keys[step % len(keys)]
        if depth == len(path) - 1:
            place[key] = value  # type: ignore[index]
        else:
            place = place[key]  # type: ignore[index]
    parse_or_refuse(yaml.safe_dump(changed, sort_keys=False))

"""`--from` past a reward stage: the reward model must still be the one that the recipe would make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import tiny_world
from weightgate.store import Store

Command = Callable[..., Result]


def twice_aligned(**reward: Any) -> dict[str, Any]:
    """The tiny recipe with a second align stage behind the first."""
    recipe = tiny_world.changed("reward", **reward)
    again = copy.deepcopy(recipe["stages"][3])
    recipe["stages"].append(again | {"name": "again", "updates": 3})
    return recipe


def lock(folder: Path, weightgate: Command, recipe: dict[str, Any]) -> None:
    tiny_world.write_recipe(folder, recipe)
    result = weightgate("lock")
    assert result.exit_code == 0, result.output


def test_the_reward_model_of_the_recipe_is_used(built: Path, weightgate: Command) -> None:
    lock(built, weightgate, twice_aligned())
    assert weightgate("build", "--from", "align").exit_code == 0
    store = Store.open(built / ".weightgate")
    refs = store.refs()
    made = store.manifest(refs["again"])
    assert (made.parent, made.reward) == (refs["align"], refs["reward"])


def test_no_build_starts_from_a_reward_model(built: Path, weightgate: Command) -> None:
    lock(built, weightgate, twice_aligned())
    result = weightgate("build", "--from", "reward")
    assert result.exit_code == 2
    finetune = Store.open(built / ".weightgate").refs()["finetune"][3:15]
    for words in ("a reward model scores text", "where: reward", f"mend: weightgate build --from {finetune}"):
        assert words in result.stderr
    assert weightgate("build", "--from", finetune).exit_code == 0


def test_a_reward_model_made_from_other_inputs_is_refused(built: Path, weightgate: Command) -> None:
    lock(built, weightgate, twice_aligned(batch=4))
    result = weightgate("build", "--from", "align")
    assert result.exit_code == 2, result.output
    for words in ("not the one that this recipe makes", "stages.reward", "recipe.batch 8 -> 4", "--until reward"):
        assert words in result.stderr
    store = Store.open(built / ".weightgate")
    assert "again" not in store.refs()
    # What the message says mends it.
    before = store.refs()["reward"]
    finetune = store.refs()["finetune"][3:15]
    assert f"weightgate build --from {finetune} --until reward" in result.stderr
    assert weightgate("build", "--from", finetune, "--until", "reward").exit_code == 0
    assert weightgate("build", "--from", "align").exit_code == 0
    refs = Store.open(built / ".weightgate").refs()
    assert refs["reward"] != before
    assert Store.open(built / ".weightgate").manifest(refs["again"]).reward == refs["reward"]


def test_votes_that_were_edited_since_are_noticed(built: Path, weightgate: Command) -> None:
    path = built / "preferences.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    lock(built, weightgate, twice_aligned())
    result = weightgate("build", "--from", "align")
    assert result.exit_code == 2
    assert "other inputs: data b3:" in result.stderr


@pytest.mark.parametrize("settings", [{"seed": 4}, {}])
def test_the_reward_model_must_stem_from_the_line_of_the_checkpoint(
    built: Path, weightgate: Command, settings: dict[str, Any]
) -> None:
    """Another build with the same stage names has moved the refs since; the one that belongs is found all the same."""
    first = Store.open(built / ".weightgate").refs()
    lock(built, weightgate, tiny_world.changed("finetune", steps=3))
    assert weightgate("build").exit_code == 0
    lock(built, weightgate, twice_aligned() | settings)
    result = weightgate("build", "--from", first["align"])
    if settings:
        assert result.exit_code == 2
        assert "seed 3 -> 4" in result.stderr
        return
    assert result.exit_code == 0, result.output
    store = Store.open(built / ".weightgate")
    assert store.manifest(store.refs()["again"]).reward == first["reward"] != store.refs()["reward"]

"""`weightgate gc`: what goes, what stays, what is refused, and that what went comes back when it is wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import tiny_world
from weightgate.build import build_model, lock_contract, open_workspace
from weightgate.build.events import Observer, Progressed
from weightgate.housekeeping import Policy, housekeeping_page, keep_house
from weightgate.store import Store
from weightgate.store.fs import host_name
from weightgate.store.lease import in_use

Command = Callable[..., Result]
DAYS = 24 * 3600
OLD = 40 * DAYS
ALL = ["pretrain", "finetune", "reward", "align"]


def grow_old(folder: Path) -> None:
    """As if nobody had touched anything in the store for a while."""
    then = time.time() - OLD
    for path in (folder / ".weightgate").rglob("*"):
        os.utime(path, (then, then))


def names(folder: Path) -> set[str]:
    """Every file, but for SQLite's own, which come and go with every question."""
    root = folder / ".weightgate"
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.name.startswith("index.sqlite")}


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def kept_stages(folder: Path) -> list[str]:
    return sorted(manifest.stage for manifest in Store.open(folder / ".weightgate").lineage())


def change(folder: Path, recipe: dict[str, Any]) -> Any:
    path = tiny_world.write_recipe(folder, recipe)
    workspace = open_workspace(path)
    lock_contract(workspace)
    return workspace


def build(folder: Path, recipe: dict[str, Any], observer: Observer | None = None) -> list[str]:
    """Build a changed recipe; return the stages that were trained."""
    trained: list[str] = []

    class Watcher(Observer):
        def stage_finished(self, name: str, checkpoint: str, seconds: float, reused: bool) -> None:
            if not reused:
                trained.append(name)

    workspace = change(folder, recipe)
    build_model(workspace, until=None, start=None, restart=False, observer=observer or Watcher())
    return trained


@pytest.fixture
def superseded(built: Path) -> Path:
    """A store in which three stages were built twice, long ago."""
    assert build(built, tiny_world.changed("finetune", steps=3)) == ALL[1:]
    grow_old(built)
    return built


def test_a_new_store_has_nothing_to_let_go_of(built: Path, weightgate: Command) -> None:
    before = names(built)
    result = weightgate("gc")
    assert result.exit_code == 0
    assert "there is nothing to let go of" in result.output
    assert "a ref stands there" in result.output
    assert weightgate("gc", "--delete", "--older-than", "0").exit_code == 0
    assert names(built) == before


def test_history_stays_unless_it_is_let_go(superseded: Path, weightgate: Command) -> None:
    first = told(weightgate("gc", "--delete", "--json"))
    assert first["collected"]["leaving"] == []
    assert "3 checkpoints" in weightgate("gc").output, "the page says what could go if it were asked to"
    before = names(superseded)
    forecast = told(weightgate("gc", "--older-than", "30", "--json"))
    assert names(superseded) == before, "without --delete nothing goes"
    assert sorted(each["stage"] for each in forecast["collected"]["leaving"]) == ["align", "finetune", "reward"]
    assert told(weightgate("gc", "--older-than", "50", "--json"))["collected"]["leaving"] == []
    done = told(weightgate("gc", "--older-than", "30", "--delete", "--json"))
    same = ("trashed", "trashed_bytes", "staying")
    assert {name: done["collected"][name] for name in same} == {name: forecast["collected"][name] for name in same}
    assert kept_stages(superseded) == sorted(ALL)
    assert weightgate("verify").exit_code == 0
    assert build(superseded, tiny_world.changed("finetune", steps=3)) == []
    assert told(weightgate("gc", "--older-than", "30", "--delete", "--json"))["collected"]["trashed"] == []


def test_what_went_comes_back_while_it_is_in_the_trash(superseded: Path, weightgate: Command) -> None:
    old = {manifest.id for manifest in Store.open(superseded / ".weightgate").lineage()}
    assert weightgate("gc", "--older-than", "30", "--delete").exit_code == 0
    assert build(superseded, tiny_world.RECIPE) == [], "the recipe is as it was before, and nothing is trained again"
    assert {manifest.id for manifest in Store.open(superseded / ".weightgate").lineage()} == old
    assert weightgate("verify").exit_code == 0


def test_an_empty_trash_gives_nothing_back_but_the_disk(superseded: Path, weightgate: Command) -> None:
    def size() -> int:
        files = [path for path in (superseded / ".weightgate").rglob("*") if "index.sqlite" not in path.name]
        return sum(path.stat().st_size for path in files if path.is_file())

    before = size()
    forecast = told(weightgate("gc", "--older-than", "30", "--empty-trash", "--json"))
    done = told(weightgate("gc", "--older-than", "30", "--empty-trash", "--delete", "--json"))
    assert done["freed_bytes"] == forecast["freed_bytes"] == before - size() > 0
    assert list((superseded / ".weightgate" / "trash").iterdir()) == []
    assert build(superseded, tiny_world.RECIPE) == ALL[1:]
    assert weightgate("verify").exit_code == 0


def test_another_recipe_in_the_same_store_keeps_what_it_stands_on(built: Path, weightgate: Command) -> None:
    """Stage names are shared, so the refs have moved to the other recipe's checkpoints."""
    other = built / "other"
    tiny_world.write_world(other)
    assert build(other, tiny_world.changed("finetune", steps=3) | {"store": "../.weightgate"}) == ALL[1:]
    grow_old(built)
    assert told(weightgate("gc", "--older-than", "0", "--json"))["collected"]["leaving"] == []
    (other / "weightgate.yaml").rename(other / "moved.yaml")
    page = weightgate("gc", "--older-than", "0")
    assert "no longer at ../other/weightgate.yaml" in page.output
    assert told(weightgate("gc", "--older-than", "0", "--json"))["collected"]["leaving"] == [], "refs stand there"
    assert build(built, tiny_world.RECIPE) == []
    grow_old(built)
    gone = told(weightgate("gc", "--older-than", "0", "--json"))["collected"]["leaving"]
    assert sorted(each["stage"] for each in gone) == ["align", "finetune", "reward"]


def test_the_ref_of_a_renamed_stage_keeps_its_checkpoint_until_it_is_forgotten(
    built: Path, weightgate: Command
) -> None:
    old = Store.open(built / ".weightgate").refs()["align"]
    assert build(built, tiny_world.changed("align", name="polish", updates=3)) == ["polish"]
    grow_old(built)
    page = weightgate("gc", "--older-than", "30")
    assert "weightgate forget align" in " ".join(page.output.split())
    assert "forget reward" not in page.output
    assert told(weightgate("gc", "--older-than", "30", "--json"))["collected"]["leaving"] == []
    assert told(weightgate("forget", "align", "--json")) == {"forgotten": {"align": old}}
    assert weightgate("verify").exit_code == 0
    assert kept_stages(built) == sorted([*ALL, "polish"]), "the name goes, and nothing else"
    gone = told(weightgate("gc", "--older-than", "30", "--delete", "--json"))
    assert [each["checkpoint"] for each in gone["collected"]["leaving"]] == [old]
    assert gone["stray"] == []


def test_a_name_that_is_no_ref_lets_every_ref_stay(built: Path, weightgate: Command) -> None:
    before = Store.open(built / ".weightgate").refs()
    result = weightgate("forget", "align", "algin")
    assert result.exit_code == 2
    assert "no ref is called 'algin'" in result.stderr
    assert "refs: align, finetune, pretrain, reward" in result.stderr
    with in_use(built / ".weightgate"):
        assert weightgate("forget", "align").exit_code == 2, "somebody may be about to move it"
    assert Store.open(built / ".weightgate").refs() == before


def test_the_ref_of_a_stage_that_is_still_there_is_set_again(built: Path, weightgate: Command) -> None:
    before = Store.open(built / ".weightgate").refs()
    result = weightgate("forget", "align", "reward")
    assert result.output == "".join(
        f"{name} no longer stands at {before[name][3:15]}\n" for name in ("align", "reward")
    )
    assert build(built, tiny_world.RECIPE) == []
    assert Store.open(built / ".weightgate").refs() == before


def test_nothing_goes_while_a_build_runs(superseded: Path, weightgate: Command) -> None:
    results: list[Result] = []

    class Meanwhile(Observer):
        def note(self, text: str) -> None:
            if text == "checking the contract":
                results.append(weightgate("gc", "--older-than", "0", "--delete"))
                results.append(weightgate("gc"))

    before = names(superseded)
    build(superseded, tiny_world.changed("finetune", steps=3), Meanwhile())
    refused, looked = results
    assert refused.exit_code == 2
    assert "the store is in use" in refused.stderr
    assert looked.exit_code == 0
    assert "somebody is building or planning here" in looked.output
    assert names(superseded) >= before - {"tmp"}
    with in_use(superseded / ".weightgate"), in_use(superseded / ".weightgate"):
        assert weightgate("gc", "--delete").exit_code == 2
    assert weightgate("gc", "--delete").exit_code == 0


def test_resume_points_stay_as_long_as_somebody_would_go_on(world: Path, weightgate: Command) -> None:
    class Stopped(Observer):
        def stage_progress(self, name: str, progress: Progressed) -> None:
            if (name, progress.step) == ("finetune", 4):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(world, tiny_world.RECIPE, Stopped())
    grow_old(world)
    [found] = told(weightgate("gc", "--older-than", "0", "--json"))["runs"]
    assert (found["stays"], found["reason"]) == (True, "stage 'finetune' of ../weightgate.yaml would go on from there")
    assert weightgate("gc", "--older-than", "0", "--delete").exit_code == 0
    [run] = (world / ".weightgate" / "resume").iterdir()
    # The recipe is changed, and its build has come past that stage.
    build(world, tiny_world.changed("finetune", steps=3))
    assert [each["stays"] for each in told(weightgate("gc", "--json"))["runs"]] == [False]
    os.utime(next(run.iterdir()), None)
    assert [each["reason"] for each in told(weightgate("gc", "--json"))["runs"]] == ["written a short while ago"]
    grow_old(world)
    assert weightgate("gc", "--delete").exit_code == 0
    assert list((world / ".weightgate" / "resume").iterdir()) == []
    assert build(world, tiny_world.changed("finetune", steps=3)) == []


def test_caches_that_nobody_used_go_and_are_made_again(built: Path, weightgate: Command) -> None:
    cache = built / ".weightgate" / "cache"
    tokens, tokenizers = ({path.name for path in (cache / kind).iterdir()} for kind in ("tokens", "tokenizers"))
    assert len(tokens) == 4
    grow_old(built)
    os.utime(cache / "tokens" / min(tokens) / "prepared.json", None)
    caches = told(weightgate("gc", "--delete", "--json"))["caches"]
    assert {Path(each["path"]).name for each in caches} == (tokens | tokenizers) - {min(tokens)}
    assert {path.name for path in (cache / "tokens").iterdir()} == {min(tokens)}
    assert build(built, tiny_world.RECIPE) == []
    assert {path.name for path in (cache / "tokens").iterdir()} == tokens


@pytest.mark.parametrize("kind", ["manifests/b3", "results/b3", "journal", "claims"])
def test_a_damaged_record_stops_everything(superseded: Path, weightgate: Command, kind: str) -> None:
    path = sorted((superseded / ".weightgate" / kind).iterdir())[0]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"b3:", b"b4:", 1))
    before = names(superseded)
    for arguments in (["--json"], ["--delete"], ["--delete", "--older-than", "0", "--empty-trash"]):
        result = weightgate("gc", *arguments)
        assert result.exit_code == 2, result.output
    assert "mend:" in result.stderr
    assert str(path.name) in result.stderr
    assert names(superseded) == before


def test_a_damaged_claim_is_found_and_written_again(built: Path, weightgate: Command) -> None:
    [path] = (built / ".weightgate" / "claims").iterdir()
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-2])
    result = weightgate("verify")
    assert result.exit_code == 1
    assert "claim on the store cannot be read" in " ".join(result.output.split())
    assert weightgate("build").exit_code == 0
    assert json.loads(path.read_bytes())["checkpoints"] == json.loads(whole)["checkpoints"]
    assert weightgate("verify").exit_code == 0


def test_a_store_that_may_only_be_read_is_looked_at(superseded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal of the disk is played."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    store = Store.open(superseded / ".weightgate")
    for name in ("create", "link", "replace", "unlink", "make_folder", "remove_folder", "touch"):
        monkeypatch.setattr(store.fs, name, refuse)
    policy = Policy(older_than_days=0)
    kept = keep_house(store, superseded, policy, delete=False)
    assert len(kept.collected.leaving) == 3
    assert "could be freed" in str(housekeeping_page(kept))
    before = names(superseded)
    with pytest.raises(Exception, match="the disk refused"):
        keep_house(store, superseded, policy, delete=True)
    assert names(superseded) == before


def test_what_killed_exports_left_is_cleaned_up(built: Path, weightgate: Command) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as finished:
        pass
    left = f"{host_name()}-{finished.pid}-00ff"
    half, replaced, moved_aside, mine = (
        built / name for name in (f".tuned.{left}", f".tuned.{left}.old", f".lost.{left}.old", ".tuned.notes")
    )
    for folder in (half, replaced, moved_aside, mine, built / "tuned"):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"0" * 1000)
    found = told(weightgate("gc", "--json"))["half_written"]
    assert {Path(each["path"]).name for each in found} == {half.name, replaced.name, moved_aside.name}
    assert weightgate("gc", "--delete").exit_code == 0
    assert [path.exists() for path in (half, replaced, moved_aside, mine)] == [False, False, False, True]
    assert (built / "lost" / "model.safetensors").is_file(), "the only copy goes back to its place"

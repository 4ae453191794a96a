"""Whatever breaks in a store is found by `verify`, told by `build`, and mended by what the message says."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

import tiny_world
from weightgate.lineage import open_store, verification_page
from weightgate.store import Store, TensorData, write_resume_point
from weightgate.store.records import measured_key

Command = Callable[..., Result]

FLIPS = 5
"""Per kind of file, at places drawn at random."""


def flip(path: Path, position: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


def one_of_each_kind(root: Path) -> Iterator[Path]:
    patterns = ("objects/**/*", "manifests/b3/*", "results/b3/*", "journal/*.json", "cache/tokenizers/*.json")
    patterns += (
        "resume/*/*",
        "cache/tokens/**/rows.json",
        "cache/tokens/**/tokens.bin",
        "cache/tokens/*/prepared.json",
    )
    for pattern in patterns:
        yield next(path for path in sorted(root.glob(pattern)) if path.is_file() and path.stat().st_size)
    yield root / "store.json"


def found(folder: Path) -> bool:
    """Whether `verify` finds something, or refuses to read the store at all."""
    try:
        _, problems = verification_page(open_store(folder / "weightgate.yaml"), contents=True)
    except Exception as error:
        return type(error).__name__ in ("CorruptError", "StoreError")
    return bool(problems)


def test_a_flipped_bit_is_found_in_every_kind_of_file(built: Path) -> None:
    root = built / ".weightgate"
    (root / "resume" / "run").mkdir(parents=True)
    point = {"weights": TensorData(dtype="U8", shape=(40,), data=bytes(40))}
    write_resume_point(root / "resume" / "run", point, {"epoch": 1}, 3)
    assert not found(built)
    rng = random.Random(7)
    for path in one_of_each_kind(root):
        whole = path.read_bytes()
        for position in rng.sample(range(len(whole)), FLIPS):
            flip(path, position)
            assert found(built), f"{path}: byte {position}"
            path.write_bytes(whole)
    assert not found(built)


def test_a_store_in_which_nothing_was_built_is_not_called_whole(world: Path, weightgate: Command) -> None:
    assert weightgate("lock").exit_code == 0
    result = weightgate("verify")
    assert result.exit_code == 0
    assert "nothing has been built yet, so there is nothing to verify" in result.output
    assert "whole" not in result.output


def test_a_damaged_index_is_found_or_changes_no_answer(built: Path) -> None:
    """Much of a database file is empty; a bit that flips there is nobody's loss."""
    path, whole = built / ".weightgate" / "index.sqlite", (built / ".weightgate" / "index.sqlite").read_bytes()
    answers = Store.open(built / ".weightgate").results(measured_key(Store.open(built / ".weightgate").refs()["align"]))
    rng, seen = random.Random(8), 0
    for position in rng.sample([at for at, byte in enumerate(whole) if byte], 20):
        flip(path, position)
        if found(built):
            seen += 1
        else:
            store = Store.open(built / ".weightgate")
            assert store.results(measured_key(store.refs()["align"])) == answers
        path.write_bytes(whole)
    assert seen >= 10


def test_a_history_that_lost_its_newest_entries_is_found_and_mended(built: Path, weightgate: Command) -> None:
    refs = Store.open(built / ".weightgate").refs()
    sorted((built / ".weightgate" / "journal").iterdir())[-1].unlink()
    result = weightgate("verify")
    assert result.exit_code == 1
    assert "was judged, but no entry of the refs' history tells of it" in " ".join(result.output.split())
    assert weightgate("build").exit_code == 0
    assert Store.open(built / ".weightgate").refs() == refs
    assert weightgate("verify").exit_code == 0


def test_a_history_beyond_repair_is_made_again(built: Path, weightgate: Command) -> None:
    refs = Store.open(built / ".weightgate").refs()
    journal = built / ".weightgate" / "journal"
    flip(sorted(journal.iterdir())[0], 50)
    result = weightgate("build")
    assert result.exit_code == 2
    assert "move it away, and weightgate build sets the refs of its stages again" in result.stderr
    shutil.move(journal, built / "away")
    assert weightgate("build").exit_code == 0
    assert Store.open(built / ".weightgate").refs() == refs


@pytest.mark.parametrize("shelf", ["manifests", "results"])
def test_a_damaged_record_is_told_and_made_again(built: Path, weightgate: Command, shelf: str) -> None:
    store = Store.open(built / ".weightgate")
    checkpoint = store.refs()["finetune"]
    key = str(store.manifest(checkpoint).inputs["key"])
    told = [each for each in store.result_records.digests() if store.read_result(each).key == key]
    flip(store.manifests.path(checkpoint) if shelf == "manifests" else store.result_records.path(told[0]), 40)
    result = weightgate("build")
    assert result.exit_code == 2, result.output
    assert "weightgate build --restart" in result.stderr
    assert weightgate("build", "--restart").exit_code == 0
    assert weightgate("verify").exit_code == 0
    assert Store.open(built / ".weightgate").refs()["finetune"] == checkpoint


def test_a_damaged_base_model_is_stored_again(world: Path, weightgate: Command, base_folder: Path) -> None:
    shutil.copytree(base_folder, world / "model")
    tiny_world.write_recipe(world, tiny_world.from_base(Path("model"), adapter={"rank": 2}))
    assert weightgate("lock").exit_code == 0
    assert weightgate("build", "--until", "finetune").exit_code == 0
    store = Store.open(world / ".weightgate")
    [base] = [each for each in store.lineage() if each.stage == "base"]
    assert "damaged" not in weightgate("plan", "--no-probe").output
    flip(store.objects.path(base.tensors["model.norm.weight"].parts[0]), 3)
    assert weightgate("verify").exit_code == 1
    page = " ".join(weightgate("plan", "--no-probe").output.split())
    assert "The checkpoint of base is damaged or not all there, and `weightgate build` would stop" in page
    stopped = weightgate("build", "--until", "finetune")
    assert stopped.exit_code == 2
    assert "the checkpoint of the base model is damaged" in stopped.stderr
    assert "weightgate build --restart" in stopped.stderr
    assert weightgate("build", "--until", "finetune", "--restart").exit_code == 0
    assert weightgate("verify").exit_code == 0

"""Damage is seen by `plan` and `build` before it costs anything, and both name what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from weightgate.store import Store

Command = Callable[..., Result]
ALL = ["pretrain", "finetune", "reward", "align"]


def an_object(folder: Path, stage: str = "finetune") -> Path:
    store = Store.open(folder / ".weightgate")
    manifest = store.manifest(store.refs()[stage])
    return store.objects.path(manifest.tensors["model.norm.weight"].parts[0])


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def states(weightgate: Command) -> tuple[dict[str, str], str]:
    """What `plan` says of every stage, and all it says."""
    result = weightgate("plan", "--no-probe", "--json")
    assert result.exit_code == 0, result.output
    table = next(block for block in json.loads(result.output)["blocks"] if block["block"] == "table")
    return {row[0].split()[0]: row[1]["text"] for row in table["rows"]}, result.output


def mended(folder: Path, weightgate: Command) -> None:
    result = weightgate("build")
    assert result.exit_code == 2
    assert "weightgate build --restart" in result.stderr
    before = Store.open(folder / ".weightgate").refs()
    assert weightgate("build", "--restart").exit_code == 0
    assert states(weightgate)[0] == dict.fromkeys(ALL, "fresh")
    assert Store.open(folder / ".weightgate").refs() == before
    assert weightgate("verify").exit_code == 0


def test_an_object_that_is_cut_short_is_seen_without_hashing(built: Path, weightgate: Command) -> None:
    cut(an_object(built))
    found, page = states(weightgate)
    assert found == dict.fromkeys(ALL, "fresh") | {"finetune": "corrupt"}
    assert "1 objects are damaged" in page
    assert "1 of 4 stages would be built" in page
    assert "`weightgate build --restart` makes it again" in page
    mended(built, weightgate)


def test_an_object_that_is_gone_is_missing(built: Path, weightgate: Command) -> None:
    an_object(built).unlink()
    found, page = states(weightgate)
    assert found == dict.fromkeys(ALL, "fresh") | {"finetune": "missing"}
    assert "`weightgate build --restart` makes it again" in page
    mended(built, weightgate)


def test_a_flipped_bit_is_seen_once_it_was_found(built: Path, weightgate: Command) -> None:
    flip(an_object(built))
    assert states(weightgate)[0]["finetune"] == "fresh", "only hashing everything can know"
    assert weightgate("verify").exit_code == 1
    assert states(weightgate)[0] == dict.fromkeys(ALL, "fresh") | {"finetune": "corrupt"}
    mended(built, weightgate)


def test_what_was_mended_otherwise_is_not_called_damaged(built: Path, weightgate: Command) -> None:
    path = an_object(built)
    whole = path.read_bytes()
    flip(path)
    assert weightgate("verify").exit_code == 1
    path.write_bytes(whole)
    assert states(weightgate)[0]["finetune"] == "fresh"
    assert weightgate("build").exit_code == 0


@pytest.mark.parametrize("shelf", ["manifests", "results"])
def test_a_damaged_record_of_a_stage_is_seen(built: Path, weightgate: Command, shelf: str) -> None:
    store = Store.open(built / ".weightgate")
    checkpoint = store.refs()["finetune"]
    key = str(store.manifest(checkpoint).inputs["key"])
    told = next(each for each in store.result_records.digests() if store.read_result(each).key == key)
    flip(store.manifests.path(checkpoint) if shelf == "manifests" else store.result_records.path(told))
    assert states(weightgate)[0]["finetune"] == "corrupt"
    mended(built, weightgate)


def test_a_log_shows_what_can_be_read_and_names_the_rest(built: Path, weightgate: Command) -> None:
    store = Store.open(built / ".weightgate")
    finetune, align = store.refs()["finetune"], store.refs()["align"]
    key = str(store.manifest(align).inputs["key"])
    told = next(each for each in store.result_records.digests() if store.read_result(each).key == key)
    flip(store.manifests.path(finetune))
    flip(store.result_records.path(told))
    result = weightgate("log", "--json")
    assert result.exit_code == 1
    headline, table, findings = json.loads(result.stdout)["blocks"]
    assert headline["text"] == "3 checkpoints, and 2 records that cannot be read"
    stages = [row[0].split()[0] for row in table["rows"]]
    assert sorted(stages) == ["align", "pretrain", "reward"], "what stood on the damaged one stands at the root"
    assert [row[4]["text"] for row in table["rows"] if row[0].startswith("align")] == ["damaged"]
    checkpoint, record = findings["findings"]
    assert f"{finetune} (finetune)" in checkpoint["headline"]
    assert "weightgate build --restart" in checkpoint["detail"]
    assert told in record["headline"]
    assert weightgate("build", "--restart").exit_code == 0
    assert weightgate("log").exit_code == 0


def test_a_log_does_without_the_history_of_the_refs(built: Path, weightgate: Command) -> None:
    flip(sorted((built / ".weightgate" / "journal").iterdir())[0])
    result = weightgate("log")
    assert result.exit_code == 1
    assert all(stage in result.output for stage in ALL)
    assert "copy the journal from a backup" in " ".join(result.output.split())


def test_damage_of_another_stage_does_not_stop_a_plan(built: Path, weightgate: Command) -> None:
    """A record of which nobody can say what stage it was is left to `verify`."""
    store = Store.open(built / ".weightgate")
    flip(store.manifests.path(store.refs()["align"]))
    recipe = (built / "weightgate.yaml").read_text().replace("seed: 3", "seed: 4")
    (built / "weightgate.yaml").write_text(recipe)
    found, _ = states(weightgate)
    assert (found["pretrain"], found["finetune"], found["align"]) == ("stale", "stale", "missing")

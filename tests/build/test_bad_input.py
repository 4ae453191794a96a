"""Input that no run should survive silently, and disks that fill up: a message, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import tiny_world
from weightgate.data.files import MAX_LINE_BYTES
from weightgate.store import Store, read_newest
from weightgate.store.fs import LocalFs, LocalWriter

Command = Callable[..., Result]

ROW = json.dumps({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]})


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (f"{ROW}\n{ROW[:-3]}\n".encode(), ("finetune.jsonl:2", "expected:")),
        (b"", ("finetune.jsonl", "empty", "expected: at least one record")),
        (
            b'{"question": "a?", "reply": "b."}\n',
            ("finetune.jsonl:1", "wrong columns", "columns question, reply"),
        ),
        (f"{ROW}\n".encode() + b'{"prompt": "\xff\xfe"}\n', ("finetune.jsonl:2", "not UTF-8", "byte 0xff")),
        (
            f"{ROW}\n".encode() + b" " * (MAX_LINE_BYTES + 1),
            ("finetune.jsonl:2", "too long", "10,000,000 bytes"),
        ),
        (b"[1, 2]\n", ("finetune.jsonl:1", "expected:")),
    ],
    ids=["malformed", "empty", "columns", "encoding", "long line", "no object"],
)
def test_unreadable_data_is_located(
    world: Path, weightgate: Command, content: bytes, fragments: tuple[str, ...]
) -> None:
    (world / "finetune.jsonl").write_bytes(content)
    result = weightgate("lock")
    assert result.exit_code == 2, result.output
    assert all(fragment in result.stderr for fragment in fragments), result.stderr
    assert not (world / "weightgate.lock").exists()


def test_a_missing_file_is_named(world: Path, weightgate: Command) -> None:
    (world / "prompts.jsonl").unlink()
    result = weightgate("lock")
    assert result.exit_code == 2
    assert "prompts.jsonl" in result.stderr


@pytest.mark.parametrize("stage", ["pretrain", "reward", "align"])
def test_a_loss_that_is_not_finite_stops_and_names_the_records(world: Path, weightgate: Command, stage: str) -> None:
    absurd = {"optimizer": {"learning_rate": 1e38, "clip_norm": 1e38}, "schedule": {"warmup": 0.5}}
    tiny_world.write_recipe(world, tiny_world.changed(stage, **absurd))
    assert weightgate("lock").exit_code == 0
    result = weightgate("build")
    assert result.exit_code == 1, result.output
    failed_at = re.search(r"step (\d+): .* not finite.* learns from \d+ records, .*: \d+, \d+", result.stderr)
    assert failed_at, result.stderr
    points = [read_newest(folder) for folder in (world / ".weightgate" / "resume").iterdir()]
    kept = [point for point in points if point is not None]
    # A step that fails first has its parent to go back to, and nothing else.
    assert [point.step for point in kept] == [int(failed_at[1])] * (int(failed_at[1]) > 0)
    for point in kept:
        for name, tensor in point.tensors.items():
            if tensor.dtype == "F32":
                assert np.isfinite(np.frombuffer(tensor.data, np.float32)).all(), name
    assert stage not in Store.open(world / ".weightgate").refs()


class FullDisk:
    """Lets writes through until armed, then refuses in the middle of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: Callable[[Path], bool]) -> None:
        self.armed = True
        self.refused: list[Path] = []
        genuine = LocalFs.create

        def create(fs: LocalFs, path: Path, mode: int) -> LocalWriter:
            writer = genuine(fs, path, mode)
            if self.armed and wanted(path):
                self.refused.append(path)
                monkeypatch.setattr(writer, "write", lambda data: _fill_up(writer, data), raising=False)
            return writer

        monkeypatch.setattr(LocalFs, "create", create)


def _fill_up(writer: LocalWriter, data: Any) -> None:
    LocalWriter.write(writer, memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["resume", "tmp"], ids=["resume point", "publish"])
def test_a_disk_that_fills_up_loses_nothing(
    world: Path, weightgate: Command, finished: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    assert weightgate("lock").exit_code == 0
    assert weightgate("build", "--until", "pretrain").exit_code == 0
    seen: list[Path] = []

    def third_write(path: Path) -> bool:
        if place in path.parts:
            seen.append(path)
        return place in path.parts and len(seen) == 3

    disk = FullDisk(monkeypatch, third_write)
    result = weightgate("build")
    assert disk.refused
    assert result.exit_code == 2, result.output
    assert "the disk is full" in result.stderr
    assert "run the same command again" in result.stderr
    store = Store.open(world / ".weightgate")
    assert store.verify(contents=True) == []
    assert not disk.refused[0].exists()
    disk.armed = False
    assert weightgate("build").exit_code == 0
    assert Store.open(world / ".weightgate").refs() == Store.open(finished / ".weightgate").refs()

"""Resume points: the newest whole one comes back exactly, whatever happened to the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crash_fs import CrashFs, Folder, survivors

from weightgate.errors import StoreError
from weightgate.store import TensorData, clear, read_newest, write_resume_point

FOLDER = Path("/project/resume")


def tensors(step: int) -> dict[str, TensorData]:
    return {
        "model.w": TensorData(dtype="BF16", shape=(2, 300), data=bytes([step % 256]) * 1200),
        "generator": TensorData(dtype="U8", shape=(5,), data=bytes(range(5))),
    }


def write(folder: Path, step: int, fs: CrashFs | None = None) -> None:
    state: dict[str, Any] = {"kl": 0.1 + 0.2, "step": step, "loss": float("inf")}
    write_resume_point(folder, tensors(step), state, step, fs=fs)


def newest_step(folder: Path) -> int | None:
    point = read_newest(folder)
    return None if point is None else point.step


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_tensors_and_floats_come_back_exactly(tmp_path: Path) -> None:
    write_resume_point(tmp_path / "r", tensors(3), {"kl": 0.1 + 0.2, "worst": math.nan, "seen": [1, None]}, 3)
    point = read_newest(tmp_path / "r")
    assert point is not None
    assert point.step == 3
    assert {name: bytes(each.view()) for name, each in point.tensors.items()} == {
        name: bytes(each.view()) for name, each in tensors(3).items()
    }
    assert point.state["kl"] == 0.1 + 0.2
    assert math.isnan(point.state["worst"])
    assert not point.tensors["model.w"].view().readonly


def test_only_the_newest_two_are_kept_and_clear_takes_those(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not ours")
    for step in (9, 10, 100, 11):
        write(tmp_path, step)
    assert [path.name[:15] for path in files(tmp_path)] == ["notes.txt", "step-0000000010", "step-0000000011"]
    assert newest_step(tmp_path) == 11, "a point beyond the step just written belongs to a run that was given up"
    clear(tmp_path)
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]
    assert read_newest(tmp_path) is None
    assert read_newest(tmp_path / "absent") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:],
        lambda data: data + b"0",
    ],
)
def test_a_damaged_newest_falls_back(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    newest = files(tmp_path)[-1]
    newest.chmod(0o644)
    newest.write_bytes(change(newest.read_bytes()))
    assert newest_step(tmp_path) == 10
    write(tmp_path, 15)
    assert newest_step(tmp_path) == 15
    assert len(files(tmp_path)) == 2


def test_the_same_step_may_be_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        write(tmp_path, 5)
    assert newest_step(tmp_path) == 5
    assert len(files(tmp_path)) == 1


def test_no_crash_loses_an_acknowledged_point() -> None:
    project = Folder()
    fs = CrashFs(keep_history=True, root=Folder({"project": project}, {"project": project}))
    acknowledged = [(0, 0)]
    for step in (1, 2, 3, 4):
        write(FOLDER, step, fs)
        acknowledged.append((fs.operations, step))
    for crash_at, before in enumerate(fs.history):
        sure = max(step for when, step in acknowledged if when <= crash_at)
        for what, left in survivors(before, num_random=6, seed=crash_at):
            point = read_newest(FOLDER, fs=left)
            found = 0 if point is None else point.step
            assert found in (sure, sure + 1), f"crash before operation {crash_at}, {what}"


def test_a_full_disk_keeps_the_earlier_points() -> None:
    fs = CrashFs(root=Folder({"project": Folder()}))
    write(FOLDER, 1, fs)
    fs.capacity_bytes = 2000
    with pytest.raises(StoreError, match="disk is full"):
        write(FOLDER, 2, fs)
    point = read_newest(FOLDER, fs=fs)
    assert point is not None
    assert point.step == 1
    assert len(fs.names(FOLDER)) == 1


def test_a_negative_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negative"):
        write(tmp_path, -1)

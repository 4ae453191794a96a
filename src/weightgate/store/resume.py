"""Resume points: what a training loop needs to go on after a crash as if nothing had happened.

    <folder>/step-0000000123-<64 hex>.safetensors

One file a point, its BLAKE3 in its name, so a single link publishes it whole and a torn one gives itself away. State
that is not a tensor goes as JSON into the header. Nothing here is a pickle.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.errors import DataError
from weightgate.store.digest import ALGORITHM, digest_bytes
from weightgate.store.fs import Fs, LocalFs, is_orphan, make_durable_folder, publish_temporary
from weightgate.store.records import TensorData
from weightgate.store.tensor_files import parse_safetensors, write_safetensors_temporary

KEPT_POINTS = 2
"""The newest, and one to fall back on where the newest turns out damaged."""

_NAME = re.compile(r"step-(\d{10,})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A training loop's state after `step` updates. `state` is JSON; its floats, NaN included, come back exactly."""

    step: int
    tensors: dict[str, TensorData]
    state: dict[str, Any]


@dataclass(frozen=True, kw_only=True, order=True)
class _Point:
    step: int
    digest: str
    path: Path


def write_resume_point(
    folder: Path, tensors: Mapping[str, TensorData], state: Mapping[str, Any], step: int, *, fs: Fs | None = None
) -> None:
    """Keep a resume point durably, then drop all but the newest `KEPT_POINTS` up to `step`.

    Points beyond `step` belong to a run that was given up, and go too. The folder's parent must exist. Raises
    `StoreError` when the disk is full (earlier points stay) and `ValueError` for a negative step.
    """
    if step < 0:
        raise ValueError(f"step {step} is negative")
    disk = fs or LocalFs()
    make_durable_folder(disk, folder)
    _sweep(disk, folder)
    metadata = {"step": str(step), "state": json.dumps(dict(state))}
    temporary = write_safetensors_temporary(disk, folder, tensors, metadata)
    written = temporary.digest.partition(":")[2]
    target = folder / f"step-{step:010d}-{written}.safetensors"
    publish_temporary(disk, temporary, target, replace=True)
    others = [point for point in _points(disk, folder) if point.path != target]
    fallbacks = [point for point in others if point.step <= step][: KEPT_POINTS - 1]
    for point in others:
        if point not in fallbacks:
            disk.unlink(point.path)


def read_newest(folder: Path, *, fs: Fs | None = None) -> ResumePoint | None:
    """Return the newest resume point whose bytes are whole, or None where there is none."""
    disk = fs or LocalFs()
    for point in _points(disk, folder):
        if (found := _read_whole(disk, point)) is not None:
            return found
    return None


def checked_points(fs: Fs, folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the file name of every resume point in a folder, and whether its bytes are the ones that were written."""
    for point in _points(fs, folder):
        yield point.path.name, _read_whole(fs, point) is not None


def clear(folder: Path, *, fs: Fs | None = None) -> None:
    """Remove every resume point of a stage that is done, and the folder."""
    disk = fs or LocalFs()
    for point in _points(disk, folder):
        disk.unlink(point.path)
    _sweep(disk, folder)
    with contextlib.suppress(OSError):  # not there, or not empty: then it is not ours alone
        disk.remove_folder(folder)


def _points(fs: Fs, folder: Path) -> list[_Point]:
    """Return the points in the folder, newest first; other files are not ours to touch."""
    points = []
    for name in fs.names(folder):
        if match := _NAME.fullmatch(name):
            points.append(_Point(step=int(match[1]), digest=f"{ALGORITHM}:{match[2]}", path=folder / name))
    return sorted(points, reverse=True)


def _read_whole(fs: Fs, point: _Point) -> ResumePoint | None:
    """Return the point, or None where its bytes cannot be read or are not the ones that were written."""
    try:
        data = fs.read(point.path)
        if digest_bytes(data) != point.digest:
            return None
        file = parse_safetensors(data, where=str(point.path))
        state = json.loads(file.metadata["state"])
    except (OSError, DataError, KeyError, ValueError):
        return None
    return ResumePoint(step=point.step, tensors=file.tensors, state=state)


def _sweep(fs: Fs, folder: Path) -> None:
    """Remove what writers that were killed left half-written: a resume point can be as large as three models."""
    for name in filter(is_orphan, fs.names(folder)):
        fs.unlink(folder / name)

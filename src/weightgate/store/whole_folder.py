"""Folders that are there whole or not at all: written beside their place, and moved there when they are complete.

<parent>/.<name>.<host>-<process>-<random>         being written
<parent>/.<name>.<host>-<process>-<random>.old     what stood in its place, until the new one does
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weightgate.store.fs import is_orphan, temporary_name

_OLD = ".old"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write into; where the block ends well, it is made durable and takes the place of `folder`.

    What killed processes left beside it is cleaned up first. Raises `OSError` where the disk refuses; what stood in the
    place is then still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep_beside(folder.parent)
    temporary = folder.parent / f".{folder.name}.{temporary_name()}"
    temporary.mkdir()
    try:
        yield temporary
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def leftovers(parent: Path) -> list[Path]:
    """Return what processes of this host that are gone left half-written, or moved aside, in a folder."""
    with contextlib.suppress(OSError):
        return sorted(path for path in parent.iterdir() if _is_left_behind(path.name) and path.is_dir())
    return []


def sweep_beside(parent: Path) -> None:
    """Remove those leftovers; what was moved aside and never replaced goes back to its place."""
    for path in leftovers(parent):
        place = parent / _name_of_place(path.name)
        if path.name.endswith(_OLD) and not place.exists():
            path.rename(place)
        else:
            shutil.rmtree(path, ignore_errors=True)


def size_bytes(folder: Path) -> int:
    """Return the length of all files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if not path.is_dir() else 0
    return total


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") and is_orphan(name.removesuffix(_OLD).rpartition(".")[2])


def _name_of_place(name: str) -> str:
    return name.removesuffix(_OLD).rpartition(".")[0].removeprefix(".")


def _put_in_place(temporary: Path, folder: Path) -> None:
    """What stood there goes only once the new folder is complete on disk."""
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    old = folder.parent / f"{temporary.name}{_OLD}"
    if folder.is_dir():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.is_dir():
            old.rename(folder)
        raise
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Garbage collection: what no ref, past or present, and no result needs goes to the trash, and later for good.

Two phases, because collecting is where stores lose data: the trash is read again by anyone who still wants an object
(`Shelf.contains`), so a mistake or a race costs a move back, not the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from weightgate.errors import StoreError
from weightgate.store.fs import Fs, is_orphan
from weightgate.store.journal import Journal
from weightgate.store.objects import Shelf
from weightgate.store.records import Manifest, Result

DAY_SECONDS = 24 * 3600.0
GRACE_SECONDS = 14 * DAY_SECONDS
"""An object younger than this is left alone: a stage that runs now may be about to need it."""
TRASH_SECONDS = 7 * DAY_SECONDS
"""What has lain in the trash for longer is deleted."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What garbage collection did, or with `dry_run` would do. Sizes in bytes, of objects and checkpoints together."""

    dry_run: bool
    kept: int
    kept_bytes: int
    young: int
    trashed: tuple[str, ...]
    trashed_bytes: int
    purged: int
    purged_bytes: int
    temporaries_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self)) | {"trashed": list(self.trashed)}


def collect(
    objects: Shelf,
    manifests: Shelf,
    results: Shelf,
    journal: Journal,
    *,
    dry_run: bool,
    grace_seconds: float,
    trash_seconds: float,
) -> Collected:
    """Mark from every ref, every place a ref ever stood and every result; move the rest to the trash; empty old trash.

    Raises `StoreError` or `CorruptError`, having moved nothing, when a record that says what is needed cannot be
    read: guessing there would delete what it needed.
    """
    live_manifests, live_objects = _mark(manifests, _roots(results, journal, manifests))
    dead = [(manifests, each) for each in _children_first(manifests, live_manifests)]
    dead += [(objects, each) for each in objects.digests() if each not in live_objects]
    old = [(shelf, each) for shelf, each in dead if shelf.age_seconds(each) >= grace_seconds]
    sizes = {each: shelf.fs.size_bytes(shelf.path(each)) for shelf, each in dead}
    now = datetime.fromtimestamp(objects.clock(), UTC)
    # Measured first: it takes back from the trash what an earlier collection took while somebody was publishing it.
    kept_bytes = _total_bytes(manifests, live_manifests) + _total_bytes(objects, live_objects)
    if not dry_run:
        _discard(old, now.date().isoformat(), grace_seconds)
    purged = _purge(objects.fs, objects.root / "trash", now, trash_seconds, dry_run=dry_run)
    return Collected(
        dry_run=dry_run,
        kept=len(live_manifests) + len(live_objects),
        kept_bytes=kept_bytes,
        young=len(dead) - len(old),
        trashed=tuple(each for _, each in old),
        trashed_bytes=sum(sizes[each] for _, each in old),
        purged=len(purged),
        purged_bytes=sum(purged),
        temporaries_bytes=sweep_temporaries(objects.fs, objects.root, dry_run=dry_run),
    )


def sweep_temporaries(fs: Fs, root: Path, *, dry_run: bool) -> int:
    """Remove the temporaries of processes of this host that are gone; return their bytes."""
    freed_bytes = 0
    for name in filter(is_orphan, fs.names(root / "tmp")):
        try:
            freed_bytes += fs.size_bytes(root / "tmp" / name)
            if not dry_run:
                fs.unlink(root / "tmp" / name)
        except FileNotFoundError:
            continue  # another sweep was faster
    return freed_bytes


def _roots(results: Shelf, journal: Journal, manifests: Shelf) -> set[str]:
    """Return the checkpoints that must stay."""
    past_and_present = {move.new for move in journal.moves() if move.new is not None}
    of_results = {Result.from_json(json.loads(results.read(digest))).checkpoint for digest in results.digests()}
    present = set(journal.refs().values())
    # A ref that was moved away from a checkpoint collected long ago is history; one that stands there now is damage.
    return {each for each in past_and_present | of_results if each in present or manifests.contains(each)}


def _mark(manifests: Shelf, roots: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the checkpoints and the objects reachable from `roots`."""
    live: set[str] = set()
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in live:
            continue
        manifest = Manifest.from_json(json.loads(manifests.read(digest)))
        live.add(digest)
        needed.update(manifest.objects())
        waiting.extend(manifest.ancestors())
    return live, needed


def _children_first(manifests: Shelf, live: set[str]) -> list[str]:
    """Return the dead checkpoints so that none outlives, even for a moment, a checkpoint it was made from."""
    dead = {digest: _ancestors(manifests, digest) for digest in manifests.digests() if digest not in live}
    ordered: list[str] = []
    while dead:
        needed = {ancestor for ancestors in dead.values() for ancestor in ancestors}
        free = sorted(set(dead) - needed)
        ordered += free
        for digest in free:
            del dead[digest]
    return ordered


def _ancestors(manifests: Shelf, digest: str) -> tuple[str, ...]:
    try:
        return Manifest.from_json(json.loads(manifests.read(digest))).ancestors()
    except (StoreError, ValueError):
        return ()  # damaged and needed by nobody


def _discard(old: list[tuple[Shelf, str]], day: str, grace_seconds: float) -> None:
    for shelf, digest in old:
        # Somebody may have put it again since the mark, which makes it young.
        if shelf.age_seconds(digest) >= grace_seconds:
            shelf.discard(digest, day)


def _purge(fs: Fs, trash: Path, now: datetime, trash_seconds: float, *, dry_run: bool) -> list[int]:
    """Delete the trash of days that are over for `trash_seconds`; return the size in bytes of each file deleted."""
    sizes: list[int] = []
    for day in filter(_DAY.fullmatch, fs.names(trash)):
        age_seconds = (now.date() - date.fromisoformat(day)).days * DAY_SECONDS
        if age_seconds < trash_seconds:
            continue
        for shelf in fs.names(trash / day):
            sizes += _purge_folder(fs, trash / day / shelf, dry_run=dry_run)
        if not dry_run:
            fs.remove_folder(trash / day)
    return sizes


def _purge_folder(fs: Fs, folder: Path, *, dry_run: bool) -> list[int]:
    sizes = []
    for name in fs.names(folder):
        sizes.append(fs.size_bytes(folder / name))
        if not dry_run:
            fs.unlink(folder / name)
    if not dry_run:
        fs.remove_folder(folder)
    return sizes


def _total_bytes(shelf: Shelf, digests: set[str]) -> int:
    """Return the bytes of those that are there; `verify` tells of those that are not."""
    return sum(shelf.size_bytes(digest) for digest in digests if shelf.contains(digest))

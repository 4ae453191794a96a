"""Garbage collection: what nothing needs goes to the trash, and later for good.

Two phases, because collecting is where stores lose data: the trash is read again by anyone who still wants something
in it (`Shelf.contains`, `take_back`), so a mistake or a race costs a move back, not the bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from weightgate.errors import StoreError
from weightgate.store.fs import Fs, is_orphan
from weightgate.store.holdings import Holdings
from weightgate.store.marks import Marks, Reason, mark
from weightgate.store.objects import Shelf
from weightgate.store.records import Manifest, Result

DAY_SECONDS = 24 * 3600.0
GRACE_SECONDS = 14 * DAY_SECONDS
"""What is younger than this is left alone: a stage that runs now may be about to need it."""
TRASH_SECONDS = 7 * DAY_SECONDS
"""What has lain in the trash for longer is deleted."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_PURGE_ORDER = ("results", "manifests", "objects")
"""What names others goes for good before what it names: a checkpoint that can be taken back is whole."""


@dataclass(frozen=True, kw_only=True)
class Ages:
    """From which age on, in seconds, things may go.

    Fields:
        grace: what nothing names.
        history: checkpoints that only results and earlier places of refs name; infinite: never.
        trash: what lies in the trash, counted in whole days.
    """

    grace: float = GRACE_SECONDS
    history: float = math.inf
    trash: float = TRASH_SECONDS


@dataclass(frozen=True, kw_only=True)
class Staying:
    """What stays for one reason. An object that several reasons keep counts for the strongest."""

    reason: Reason
    checkpoints: int
    objects: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """One checkpoint that goes; `size_bytes` counts its own record and the objects that go with it alone."""

    checkpoint: str
    stage: str
    age_seconds: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What garbage collection did, or with `dry_run` would do. Sizes in bytes.

    Fields:
        trashed: digests of what went to the trash: results, checkpoints and objects.
        purged: number of files that were deleted out of the trash.
    """

    dry_run: bool
    staying: tuple[Staying, ...]
    leaving: tuple[Leaving, ...]
    trashed: tuple[str, ...]
    trashed_bytes: int
    purged: int
    purged_bytes: int
    temporaries_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        lists = {"staying": [vars(each) for each in self.staying], "leaving": [vars(each) for each in self.leaving]}
        return dict(vars(self)) | lists | {"trashed": list(self.trashed)}


def collect(held: Holdings, ages: Ages, *, dry_run: bool) -> Collected:
    """Mark what must stay, move the rest to the trash, and empty old trash.

    Raises `StoreError` or `CorruptError`, having moved nothing, when a record that says what is needed cannot be
    read: guessing there would delete what it needed.
    """
    marks = mark(held, grace_seconds=ages.grace, history_seconds=ages.history)
    dead = list(_dead(held, marks))
    sizes = {digest: shelf.fs.size_bytes(shelf.path(digest)) for shelf, digest in dead}
    places = _places(held, marks)
    staying, leaving = _staying(held.fs, marks, places), _leaving(marks, sizes)
    now = datetime.fromtimestamp(held.objects.clock(), UTC)
    if not dry_run:
        _take_back_live(held, marks)
        _discard(dead, now.date().isoformat(), ages.grace)
    purged = _purge(held.fs, held.root / "trash", now, ages.trash, dry_run=dry_run, spared=set(places.values()))
    if dry_run and ages.trash <= 0:
        purged += sizes.values()
    return Collected(
        dry_run=dry_run,
        staying=staying,
        leaving=leaving,
        trashed=tuple(digest for _, digest in dead),
        trashed_bytes=sum(sizes.values()),
        purged=len(purged),
        purged_bytes=sum(purged),
        temporaries_bytes=sweep_temporaries(held.fs, held.root, dry_run=dry_run),
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


def take_back(held: Holdings, checkpoint: str) -> bool:
    """Bring a checkpoint back out of the trash with all that it needs and all that is known of it.

    Returns whether it is there now; where anything it needs was deleted for good, nothing is moved.
    """
    lineage = _lineage_or_none(held, checkpoint)
    if lineage is None:
        return False
    objects = {each for manifest in lineage.values() for each in manifest.objects()}
    if any(held.objects.locate(each) is None for each in objects):
        return False
    results = [digest for digest, result in _trashed_results(held) if result.checkpoint in lineage]
    # What is named comes back before what names it, as when it was published.
    ordered = ((held.objects, sorted(objects)), (held.manifests, reversed(_children_first(lineage))))
    for shelf, digests in (*ordered, (held.results, results)):
        for digest in digests:
            shelf.contains(digest)
    return True


def take_back_run(held: Holdings, key: str) -> bool:
    """Bring back the checkpoint that a run with this key gave, where collection has put it into the trash."""
    given = [result.checkpoint for _, result in _trashed_results(held) if result.key == key]
    return any(take_back(held, checkpoint) for checkpoint in given)


def _lineage_or_none(held: Holdings, checkpoint: str) -> dict[str, Manifest] | None:
    """Return a checkpoint's manifest and those of all it was made from; None where one is gone or damaged."""
    lineage: dict[str, Manifest] = {}
    waiting = [checkpoint]
    while waiting:
        digest = waiting.pop()
        if digest in lineage:
            continue
        try:
            lineage[digest] = Manifest.from_json(json.loads(held.manifests.peek(digest)))
        except (StoreError, ValueError):
            return None
        waiting.extend(lineage[digest].ancestors())
    return lineage


def _trashed_results(held: Holdings) -> Iterator[tuple[str, Result]]:
    """Yield the results in the trash that can be read; some lie there for being damaged."""
    for digest in held.results.trashed():
        try:
            yield digest, Result.from_json(json.loads(held.results.peek(digest)))
        except (StoreError, ValueError):
            continue


def _dead(held: Holdings, marks: Marks) -> Iterator[tuple[Shelf, str]]:
    """Yield what may go, in the order in which it may: at every moment what is left is whole."""
    gone = {digest: manifest for digest, manifest in marks.manifests.items() if digest not in marks.live}
    yield from ((held.results, each) for each, result in marks.results.items() if result.checkpoint in gone)
    yield from ((held.manifests, each) for each in _children_first(gone))
    yield from ((held.objects, each) for each in held.objects.digests() if each not in marks.needed)


def _children_first(manifests: Mapping[str, Manifest]) -> list[str]:
    """Order checkpoints so that none stands before one that was made from it."""
    children = Counter(ancestor for manifest in manifests.values() for ancestor in manifest.ancestors())
    free = sorted((digest for digest in manifests if not children[digest]), reverse=True)
    ordered: list[str] = []
    while free:
        ordered.append(free.pop())
        for ancestor in manifests[ordered[-1]].ancestors():
            children[ancestor] -= 1
            if not children[ancestor] and ancestor in manifests:
                free.append(ancestor)
    return ordered


def _take_back_live(held: Holdings, marks: Marks) -> None:
    """Bring back what an earlier collection took while somebody was publishing it."""
    for shelf, digests in ((held.objects, marks.needed), (held.manifests, marks.live)):
        for digest in digests:
            shelf.contains(digest)


def _discard(dead: list[tuple[Shelf, str]], day: str, grace_seconds: float) -> None:
    for shelf, digest in dead:
        # Somebody may have put it again since the mark, which makes it young.
        if shelf.age_seconds(digest) >= grace_seconds:
            shelf.discard(digest, day)


def _places(held: Holdings, marks: Marks) -> dict[str, Path]:
    """Return where everything lies that stays, on its shelf or in the trash. `verify` tells of what is missing."""
    places = {digest: held.manifests.locate(digest) for digest in marks.live}
    places |= {digest: held.objects.locate(digest) for digest in marks.needed}
    return {digest: place for digest, place in places.items() if place is not None}


def _staying(fs: Fs, marks: Marks, places: Mapping[str, Path]) -> tuple[Staying, ...]:
    """Sum up by reason."""
    sizes: Counter[Reason] = Counter()
    for digest, reason in (*marks.live.items(), *marks.needed.items()):
        sizes[reason] += fs.size_bytes(places[digest]) if digest in places else 0
    checkpoints, objects = Counter(marks.live.values()), Counter(marks.needed.values())
    return tuple(
        Staying(reason=each, checkpoints=checkpoints[each], objects=objects[each], size_bytes=sizes[each])
        for each in Reason
        if checkpoints[each] or objects[each]
    )


def _leaving(marks: Marks, sizes: Mapping[str, int]) -> tuple[Leaving, ...]:
    """Every checkpoint that goes, oldest first; an object that several of them share counts for the first."""
    gone = sorted(marks.manifests.keys() - marks.live.keys(), key=lambda each: (-marks.ages_seconds[each], each))
    counted: set[str] = set()
    leaving = []
    for digest in gone:
        own = (set(marks.manifests[digest].objects()) & sizes.keys()) - counted
        counted |= own
        leaving.append(
            Leaving(
                checkpoint=digest,
                stage=marks.manifests[digest].stage,
                age_seconds=marks.ages_seconds[digest],
                size_bytes=sizes[digest] + sum(sizes[each] for each in own),
            )
        )
    return tuple(leaving)


def _purge(
    fs: Fs, trash: Path, now: datetime, trash_seconds: float, *, dry_run: bool, spared: Collection[Path]
) -> list[int]:
    """Delete the trash of days that are over for `trash_seconds`; return the size in bytes of each file deleted.

    `spared` is what is needed and was taken back, or would be.
    """
    sizes: list[int] = []
    days = [day for day in filter(_DAY.fullmatch, fs.names(trash)) if _age_seconds(day, now) >= trash_seconds]
    for shelf in _PURGE_ORDER:
        for day in days:
            sizes += _purge_folder(fs, trash / day / shelf, dry_run=dry_run, spared=spared)
    if not dry_run:
        for day in days:
            fs.remove_folder(trash / day)
    return sizes


def _age_seconds(day: str, now: datetime) -> float:
    return (now.date() - date.fromisoformat(day)).days * DAY_SECONDS


def _purge_folder(fs: Fs, folder: Path, *, dry_run: bool, spared: Collection[Path]) -> list[int]:
    names = [name for name in fs.names(folder) if folder / name not in spared]
    sizes = [fs.size_bytes(folder / name) for name in names]
    if not dry_run and folder.name in fs.names(folder.parent):
        for name in names:
            fs.unlink(folder / name)
        fs.fsync_folder(folder)  # before anything that these files named is deleted
        fs.remove_folder(folder)
    return sizes

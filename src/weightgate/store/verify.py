"""What is wrong with a store, without changing it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.errors import StoreError
from weightgate.store.digest import ALGORITHM, digest_chunks, file_chunks, is_digest
from weightgate.store.fs import Fs
from weightgate.store.holdings import Holdings
from weightgate.store.journal import Journal, RefMove
from weightgate.store.objects import Shelf
from weightgate.store.records import WITHOUT_REF, Manifest, Result, measured_key
from weightgate.store.resume import checked_points

_BUILD_AGAIN = "weightgate build --restart makes it again, which gives the same bytes"
_TELL_AGAIN = "weightgate build --restart puts it aside and finds again what it told"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    `digest` is of the object, checkpoint or result; "journal" for the refs, "claims" for what recipes stand on.
    """

    digest: str
    what: str
    mend: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What is wrong with one checkpoint: digests of what it needs that is not there, and of what has other bytes."""

    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """All of them."""
        return self.damaged + self.missing


def flaws_of(held: Holdings, checkpoint: str, *, contents: bool, suspects: Collection[str] = ()) -> Flaws:
    """Look at one checkpoint and its objects, not at what it was made from.

    Lengths are compared; with `contents` every object is hashed, else the `suspects` alone.
    """
    try:
        manifest = Manifest.from_json(json.loads(held.manifests.read(checkpoint)))
    except (StoreError, ValueError):
        is_there = held.manifests.contains(checkpoint)
        return Flaws(damaged=(checkpoint,)) if is_there else Flaws(missing=(checkpoint,))
    sizes = manifest.objects()
    missing = [digest for digest in sizes if not held.objects.contains(digest)]
    there = [digest for digest in sizes if digest not in missing]
    damaged = [each for each in there if sizes[each] not in (None, held.objects.size_bytes(each))]
    hashed = (each for each in there if each not in damaged and (contents or each in suspects))
    damaged += [each for each in hashed if _hash_or_reason(held.objects.hash_of, each) != each]
    return Flaws(missing=tuple(missing), damaged=tuple(damaged))


def verify(held: Holdings, *, contents: bool) -> list[Problem]:
    """Return every problem found: records that cannot be read, objects missing, cut short or, with `contents`, changed.

    Without `contents` objects, resume points and the trash are looked up and measured but not read. Manifests, results
    and refs are always read.
    """
    objects = held.objects
    readable, problems = _read_manifests(held.manifests)
    problems += [
        problem for digest, each in readable.items() for problem in _check_manifest(digest, each, objects, readable)
    ]
    told, result_problems = _read_results(held.results)
    problems += result_problems
    problems += _check_results(told, readable)
    problems += _check_refs(held.journal, readable, told)
    problems += _check_claims(held)
    if contents:
        problems += _check_contents(objects, readable)
        problems += _check_resume_points(objects)
        problems += _check_trash(objects)
    return problems


def damaged_records(held: Holdings) -> list[Problem]:
    """Return the records that cannot be read: of checkpoints, of results, and of the refs' history."""
    _, problems = _read_manifests(held.manifests)
    return [*problems, *_read_results(held.results)[1], *_read_refs(held.journal)[1]]


def _read_manifests(shelf: Shelf) -> tuple[dict[str, Manifest], list[Problem]]:
    readable: dict[str, Manifest] = {}
    problems = []
    for digest in shelf.digests():
        try:
            readable[digest] = Manifest.from_json(json.loads(shelf.read(digest)))
        except (StoreError, ValueError) as error:
            problems.append(_unreadable(digest, "checkpoint", error, _BUILD_AGAIN))
    return readable, problems


def _check_manifest(
    digest: str, manifest: Manifest, objects: Shelf, readable: dict[str, Manifest]
) -> Iterator[Problem]:
    owner = f"checkpoint {digest[:15]} of stage {manifest.stage}"
    for ancestor in manifest.ancestors():
        if ancestor not in readable:
            yield Problem(digest=ancestor, what=f"missing, though {owner} was made from it", mend=_BUILD_AGAIN)
    for needed, size_bytes in manifest.objects().items():
        try:
            found = objects.size_bytes(needed)
        except StoreError:
            yield Problem(digest=needed, what=f"missing, though {owner} needs it", mend=_BUILD_AGAIN)
            continue
        if size_bytes is not None and found != size_bytes:
            what = f"{found} bytes long, though {owner} needs {size_bytes}"
            yield Problem(digest=needed, what=what, mend=_BUILD_AGAIN)


def _read_results(shelf: Shelf) -> tuple[dict[str, Result], list[Problem]]:
    readable: dict[str, Result] = {}
    problems = []
    for digest in shelf.digests():
        try:
            readable[digest] = Result.from_json(json.loads(shelf.read(digest)))
        except (StoreError, ValueError) as error:
            problems.append(_unreadable(digest, "result", error, _TELL_AGAIN))
    return readable, problems


def _check_results(results: dict[str, Result], readable: dict[str, Manifest]) -> Iterator[Problem]:
    for digest, result in results.items():
        if result.checkpoint not in readable:
            what = f"missing, though result {digest[:15]} is of it"
            yield Problem(digest=result.checkpoint, what=what, mend=_BUILD_AGAIN)


def _read_refs(journal: Journal) -> tuple[list[RefMove], list[Problem]]:
    try:
        return journal.moves(), []
    except StoreError as error:
        mend = error.mend or "copy the journal from a backup"
        return [], [Problem(digest="journal", what=str(error), mend=mend)]


def _check_refs(journal: Journal, readable: dict[str, Manifest], results: dict[str, Result]) -> Iterator[Problem]:
    moves, problems = _read_refs(journal)
    if problems:
        yield from problems
        return
    for name, target in journal.refs().items():
        if target not in readable:
            yield Problem(digest=target, what=f"missing, though ref {name} points to it", mend=_BUILD_AGAIN)
    # The chain shows a changed entry or a gap, but not that its newest entries are gone.
    named = {move.new for move in moves}
    judged = {result.checkpoint for result in results.values() if result.key == measured_key(result.checkpoint)}
    for checkpoint in sorted(judged & readable.keys() - named):
        if readable[checkpoint].stage_kind != WITHOUT_REF:
            what = f"checkpoint {checkpoint[:15]} was judged, but no entry of the refs' history tells of it"
            yield Problem(digest="journal", what=what, mend="weightgate build sets the ref again")


def _check_claims(held: Holdings) -> Iterator[Problem]:
    try:
        held.claims.read()
    except StoreError as error:
        yield Problem(digest="claims", what=f"{error.what}: {error.found}", mend=f"at {error.where}, {error.mend}")


def _check_contents(objects: Shelf, readable: dict[str, Manifest]) -> Iterator[Problem]:
    stages: dict[str, set[str]] = {}
    for manifest in readable.values():
        for needed in manifest.objects():
            stages.setdefault(needed, set()).add(manifest.stage)
    for digest in objects.digests():
        found = _hash_or_reason(objects.hash_of, digest)
        if found != digest:
            users = ", ".join(sorted(stages.get(digest, ()))) or "no checkpoint"
            yield Problem(digest=digest, what=f"changed on disk: {found} (used by {users})", mend=_BUILD_AGAIN)


def _check_resume_points(objects: Shelf) -> Iterator[Problem]:
    root = objects.root / "resume"
    for folder in objects.fs.names(root):
        for name, is_whole in checked_points(objects.fs, root / folder):
            if not is_whole:
                what = f"resume point {folder[:12]}/{name[:15]} changed on disk"
                yield Problem(digest=name, what=what, mend="weightgate build goes on from the point before it")


def _check_trash(objects: Shelf) -> Iterator[Problem]:
    """What lies in the trash may be taken back, so its bytes matter; results are put there for being damaged."""
    trash = objects.root / "trash"
    for path in _trashed(objects.fs, trash):
        digest = f"{ALGORITHM}:{path.name}"
        with objects.fs.open(path) as file:
            if digest_chunks(file_chunks(file)) != digest:
                yield Problem(digest=digest, what="changed on disk, in the trash", mend=f"remove {path}")


def _trashed(fs: Fs, trash: Path) -> Iterator[Path]:
    for day in fs.names(trash):
        for shelf in ("objects", "manifests"):
            yield from (trash / day / shelf / name for name in fs.names(trash / day / shelf))


def _hash_or_reason(hash_of: Callable[[str], str], digest: str) -> str:
    try:
        found = hash_of(digest)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return found if found == digest or not is_digest(found) else f"its bytes hash to {found[:15]}"


def _unreadable(digest: str, kind: str, error: Exception, mend: str) -> Problem:
    what = f"this {kind} cannot be read: {str(error).splitlines()[0]}"
    return Problem(digest=digest, what=what, mend=mend)

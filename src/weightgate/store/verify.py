"""What is wrong with a store, without changing it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from weightgate.errors import StoreError
from weightgate.store.digest import is_digest
from weightgate.store.journal import Journal
from weightgate.store.objects import Shelf
from weightgate.store.records import Manifest, Result

_BUILD_AGAIN = "weightgate build --restart makes it again, which gives the same bytes"
_TELL_AGAIN = "weightgate build --restart puts it aside and finds again what it told"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong. `digest` is of the object, checkpoint or result; for the refs, "journal"."""

    digest: str
    what: str
    mend: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


def verify(objects: Shelf, manifests: Shelf, results: Shelf, journal: Journal, *, contents: bool) -> list[Problem]:
    """Return every problem found: records that cannot be read, objects missing, cut short or, with `contents`, changed.

    Without `contents` objects are looked up and measured but not read. Manifests, results and refs are always read.
    """
    readable, problems = _read_manifests(manifests)
    problems += [
        problem for digest, each in readable.items() for problem in _check_manifest(digest, each, objects, readable)
    ]
    problems += _check_results(results, readable)
    problems += _check_refs(journal, readable)
    if contents:
        problems += _check_contents(objects, readable)
    return problems


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


def _check_results(shelf: Shelf, readable: dict[str, Manifest]) -> Iterator[Problem]:
    for digest in shelf.digests():
        try:
            result = Result.from_json(json.loads(shelf.read(digest)))
        except (StoreError, ValueError) as error:
            yield _unreadable(digest, "result", error, _TELL_AGAIN)
            continue
        if result.checkpoint not in readable:
            yield Problem(
                digest=result.checkpoint, what=f"missing, though result {digest[:15]} is of it", mend=_BUILD_AGAIN
            )


def _check_refs(journal: Journal, readable: dict[str, Manifest]) -> Iterator[Problem]:
    try:
        refs = journal.refs()
    except StoreError as error:
        yield Problem(digest="journal", what=str(error), mend=error.mend or "copy the journal from a backup")
        return
    for name, target in refs.items():
        if target not in readable:
            yield Problem(digest=target, what=f"missing, though ref {name} points to it", mend=_BUILD_AGAIN)


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


def _hash_or_reason(hash_of: Callable[[str], str], digest: str) -> str:
    try:
        found = hash_of(digest)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return found if found == digest or not is_digest(found) else f"its bytes hash to {found[:15]}"


def _unreadable(digest: str, kind: str, error: Exception, mend: str) -> Problem:
    what = f"this {kind} cannot be read: {str(error).splitlines()[0]}"
    return Problem(digest=digest, what=what, mend=mend)

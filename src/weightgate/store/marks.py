"""What must stay in a store, and why. The first reason that applies speaks for a checkpoint and for all it needs."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from weightgate.errors import CorruptError, StoreError
from weightgate.store.holdings import Holdings
from weightgate.store.records import Manifest, Result


class Reason(enum.StrEnum):
    """Why something stays, the strongest reason first."""

    REF = "a ref stands there"
    RECIPE = "the last build of a recipe took it"
    LINEAGE = "something that stays was made from it"
    HISTORY = "a result or an earlier place of a ref names it"
    RECENT = "made or used a short while ago"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a collection has read.

    Fields:
        manifests: every checkpoint that is there or needed, by id.
        results: every result, by digest.
        ages_seconds: checkpoint -> how long ago it, or what is known of it, was last written or used.
        live: checkpoint -> why it stays; checkpoints that are not in it may go.
        needed: object -> why it stays.
    """

    manifests: Mapping[str, Manifest]
    results: Mapping[str, Result]
    ages_seconds: Mapping[str, float]
    live: Mapping[str, Reason]
    needed: Mapping[str, Reason]


def mark(held: Holdings, *, grace_seconds: float, history_seconds: float) -> Marks:
    """Find what must stay. Nothing is moved, not even out of the trash.

    Raises `CorruptError` or `StoreError` when any record that may say what is needed cannot be read: guessing would
    delete what it needed.
    """
    manifests = {digest: _manifest(held, digest) for digest in held.manifests.digests()}
    results = {digest: _result(held, digest) for digest in held.results.digests()}
    ages = _ages(held, manifests, results)
    marking = _Marking(held, manifests)
    for reason, roots in _present_roots(held):
        marking.keep(roots, reason)
    marking.keep_ancestors(Reason.LINEAGE)
    for reason, roots in _past_roots(held, results, ages, grace_seconds, history_seconds):
        marking.keep(roots, reason)
        marking.keep_ancestors(reason)
    for digest in held.objects.digests():
        if digest not in marking.needed and held.objects.age_seconds(digest) < grace_seconds:
            marking.needed[digest] = Reason.RECENT
    return Marks(manifests=manifests, results=results, ages_seconds=ages, live=marking.live, needed=marking.needed)


class _Marking:
    """The marks of one collection while they grow."""

    def __init__(self, held: Holdings, manifests: dict[str, Manifest]) -> None:
        self._held = held
        self._manifests = manifests
        self.live: dict[str, Reason] = {}
        self.needed: dict[str, Reason] = {}

    def keep(self, checkpoints: Iterable[str], reason: Reason) -> None:
        """Mark checkpoints and their objects, those that are marked already with the stronger reason excepted."""
        for digest in checkpoints:
            if digest in self.live:
                continue
            if digest not in self._manifests:  # in the trash, or damage
                self._manifests[digest] = _manifest(self._held, digest)
            self.live[digest] = reason
            for each in self._manifests[digest].objects():
                self.needed.setdefault(each, reason)

    def keep_ancestors(self, reason: Reason) -> None:
        """Mark everything that what is marked was made from."""
        waiting = list(self.live)
        while waiting:
            ancestors = [each for each in self._manifests[waiting.pop()].ancestors() if each not in self.live]
            self.keep(ancestors, reason)
            waiting.extend(ancestors)


def _present_roots(held: Holdings) -> Iterator[tuple[Reason, Iterable[str]]]:
    yield Reason.REF, held.journal.refs().values()
    claims = [each for each in held.claims.read().values() if not held.claims.is_abandoned(each)]
    claimed = {checkpoint for claim in claims for checkpoint in claim.checkpoints.values()}
    # What a claim names may have been lost; then the next build makes it again.
    yield Reason.RECIPE, sorted(each for each in claimed if held.manifests.locate(each) is not None)


def _past_roots(
    held: Holdings,
    results: Mapping[str, Result],
    ages: Mapping[str, float],
    grace_seconds: float,
    history_seconds: float,
) -> Iterator[tuple[Reason, Iterable[str]]]:
    named = {result.checkpoint for result in results.values()}
    named |= {move.new for move in held.journal.moves() if move.new is not None}
    # What only history names and is not there was collected long ago.
    yield Reason.HISTORY, sorted(each for each in named & ages.keys() if ages[each] < history_seconds)
    # A stage that runs now may be about to name what nothing names yet.
    yield Reason.RECENT, sorted(each for each, age in ages.items() if age < grace_seconds)


def _ages(held: Holdings, manifests: Iterable[str], results: Mapping[str, Result]) -> dict[str, float]:
    ages = {digest: held.manifests.age_seconds(digest) for digest in manifests}
    for digest, result in results.items():
        if result.checkpoint in ages:
            ages[result.checkpoint] = min(ages[result.checkpoint], held.results.age_seconds(digest))
    return ages


def _manifest(held: Holdings, digest: str) -> Manifest:
    try:
        return Manifest.from_json(json.loads(held.manifests.peek(digest)))
    except (StoreError, ValueError) as error:
        raise _unreadable("checkpoint", held.manifests.locate(digest) or digest, error) from error


def _result(held: Holdings, digest: str) -> Result:
    try:
        return Result.from_json(json.loads(held.results.peek(digest)))
    except (StoreError, ValueError) as error:
        raise _unreadable("result", held.results.locate(digest) or digest, error) from error


def _unreadable(kind: str, where: object, error: Exception) -> CorruptError:
    return CorruptError(
        f"a {kind} cannot be read, so nobody can say what it needs, and nothing was collected",
        where=str(where),
        found=str(error).splitlines()[0],
        mend=f"weightgate build --restart; if the recipe no longer makes this {kind}, remove its file to give it up",
    )

"""Resume points of runs that are not done, and which of them somebody would still go on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weightgate.store.digest import ALGORITHM, is_digest
from weightgate.store.holdings import Holdings
from weightgate.store.resume import clear


@dataclass(frozen=True, kw_only=True)
class UnfinishedRun:
    """The resume points of one run. `reason` says why they stay, or why they may go."""

    key: str
    stays: bool
    reason: str
    size_bytes: int


def unfinished_runs(held: Holdings, has_given: Callable[[str], bool], *, grace_seconds: float) -> list[UnfinishedRun]:
    """Return every run that has resume points, and whether they must stay.

    Args:
        has_given: whether the run with a key has given its checkpoint.
        grace_seconds: points younger than this stay, whoever wrote them.

    Raises `CorruptError` for a claim that cannot be read.
    """
    claimed = _claimed_runs(held)
    return [_judged(held, key, claimed.get(key), has_given(key), grace_seconds) for key in _keys(held)]


def clear_run(held: Holdings, key: str) -> None:
    """Remove the resume points of one run."""
    clear(held.root / "resume" / _folder_name(key), fs=held.fs)


def _judged(held: Holdings, key: str, claim: str | None, is_finished: bool, grace_seconds: float) -> UnfinishedRun:
    folder = held.root / "resume" / _folder_name(key)
    names = held.fs.names(folder)
    size_bytes = sum(held.fs.size_bytes(folder / name) for name in names)
    newest = max((held.fs.modified_seconds(folder / name) for name in names), default=0.0)
    if is_finished:
        stays, reason = False, "the run is done"
    elif claim is not None:
        stays, reason = True, f"{claim} would go on from there"
    elif held.objects.clock() - newest < grace_seconds:
        stays, reason = True, "written a short while ago"
    else:
        stays, reason = False, "no recipe would go on from there"
    return UnfinishedRun(key=key, stays=stays, reason=reason, size_bytes=size_bytes)


def _claimed_runs(held: Holdings) -> dict[str, str]:
    """Return who would go on with a run: key -> stage and recipe."""
    return {
        key: f"stage {stage!r} of {claim.recipe}"
        for claim in held.claims.read().values()
        if not held.claims.is_abandoned(claim)
        for stage, key in claim.runs.items()
    }


def _keys(held: Holdings) -> Iterator[str]:
    names = (f"{ALGORITHM}:{name}" for name in held.fs.names(held.root / "resume"))
    return filter(is_digest, names)


def _folder_name(key: str) -> str:
    return key.partition(":")[2]

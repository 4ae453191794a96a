"""What a store could let go of and why the rest stays, as plain data and as a page; and letting go of it.

Refs go only by name: nobody else can know that a stage which no recipe has any more is not wanted.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.data.cached import META_FILE, TOKENIZERS, TOKENS
from weightgate.errors import StoreError
from weightgate.report.page import Block, Cell, Column, Headline, Page, Prose, Table
from weightgate.store import Ages, Claim, Collected, Store, UnfinishedRun
from weightgate.store.collect import DAY_SECONDS, GRACE_SECONDS, TRASH_SECONDS
from weightgate.store.fs import is_orphan, temporary_name
from weightgate.store.lease import unused
from weightgate.store.marks import Reason
from weightgate.store.records import FAILED
from weightgate.store.whole_folder import leftovers, size_bytes, sweep_beside

ALWAYS_KEPT_SECONDS = 3600.0
"""What is younger than this stays whatever is asked: a build on another machine, whose lease a network filesystem may
not show, may be about to name it."""

_SHOWN_CHECKPOINTS = 20


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may go.

    Fields:
        older_than_days: checkpoints that only history names may go from this age on, and everything else that needs
            an age from this one on too; None: history stays, the rest goes after 14 days.
        empty_trash: whether the trash is emptied whatever its age.
    """

    older_than_days: float | None = None
    empty_trash: bool = False

    def ages(self) -> Ages:
        """The ages that the store goes by."""
        asked = math.inf if self.older_than_days is None else self.older_than_days * DAY_SECONDS
        return Ages(
            grace=max(ALWAYS_KEPT_SECONDS, min(asked, GRACE_SECONDS)),
            history=max(ALWAYS_KEPT_SECONDS, asked),
            trash=0.0 if self.empty_trash else TRASH_SECONDS,
        )


@dataclass(frozen=True, kw_only=True)
class Spare:
    """One thing outside the checkpoints that can be made again, or that nobody will finish."""

    path: Path
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"path": str(self.path), "size_bytes": self.size_bytes}


@dataclass(frozen=True, kw_only=True)
class Housekeeping:
    """What went or, where nothing was asked to go, could go.

    Fields:
        runs: every run with resume points, those that stay included.
        caches: tokenised data and tokenizers that were not used for long; they are made again when they are needed.
        half_written: folders that killed processes left in the cache and beside exports.
        lapsed: recipes that built here and are no longer where they were; what only they used counts as history.
        stray: refs of stages that no recipe which builds here has any more.
        in_use: whether somebody is building or planning, so that nothing may go now.
    """

    dry_run: bool
    collected: Collected
    runs: tuple[UnfinishedRun, ...]
    caches: tuple[Spare, ...]
    half_written: tuple[Spare, ...]
    lapsed: tuple[str, ...]
    stray: tuple[str, ...]
    in_use: bool

    @property
    def freed_bytes(self) -> int:
        """What is free at once; the trash keeps what was only moved there."""
        spare = sum(each.size_bytes for each in (*self.caches, *self.half_written))
        runs = sum(run.size_bytes for run in self.runs if not run.stays)
        return spare + runs + self.collected.purged_bytes + self.collected.temporaries_bytes

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "dry_run": self.dry_run,
            "in_use": self.in_use,
            "freed_bytes": self.freed_bytes,
            "collected": self.collected.to_json(),
            "runs": [vars(run) for run in self.runs],
            "caches": [each.to_json() for each in self.caches],
            "half_written": [each.to_json() for each in self.half_written],
            "lapsed": list(self.lapsed),
            "stray": list(self.stray),
        }


def keep_house(store: Store, folder: Path, policy: Policy, *, delete: bool) -> Housekeeping:
    """Find what may go and, with `delete`, let go of it.

    Args:
        folder: where the recipe is, and the leftovers of exports may be.

    Raises `StoreError` when something is to go while somebody uses the store, or the trash is to be emptied where
    nobody can know; `CorruptError` when a record that says what is needed cannot be read. Then nothing has gone.
    """
    if not delete:
        return _kept(store, folder, policy, delete=False, in_use=_in_use(store))
    with unused(store.root) as has_locks:
        if policy.empty_trash and not has_locks:
            raise StoreError(
                "the trash cannot be emptied here: this filesystem has no locks, so somebody may be building",
                where=str(store.root),
                mend=f"leave out --empty-trash: the trash empties itself after {TRASH_SECONDS / DAY_SECONDS:.0f} days",
            )
        return _kept(store, folder, policy, delete=True, in_use=False)


def _kept(store: Store, folder: Path, policy: Policy, *, delete: bool, in_use: bool) -> Housekeeping:
    ages = policy.ages()
    runs = tuple(store.unfinished_runs(grace_seconds=ages.grace))
    cache = store.root / "cache"
    caches = tuple(_unused_caches(cache, store.clock() - ages.grace))
    half_written = tuple(Spare(path=each, size_bytes=size_bytes(each)) for each in _half_written(cache, folder))
    claims = list(store.claims.read().values())
    lapsed = tuple(each.recipe for each in claims if store.claims.is_abandoned(each))
    collected = store.collect(ages, dry_run=not delete)
    if delete:
        for run in runs:
            if not run.stays:
                store.clear_run(run.key)
        for spare in (*caches, *half_written):
            _remove(spare.path)
        sweep_beside(folder)
    return Housekeeping(
        dry_run=not delete,
        collected=collected,
        runs=runs,
        caches=caches,
        half_written=half_written,
        lapsed=lapsed,
        stray=_stray(store.refs(), [each for each in claims if each.recipe not in lapsed]),
        in_use=in_use,
    )


def forget_refs(store: Store, names: Sequence[str]) -> dict[str, str]:
    """Remove refs, and return where each stood. What they alone kept is history from now on; nothing else goes.

    Raises `StoreError` for a name that is no ref, or while somebody uses the store; then every ref stays.
    """
    with unused(store.root):
        refs = store.refs()
        for name in names:
            if name not in refs:
                raise StoreError(
                    f"no ref is called {name!r}",
                    found=f"refs: {', '.join(refs)}" if refs else "the store has no refs yet",
                    mend="give one of these; weightgate log shows where each stands",
                )
        gone = {name: refs[name] for name in names}
        for name, checkpoint in gone.items():
            store.set_ref(name, None, old=checkpoint, why="forgotten")
        return gone


def _stray(refs: Iterable[str], claims: Sequence[Claim]) -> tuple[str, ...]:
    """Refs of stages that no claim is of; none where no recipe claims anything, for then nobody can know."""
    stages = {stage for claim in claims for stage in claim.checkpoints}
    return tuple(name for name in refs if stages and name.removeprefix(FAILED) not in stages)


def _in_use(store: Store) -> bool:
    try:
        with unused(store.root):
            return False
    except StoreError:
        return True


def _half_written(cache: Path, folder: Path) -> list[Path]:
    in_cache = [path for path in _entries(cache / TOKENS) if is_orphan(path.name)]
    return in_cache + leftovers(folder)


def _unused_caches(cache: Path, before: float) -> Iterator[Spare]:
    """Yield what was last used before a time, in seconds since 1970, as far as the filesystem keeps times of access."""
    whole = [path for path in _entries(cache / TOKENS) if (path / META_FILE).is_file()]
    for path in (*whole, *_entries(cache / TOKENIZERS)):
        about = path / META_FILE if path.is_dir() else path
        with suppress(OSError):
            times = about.stat()
            if max(times.st_atime, times.st_mtime) < before:
                yield Spare(path=path, size_bytes=size_bytes(path) if path.is_dir() else times.st_size)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    """Remove a file or, in one step for whoever looks, a folder. What another process removed is no matter."""
    with suppress(FileNotFoundError):
        if not path.is_dir():
            path.unlink()
        elif path.name.startswith("."):
            return  # beside an export: `sweep_beside` knows what goes back to its place
        else:
            doomed = path.rename(path.with_name(temporary_name()))
            shutil.rmtree(doomed, ignore_errors=True)


# The page


def housekeeping_page(kept: Housekeeping) -> Page:
    """What goes, what stays and why."""
    title = "What could go" if kept.dry_run else "What went"
    blocks: list[Block] = [Headline(severity="note", text=_headline(kept), detail=_detail(kept))]
    if goes := tuple(_going_rows(kept)):
        blocks.append(Table(columns=_columns("goes", "=number", "=size", "how"), rows=goes))
    if kept.collected.leaving:
        blocks.append(_leaving_table(kept.collected))
    if stays := tuple(_staying_rows(kept)):
        blocks.append(Table(columns=_columns("stays, because", "=checkpoints", "=objects", "=size"), rows=stays))
    blocks += [Prose(text=text) for text in _remarks(kept)]
    return Page(title=title, blocks=tuple(blocks))


def _columns(*names: str) -> tuple[Column, ...]:
    """Columns by name; an equals sign before it sets one to the right."""
    return tuple(Column(name=name.lstrip("="), align="right" if name[0] == "=" else "left") for name in names)


def _headline(kept: Housekeeping) -> str:
    moved = 0 if kept.collected.purged_bytes >= kept.collected.trashed_bytes > 0 else kept.collected.trashed_bytes
    days = f"{TRASH_SECONDS / DAY_SECONDS:.0f} days"
    if not (kept.freed_bytes or kept.collected.trashed):
        return "there is nothing to let go of"
    if kept.dry_run:
        later = f", and {_size(moved)} more after {days} in the trash" if moved else ""
        return f"{_size(kept.freed_bytes)} could be freed at once{later}"
    later = f"; {_size(moved)} went to the trash, which is emptied after {days}" if moved else ""
    return f"{_size(kept.freed_bytes)} freed{later}"


def _detail(kept: Housekeeping) -> str:
    if not kept.dry_run:
        return ""
    if kept.in_use:
        return "somebody is building or planning here, so nothing may go now"
    return "nothing was removed; `--delete` does it" if kept.freed_bytes or kept.collected.trashed else ""


def _going_rows(kept: Housekeeping) -> Iterator[tuple[Cell | str, ...]]:
    collected = kept.collected
    leaving_bytes = sum(each.size_bytes for each in collected.leaving)
    runs = [run for run in kept.runs if not run.stays]
    loose = len(collected.trashed) - len(collected.leaving)
    trash = "to the trash"
    rows = (
        ("checkpoints with their objects", len(collected.leaving), leaving_bytes, trash),
        ("other objects and results", loose, collected.trashed_bytes - leaving_bytes, trash),
        ("resume points of runs", len(runs), sum(run.size_bytes for run in runs), "at once"),
        ("cached data", len(kept.caches), _sum(kept.caches), "at once; made again when it is needed"),
        ("half-written folders", len(kept.half_written), _sum(kept.half_written), "at once"),
        ("half-written files", None, collected.temporaries_bytes, "at once"),
        ("files in the trash", collected.purged, collected.purged_bytes, "for good"),
    )
    for what, number, size, how in rows:
        if number or size:
            yield what, "" if number is None else f"{number:,}", _size(size), how


def _sum(spares: tuple[Spare, ...]) -> int:
    return sum(each.size_bytes for each in spares)


def _leaving_table(collected: Collected) -> Table:
    rows = tuple(
        (each.stage, each.checkpoint[3:15], f"{each.age_seconds / DAY_SECONDS:,.0f} days", _size(each.size_bytes))
        for each in collected.leaving[:_SHOWN_CHECKPOINTS]
    )
    more = len(collected.leaving) - len(rows)
    return Table(
        columns=_columns("checkpoint that goes", "id", "=last used", "=size"),
        rows=rows,
        caption=f"and {more} more; `--json` names all" if more else "",
    )


def _staying_rows(kept: Housekeeping) -> Iterator[tuple[Cell | str, ...]]:
    for each in kept.collected.staying:
        yield str(each.reason), f"{each.checkpoints:,}", f"{each.objects:,}", _size(each.size_bytes)
    for run in kept.runs:
        if run.stays:
            yield f"resume points: {run.reason}", "", "", _size(run.size_bytes)


def _remarks(kept: Housekeeping) -> Iterator[str]:
    history = next((each for each in kept.collected.staying if each.reason is Reason.HISTORY), None)
    if history is not None:
        yield (
            f"{history.checkpoints} checkpoints ({_size(history.size_bytes)}) stay for history alone; "
            "`--older-than DAYS` lets go of those that were not used for as long."
        )
    for name in kept.stray:
        yield f"No recipe that builds here has the stage of ref {name} any more; `weightgate forget {name}` removes it."
    for recipe in kept.lapsed:
        yield f"A recipe that built here is no longer at {recipe}; what only it used counts as history."


def _size(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"

"""Refs: names that move from checkpoint to checkpoint, and the history of every move.

    <root>/journal/0000000001.json, 0000000002.json, ...

One file a move, each holding the digest of the one before. A move is published under the next number by a link that
cannot replace, so the filesystem itself is the compare-and-set: of two writers one gets the number, the other reads
what happened and tries again. No lock is needed and no line can be torn.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weightgate.errors import CorruptError, StoreError
from weightgate.store.digest import canonical_json, digest_json
from weightgate.store.fs import Fs, publish_temporary, write_temporary
from weightgate.store.records import SCHEMA

_REF_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]|/(?=[A-Za-z0-9])){0,199}")
_ATTEMPTS = 1000
"""Times to try again after losing the next number to another writer; each loss means that somebody else got on."""

_MEND = (
    "copy the journal from a backup; without one move it away, and weightgate build sets the refs of its stages again"
)


@dataclass(frozen=True, kw_only=True)
class RefMove:
    """One move of one ref. `old` None: the ref was new; `new` None: it was removed. `at` is ISO 8601, UTC."""

    sequence: int
    previous: str | None
    name: str
    old: str | None
    new: str | None
    why: str
    who: str
    at: str
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """The digest of the fields, kept with them and as `previous` in the next move."""
        return digest_json(asdict(self))

    def to_bytes(self) -> bytes:
        """Return the canonical JSON, digest included: the newest move has no next one to vouch for it."""
        return canonical_json(asdict(self) | {"digest": self.digest})


@dataclass(kw_only=True)
class Journal:
    """The moves of all refs, oldest first. Entries read once are not read again: they never change."""

    fs: Fs
    root: Path
    clock: Callable[[], float] = time.time
    _moves: list[RefMove] = field(default_factory=list)
    _head: str | None = None

    @property
    def folder(self) -> Path:
        """Where the entries are."""
        return self.root / "journal"

    def moves(self) -> list[RefMove]:
        """Return every move. Raises `CorruptError` at a gap, a changed entry or a broken chain."""
        while (data := self._read(len(self._moves) + 1)) is not None:
            move = _parse(data, len(self._moves) + 1, self._head, self.folder)
            self._moves.append(move)
            self._head = move.digest
        self._refuse_gap()
        return list(self._moves)

    def refs(self) -> dict[str, str]:
        """Return where every ref points now, by name."""
        refs: dict[str, str | None] = {move.name: move.new for move in self.moves()}
        return {name: target for name, target in sorted(refs.items()) if target is not None}

    def move(self, name: str, new: str | None, *, old: str | None, why: str) -> None:
        """Move a ref from `old` to `new`, durably. Raises `StoreError` when it does not stand at `old`."""
        check_ref_name(name)
        for _ in range(_ATTEMPTS):
            found = self.refs().get(name)
            if found != old:
                raise _moved(name, old, found)
            if new == old or self._publish(name, new, old, why):
                return
        raise StoreError(f"ref {name} could not be moved: other writers always came first", mend="try again")

    def _publish(self, name: str, new: str | None, old: str | None, why: str) -> bool:
        move = RefMove(
            sequence=len(self._moves) + 1,
            previous=self._head,
            name=name,
            old=old,
            new=new,
            why=why,
            who=_user_name(),
            at=datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="seconds"),
        )
        temporary = write_temporary(self.fs, self.root / "tmp", (move.to_bytes(),))
        return publish_temporary(self.fs, temporary, self._path(move.sequence))

    def _path(self, sequence: int) -> Path:
        return self.folder / f"{sequence:010d}.json"

    def _read(self, sequence: int) -> bytearray | None:
        try:
            return self.fs.read(self._path(sequence))
        except FileNotFoundError:
            return None

    def _refuse_gap(self) -> None:
        names = self.fs.names(self.folder)
        last = self._path(len(self._moves)).name
        # A later name may have come since the last read; only a name beyond the next one shows a gap.
        beyond = [name for name in names if name > self._path(len(self._moves) + 1).name]
        if beyond and self._read(len(self._moves) + 1) is None:
            raise CorruptError(
                "the history of the refs has a gap",
                where=str(self.folder),
                expected=f"an entry after {last}",
                found=f"the next one is {beyond[0]}",
                mend=_MEND,
            )


def check_ref_name(name: str) -> None:
    """Raise `StoreError` unless `name` can be a ref: letters, digits, `.`, `_`, `-`, and `/` between parts."""
    if not _REF_NAME.fullmatch(name) or ".." in name:
        raise StoreError(
            "not a ref name",
            where=repr(name),
            expected="letters, digits, '.', '_' and '-', with '/' between parts, starting with a letter or digit",
        )


def _parse(data: bytearray, sequence: int, previous: str | None, folder: Path) -> RefMove:
    """Read one entry and check that it is the next link of the chain."""
    where = str(folder / f"{sequence:010d}.json")
    try:
        fields = _as_map(json.loads(data))
        claimed = fields.pop("digest", None)
        move = RefMove(**fields)
    except (ValueError, TypeError) as error:
        raise CorruptError(
            "an entry of the refs' history cannot be read", where=where, found=str(error), mend=_MEND
        ) from error
    if (move.sequence, move.previous) != (sequence, previous) or move.to_bytes() != data:
        raise CorruptError(
            "the history of the refs is broken: an entry was changed or does not follow from the one before",
            where=where,
            expected=f"number {sequence} after {previous}, hashing to {move.digest}",
            found=f"number {move.sequence} after {move.previous}, said to hash to {claimed}",
            mend=_MEND,
        )
    return move


def _as_map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a map")
    return value


def _moved(name: str, old: str | None, found: str | None) -> StoreError:
    return StoreError(
        f"ref {name} does not stand where it was expected to",
        expected=old or "no such ref",
        found=found or "no such ref",
        mend="somebody else moved it: look at its history, then decide again",
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def history(moves: list[RefMove], name: str) -> Iterator[RefMove]:
    """Yield the moves of one ref, oldest first."""
    return (move for move in moves if move.name == name)

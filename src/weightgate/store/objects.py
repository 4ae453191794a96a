"""Shelves: folders of immutable files, each named by the digest of its bytes.

    <root>/<shelf>/b3/<hex>        or, with fan-out, <root>/<shelf>/b3/<first two>/<hex>
    <root>/tmp/<host>-<pid>-<random>
    <root>/trash/<date>/<shelf>/<hex>

No lock guards a shelf: names are digests, files are complete before they get one, and a name is never overwritten
except with the bytes it promises.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from weightgate.errors import CorruptError, StoreError
from weightgate.store.digest import ALGORITHM, Buffer, digest_bytes, digest_chunks, file_chunks, is_digest
from weightgate.store.fs import Fs, disk_errors, make_durable_folder, publish_temporary, write_temporary

Clock = Callable[[], float]

MEND_DAMAGE = (
    "weightgate verify names all damage; weightgate build --restart makes it again, which gives the same bytes"
)


@dataclass(kw_only=True)
class Shelf:
    """One folder of digest-named files. `confirmed` is what this process knows to be durable."""

    fs: Fs
    root: Path
    name: str
    fan_out: bool
    clock: Clock = time.time
    confirmed: set[str] = field(default_factory=set)
    _folders: set[Path] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """The folder of this shelf and of this hash."""
        return self.root / self.name / ALGORITHM

    def path(self, digest: str) -> Path:
        """Return where a digest's bytes are kept. Raises `StoreError` for a string that is not a digest."""
        if not is_digest(digest):
            raise StoreError("not a digest", expected=f"{ALGORITHM}: and 64 hexadecimal digits", found=repr(digest))
        name = digest.partition(":")[2]
        return self.folder / name[:2] / name if self.fan_out else self.folder / name

    def put(self, data: Buffer) -> str:
        """Keep `data` durably and return its digest. Raises `StoreError` when the disk is full."""
        digest = digest_bytes(data)
        if not self._is_kept(digest, len(data)):
            self.put_chunks((data,))
        return digest

    def put_chunks(self, chunks: Iterable[Buffer]) -> str:
        """Keep the chunks as one object, durably, and return its digest. Raises `StoreError` when the disk is full."""
        temporary = write_temporary(self.fs, self.root / "tmp", chunks)
        target = self.path(temporary.digest)
        self._ensure_folder(target.parent)
        # A name that is taken by other bytes is damage: these bytes mend it.
        damaged = self._exists(target) and not self._is_kept(temporary.digest, temporary.size_bytes)
        if publish_temporary(self.fs, temporary, target, replace=damaged):
            self.confirmed.add(temporary.digest)
        else:
            self.confirm(temporary.digest)
        return temporary.digest

    def contains(self, digest: str) -> bool:
        """Say whether the object is there, taking it back out of the trash where it lies only there."""
        return self._exists(self.path(digest)) or self._restore(digest)

    def locate(self, digest: str) -> Path | None:
        """Return where the object lies, on the shelf or in the trash, and leave it there; None where it is in neither.

        Raises `StoreError` for a string that is not a digest.
        """
        kept = self.path(digest)
        return kept if self._exists(kept) else self._in_trash(kept.name)

    def size_bytes(self, digest: str) -> int:
        """Return an object's length. Raises `StoreError` where it is missing."""
        if not self.contains(digest):
            raise self._missing(digest)
        return self.fs.size_bytes(self.path(digest))

    def read(self, digest: str) -> bytearray:
        """Return an object's bytes, hashed again. Raises `CorruptError`, or `StoreError` where it is missing."""
        if not self.contains(digest):
            raise self._missing(digest)
        return self._read(self.path(digest), digest)

    def peek(self, digest: str) -> bytearray:
        """Return an object's bytes as `read` does, but leave it in the trash where it lies there."""
        place = self.locate(digest)
        if place is None:
            raise self._missing(digest)
        return self._read(place, digest)

    def hash_of(self, digest: str) -> str:
        """Return what the object's bytes really hash to, read in pieces."""
        with self.fs.open(self.path(digest)) as file:
            return digest_chunks(file_chunks(file))

    def confirm(self, digest: str) -> None:
        """Make an object that is there durable, and young again so that garbage collection lets it be."""
        path = self.path(digest)
        with disk_errors(self.fs, path.parent):
            with contextlib.suppress(PermissionError):  # another user's, in a shared store: then it keeps its age
                self.fs.touch(path, self.clock())
            if digest not in self.confirmed:
                self.fs.fsync_folder(path.parent)
        self.confirmed.add(digest)

    def digests(self) -> Iterator[str]:
        """Yield every digest on the shelf, sorted."""
        folders = [self.folder / name for name in self.fs.names(self.folder)] if self.fan_out else [self.folder]
        for folder in folders:
            for name in self.fs.names(folder):
                if is_digest(f"{ALGORITHM}:{name}"):
                    yield f"{ALGORITHM}:{name}"

    def trashed(self) -> list[str]:
        """Return every digest that lies in the trash, sorted."""
        folders = [self.root / "trash" / date / self.name for date in self.fs.names(self.root / "trash")]
        found = {f"{ALGORITHM}:{name}" for folder in folders for name in self.fs.names(folder)}
        return sorted(filter(is_digest, found))

    def age_seconds(self, digest: str) -> float:
        """Return how long ago the object was last put or confirmed."""
        return self.clock() - self.fs.modified_seconds(self.path(digest))

    def discard(self, digest: str, date: str) -> None:
        """Move an object into the trash of `date`, durably."""
        target = self.root / "trash" / date / self.name / self.path(digest).name
        for folder in (target.parent.parent, target.parent):
            make_durable_folder(self.fs, folder)  # each time: purging removes them
        self.confirmed.discard(digest)
        self._move(self.path(digest), target)

    def _restore(self, digest: str) -> bool:
        """Bring an object back from the trash: collection may have raced with somebody who still wants it."""
        target = self.path(digest)
        source = self._in_trash(target.name)
        if source is None:
            return False
        self._ensure_folder(target.parent)
        self._move(source, target)
        self.confirm(digest)
        return True

    def _in_trash(self, name: str) -> Path | None:
        places = (self.root / "trash" / date / self.name / name for date in self.fs.names(self.root / "trash"))
        return next(filter(self._exists, places), None)

    def _read(self, path: Path, digest: str) -> bytearray:
        with disk_errors(self.fs, self.root):
            data = self.fs.read(path)
        found = digest_bytes(data)
        if found != digest:
            raise CorruptError(
                "an object does not hash to its name",
                where=str(path),
                expected=digest,
                found=found,
                mend=MEND_DAMAGE,
            )
        return data

    def _move(self, source: Path, target: Path) -> None:
        """Move a file so that at every moment at least one of its two names is durable."""
        with disk_errors(self.fs, target.parent):
            with contextlib.suppress(FileExistsError):
                self.fs.link(source, target)
            self.fs.fsync_folder(target.parent)
            self.fs.unlink(source)
            self.fs.fsync_folder(source.parent)

    def _is_kept(self, digest: str, size_bytes: int) -> bool:
        """Say whether the object is there and whole, and if so make that last."""
        if not self.contains(digest):
            return False
        path = self.path(digest)
        if self.fs.size_bytes(path) != size_bytes or self.hash_of(digest) != digest:
            self.confirmed.discard(digest)
            return False
        self.confirm(digest)
        return True

    def _exists(self, path: Path) -> bool:
        try:
            self.fs.size_bytes(path)
        except FileNotFoundError:
            return False
        return True

    def _ensure_folder(self, folder: Path) -> None:
        """Create a folder durably, even where another process has created it but not yet flushed its name."""
        if folder not in self._folders:
            make_durable_folder(self.fs, folder)
            self._folders.add(folder)

    def _missing(self, digest: str) -> StoreError:
        return StoreError(
            f"{digest} is not in the store",
            where=str(self.root),
            mend=MEND_DAMAGE,
        )

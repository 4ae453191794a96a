"""The small port through which every write of the store goes, and the disk behind it.

The commit protocol below is the only way bytes become visible. Tests put a modelled disk behind the port and stop it
at every operation, so an operation that is not in `Fs` must not be used by the store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from weightgate.errors import StoreError
from weightgate.store.digest import Buffer, digest_chunks

READ_ONLY = 0o444
SPARE_SHARE = 1.1
"""Free space asked for, as a multiple of what will be written: manifests, directories and the index need some too."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Writer(Protocol):
    """A file being written."""

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""

    def fsync(self) -> None:
        """Return once what was written would survive a loss of power."""

    def close(self) -> None:
        """Give the file back; says nothing about durability."""


class Fs(Protocol):
    """What the store asks of a filesystem. Every method raises `OSError` as the `os` function of its kind does."""

    def create(self, path: Path, mode: int) -> Writer:
        """Create a file that must not exist."""

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name. Never replaces: raises `FileExistsError`."""

    def replace(self, source: Path, target: Path) -> None:
        """Move a file over whatever is at `target`."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def make_folder(self, path: Path) -> None:
        """Create a folder; an existing one is fine, a missing parent is not."""

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""

    def fsync_folder(self, path: Path) -> None:
        """Return once the names in this folder would survive a loss of power."""

    def read(self, path: Path) -> bytearray:
        """Return the whole file, writable so that an array can lie over it without a copy."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a folder, sorted; none for a folder that is not there."""

    def size_bytes(self, path: Path) -> int:
        """Return the length of a file."""

    def modified_seconds(self, path: Path) -> float:
        """Return when the file was last written or touched, in seconds since 1970."""

    def touch(self, path: Path, seconds: float) -> None:
        """Set the time that `modified_seconds` returns."""

    def free_bytes(self, path: Path) -> int:
        """Return how much an ordinary user can still write beside `path`."""


class LocalWriter:
    """A file on the real disk."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Buffer) -> None:
        """Append all of `data`; the kernel may take it in several pieces."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def fsync(self) -> None:
        """Return once what was written would survive a loss of power."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class LocalFs:
    """The real disk."""

    def create(self, path: Path, mode: int) -> LocalWriter:
        """Create a file that must not exist."""
        return LocalWriter(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, never replacing one."""
        target.hardlink_to(source)

    def replace(self, source: Path, target: Path) -> None:
        """Move a file over whatever is at `target`."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Create a folder; an existing one is fine."""
        path.mkdir(exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def fsync_folder(self, path: Path) -> None:
        """Flush the names in a folder."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytearray:
        """Return the whole file."""
        with path.open("rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            rest = memoryview(data)
            while rest and (count := file.readinto(rest)):
                rest = rest[count:]
        if rest:
            raise OSError(errno.EIO, "file became shorter while it was read", str(path))
        return data

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        return path.open("rb")

    def names(self, path: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        try:
            return sorted(entry.name for entry in os.scandir(path))
        except FileNotFoundError:
            return []

    def size_bytes(self, path: Path) -> int:
        """Return the length of a file."""
        return path.stat().st_size

    def modified_seconds(self, path: Path) -> float:
        """Return the time of last modification."""
        return path.stat().st_mtime

    def touch(self, path: Path, seconds: float) -> None:
        """Set the time of last modification."""
        os.utime(path, (seconds, seconds))

    def free_bytes(self, path: Path) -> int:
        """Return the free space of the filesystem that holds, or would hold, `path`."""
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free


@dataclass(frozen=True, kw_only=True)
class Temporary:
    """A finished file that has no lasting name yet."""

    path: Path
    digest: str
    size_bytes: int


def write_temporary(fs: Fs, folder: Path, chunks: Iterable[Buffer], *, mode: int = READ_ONLY) -> Temporary:
    """Write `chunks` to a new durable file in `folder`, hashing what is written.

    The digest is of the bytes handed to the disk, so a buffer that changes under us cannot get a wrong name.
    Raises `StoreError` when the disk is full; then nothing is left behind.
    """
    path = folder / temporary_name()
    asked = 0

    def pass_on(writer: Writer) -> Iterator[Buffer]:
        nonlocal asked
        for chunk in chunks:
            asked += len(chunk)
            writer.write(chunk)
            yield chunk

    try:
        with disk_errors(fs, folder, lambda: asked):
            writer = fs.create(path, mode)
            try:
                digest = digest_chunks(pass_on(writer))
                writer.fsync()
            finally:
                writer.close()
    except BaseException:
        _forget(fs, path)
        raise
    return Temporary(path=path, digest=digest, size_bytes=asked)


def publish_temporary(fs: Fs, temporary: Temporary, target: Path, *, replace: bool = False) -> bool:
    """Give a temporary its lasting name, durably. Returns False, and drops it, where the name was taken.

    link, not rename: rename would silently replace what somebody else published in between. The folder is flushed
    even when the name was taken, because whoever took it may not have come to that yet.
    """
    published = True
    try:
        with disk_errors(fs, target.parent):
            if replace:
                fs.replace(temporary.path, target)
            else:
                published = _link_if_free(fs, temporary.path, target)
                fs.unlink(temporary.path)
            fs.fsync_folder(target.parent)
    except BaseException:
        _forget(fs, temporary.path)
        raise
    return published


def make_durable_folder(fs: Fs, path: Path) -> None:
    """Create a folder whose own name survives a loss of power. Its parent must exist."""
    with disk_errors(fs, path.parent):
        fs.make_folder(path)
        fs.fsync_folder(path.parent)


@contextlib.contextmanager
def disk_errors(fs: Fs, folder: Path, needed_bytes: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn what the disk refuses in this block into a `StoreError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise disk_full(folder, needed_bytes(), fs.free_bytes(folder)) from error
        raise StoreError(
            f"the disk refused: {error.strerror or error}",
            where=str(error.filename or folder),
            mend="check that the folder is writable, healthy, and on a filesystem that has hard links",
        ) from error


def require_free_space(root: Path, size_bytes: int, fs: Fs | None = None) -> None:
    """Raise `StoreError` unless `SPARE_SHARE` times `size_bytes` can still be written beside `root`."""
    needed = int(size_bytes * SPARE_SHARE)
    free = (fs or LocalFs()).free_bytes(root)
    if free < needed:
        raise disk_full(root, needed, free)


def disk_full(where: Path, needed_bytes: int, free_bytes: int) -> StoreError:
    """Return the error for a disk without enough room."""
    return StoreError(
        "the disk is full",
        where=str(where),
        expected=f"{needed_bytes:,} bytes free" if needed_bytes else None,
        found=f"{free_bytes:,} bytes free",
        mend="free some space, then run the same command again: what was stored is intact",
    )


def temporary_name() -> str:
    """Return a name nobody else uses: `<host>-<process>-<random>`, so that the dead can be told from the living."""
    return f"{host_name()}-{os.getpid()}-{secrets.token_hex(8)}"


def host_name() -> str:
    """Return a name of this host as a process id means it: a container counts its processes from one again."""
    name = "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())
    try:
        return f"{name}_{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return name


def is_orphan(name: str) -> bool:
    """Say whether the temporary called `name` belongs to a process of this host that is gone."""
    host, _, rest = name.rpartition("-")[0].rpartition("-")
    if host != host_name() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _link_if_free(fs: Fs, source: Path, target: Path) -> bool:
    try:
        fs.link(source, target)
    except FileExistsError:
        return False
    return True


def _forget(fs: Fs, path: Path) -> None:
    # Never created, or the disk refuses: then the sweep of temporaries takes it later.
    with contextlib.suppress(OSError):
        fs.unlink(path)

"""Leases: one build at a time for one run of a stage, and no collection while anybody builds.

Nothing that was stored rests on them: objects and refs are safe without any lock, and some network filesystems grant
one to everybody. Without a lease two builds would train the same stage, each would take the other's resume points for
abandoned ones, and a collection would cost a running build what it then has to make again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weightgate.errors import StoreError
from weightgate.store.fs import LocalFs, make_durable_folder


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder`, made where it is missing, while the block runs; if the process dies, the system lets go of it.

    Raises `StoreError`, naming `what`, while another process holds it.
    """
    for each in (folder.parent, folder):
        make_durable_folder(LocalFs(), each)
    with _opened(folder) as descriptor:
        try:
            _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another build is training {what}",
                where=str(folder),
                mend="wait until it is done, or stop it; the same command then goes on where it was",
            ) from None
        yield


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Hold the store at `root` against collection while the block runs, together with others who use it.

    A collection that runs already takes seconds, and is waited for.
    """
    with _opened(root) as descriptor:
        _lock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def unused(root: Path) -> Iterator[bool]:
    """Hold the store at `root` while nobody else uses it; whoever wants to waits until the block is done.

    Yields whether the filesystem has locks; where it has none, somebody may be using the store all the same. Raises
    `StoreError` while somebody is known to.
    """
    with _opened(root) as descriptor:
        try:
            has_locks = _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                "the store is in use: something is being built, planned or collected",
                where=str(root),
                mend="wait until it is done, or stop it, then try again",
            ) from None
        yield has_locks


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    """Take a lock and return True; return False on a filesystem without locks. Raises `BlockingIOError`."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True

"""One build at a time for one run of a stage: a courtesy between builds that share a store.

Nothing rests on it: objects and refs are safe without any lock, and some network filesystems grant one to everybody.
Without it two builds would train the same stage, and each would take the other's resume points for abandoned ones.
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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _take(descriptor, folder, what)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(
            f"another build is training {what}",
            where=str(folder),
            mend="wait until it is done, or stop it; the same command then goes on where it was",
        ) from None
    except OSError:
        return  # a filesystem without locks

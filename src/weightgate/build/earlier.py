"""What earlier runs left in the store, and whether a build may take it instead of making it again."""

from __future__ import annotations

from collections.abc import Callable

from weightgate.errors import CorruptError
from weightgate.store import Result, Store
from weightgate.store.objects import MEND_DAMAGE


def earlier_runs(store: Store, key: str) -> list[Result]:
    """What runs with this key gave, oldest first; what was collected lately is brought back from the trash."""
    found = store.results(key)
    if not found and store.take_back_run(key):
        found = store.results(key)
    return found


def reusable(store: Store, key: str, name: str, *, restart: bool, note: Callable[[str], None]) -> str | None:
    """Return the checkpoint of the newest run with this key, or None where it is to be made.

    Args:
        name: what the checkpoint is of, in messages.
        restart: every byte is hashed, and a damaged checkpoint is to be made again, which `note` is told.

    Raises `CorruptError` for a damaged one otherwise: whoever owns a failing disk wants to know before money is spent.
    """
    results = earlier_runs(store, key)
    if not results:
        return None
    checkpoint = results[-1].checkpoint
    damaged = store.flaws(checkpoint, contents=restart).digests
    if not damaged:
        return checkpoint
    if not restart:
        raise CorruptError(
            f"the checkpoint of {name} is damaged: {len(damaged)} objects are gone or not what was stored",
            where=checkpoint,
            found=damaged[0],
            mend=MEND_DAMAGE,
        )
    note(f"{name}: {len(damaged)} objects are damaged; making it again")
    return None

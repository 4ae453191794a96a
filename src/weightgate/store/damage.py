"""Damage that a verification found, remembered so that plans and builds need not hash everything to know of it.

    <root>/damage.json

Nothing rests on it: what is remembered is hashed again before anybody is told, so an object that was mended since is
whole again, and a file that is lost or cannot be written costs a warning.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from weightgate.errors import StoreError
from weightgate.store.digest import canonical_json, is_digest
from weightgate.store.fs import Fs, publish_temporary, write_temporary

_FILE = "damage.json"


def remember_damage(fs: Fs, root: Path, digests: Iterable[str]) -> None:
    """Keep the digests of damaged objects in place of those kept before."""
    found = sorted(set(digests))
    if set(found) == recall_damage(fs, root):
        return
    with contextlib.suppress(StoreError):  # a store that may only be read
        temporary = write_temporary(fs, root / "tmp", (canonical_json(found),))
        publish_temporary(fs, temporary, root / _FILE, replace=True)


def recall_damage(fs: Fs, root: Path) -> set[str]:
    """Return the digests of objects that were damaged when the store was last verified."""
    try:
        found = json.loads(fs.read(root / _FILE))
    except (OSError, ValueError):
        return set()
    return {each for each in found if isinstance(each, str) and is_digest(each)} if isinstance(found, list) else set()

"""Everything a store keeps that is worth checking or collecting, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weightgate.store.claims import Claims
from weightgate.store.fs import Fs
from weightgate.store.journal import Journal
from weightgate.store.objects import Shelf


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """The shelves of one store, the history of its refs, and what recipes claim of it."""

    objects: Shelf
    manifests: Shelf
    results: Shelf
    journal: Journal
    claims: Claims

    @property
    def fs(self) -> Fs:
        """The disk that all of it lies on."""
        return self.objects.fs

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self.objects.root

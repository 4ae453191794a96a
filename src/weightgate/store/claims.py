"""What each recipe stands on, so that collection takes nothing that its next build would go on with.

    <root>/claims/<64 hex>.json        one file for each recipe that builds into the store

Refs cannot say it: recipes that share a store share the names of their stages. A recipe is known by its place relative
to the store, so that a project may be moved with its store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from weightgate.errors import CorruptError
from weightgate.store.digest import canonical_json, digest_bytes, digest_json, is_digest
from weightgate.store.fs import Fs, make_durable_folder, publish_temporary, write_temporary


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One recipe's claim.

    Fields:
        recipe: the recipe's place relative to the store.
        runs: stage -> key of its newest run, finished or not.
        checkpoints: stage -> the checkpoint that the last build took for it.
    """

    recipe: str
    runs: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims on one store."""

    fs: Fs
    root: Path

    @property
    def folder(self) -> Path:
        """Where the claims are."""
        return self.root / "claims"

    def read(self) -> dict[str, Claim]:
        """Return every claim by the name of its file. Raises `CorruptError` for one that is not what was written."""
        return {name: self._parsed(name) for name in self.fs.names(self.folder) if name.endswith(".json")}

    def of(self, recipe: Path) -> Claim:
        """Return a recipe's claim; an empty one where it has none or it cannot be read."""
        place = self._place(recipe)
        try:
            return self._parsed(_file_name(place))
        except (CorruptError, FileNotFoundError):
            return Claim(recipe=place)

    def renew(
        self,
        recipe: Path,
        stages: Collection[str],
        *,
        runs: Mapping[str, str] | None = None,
        checkpoints: Mapping[str, str] | None = None,
    ) -> None:
        """Add runs and checkpoints to a recipe's claim, and give up those of stages that it no longer has.

        Raises `StoreError` where the disk refuses.
        """
        old = self.of(recipe)
        new = replace(
            old,
            runs=_of_stages(old.runs | dict(runs or {}), stages),
            checkpoints=_of_stages(old.checkpoints | dict(checkpoints or {}), stages),
        )
        if new != old:
            self._write(new)

    def _write(self, claim: Claim) -> None:
        make_durable_folder(self.fs, self.folder)
        value = claim.to_json()
        data = canonical_json(value | {"digest": digest_json(value)})
        temporary = write_temporary(self.fs, self.root / "tmp", (data,))
        publish_temporary(self.fs, temporary, self.folder / _file_name(claim.recipe), replace=True)

    def is_abandoned(self, claim: Claim) -> bool:
        """Say whether the recipe is no longer where it was when it built."""
        return not (self.root / claim.recipe).exists()

    def _place(self, recipe: Path) -> str:
        return os.path.relpath(recipe.resolve(), self.root.resolve())

    def _parsed(self, name: str) -> Claim:
        data = self.fs.read(self.folder / name)
        try:
            value = json.loads(data)
            claim = Claim(recipe=value["recipe"], runs=value["runs"], checkpoints=value["checkpoints"])
            if canonical_json(claim.to_json() | {"digest": digest_json(claim.to_json())}) != data:
                raise ValueError("it is not what was written")
            if not all(map(is_digest, (*claim.runs.values(), *claim.checkpoints.values()))):
                raise ValueError("it names something that is not a digest")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptError(
                "a recipe's claim on the store cannot be read",
                where=str(self.folder / name),
                found=str(error),
                mend="remove it: the next weightgate build of that recipe writes it again",
            ) from error
        return claim


def _file_name(place: str) -> str:
    return f"{digest_bytes(place.encode()).partition(':')[2]}.json"


def _of_stages(named: Mapping[str, str], stages: Collection[str]) -> dict[str, str]:
    return {stage: digest for stage, digest in named.items() if stage in stages}

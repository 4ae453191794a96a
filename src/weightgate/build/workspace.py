"""Where a build happens: the recipe's folder, its store, the device, and what is known before a step is taken."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from weightgate import __version__, recipe
from weightgate.contract.lock import FILE_NAME as LOCK_NAME
from weightgate.errors import StoreError
from weightgate.recipe import Recipe
from weightgate.store import Store
from weightgate.store.fs import LocalFs, disk_errors
from weightgate.train.environment import CODE_VERSION, choose_device, choose_precision, reproducibility_class

CODE = f"weightgate {__version__}, training code {CODE_VERSION}"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A recipe together with the place it is built in. Make one with `open_workspace`."""

    recipe_path: Path
    recipe: Recipe
    store: Store
    device: torch.device
    precision: str

    @property
    def folder(self) -> Path:
        """The folder that paths in the recipe are relative to."""
        return self.recipe_path.parent

    @property
    def lock_path(self) -> Path:
        """Where the contract is kept: beside the recipe."""
        return self.folder / LOCK_NAME

    @property
    def cache(self) -> Path:
        """Folder of tokenised data; everything in it can be made again."""
        return self.store.root / "cache"

    @cached_property
    def accelerator(self) -> Accelerator:
        """Devices and processes of this run."""
        return Accelerator(cpu=self.device.type == "cpu")

    def reproducibility(self) -> dict[str, Any]:
        """The class inside which digests may be compared."""
        return reproducibility_class(
            device=self.device,
            precision=self.precision,
            world_size=self.accelerator.num_processes,
            compiled=self.recipe.compile,
        )


def open_workspace(recipe_path: Path) -> Workspace:
    """Read the recipe and open (or make) its store. Raises `RecipeError` or `StoreError`."""
    loaded = recipe.load(recipe_path)
    if loaded.threads is not None:
        torch.set_num_threads(loaded.threads)
    device = choose_device(loaded.device)
    return Workspace(
        recipe_path=recipe_path,
        recipe=loaded,
        store=_open_or_make(recipe_path.parent / loaded.store),
        device=device,
        precision=choose_precision(loaded.precision, device),
    )


def _open_or_make(root: Path) -> Store:
    if root.exists() and not root.is_dir():
        raise StoreError("the store's place is taken by a file", where=str(root), mend="name another folder as `store`")
    with disk_errors(LocalFs(), root):
        root.parent.mkdir(parents=True, exist_ok=True)
    return Store.create(root)

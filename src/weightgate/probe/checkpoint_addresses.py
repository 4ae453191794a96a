"""Checkpoints of a recipe's store as targets. Apart from the other targets, which need neither recipe nor store."""

from __future__ import annotations

from pathlib import Path

from weightgate import recipe
from weightgate.probe.addresses import CheckpointAddress
from weightgate.store import Store


def checkpoint_address(recipe_path: Path, ref: str) -> CheckpointAddress:
    """Find a ref or id. Raises `RecipeError` or `StoreError` where it does not resolve."""
    store = Store.open(recipe_path.parent / recipe.load(recipe_path).store)
    return CheckpointAddress(recipe_path=recipe_path, ref=ref, checkpoint=store.resolve(ref))

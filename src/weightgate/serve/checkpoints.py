"""Checkpoints of a recipe's store, ready to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from weightgate import recipe
from weightgate.errors import UserError
from weightgate.serve.app import Options, serve
from weightgate.serve.catalog import Aliases, Fixed, Served
from weightgate.store import Store
from weightgate.train.checkpoints import load_policy, tokenizer_of
from weightgate.train.environment import choose_device, choose_precision
from weightgate.train.generator import Bits
from weightgate.train.model_generator import ModelGenerator
from weightgate.train.rounding import round_weights


class Load(Protocol):
    """Makes a ref (or id) of a store ready to answer; with `bits`, its weights rounded to so many."""

    def __call__(self, ref: str, bits: Bits | None = None) -> ModelGenerator:
        """Raises `StoreError` for a ref that does not resolve, a reward model and damaged bytes."""
        ...


def generator_loader(recipe_path: Path) -> Load:
    """Return a function that makes checkpoints of the recipe's store ready to answer.

    Raises `RecipeError` and `StoreError`.
    """
    loaded = recipe.load(recipe_path)
    store = Store.open(recipe_path.parent / loaded.store)
    if loaded.threads is not None:
        torch.set_num_threads(loaded.threads)
    device = choose_device(loaded.device)
    precision = choose_precision(loaded.precision, device)

    def load(ref: str, bits: Bits | None = None) -> ModelGenerator:
        checkpoint = store.resolve(ref)
        model = load_policy(store, checkpoint, device=device, precision=precision)
        if bits is not None:
            round_weights(model, bits)
        tokenizer = tokenizer_of(store, store.manifest(checkpoint))
        return ModelGenerator(model=model, tokenizer=tokenizer, checkpoint=checkpoint)

    return load


def generator_of(recipe_path: Path, ref: str) -> ModelGenerator:
    """Load one checkpoint of the recipe's store. Raises as `generator_loader` and what it returns do."""
    return generator_loader(recipe_path)(ref)


def follow(recipe_path: Path, aliases: Path) -> Aliases:
    """Names out of an alias file, each standing for a ref of the recipe's store; see `Aliases`."""
    load = generator_loader(recipe_path)

    def served(ref: str, bits: Bits | None) -> Served:
        generator = load(ref, bits)
        return Served(checkpoint=generator.checkpoint, generator=generator)

    return Aliases(aliases, served)


def serve_generator(
    generator: ModelGenerator, *, alias: str, host: str, port: int, token_variable: str | None = None
) -> None:
    """Serve one checkpoint under one name until interrupted; see `serve`."""
    served = Served(checkpoint=generator.checkpoint, generator=generator)
    serve(Fixed({alias: served}), host=host, port=port, options=Options(token_variable=token_variable))


def serve_aliases(recipe_path: Path, aliases: Path, *, host: str, port: int, token_variable: str | None = None) -> None:
    """Serve whatever an alias file names, following it as it changes, until interrupted; see `serve`.

    Raises `UserError` where the file names nothing that can be served.
    """
    catalog = follow(recipe_path, aliases)
    if not catalog.names():
        raise UserError(
            "the alias file names nothing that can be served",
            where=str(aliases),
            expected='{"alias": "checkpoint"}',
            mend="the line above says what is wrong with it",
        )
    serve(catalog, host=host, port=port, options=Options(token_variable=token_variable))

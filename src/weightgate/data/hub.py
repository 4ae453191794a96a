"""Data sets of the Hugging Face hub, through `datasets`, which is imported only when a source asks for it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from weightgate.data.files import RawRow
from weightgate.errors import DataError
from weightgate.recipe import Source


def hub_rows(source: Source) -> Iterator[RawRow]:
    """Yield the rows of `source.hub`, in the order of the hub.

    Raises `DataError` where `datasets` is not installed, the hub cannot be reached, or the data set, split or
    revision does not exist.
    """
    for number, values in enumerate(_load(source), start=1):
        yield RawRow(values=dict(values), where=f"{source.hub}:row {number}")


def hub_digest(source: Source) -> str:
    """Digest of the records themselves, because a hub id names bytes that its owner may replace."""
    hasher = blake3()
    for row in hub_rows(source):
        hasher.update(json.dumps(row.values, sort_keys=True, default=str).encode())
        hasher.update(b"\n")
    return f"b3:{hasher.hexdigest()}"


def _load(source: Source) -> Any:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            "hub data sets need the `datasets` package",
            where=source.hub,
            mend="python -m pip install 'weightgate[train]', or give a local file as `path`",
        ) from None
    try:
        return library.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # the library raises dozens of kinds; every one means that there are no rows
        raise DataError(
            "the hub data set cannot be loaded",
            where=source.hub,
            expected=f"split {source.split!r}" + (f" at revision {source.revision}" if source.revision else ""),
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            mend="check the id and the connection, or download it once and give the file as `path`",
        ) from error

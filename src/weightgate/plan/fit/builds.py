"""Runs from stores: the pre-trainings of several builds of one recipe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.fit.runs import Runs
from weightgate.store import Manifest, Store

_LOSS = "holdout.bits_per_byte"


@dataclass(frozen=True, kw_only=True)
class _Build:
    data: str
    parameters: float
    tokens: float
    loss: float
    seconds: float


def runs_of_stores(folders: Sequence[Path], *, data: str | None = None) -> Runs:
    """Read every pre-training from scratch that was measured, with its hold-out loss in bits per byte.

    Only builds on the same prepared data compare: those on `data`, a digest, or on the data with most builds. Raises
    `DataError` where no build can be read.
    """
    builds = [build for folder in folders for build in _builds(Store.open(folder)) if data in (None, build.data)]
    origin = ", ".join(str(folder) for folder in folders)
    if not builds:
        raise DataError(
            "no measured pre-training is in the store",
            where=origin,
            expected="several builds of one recipe, of different sizes and lengths",
            mend="weightgate build, with other sizes under `architecture` and other `tokens`",
        )
    commonest, count = Counter(build.data for build in builds).most_common(1)[0]
    kept = [build for build in builds if build.data == commonest]
    notes = (f"{len(builds) - count} builds on other data were left out",) if count < len(builds) else ()
    return Runs(
        parameters=np.array([build.parameters for build in kept]),
        tokens=np.array([build.tokens for build in kept]),
        loss=np.array([build.loss for build in kept]),
        clusters=tuple(f"{build.parameters:.6g}" for build in kept),
        seconds=np.array([build.seconds for build in kept]),
        unit="bits/byte",
        origin=origin,
        notes=notes,
    )


def _builds(store: Store) -> Iterator[_Build]:
    for manifest in store.lineage():
        if manifest.stage_kind != "pretrain" or manifest.parent is not None:
            continue
        trained = store.results(str(manifest.inputs.get("key")))
        measured = store.results(f"measured:{manifest.id}")
        loss = measured[-1].measurements.get(_LOSS, {}).get("value") if measured else None
        if trained and loss is not None and trained[-1].cost.get("positions", 0) > 0:
            yield _Build(
                data=str(manifest.inputs.get("data")),
                parameters=float(_elements(manifest)),
                tokens=float(trained[-1].cost["positions"]),
                loss=float(loss),
                seconds=float(trained[-1].cost["seconds"]),
            )


def _elements(manifest: Manifest) -> int:
    """Parameters of the checkpoint; tied tensors are stored once."""
    return sum(math.prod(entry.shape) for entry in manifest.tensors.values())

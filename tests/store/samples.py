"""Small checkpoints for the tests of the store."""

from __future__ import annotations

from typing import Any

from weightgate.store import Manifest, Store, TensorData


def tensor(fill: int, rows: int = 3) -> TensorData:
    return TensorData(dtype="F32", shape=(rows, 4), data=bytes([fill % 256]) * (rows * 16))


def checkpoint(store: Store, stage: str, parent: str | None, fill: int, **inputs: Any) -> Manifest:
    """Put the objects of a checkpoint and return its manifest, not yet published."""
    tensors = store.put_tensors({"embed": tensor(fill), "head": tensor(fill + 1)})
    files = {"config.json": store.put_bytes(b'{"fill":%d}' % fill)}
    return Manifest(
        stage=stage, stage_kind="pretrain", parent=parent, tensors=tensors, files=files, inputs={"seed": fill, **inputs}
    )


def publish(store: Store, stage: str = "base", parent: str | None = None, fill: int = 1) -> str:
    return store.publish(checkpoint(store, stage, parent, fill))

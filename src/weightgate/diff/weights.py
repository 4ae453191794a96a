"""What the tensors of two checkpoints show: which moved, by how much, and of what rank the update is.

Evidence, never a verdict by itself: learning rate, steps, optimizer, weight decay and dtype explain most of an update's
size, and no geometry of a single update names its stage across recipes. Two things it does settle: that weights are
equal, and which tensors were not touched. Everything is computed in NumPy, tensor by tensor, from streams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.store.records import TensorData

_EXACT = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_SKETCH_COLUMNS = 64
"""Ranks beyond so many are reported as this: a random sketch of so many columns bounds time and memory."""

_ENERGY = 0.9


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """One tensor that both sides have in one shape.

    `equal_share` is the share of values that are the same bits at the stored dtype; `equal_share_bf16` after rounding
    both to bf16, where small updates vanish. `relative_norm` is ||after - before|| / ||before||, `cosine` that of the
    update and the old weights. For matrices, `stable_rank` is ||D||_F^2 / s_1^2 and `energy_rank` the smallest k whose
    k largest squared singular values make 90 % of all, at most the 64 columns of the sketch. 0 for no update.
    """

    name: str
    values: int
    equal_share: float
    equal_share_bf16: float
    largest: float
    relative_norm: float
    cosine: float
    stable_rank: float
    energy_rank: int


@dataclass(frozen=True, kw_only=True)
class WeightEvidence:
    """Two checkpoints, tensor by tensor. `only_before`, `only_after` and `reshaped` name what cannot be compared."""

    tensors: tuple[TensorChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether both hold the same tensors, bit by bit."""
        same_names = not (self.only_before or self.only_after or self.reshaped)
        return bool(self.tensors) and same_names and all(one.equal_share == 1.0 for one in self.tensors)

    @property
    def equal_share(self) -> float:
        """Share of equal values over all compared tensors; 0 where there is none."""
        total = sum(one.values for one in self.tensors)
        return sum(one.equal_share * one.values for one in self.tensors) / total if total else 0.0

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of the tensors with at least one value that differs."""
        return tuple(one.name for one in self.tensors if one.equal_share < 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "equal": self.equal,
            "equal_share": self.equal_share,
            "touched": list(self.touched),
            "tensors": [dict(vars(one)) for one in self.tensors],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "reshaped": list(self.reshaped),
        }


def weight_evidence(
    before: Mapping[str, TensorData], after: Iterable[tuple[str, TensorData]], *, seed: int = 0
) -> WeightEvidence:
    """Compare two checkpoints.

    Args:
        before: tensors by name, such as `read_safetensors_file` returns (views of the file, not copies).
        after: names and tensors in any order, such as `Store.read_tensors` yields.
        seed: of the random sketch that the ranks come from.
    """
    changes, only_after, reshaped, seen = [], [], [], set()
    for name, theirs in after:
        seen.add(name)
        ours = before.get(name)
        if ours is None:
            only_after.append(name)
        elif ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            reshaped.append(name)
        else:
            changes.append(_change(name, ours, theirs, seed))
    return WeightEvidence(
        tensors=tuple(sorted(changes, key=lambda one: one.name)),
        only_before=tuple(sorted(before.keys() - seen)),
        only_after=tuple(sorted(only_after)),
        reshaped=tuple(sorted(reshaped)),
    )


def as_float32(tensor: TensorData) -> np.ndarray:
    """Values of a tensor in its shape; bf16 by widening its 16 bits. Raises `ValueError` for dtypes without numbers."""
    if tensor.dtype == "BF16":
        wide = np.frombuffer(tensor.data, dtype="<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(tensor.shape)
    if tensor.dtype in _EXACT:
        stored: np.ndarray = np.frombuffer(tensor.data, dtype=np.dtype(_EXACT[tensor.dtype]))
        return stored.astype(np.float32).reshape(tensor.shape)
    raise ValueError(f"values of dtype {tensor.dtype} are not compared as numbers")


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Round float32 to bf16, ties to even, as uint16 bit patterns; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def _change(name: str, before: TensorData, after: TensorData, seed: int) -> TensorChange:
    equal = _equal_share(before, after)
    if before.dtype not in (*_EXACT, "BF16") or equal == 1.0:
        return _unmoved(name, before, equal)
    old, new = as_float32(before), as_float32(after)
    update = new - old
    size, norm = float(np.linalg.norm(update)), float(np.linalg.norm(old))
    stable, energy = _ranks(update, seed)
    return TensorChange(
        name=name,
        values=old.size,
        equal_share=equal,
        equal_share_bf16=float((to_bf16(old) == to_bf16(new)).mean()),
        largest=float(np.abs(update).max()),
        relative_norm=size / norm if norm else math.inf,
        cosine=float((update * old).sum() / (size * norm)) if size and norm else 0.0,
        stable_rank=stable,
        energy_rank=energy,
    )


def _unmoved(name: str, tensor: TensorData, equal: float) -> TensorChange:
    return TensorChange(
        name=name,
        values=math.prod(tensor.shape),
        equal_share=equal,
        equal_share_bf16=equal,
        largest=0.0,
        relative_norm=0.0,
        cosine=0.0,
        stable_rank=0.0,
        energy_rank=0,
    )


def _equal_share(before: TensorData, after: TensorData) -> float:
    """Share of values with equal bits; 1 for an empty tensor."""
    count = math.prod(before.shape)
    if count == 0:
        return 1.0
    ours, theirs = (np.frombuffer(tensor.data, dtype=np.uint8).reshape(count, -1) for tensor in (before, after))
    return float((ours == theirs).all(axis=1).mean())


def _ranks(update: np.ndarray, seed: int) -> tuple[float, int]:
    """Stable rank and 90 %-energy rank of a matrix, from a randomised range finder (Halko, Martinsson & Tropp 2011)."""
    if update.ndim < 2 or not np.isfinite(update).all() or not update.any():
        return 0.0, 0
    matrix = update.reshape(update.shape[0], -1).astype(np.float64)
    if min(matrix.shape) > _SKETCH_COLUMNS:
        drawn = np.random.default_rng(seed).standard_normal((matrix.shape[1], _SKETCH_COLUMNS))
        basis, _ = np.linalg.qr(matrix @ (matrix.T @ (matrix @ drawn)))
        matrix_small = basis.T @ matrix
    else:
        matrix_small = matrix
    energy = np.linalg.svd(matrix_small, compute_uv=False) ** 2
    whole = float((matrix**2).sum())
    reached = np.cumsum(energy) >= _ENERGY * whole
    rank = int(np.argmax(reached)) + 1 if reached.any() else len(energy)
    return whole / float(energy[0]), rank

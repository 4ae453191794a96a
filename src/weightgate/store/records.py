"""What the store keeps, as values: tensors, manifests and results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from weightgate.errors import StoreError
from weightgate.store.digest import Buffer, canonical_json, digest_bytes, is_digest, json_bytes

SCHEMA = 1

MEASURED = "measured:"
"""Beginning of the keys of results that say how a checkpoint was measured and judged."""

WITHOUT_REF = "base"
"""Kind of the checkpoints that are measured but get no ref: base models, which nobody here made."""

FAILED = "failed/"
"""Beginning of the refs that stand at the newest checkpoint of a stage whose gates did not pass."""

PART_BYTES = 64 * 1024 * 1024
"""A larger tensor is kept in parts of this size, so that reading, hashing and copying can go on in pieces."""

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element of each dtype, by its name in safetensors."""


@dataclass(frozen=True, kw_only=True)
class TensorData:
    """A tensor as raw little-endian bytes, rows first. `dtype` is safetensors' name of it.

    Raises `ValueError` for an unknown dtype or bytes that do not fill the shape exactly.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Buffer

    def __post_init__(self) -> None:
        expected = tensor_bytes(self.dtype, self.shape)
        found = memoryview(self.data).nbytes
        if found != expected:
            raise ValueError(f"{self.dtype} of shape {list(self.shape)} takes {expected} bytes, found {found}")

    def view(self) -> memoryview:
        """Return the bytes as a flat view, without copying."""
        view = memoryview(self.data)
        return view.cast("B") if view.nbytes else memoryview(b"")


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where a tensor is kept: the digests of its parts, in order. dtype and shape live here, not in the bytes."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]

    def part_sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each part's digest and its length in bytes."""
        rest = tensor_bytes(self.dtype, self.shape)
        for part in self.parts:
            yield part, min(rest, PART_BYTES)
            rest -= min(rest, PART_BYTES)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return {"dtype": self.dtype, "shape": list(self.shape), "parts": list(self.parts)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TensorEntry:
        """Read what `to_json` wrote. Raises `ValueError` unless the parts can hold exactly this shape."""
        entry = TensorEntry(dtype=data["dtype"], shape=tuple(data["shape"]), parts=tuple(data["parts"]))
        num_parts = max(1, math.ceil(tensor_bytes(entry.dtype, entry.shape) / PART_BYTES))
        if len(entry.parts) != num_parts or not all(map(is_digest, entry.parts)):
            raise ValueError(f"{entry.dtype} of shape {list(entry.shape)} takes {num_parts} parts, each a digest")
        return entry


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checkpoint: what it is made of and what went into it. Strings and integers only; its digest is its id.

    `stage` is the stage's name in the recipe, `stage_kind` what it does; `parent` is the checkpoint it started from
    and `reward` the reward model it was trained against, both by id. `files` maps a file name to a digest.
    `inputs` is what `states.state_of` compares: see there.
    """

    stage: str
    stage_kind: str
    parent: str | None
    tensors: Mapping[str, TensorEntry]
    files: Mapping[str, str]
    inputs: Mapping[str, Any]
    reward: str | None = None
    kind: str = "checkpoint"
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """The checkpoint's id. The order of tensors and files does not matter to it."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the canonical JSON. Raises `ValueError` where `inputs` holds a float."""
        return canonical_json(self.to_json())

    def objects(self) -> dict[str, int | None]:
        """Return the digest of every object needed, with its length in bytes where that is known."""
        sizes: dict[str, int | None] = dict.fromkeys(self.files.values())
        for entry in self.tensors.values():
            sizes.update(entry.part_sizes())
        return sizes

    def ancestors(self) -> tuple[str, ...]:
        """Return the ids of the checkpoints this one was made from directly."""
        return tuple(each for each in (self.parent, self.reward) if each is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors = {name: entry.to_json() for name, entry in self.tensors.items()}
        return plain | {"tensors": tensors, "files": dict(self.files), "inputs": dict(self.inputs)}

    @staticmethod
    def from_json(data: Any) -> Manifest:
        """Read what `to_json` wrote. Raises `StoreError` for anything else, a later schema included."""
        _check_schema(data, "manifest", Manifest)
        try:
            tensors = {name: TensorEntry.from_json(entry) for name, entry in data["tensors"].items()}
            manifest = Manifest(**(data | {"tensors": tensors}))
            digests = [*manifest.files.values(), *manifest.ancestors()]
            if not all(map(is_digest, digests)) or not isinstance(manifest.inputs, dict):
                raise ValueError("a file, parent or reward is not a digest, or inputs is not a map")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError("not a manifest", found=str(error)) from error
        return manifest


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run of a stage gave: measurements, gate verdicts, cost and curves. May hold floats, none infinite.

    `key` is the digest of the stage's inputs. The same key run twice gives two results, and both are kept.
    `measurements` maps a name to the JSON of an `Estimate` or `Unmeasured`; `cost` has seconds, tokens and flops;
    `curves` maps a name to [x, y] pairs; `recorded_at` is an ISO 8601 time in UTC and orders the results of one key.
    """

    key: str
    checkpoint: str
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdicts: tuple[Mapping[str, Any], ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    recorded_at: str = ""
    schema: int = SCHEMA

    def to_bytes(self) -> bytes:
        """Return the JSON the store keeps. Raises `ValueError` for NaN and infinities: drop such points first."""
        return json_bytes(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"verdicts": list(self.verdicts)}

    @staticmethod
    def from_json(data: Any) -> Result:
        """Read what `to_json` wrote. Raises `StoreError` for anything else, a later schema included."""
        _check_schema(data, "result", Result)
        try:
            result = Result(**(data | {"verdicts": tuple(data["verdicts"])}))
        except (KeyError, TypeError) as error:
            raise StoreError("not a result", found=str(error)) from error
        if not isinstance(result.key, str) or not is_digest(str(result.checkpoint)):
            raise StoreError("not a result", found=f"key {result.key!r}, checkpoint {result.checkpoint!r}")
        return result


def measured_key(checkpoint: str) -> str:
    """The key under which what was measured on a checkpoint, and how its gates judged it, is kept."""
    return f"{MEASURED}{checkpoint}"


def recording_time(earlier: Sequence[Result]) -> str:
    """Now, as `recorded_at` has it; but after the earlier results of the key even where the clock was set back."""
    now = datetime.now(UTC)
    newest = max((result.recorded_at for result in earlier), default="")
    if newest >= (told := now.isoformat(timespec="microseconds")):
        return (datetime.fromisoformat(newest) + timedelta(microseconds=1)).isoformat(timespec="microseconds")
    return told


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the length in bytes of a tensor. Raises `ValueError` for an unknown dtype or a negative dimension."""
    if dtype not in ITEM_BYTES:
        raise ValueError(f"unknown dtype {dtype!r}; known are {', '.join(ITEM_BYTES)}")
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in shape):
        raise ValueError(f"shape {list(shape)} has a dimension that is not a count")
    return ITEM_BYTES[dtype] * math.prod(shape)


def _check_schema(data: Any, what: str, kind: type) -> None:
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise StoreError(f"not a {what}", expected="a JSON map with a schema number")
    if data["schema"] > SCHEMA:
        raise StoreError(
            f"this {what} was written by a later version",
            expected=f"schema {SCHEMA} or lower",
            found=f"schema {data['schema']}",
            mend="update weightgate",
        )
    known = {each.name for each in fields(kind)}
    if unknown := sorted(set(data) - known):
        raise StoreError(f"not a {what}", found=f"unknown fields {', '.join(map(repr, unknown))}")

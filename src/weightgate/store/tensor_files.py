"""safetensors files, read as if a stranger had written them.

The layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes little-endian length of the header; the
header, a JSON map from tensor name to dtype, shape and data_offsets, with `__metadata__` for strings; then the data,
which the tensors must cover from end to end without overlap or hole.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from weightgate.errors import DataError
from weightgate.store.digest import Buffer, json_bytes
from weightgate.store.fs import Fs, LocalFs, Temporary, publish_temporary, write_temporary
from weightgate.store.records import ITEM_BYTES, TensorData, tensor_bytes

EXPORT_MODE = 0o644
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library: no file that others can read has a longer header."""
MAX_DIMENSIONS = 64

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """The tensors of a file, lying over one buffer, and the strings of its header."""

    tensors: dict[str, TensorData]
    metadata: dict[str, str]


def read_safetensors_file(path: Path) -> dict[str, TensorData]:
    """Return the tensors of a safetensors file. Raises `DataError` for anything that is not exactly one."""
    return parse_safetensors(_read(path), where=str(path)).tensors


def parse_safetensors(data: Buffer, *, where: str) -> TensorFile:
    """Read a whole safetensors file from memory; the tensors are views of `data`.

    Raises `DataError`, naming `where`, for anything that is not exactly one safetensors file.
    """
    whole = memoryview(data)
    try:
        header, rest = _split(whole)
        metadata = _metadata_of(header)
        spans = sorted(_span(name, entry) for name, entry in header.items())
        _refuse_gaps(spans, rest.nbytes)
        tensors = {
            name: TensorData(dtype=header[name]["dtype"], shape=tuple(header[name]["shape"]), data=rest[begin:end])
            for begin, end, name in spans
        }
    except (ValueError, RecursionError) as error:
        raise DataError(
            "not a safetensors file",
            where=where,
            found=str(error),
            mend="get the file again from where it came from: it is cut short, damaged or forged",
        ) from error
    return TensorFile(tensors=tensors, metadata=metadata)


def write_safetensors(
    path: Path, tensors: Mapping[str, TensorData], metadata: Mapping[str, str] | None = None, fs: Fs | None = None
) -> None:
    """Write a safetensors file in one step: a reader sees the old file or the new one, never a part.

    Raises `StoreError` when the disk is full or refuses; the old file is then still there.
    """
    disk = fs or LocalFs()
    temporary = write_temporary(disk, path.parent, safetensors_chunks(tensors, metadata), mode=EXPORT_MODE)
    publish_temporary(disk, temporary, path, replace=True)


def write_safetensors_temporary(
    fs: Fs, folder: Path, tensors: Mapping[str, TensorData], metadata: Mapping[str, str]
) -> Temporary:
    """Write a safetensors file that has no lasting name yet, for a caller who names it by its digest."""
    return write_temporary(fs, folder, safetensors_chunks(tensors, metadata))


def safetensors_chunks(
    tensors: Mapping[str, TensorData], metadata: Mapping[str, str] | None = None
) -> Iterator[Buffer]:
    """Yield the bytes of a safetensors file without joining them. Raises `ValueError` for a reserved name.

    Wide elements come first and the header is padded to 8 bytes, so that every tensor lies aligned in the file.
    """
    if _METADATA in tensors:
        raise ValueError(f"{_METADATA} cannot be the name of a tensor")
    names = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name].dtype], name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name in names:
        end = position + tensor_bytes(tensors[name].dtype, tensors[name].shape)
        offsets = [position, end]
        header[name] = {"dtype": tensors[name].dtype, "shape": list(tensors[name].shape), "data_offsets": offsets}
        position = end
    encoded = json_bytes(header)
    encoded += b" " * (-len(encoded) % 8)
    yield _LENGTH.pack(len(encoded)) + encoded
    for name in names:
        yield tensors[name].view()


def _read(path: Path) -> bytearray:
    try:
        return LocalFs().read(path)
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error


def _split(whole: memoryview) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the view of the data behind it. The length is checked before anything is read by it."""
    if whole.nbytes < _LENGTH.size:
        raise ValueError(f"{whole.nbytes} bytes are too few for the length of the header")
    (length,) = _LENGTH.unpack(whole[: _LENGTH.size])
    if length > min(MAX_HEADER_BYTES, whole.nbytes - _LENGTH.size):
        raise ValueError(f"a header of {length} bytes in a file of {whole.nbytes}; the limit is {MAX_HEADER_BYTES}")
    text = bytes(whole[_LENGTH.size : _LENGTH.size + length])
    if not text.startswith(b"{"):
        raise ValueError("the header does not begin with '{'")
    header = json.loads(text, object_pairs_hook=_map_without_duplicates, parse_constant=_refuse_constant)
    return header, whole[_LENGTH.size + length :]


def _map_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may choose different values for a name given twice, so it must not be."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("the header gives a name twice")
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"the header holds {text}, which is not JSON")


def _metadata_of(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{_METADATA} is not a map from strings to strings")
    return metadata


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Return where a tensor's data begins and ends, checked against its dtype and shape."""
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        raise ValueError(f"tensor {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has a dtype or shape of the wrong form")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(each) is int for each in offsets):
        raise ValueError(f"tensor {name!r} has data_offsets that are not two integers")
    begin, end = offsets
    if end - begin != tensor_bytes(dtype, tuple(shape)):
        raise ValueError(f"tensor {name!r} has {end - begin} bytes, which {dtype} of shape {shape} does not take")
    return begin, end, name


def _refuse_gaps(spans: list[tuple[int, int, str]], size_bytes: int) -> None:
    """The tensors must cover the data exactly: an overlap shares bytes, a hole hides some."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise ValueError(f"tensor {name!r} begins at {begin}, expected {position}")
        position = end
    if position != size_bytes:
        raise ValueError(f"the tensors end at {position}, the file's data at {size_bytes}")

"""safetensors files: what others write comes back, what an attacker writes is refused before it can do harm."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.errors import DataError
from weightgate.store import TensorData, read_safetensors_file, write_safetensors
from weightgate.store.records import ITEM_BYTES, tensor_bytes
from weightgate.store.tensor_files import parse_safetensors, safetensors_chunks


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, TensorData]:
    drawn = {}
    for name in draw(
        st.lists(st.text(max_size=4).filter(lambda text: text != "__metadata__"), unique=True, max_size=4)
    ):
        dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        size = tensor_bytes(dtype, shape)
        drawn[name] = TensorData(dtype=dtype, shape=shape, data=draw(st.binary(min_size=size, max_size=size)))
    return drawn


def plain(data: dict[str, TensorData]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (each.dtype, each.shape, bytes(each.view())) for name, each in data.items()}


def encoded(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


@settings(deadline=None, max_examples=60)
@given(tensors(), st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2))
def test_tensors_and_metadata_come_back(drawn: dict[str, TensorData], metadata: dict[str, str]) -> None:
    whole = b"".join(map(bytes, safetensors_chunks(drawn, metadata)))
    read = parse_safetensors(whole, where="memory")
    assert plain(read.tensors) == plain(drawn)
    assert read.metadata == metadata


def test_the_safetensors_library_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    ours = {"w": TensorData(dtype="F32", shape=(2, 2), data=struct.pack("<4f", 1, 2, 3, 4))}
    write_safetensors(path, ours, {"format": "pt"})
    loaded = numpy.load_file(path)
    assert loaded["w"].tolist() == [[1, 2], [3, 4]]
    numpy.save_file(loaded | {"n": loaded["w"].astype("int64")}, path, metadata={"format": "pt"})
    read = read_safetensors_file(path)
    assert plain({"w": read["w"]}) == plain(ours)
    assert (read["n"].dtype, bytes(read["n"].view())) == ("I64", struct.pack("<4q", 1, 2, 3, 4))


HOSTILE = {
    "empty file": b"",
    "shorter than the length": b"\x00" * 7,
    "header longer than the file": encoded({}, length=1000),
    "4 GB header": encoded({}, length=1 << 32),
    "header of 2^64 - 1 bytes": encoded({}, length=(1 << 64) - 1),
    "not JSON": encoded(b"{nonsense"),
    "not UTF-8": encoded(b'{"\xff":1}'),
    "a list": encoded([]),
    "leading space": encoded(b" {}"),
    "NaN": encoded(b'{"a":NaN}'),
    "nested too deeply": encoded(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a number too long to read": encoded(b'{"a":' + b"9" * 10_000 + b"}"),
    "a name twice": encoded(
        b'{"a":' + json.dumps(entry(0, 1)).encode() + b',"a":' + json.dumps(entry(0, 1)).encode() + b"}", b"1"
    ),
    "trailing bytes": encoded({"a": entry(0, 1)}, b"12"),
    "data missing": encoded({"a": entry(0, 4)}, b"12"),
    "overlap": encoded({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
    "hole": encoded({"a": entry(0, 2), "b": entry(4, 6)}, bytes(6)),
    "negative offsets": encoded({"a": entry(-4, 0)}, b""),
    "end before begin": encoded({"a": entry(4, 2, shape=[2])}, bytes(4)),
    "shape larger than data": encoded({"a": entry(0, 4, "F32", [2])}, bytes(4)),
    "shape overflows 64 bits": encoded({"a": entry(0, 0, "U8", [1 << 63, 4])}),
    "negative dimension": encoded({"a": entry(0, 4, "U8", [-2, -2])}, bytes(4)),
    "fractional dimension": encoded({"a": entry(0, 4, "U8", [4.0])}, bytes(4)),
    "dimension is true": encoded({"a": entry(0, 1, "U8", [True])}, bytes(1)),
    "shape is text": encoded({"a": entry(0, 1, "U8", "1")}, bytes(1)),
    "ten thousand dimensions": encoded({"a": entry(0, 1, "U8", [1] * 10_000)}, bytes(1)),
    "unknown dtype": encoded({"a": entry(0, 4, "F33")}, bytes(4)),
    "dtype is a list": encoded({"a": entry(0, 4, ["F32"])}, bytes(4)),
    "offsets are floats": encoded({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0.0, 1.0]}}, b"1"),
    "three offsets": encoded({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1"),
    "unknown field": encoded({"a": entry(0, 1) | {"strides": [1]}}, b"1"),
    "entry is null": encoded({"a": None}),
    "metadata is not strings": encoded({"__metadata__": {"step": 1}}),
    "metadata is a list": encoded({"__metadata__": []}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        read_safetensors_file(path)
    assert caught.value.where == str(path)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_changed_file_is_read_or_refused_but_never_anything_else(data: st.DataObject) -> None:
    whole = bytearray(b"".join(map(bytes, safetensors_chunks(data.draw(tensors()), {"k": "v"}))))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not whole:
            break
    try:
        read = parse_safetensors(whole, where="memory")
    except DataError:
        return
    assert sum(each.view().nbytes for each in read.tensors.values()) <= len(whole)


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_safetensors_file(tmp_path / "absent.safetensors")


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(ValueError, match="__metadata__"):
        next(safetensors_chunks({"__metadata__": TensorData(dtype="U8", shape=(0,), data=b"")}))


def test_writing_replaces_in_one_step_and_reading_survives_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": TensorData(dtype="U8", shape=(3,), data=b"old")})
    # Loading and saving to one path: the tensors read must not change under the writer.
    write_safetensors(path, read_safetensors_file(path) | {"b": TensorData(dtype="U8", shape=(3,), data=b"new")})
    assert {name: bytes(each.view()) for name, each in read_safetensors_file(path).items()} == {
        "a": b"old",
        "b": b"new",
    }
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]

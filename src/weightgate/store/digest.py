"""Digests, and the one JSON form that may be hashed.

A digest is `b3:<64 hex>`: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020) with the algorithm in the string,
so that a later algorithm can stand beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

Buffer = bytes | bytearray | memoryview

ALGORITHM = "b3"
CHUNK_BYTES = 4 * 1024 * 1024

_DIGEST = re.compile(rf"{ALGORITHM}:[0-9a-f]{{64}}")


def is_digest(text: str) -> bool:
    """Say whether `text` is a whole digest."""
    return _DIGEST.fullmatch(text) is not None


def digest_bytes(data: Buffer) -> str:
    """Return the digest of `data`."""
    return digest_chunks((data,))


def digest_chunks(chunks: Iterable[Buffer]) -> str:
    """Return the digest of the chunks, one after the other.

    On one thread: that already outruns most disks, and a pool of threads would not survive a fork.
    """
    hasher = blake3()
    for chunk in chunks:
        hasher.update(chunk)
    return f"{ALGORITHM}:{hasher.hexdigest()}"


def file_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of `file` in pieces of at most `CHUNK_BYTES`."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def digest_file(path: Path) -> str:
    """Return the digest of the file's bytes, read in pieces. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return digest_chunks(file_chunks(file))


def canonical_json(value: Any) -> bytes:
    """Return the bytes that stand for `value`: keys sorted, no spaces, UTF-8, integers only.

    Equal values must give equal bytes on every machine, or a checkpoint would have two names. So there are no
    floats (their printed form is a choice) and keys are strings (JSON would turn 1 and "1" into one key).
    Raises `ValueError` naming the place of a float, a foreign type or a key that is not a string.
    """
    _refuse_ambiguous(value, "$")
    return json_bytes(value)


def json_bytes(value: Any) -> bytes:
    """Return sorted, compact UTF-8 JSON in which floats are allowed (shortest form that reads back the same).

    Raises `ValueError` for NaN and infinities, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Return the digest of the canonical JSON of `value`. Raises `ValueError` as `canonical_json` does."""
    return digest_bytes(canonical_json(value))


def _refuse_ambiguous(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}, which is not a string")
            _refuse_ambiguous(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _refuse_ambiguous(item, f"{where}[{position}]")
    elif value is not None and not isinstance(value, str | int):
        raise ValueError(f"{where} is a {type(value).__name__}; a digest covers strings, integers, lists and maps only")

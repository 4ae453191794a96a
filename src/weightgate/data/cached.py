"""What the cache keeps, each with its digest, so that damage is noticed and never taken for other data. Torch-free.

<cache>/tokens/<key>/prepared.json       census, and digests of the files that describe rows
<cache>/tokens/<key>/**/rows.json        digests of the arrays beside it; see `rows`
<cache>/tokenizers/<key>.json            files of a tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weightgate.contract.census import Census
from weightgate.data.rows import META_FILE as ROWS_META
from weightgate.data.rows import TokenRows
from weightgate.errors import CorruptError
from weightgate.store.digest import canonical_json, digest_file, digest_json
from weightgate.store.fs import LocalFs, publish_temporary, write_temporary

META_FILE = "prepared.json"
TOKENS, TOKENIZERS = "tokens", "tokenizers"


def write_meta(folder: Path, census: Census) -> None:
    """Write the census, with the digests of all that describes the rows: each of these files holds those of its own."""
    files = {str(path.relative_to(folder)): digest_file(path) for path in sorted(folder.rglob(ROWS_META))}
    (folder / META_FILE).write_bytes(_sealed({"census": census.to_json(), "files": files}))


def read_meta(folder: Path) -> Census:
    """Read what `write_meta` wrote. Raises `CorruptError` for anything else."""
    try:
        meta = _unsealed(folder / META_FILE)
        for name, digest in meta["files"].items():
            if digest_file(folder / name) != digest:
                raise ValueError(f"{name} is not what was written")
        return Census.from_json(meta["census"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptError("the prepared data cannot be read", where=folder.name, found=str(error)) from None


def write_tokenizer(path: Path, files: Mapping[str, bytes]) -> None:
    """Keep the files of a tokenizer in one. Raises `StoreError` where the disk refuses."""
    data = _sealed({"files": {name: content.decode() for name, content in files.items()}})
    publish_temporary(LocalFs(), write_temporary(LocalFs(), path.parent, (data,)), path, replace=True)


def read_tokenizer(path: Path) -> dict[str, bytes]:
    """Read what `write_tokenizer` wrote. Raises `CorruptError` for anything else, nothing included."""
    try:
        return {name: text.encode() for name, text in _unsealed(path)["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError("the kept tokenizer cannot be read", where=path.name, found=str(error)) from None


def _sealed(value: dict[str, Any]) -> bytes:
    """Canonical JSON with its own digest in it."""
    return canonical_json(value | {"digest": digest_json(value)})


def _unsealed(path: Path) -> dict[str, Any]:
    """Read what `_sealed` gave. Raises `ValueError` where a single byte differs, and as reading JSON does."""
    data = path.read_bytes()
    value = json.loads(data)
    if not isinstance(value, dict) or _sealed({name: value[name] for name in value if name != "digest"}) != data:
        raise ValueError(f"{path.name} is not what was written")
    return value


def damaged(cache: Path) -> Iterator[tuple[Path, CorruptError]]:
    """Yield what is damaged in the cache: a folder of tokens or the file of a tokenizer, and what is wrong with it."""
    for folder in sorted(path.parent for path in (cache / TOKENS).glob(f"*/{META_FILE}")):
        try:
            read_meta(folder)
            for rows in sorted(folder.rglob(ROWS_META)):
                TokenRows.open(rows.parent)
        except CorruptError as error:
            yield folder, error
    for path in sorted((cache / TOKENIZERS).glob("*.json")):
        try:
            read_tokenizer(path)
        except CorruptError as error:
            yield path, error

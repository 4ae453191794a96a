"""Tokenised samples on disk: flat arrays, memory-mapped, written as a stream.

A folder holds `tokens.bin` (uint16 or uint32), `supervised.bin` (uint8), `offsets.bin` (int64, samples + 1),
`num_bytes.bin` and `records.bin` (int64 per sample), `domains.bin` (int32 per sample) and `rows.json`, which is written
last and holds the digest of each of them.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np

from weightgate.errors import CorruptError
from weightgate.store.digest import digest_file, digest_json

META_FILE = "rows.json"
PAIR_PARTS = ("prompt", "chosen", "rejected")
_BUFFER_ITEMS = 1 << 18
_COLUMNS = {"supervised": "B", "offsets": "q", "num_bytes": "q", "records": "q", "domains": "i"}
"""Name -> `array` type code; all but `tokens`, whose width depends on the vocabulary."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRows:
    """Samples of tokens, none longer than the context they were prepared for.

    Args:
        tokens: all samples one after the other, shape (num_tokens,).
        supervised: 1 where the token is to be predicted from those before it in its sample; never at a first token.
        offsets: sample i is `tokens[offsets[i]:offsets[i + 1]]`.
        num_bytes: per sample, UTF-8 bytes that its supervised tokens stand for.
        domains: per sample, index into `domain_names`.
        records: per sample, position of its record in the reading order of the sources.
        digest: of all of the above.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    offsets: np.ndarray
    num_bytes: np.ndarray
    domains: np.ndarray
    records: np.ndarray
    domain_names: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens in all samples."""
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per sample, int64."""
        return np.diff(self.offsets)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (tokens, supervised) of one sample, as views."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.supervised[start:end]

    @staticmethod
    def open(folder: Path) -> TokenRows:
        """Map the samples in `folder`. Raises `CorruptError` where a file is missing or not what was written."""
        try:
            meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
            for name, digest in meta["files"].items():
                if digest_file(folder / name) != digest:
                    raise CorruptError("a file of tokens is not what was written", where=name, expected=digest)
            arrays = {name: _map(folder / f"{name}.bin", code) for name, code in _COLUMNS.items()}
            return TokenRows(
                tokens=_map(folder / "tokens.bin", meta["token_type"]),
                domain_names=tuple(meta["domain_names"]),
                digest=digest_json(meta),
                **arrays,
            )
        except (OSError, ValueError, KeyError) as error:
            raise CorruptError("the prepared tokens cannot be read", where=folder.name, found=str(error)) from None


def _map(path: Path, code: str) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.dtype(code))  # an empty file cannot be mapped
    return np.memmap(path, dtype=np.dtype(code), mode="r")


class RowWriter:
    """Writes samples to a folder as they come, holding at most `_BUFFER_ITEMS` of each column in memory.

    A context manager: `rows.json` is written on leaving without an exception.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.folder = folder
        self.token_type = "H" if vocab_size <= 1 << 16 else "I"
        self.num_rows = 0
        self._domains: dict[str, int] = {}
        self._end = 0
        self._buffers: dict[str, array[int]] = {}
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> RowWriter:
        self.folder.mkdir(parents=True)
        for name, code in {"tokens": self.token_type, **_COLUMNS}.items():
            self._buffers[name] = array(code)
            self._files[name] = cast(BinaryIO, (self.folder / f"{name}.bin").open("wb"))
        self._buffers["offsets"].append(0)
        return self

    def append(
        self, ids: Sequence[int], supervised: Sequence[bool], *, num_bytes: int, domain: str, record: int
    ) -> None:
        """Write one sample; see `TokenRows` for the arguments."""
        if not ids or len(ids) != len(supervised) or supervised[0]:
            raise ValueError("a sample needs tokens, a mask as long as they are, and a first token without loss")
        self._end += len(ids)
        self.num_rows += 1
        self._buffers["tokens"].extend(ids)
        self._buffers["supervised"].extend(supervised)
        self._buffers["offsets"].append(self._end)
        self._buffers["num_bytes"].append(num_bytes)
        self._buffers["records"].append(record)
        self._buffers["domains"].append(self._domains.setdefault(domain, len(self._domains)))
        if len(self._buffers["tokens"]) >= _BUFFER_ITEMS:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            for file in self._files.values():
                file.close()
        if error is None:
            names = sorted(f"{name}.bin" for name in self._files)
            meta = {
                "token_type": self.token_type,
                "domain_names": list(self._domains),
                "files": {name: digest_file(self.folder / name) for name in names},
            }
            (self.folder / META_FILE).write_text(json.dumps(meta, indent=1), encoding="utf-8")

    def _flush(self) -> None:
        for name, buffer in self._buffers.items():
            buffer.tofile(self._files[name])
            del buffer[:]


class PairWriter:
    """Writes preference pairs to a folder, as three folders of rows; see `RowWriter`."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._parts = [RowWriter(folder / part, vocab_size) for part in PAIR_PARTS]
        self._open = ExitStack()

    @property
    def num_rows(self) -> int:
        """Pairs written so far."""
        return self._parts[0].num_rows

    def __enter__(self) -> PairWriter:
        for part in self._parts:
            self._open.enter_context(part)
        return self

    def append(
        self, prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], *, domain: str, record: int
    ) -> None:
        """Write one pair. Which tokens a loss looks at follows from the part, so the masks are empty."""
        for part, ids in zip(self._parts, (prompt, chosen, rejected), strict=True):
            part.append(ids, [False] * len(ids), num_bytes=0, domain=domain, record=record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairRows:
    """Preference pairs: three `TokenRows` of equal length, sample i of each being pair i.

    `chosen` and `rejected` hold the completions alone, each with its terminator; they follow `prompt`.
    """

    prompt: TokenRows
    chosen: TokenRows
    rejected: TokenRows

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def digest(self) -> str:
        """Digest of the three parts."""
        return digest_json([self.prompt.digest, self.chosen.digest, self.rejected.digest])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longer of the two sequences, per pair."""
        return self.prompt.lengths + np.maximum(self.chosen.lengths, self.rejected.lengths)

    @staticmethod
    def open(folder: Path) -> PairRows:
        """Map the pairs in `folder`. Raises `CorruptError`."""
        parts = {part: TokenRows.open(folder / part) for part in PAIR_PARTS}
        return PairRows(**parts)

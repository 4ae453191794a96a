"""Files -> raw rows, lazily, each with the place it stands at.

A raw row is a mapping of column names to values. Plain text becomes rows with the one column `text`.
Nothing here knows what the columns mean; see `records`.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow
import pyarrow.parquet

from weightgate.errors import DataError

MAX_LINE_BYTES = 10_000_000
"""Longest line (and paragraph of plain text) that is read; a longer one is nearly always a wrong format."""

MAX_FILE_DOCUMENT_BYTES = 256_000_000
"""Largest plain-text file that may be one document."""

_PARQUET_BATCH_ROWS = 1024
_TEXT_SUFFIXES = (".txt", ".text", ".md")
_JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")

Format = Literal["jsonl", "parquet", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """One row as the file has it. `where` is `file:line`, or `file:row` for Parquet and hub data sets."""

    values: dict[str, Any]
    where: str


def detect_format(name: str) -> Format:
    """Tell the format from the file name. Raises `DataError` for a suffix that says nothing."""
    lower = name.lower().removesuffix(".gz")
    if lower.endswith(_JSONL_SUFFIXES):
        return "jsonl"
    if lower.endswith(_TEXT_SUFFIXES):
        return "text"
    if lower.endswith(".parquet"):
        return "parquet"
    raise DataError(
        "the format cannot be told from the file name",
        where=name,
        expected=", ".join((*_JSONL_SUFFIXES, *_TEXT_SUFFIXES, ".parquet")) + ", each but the last also with .gz",
        found=Path(name).suffix or "no suffix",
        mend="say `format: jsonl`, `format: parquet` or `format: text` in the source",
    )


def read_rows(path: Path, shown: str, kind: Format, documents: str) -> Iterator[RawRow]:
    """Yield the rows of one file.

    Args:
        path: the file.
        shown: its name in messages, as the user wrote it.
        documents: plain text only: `file`, `paragraph` or `line`.

    Raises `DataError`, with `shown:line`, for whatever cannot be read as `kind`.
    """
    require_file(path, shown)
    try:
        if kind == "parquet":
            yield from _parquet_rows(path, shown)
        else:
            with _open(path) as stream:
                yield from _jsonl_rows(stream, shown) if kind == "jsonl" else _text_rows(stream, shown, documents)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("the file cannot be decompressed", where=shown, found=str(error)) from None
    except OSError as error:
        raise DataError("the file cannot be read", where=shown, found=str(error.strerror or error)) from None


def require_file(path: Path, shown: str) -> None:
    """Raise `DataError` unless `path` is a file."""
    if path.is_dir():
        raise DataError("a source is one file, not a folder", where=shown, mend="list each file as a source of its own")
    if not path.is_file():
        raise DataError(
            "there is no such file",
            where=shown,
            mend="look at how it is spelt; paths in a recipe are relative to its folder",
        )


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _lines(stream: BinaryIO, shown: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end); refuses long lines and bytes that are not UTF-8."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                "the line is too long",
                where=f"{shown}:{number}",
                expected=f"at most {MAX_LINE_BYTES:,} bytes",
                mend="cut long documents into several records",
            )
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield number, _decode(line, f"{shown}:{number}").rstrip("\r\n")


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "the text is not UTF-8",
            where=where,
            expected="UTF-8",
            found=f"byte 0x{error.object[error.start]:02x} at offset {error.start} of the line",
            mend="iconv -f <its encoding> -t UTF-8",
        ) from None


def _jsonl_rows(stream: BinaryIO, shown: str) -> Iterator[RawRow]:
    for number, line in _lines(stream, shown):
        if line.strip():
            where = f"{shown}:{number}"
            yield RawRow(values=_parse_object(line, where), where=where)


def _parse_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            "the line is not valid JSON", where=where, expected="one JSON object a line", found=str(error)
        ) from None
    if isinstance(value, dict):
        return value
    mend = "jq -c '.[]' file.json > file.jsonl" if isinstance(value, list) else None
    raise DataError(
        "the line is no JSON object", where=where, expected="one JSON object a line", found=json_name(value), mend=mend
    )


def json_name(value: object) -> str:
    """Name a value as JSON would, for messages."""
    names = {type(None): "null", bool: "a boolean", str: "text", list: "an array", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _text_rows(stream: BinaryIO, shown: str, documents: str) -> Iterator[RawRow]:
    if documents == "file":
        yield from _whole_file(stream, shown)
    elif documents == "line":
        for number, line in _lines(stream, shown):
            if line.strip():
                yield RawRow(values={"text": line}, where=f"{shown}:{number}")
    else:
        yield from _paragraphs(stream, shown)


def _whole_file(stream: BinaryIO, shown: str) -> Iterator[RawRow]:
    data = stream.read(MAX_FILE_DOCUMENT_BYTES + 1)
    if len(data) > MAX_FILE_DOCUMENT_BYTES:
        raise DataError(
            "the file is too large to be one document",
            where=shown,
            expected=f"at most {MAX_FILE_DOCUMENT_BYTES:,} bytes",
            mend="say `documents: paragraph` or `documents: line`",
        )
    text = _decode(data.removeprefix(codecs.BOM_UTF8), f"{shown}:1")
    if text.strip():
        yield RawRow(values={"text": text}, where=f"{shown}:1")


def _paragraphs(stream: BinaryIO, shown: str) -> Iterator[RawRow]:
    lines: list[str] = []
    start, size = 1, 0
    for number, line in _lines(stream, shown):
        if line.strip():
            start = start if lines else number
            lines.append(line)
            size += len(line)
            if size > MAX_LINE_BYTES:
                raise DataError(
                    "the paragraph is too long",
                    where=f"{shown}:{start}",
                    expected=f"at most {MAX_LINE_BYTES:,} characters before an empty line",
                    mend="say `documents: line`",
                )
        elif lines:
            yield RawRow(values={"text": "\n".join(lines)}, where=f"{shown}:{start}")
            lines, size = [], 0
    if lines:
        yield RawRow(values={"text": "\n".join(lines)}, where=f"{shown}:{start}")


def _parquet_rows(path: Path, shown: str) -> Iterator[RawRow]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(values=values, where=f"{shown}:row {number}")
    except pyarrow.ArrowException as error:
        raise DataError(
            "the file is not valid Parquet", where=shown, expected="Parquet", found=str(error).splitlines()[0]
        ) from None
    except UnicodeDecodeError:
        raise DataError("the text is not UTF-8", where=f"{shown}:row {number + 1}", expected="UTF-8") from None

"""A file or hub data set -> `Preferences`: every row is either a vote or a fault with its line.

What `build` would refuse at the first bad row is read here to the end, because a report of one fault at a time
mends nothing.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

from weightgate.data.files import MAX_LINE_BYTES, detect_format, json_name, read_rows
from weightgate.data.hub import hub_digest, hub_rows
from weightgate.errors import DataError
from weightgate.preferences.rows import FaultError, Rated, Row, Turns, compared, read_row
from weightgate.preferences.votes import Fault, Preferences, Shape, Vote
from weightgate.recipe import Source
from weightgate.store.digest import digest_file

MAX_RATED_PER_PROMPT = 8
"""More ratings of one prompt by one annotator than this are compared with their neighbours only, not all with all."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Raw = tuple[int, dict[str, Any] | Fault]


def read_preferences(name: str, *, split: str = "train") -> Preferences:
    """Read a file (JSONL, CSV, Parquet; the first two also with .gz) or a hub data set.

    Raises `DataError` where there is no such file, it is of no known kind, or nothing in it is a judgement.
    """
    if _is_hub_id(name):
        source = Source(hub=name, split=split)
        raws: Iterator[Raw] = ((number, row.values) for number, row in enumerate(hub_rows(source), start=1))
        digest = hub_digest(source)
    else:
        path = Path(name)
        _require_file(path, name)
        raws = _file_rows(path)
        digest = digest_file(path)
    try:
        found = _collect(name, digest, raws)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("the file cannot be decompressed", where=name, found=str(error)) from None
    except OSError as error:
        raise DataError("the file cannot be read", where=name, found=str(error.strerror or error)) from None
    _require_votes(found)
    return found


def _require_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise DataError("votes are read from one file, and this is a folder", where=name, mend="name the file in it")
    if not path.is_file():
        raise DataError(
            "there is no such file",
            where=name,
            mend="look at how it is spelt; a data set of the hub is named owner/name",
        )


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, its bytes with the line end); a line that is too long is cut after the limit."""
    with _open(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            yield number, line


def is_csv(path: Path) -> bool:
    """Whether a file is read as CSV: by its name alone."""
    return path.name.lower().removesuffix(".gz").endswith(".csv")


def _is_hub_id(name: str) -> bool:
    known = (".jsonl", ".ndjson", ".json", ".gz", ".parquet", ".csv", ".txt")
    return not Path(name).exists() and _HUB_ID.fullmatch(name) is not None and not name.lower().endswith(known)


def _format_of(path: Path) -> str:
    with suppress(DataError):
        if (kind := detect_format(path.name)) != "text":
            return kind
    raise DataError(
        "a file of this name holds no judgements",
        where=str(path),
        expected=".jsonl, .csv or .parquet, the first two also with .gz",
        found=path.suffix or "a name without an ending",
        mend="name another file, or give this one the ending of what it holds",
    )


def _file_rows(path: Path) -> Iterator[Raw]:
    if is_csv(path):
        return _csv_rows(path)
    kind = _format_of(path)
    if kind == "parquet":
        rows = read_rows(path, str(path), "parquet", "file")
        return ((number, row.values) for number, row in enumerate(rows, start=1))
    return _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[Raw]:
    for number, line in raw_lines(path):
        if len(line) > MAX_LINE_BYTES:
            yield number, Fault(kind="line-too-long", line=number, detail=f"more than {MAX_LINE_BYTES:,} bytes")
        elif line.strip():
            yield number, _object(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, number)


def _object(line: bytes, number: int) -> dict[str, Any] | Fault:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault(kind="not-utf8", line=number, detail=f"byte 0x{line[error.start]:02x} at {error.start:,}")
    except (ValueError, RecursionError) as error:
        return Fault(kind="not-json", line=number, detail=str(error)[:120])
    return value if isinstance(value, dict) else Fault(kind="not-json", line=number, detail=json_name(value))


def _csv_rows(path: Path) -> Iterator[Raw]:
    """Rows of a CSV file with a header; the line of a row is the last one it stands on."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _open(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text)
        header = next(reader, [])
        for fields in reader:
            if fields:
                yield reader.line_num, _csv_object(header, fields, reader.line_num)


def _csv_object(header: list[str], fields: list[str], number: int) -> dict[str, Any] | Fault:
    if any(_undecoded(field) for field in fields):
        return Fault(kind="not-utf8", line=number)
    if len(fields) != len(header):
        return Fault(kind="wrong-columns", line=number, detail=f"{len(fields)} fields under {len(header)} names")
    return dict(zip(header, fields, strict=True))


def _undecoded(field: str) -> bool:
    return not field.isascii() and any("\udc80" <= character <= "\udcff" for character in field)


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _collect(name: str, digest: str, raws: Iterator[Raw]) -> Preferences:
    votes: list[Vote] = []
    faults: list[Fault] = []
    rated: list[Rated] = []
    rows = 0
    slotted = 0
    for line, raw in raws:
        rows += 1
        if isinstance(raw, Fault):
            faults.append(raw)
            continue
        try:
            record = read_row(Row(values=raw, line=line, faults=faults))
        except FaultError as error:
            faults.append(error.fault)
        else:
            (votes if isinstance(record, Vote) else rated).append(record)  # type: ignore[arg-type]
            slotted += "chosen" not in raw
    shape: Shape = "ratings" if len(rated) > len(votes) else "votes" if 2 * slotted > len(votes) else "pairs"
    votes += _votes_of_ratings(rated, faults)
    return Preferences(name=name, digest=digest, shape=shape if rows else "none", rows=rows, votes=votes, faults=faults)


def _votes_of_ratings(rated: list[Rated], faults: list[Fault]) -> list[Vote]:
    """Compare the answers that one annotator rated under one prompt."""
    groups: dict[tuple[Turns, str | None], list[Rated]] = {}
    for one in rated:
        groups.setdefault((one.prompt, one.annotator), []).append(one)
    votes = []
    for members in groups.values():
        if len(members) == 1:
            faults.append(Fault(kind="nothing-to-compare", line=members[0].line))
        few = len(members) <= MAX_RATED_PER_PROMPT
        pairs = combinations(members, 2) if few else pairwise(members)
        for one, other in pairs:
            values = {"annotator": one.annotator, "time": other.time, "category": one.category}
            votes.append(compared(Row(values=values, line=other.line, faults=faults), one, other))
    return votes


def _require_votes(found: Preferences) -> None:
    if found.rows == 0:
        raise DataError("the file is empty", where=found.name, expected="at least one judgement")
    if not found.usable:
        first = found.faults[0]
        raise DataError(
            f"none of the {found.rows:,} rows is a judgement that can be used",
            where=f"{found.name}:{first.line}",
            expected="chosen and rejected, two answers with a label, or rated answers",
            found=f"{first.kind} {first.detail}".strip(),
        )

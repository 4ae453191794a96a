"""Snapshots on disk: JSONL that is only ever added to.

A header, the probes as a suite file holds them, one line for each answer in the order in which they came, and a footer
with the count of answers and the BLAKE3 digest of everything before it. Each answer is brought to disk before it counts
as given, so a snapshot that was stopped goes on where it stopped; what a power cut leaves of a last line is dropped. A
file without a footer is a snapshot that is not complete. Who writes holds a lock on the file, which ends with his
process.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from weightgate.errors import DataError
from weightgate.probe.foreign import foreign_rows
from weightgate.probe.plain import is_plain, plain_rows, plain_snapshot
from weightgate.probe.probes import Probe
from weightgate.probe.recording import STRICT, Answered, Header, Reply, Snapshot, in_order
from weightgate.probe.suites import probe_from_json
from weightgate.store.digest import digest_chunks, digest_file

SCHEMA = 1
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no answer of a language model; it is refused before it is parsed."""

_FOOTER_BYTES = 400
_FOOTER_START = b'{"kind":"footer",'
_HEADER_START = b'{"kind":"header",'

Model = TypeVar("Model")


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot, a plain recording (`weightgate.probe.plain`), or another tool's (`weightgate.probe.foreign`).

    Raises `DataError` with file and line for whatever is neither, and where the footer does not fit the file.
    """
    lines = _lines(path)
    if lines and is_plain(lines[0]):
        return plain_snapshot(path, plain_rows(lines, str(path)))
    rows = foreign_rows(lines, str(path))
    if rows is not None:
        return plain_snapshot(path, rows)
    return _Reader(path).read(_whole(lines))


def is_finished(path: Path) -> bool:
    """Whether a snapshot's file ends in a footer, read from its last bytes only."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _FOOTER_BYTES))
        last = file.read().splitlines()[-1:]
    return bool(last) and last[0].startswith(_FOOTER_START)


def discard_unbegun(path: Path) -> bool:
    """Remove a file that holds nothing, or no more than a part of a header; returns whether it was one.

    Raises `DataError` where another process is writing it, or where it cannot be removed.
    """
    lines = _lines(path)
    is_part = len(lines) == 1 and not lines[0].endswith(b"\n") and _begins_header(lines[0])
    if lines and not is_part:
        return False
    discard(path)
    return True


def discard(path: Path) -> None:
    """Remove a snapshot. Raises `DataError` where another process is writing it, or where it cannot be removed."""
    try:
        with path.open("rb") as file:
            _lock(file, path)
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _begins_header(line: bytes) -> bool:
    return line.startswith(_HEADER_START) or _HEADER_START.startswith(line)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a whole snapshot, over whatever stood there; a footer only where it is complete."""
    lines = [*_opening_lines(snapshot.header, snapshot.probes), *map(_answer_line, snapshot.answers)]
    if snapshot.complete:
        lines.append(_footer_line(len(snapshot.answers), digest_chunks(lines)))
    path.write_bytes(b"".join(lines))


class SnapshotWriter:
    """Adds answers to a snapshot's file; each is on disk when `append` returns."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    @classmethod
    def create(cls, path: Path, header: Header, probes: Sequence[Probe]) -> SnapshotWriter:
        """Begin a new file. Raises `DataError` when there is one already, or where none can be written."""
        try:
            file = path.open("xb")
        except FileExistsError:
            raise DataError("the snapshot is there already", where=str(path), mend="choose another file") from None
        except OSError as error:
            raise _unwritable(path, error) from None
        _lock(file, path)
        writer = cls(path, file)
        writer._add(_opening_lines(header, probes))
        return writer

    @classmethod
    def resume(cls, path: Path) -> SnapshotWriter:
        """Go on with a file that `load_snapshot` reads and that has no footer yet, behind its last whole line.

        What was read before may be out of date: only from now on does nobody else write. Raises `DataError` where
        another process does, or where the file cannot be written.
        """
        try:
            file = path.open("r+b")
        except OSError as error:
            raise _unwritable(path, error) from None
        _lock(file, path)
        kept_bytes = sum(map(len, _whole(_lines(path))))
        file.truncate(kept_bytes)
        file.seek(kept_bytes)
        return cls(path, file)

    def append(self, answers: Sequence[Answered]) -> None:
        """Add answers, in one write and one sync."""
        self._add([_answer_line(answer) for answer in answers])

    def finish(self, answers: int) -> None:
        """Add the footer: `answers` is how many probes and samples have one."""
        self._add([_footer_line(answers, digest_file(self._path))])

    def _add(self, lines: Sequence[bytes]) -> None:
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep others from writing; the lock goes with the file, however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DataError(
            "another process is writing this snapshot", where=str(path), mend="let it finish, or choose another file"
        ) from None


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError("the snapshot cannot be written", where=str(path), found=error.strerror or str(error))


def _opening_lines(header: Header, probes: Sequence[Probe]) -> list[bytes]:
    first = _line({"kind": "header", "schema": SCHEMA, "header": asdict(header)})
    return [first, *(_line({"kind": "probe", "probe": probe.to_json()}) for probe in probes)]


def _answer_line(answer: Answered) -> bytes:
    return _line({"kind": "answer", "id": answer.probe.id, "sample": answer.sample, "reply": answer.reply.to_json()})


def _footer_line(answers: int, digest: str) -> bytes:
    return _line({"kind": "footer", "answers": answers, "digest": digest})


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _whole(lines: list[bytes]) -> list[bytes]:
    """Leave out a last line without an end: a write that was cut off."""
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _lines(path: Path) -> list[bytes]:
    try:
        return list(_read_lines(path))
    except FileNotFoundError:
        raise DataError("there is no snapshot here", where=str(path)) from None
    except OSError as error:
        raise DataError("the snapshot cannot be read", where=str(path), found=error.strerror or str(error)) from None


def _read_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                expected = f"at most {MAX_LINE_BYTES:,} bytes"
                raise DataError("the line is too long", where=f"{path}:{number}", expected=expected)
            yield line


@dataclass(frozen=True, kw_only=True)
class _HeaderLine:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: Literal["header"]
    schema: int
    header: Header


@dataclass(frozen=True, kw_only=True)
class _AnswerLine:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: Literal["answer"]
    id: str
    sample: int
    reply: Reply


@dataclass(frozen=True, kw_only=True)
class _FooterLine:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: Literal["footer"]
    answers: int
    digest: str


_HEADER = TypeAdapter(_HeaderLine)
_ANSWER = TypeAdapter(_AnswerLine)
_FOOTER = TypeAdapter(_FooterLine)


class _Reader:
    """Reads the lines of one file in turn; every complaint names the line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._probes: dict[str, Probe] = {}
        self._answers: dict[tuple[str, int], Answered] = {}

    def read(self, lines: Sequence[bytes]) -> Snapshot:
        if not lines:
            raise self._wrong(1, "the snapshot is empty")
        header = self._header(lines[0])
        complete = False
        for number, line in enumerate(lines[1:], start=2):
            if complete:
                raise self._wrong(number, "something stands behind the footer")
            kind, data = self._kind(number, line)
            if kind == "probe":
                self._add_probe(number, data)
            elif kind == "footer":
                self._check_footer(number, line, digest_chunks(lines[: number - 1]))
                complete = True
            else:
                self._add_answer(number, line, header.decoding.samples)
        probes = tuple(self._probes.values())
        return Snapshot(
            header=header, probes=probes, answers=in_order(probes, self._answers.values()), complete=complete
        )

    def _header(self, line: bytes) -> Header:
        kind, data = self._kind(1, line)
        if kind == "header" and data.get("schema") != SCHEMA:
            found = str(data.get("schema"))[:40]
            raise self._wrong(1, "the snapshot has another schema", expected=str(SCHEMA), found=found)
        return self._parse(_HEADER, 1, line).header

    def _kind(self, number: int, line: bytes) -> tuple[str, dict[str, Any]]:
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._wrong(number, "the line is not JSON", found=str(error)[:200]) from None
        if not isinstance(data, dict):
            raise self._wrong(number, "the line is no JSON object")
        return str(data.get("kind")), data

    def _add_probe(self, number: int, data: dict[str, Any]) -> None:
        probe = probe_from_json(data.get("probe"), f"{self._path}:{number}", checks_required=False)
        if probe.id in self._probes:
            raise self._wrong(number, f"the probe {probe.id!r} stands twice")
        self._probes[probe.id] = probe

    def _add_answer(self, number: int, line: bytes, samples: int) -> None:
        read = self._parse(_ANSWER, number, line)
        probe = self._probes.get(read.id)
        if probe is None:
            raise self._wrong(number, f"an answer to a probe that is not in the file: {read.id!r}")
        if not 0 <= read.sample < samples:
            raise self._wrong(number, "no such sample", expected=f"0 to {samples - 1}", found=str(read.sample))
        earlier = self._answers.get((read.id, read.sample))
        if earlier is not None and earlier.reply.error is None:
            raise self._wrong(number, f"a second answer to sample {read.sample} of {read.id!r}")
        self._answers[read.id, read.sample] = Answered(probe=probe, sample=read.sample, reply=read.reply)

    def _check_footer(self, number: int, line: bytes, digest: str) -> None:
        footer = self._parse(_FOOTER, number, line)
        if footer.digest != digest:
            raise self._wrong(
                number, "the file was changed after it was finished", expected=footer.digest, found=digest
            )
        if footer.answers != len(self._answers):
            expected, found = f"{footer.answers} answers", str(len(self._answers))
            raise self._wrong(number, "answers are missing", expected=expected, found=found)

    def _parse(self, adapter: TypeAdapter[Model], number: int, line: bytes) -> Model:
        try:
            return adapter.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(step) for step in first["loc"])
            raise self._wrong(number, f"wrong line: {place}: {first['msg']}" if place else first["msg"]) from None

    def _wrong(self, number: int, what: str, **sides: str) -> DataError:
        return DataError(what, where=f"{self._path}:{number}", **sides)

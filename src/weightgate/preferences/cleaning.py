"""`--fix`: a cleaned copy of the file, and a log of every row that was left out or changed, and why.

Rows are copied byte for byte; only their order of writing is ours. What stays a matter of judgement, such as likely
mislabelled rows, is left out only when asked for.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow
import pyarrow.parquet

from weightgate.errors import DataError, file_errors
from weightgate.preferences.audit import Audit
from weightgate.preferences.contradictions import Opposed
from weightgate.preferences.reading import is_csv, raw_lines
from weightgate.preferences.votes import FAULT_KINDS
from weightgate.store.digest import digest_file


@dataclass(frozen=True, kw_only=True)
class Removal:
    """One row that is left out. `annotator` is whose vote it was, or ""."""

    line: int
    reason: str
    detail: str = ""
    annotator: str = ""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What `--fix` wrote: the file, its log, how many rows were kept, and the removals by reason and by annotator."""

    path: Path
    log: Path
    kept: int
    reasons: Mapping[str, int]
    annotators: Mapping[str, int]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "path": str(self.path), "log": str(self.log)}


def removals_of(audit: Audit, *, noise: bool = False) -> list[Removal]:
    """Every row to leave out, each once, by line; the first reason found counts.

    Args:
        noise: also leave out rows that are likely mislabelled.
    """
    found: dict[int, Removal] = {}
    for removal in _removals(audit, noise):
        found.setdefault(removal.line, removal)
    return [found[line] for line in sorted(found)]


def write_cleaned(audit: Audit, source: Path, target: Path, *, noise: bool = False) -> Cleaned:
    """Write the cleaned file and `<target>.log.jsonl` beside it.

    Raises `DataError` where the disk refuses, and as `require_new` does.
    """
    require_new(source, target)
    with file_errors("cleaned file", target, DataError):
        try:
            return _written(audit, source, target, noise=noise)
        except OSError:
            for path in (target, _log_of(target)):  # neither was there before
                with suppress(OSError):
                    path.unlink()
            raise


def _written(audit: Audit, source: Path, target: Path, *, noise: bool) -> Cleaned:
    log = _log_of(target)
    removals = removals_of(audit, noise=noise)
    gone = {removal.line for removal in removals}
    kept = _copy_parquet(source, target, gone) if source.suffix == ".parquet" else _copy_lines(source, target, gone)
    digest = digest_file(target)
    with log.open("w", encoding="utf-8") as file:
        head = {"source": audit.preferences.described(), "written": str(target.name), "digest": digest, "kept": kept}
        file.write(json.dumps(head) + "\n")
        for removal in removals:
            file.write(json.dumps({"action": "removed", **vars(removal)}) + "\n")
    return Cleaned(
        path=target,
        log=log,
        kept=kept,
        reasons=Counter(removal.reason for removal in removals),
        annotators=Counter(removal.annotator for removal in removals if removal.annotator),
        digest=digest,
    )


def _removals(audit: Audit, noise: bool) -> Iterator[Removal]:
    who = {vote.line: vote.annotator or "" for vote in audit.preferences.votes}
    for fault in audit.preferences.faults:
        if fault.blocks:
            words = FAULT_KINDS[fault.kind].words
            yield Removal(
                line=fault.line, reason=fault.kind, detail=fault.detail or words, annotator=who.get(fault.line, "")
            )
    reasons: list[tuple[int, str, str]] = []
    lines = audit.every_lines
    for rows in audit.contradictions.duplicates:
        reasons += [(lines[row], "repeated", f"as line {lines[rows[0]]}") for row in rows[1:]]
    for one in audit.contradictions.opposed:
        if one.same_annotator or not audit.every.annotators:
            against = ", ".join(str(lines[row]) for row in one.more[:5])
            reasons += [(lines[row], "judged both ways", f"against line {against}") for row in _losing(one)]
    for circle in audit.contradictions.circles:
        reasons += [(lines[row], "in a circle", "one of the fewest votes that break it") for row in circle.remove]
    if noise:
        reasons += [
            (audit.lines[one.row], "likely mislabelled", f"{one.probability:.2f}") for one in audit.noise.suspects
        ]
    for line, reason, detail in reasons:
        yield Removal(line=line, reason=reason, detail=detail, annotator=who.get(line, ""))


def _losing(one: Opposed) -> tuple[int, ...]:
    """The minority's votes; all of them where both sides have as many."""
    return one.fewer if len(one.fewer) < len(one.more) else (*one.fewer, *one.more)


def _log_of(target: Path) -> Path:
    return target.with_name(target.name + ".log.jsonl")


def require_new(source: Path, target: Path) -> None:
    """Raise `DataError` unless `source` is a file, and `target` and its log are none yet and keep its format."""
    if not source.is_file():
        raise DataError("only a file can be cleaned", where=str(source), mend="download the data set to a file first")
    for path in (target, _log_of(target)):
        if path.exists():
            raise DataError(
                "there is something already; nothing is changed in place",
                where=str(path),
                mend="give --fix the name of a file that is not there yet, or move this one away",
            )
    kinds = [path.name.lower().removesuffix(".gz").rpartition(".")[2] for path in (source, target)]
    if kinds[0] != kinds[1]:
        raise DataError(
            "the cleaned file keeps the format",
            where=str(target),
            expected=f".{kinds[0]}",
            found=f".{kinds[1]}",
            mend=f"--fix {target.with_suffix(f'.{kinds[0]}')}",
        )


def _copy_lines(source: Path, target: Path, gone: set[int]) -> int:
    """Copy the lines of the rows that stay; of CSV the header and whole records, which may span lines."""
    records = _csv_records(source) if is_csv(source) else ((number, line, True) for number, line in raw_lines(source))
    kept = 0
    with cast(IO[bytes], gzip.open(target, "wb") if target.suffix == ".gz" else target.open("wb")) as file:
        for number, line, counts in records:
            if number not in gone and (line.strip() or not counts):
                file.write(line)
                kept += counts
    return kept


def _csv_records(source: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(line as the reader counts it, bytes, whether it is a row): records as they stand in the file."""
    lines = [line for _, line in raw_lines(source)]
    texts = (line.decode("utf-8-sig" if at == 0 else "utf-8", "surrogateescape") for at, line in enumerate(lines))
    reader = csv.reader(texts)
    start = 0
    for position, _ in enumerate(reader):
        yield reader.line_num, b"".join(lines[start : reader.line_num]), position > 0
        start = reader.line_num


def _copy_parquet(source: Path, target: Path, gone: set[int]) -> int:
    rows = pyarrow.parquet.read_table(source)
    stay = rows.filter(pyarrow.array([number not in gone for number in range(1, len(rows) + 1)]))
    pyarrow.parquet.write_table(stay, target, compression="zstd")
    return len(stay)

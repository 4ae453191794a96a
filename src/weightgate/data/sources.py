"""The recipe's sources -> records, lazily and in file order. Torch-free.

A reader raises `DataError` for the first row that is not what was declared. Rows that are well formed but of no use
(an empty answer, two dialogues that part early) raise as well, unless the caller passes a `Skipped`, which counts
them and gives up only when they are more than `MAX_UNUSABLE_SHARE` of the records: real data sets hold a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from weightgate.data.files import Format, RawRow, detect_format, read_rows, require_file
from weightgate.data.hub import hub_digest, hub_rows
from weightgate.data.records import (
    Columns,
    Conversation,
    Document,
    Message,
    Preference,
    UnusableRecordError,
    check_mapping,
    to_conversation,
    to_document,
    to_preference,
    to_prompt,
)
from weightgate.errors import DataError
from weightgate.recipe import Source
from weightgate.store.digest import digest_file

__all__ = [
    "Conversation",
    "Document",
    "Message",
    "Preference",
    "Skipped",
    "domain_of",
    "read_conversations",
    "read_documents",
    "read_preferences",
    "read_prompts",
    "source_digest",
]

MAX_UNUSABLE_SHARE = 0.01
"""More unusable records than this mean a wrong mapping or a broken file rather than a few blemishes."""

Record = TypeVar("Record")


@dataclass(kw_only=True)
class Skipped:
    """Counts the unusable records of one pass, and keeps the first of them for the message."""

    seen: int = 0
    count: int = 0
    first: UnusableRecordError | None = field(default=None, repr=False)

    def add(self, problem: UnusableRecordError) -> None:
        """Count one record that was left out."""
        self.count += 1
        self.first = self.first or problem

    def check(self) -> None:
        """Raise the first problem, with the count, where too many records were left out."""
        if self.first is not None and self.count > MAX_UNUSABLE_SHARE * self.seen:
            raise DataError(
                f"{self.first.what}; {self.count:,} of {self.seen:,} records cannot be used",
                where=self.first.where,
                expected=self.first.expected,
                found=self.first.found,
                mend="remove or complete these records",
            )


def read_documents(sources: Sequence[Source], root: Path, skipped: Skipped | None = None) -> Iterator[Document]:
    """Yield the documents of every source; `root` is the recipe's folder."""
    return _read(sources, root, to_document, skipped)


def read_conversations(sources: Sequence[Source], root: Path, skipped: Skipped | None = None) -> Iterator[Conversation]:
    """Yield conversations that end with the assistant."""
    return _read(sources, root, to_conversation, skipped)


def read_preferences(sources: Sequence[Source], root: Path, skipped: Skipped | None = None) -> Iterator[Preference]:
    """Yield comparisons of two completions."""
    return _read(sources, root, to_preference, skipped)


def read_prompts(sources: Sequence[Source], root: Path, skipped: Skipped | None = None) -> Iterator[Conversation]:
    """Yield conversations that end with the user, for a policy to answer."""
    return _read(sources, root, to_prompt, skipped)


def source_digest(source: Source, root: Path) -> str:
    """Digest of the file's bytes; for the hub, of the records."""
    if source.path is None or _hub_stands_in(source, root):
        return hub_digest(source)
    path = root / source.path
    require_file(path, source.path)
    return digest_file(path)


def domain_of(source: Source) -> str:
    """The name under which the source's hold-out loss is reported."""
    if source.domain is not None:
        return source.domain
    return Path(source.path).name.split(".")[0] if source.path is not None else str(source.hub)


def _read(
    sources: Sequence[Source], root: Path, convert: Callable[[Columns, str], Record], skipped: Skipped | None
) -> Iterator[Record]:
    for source in sources:
        yield from _read_one(source, root, convert, skipped)
    if skipped is not None:
        skipped.check()


def _read_one(
    source: Source, root: Path, convert: Callable[[Columns, str], Record], skipped: Skipped | None
) -> Iterator[Record]:
    name = str(source.path or source.hub)
    check_mapping(source.columns, name)
    domain = domain_of(source)
    found_any = False
    for row in islice(_rows(source, root), source.limit):
        found_any = True
        if skipped is None:
            yield convert(Columns(row=row, mapping=source.columns), domain)
            continue
        skipped.seen += 1
        try:
            record = convert(Columns(row=row, mapping=source.columns), domain)
        except UnusableRecordError as problem:
            skipped.add(problem)
        else:
            yield record
    if not found_any:
        raise DataError("the source is empty", where=name, expected="at least one record")


def _hub_stands_in(source: Source, root: Path) -> bool:
    """Whether the hub takes the place of a file that is not there. The lock's digest tells the two apart."""
    return source.path is not None and source.hub is not None and not (root / source.path).exists()


def _rows(source: Source, root: Path) -> Iterator[RawRow]:
    if source.path is None or _hub_stands_in(source, root):
        return hub_rows(source)
    kind: Format = detect_format(source.path) if source.format == "auto" else source.format
    return read_rows(root / source.path, source.path, kind, source.documents)

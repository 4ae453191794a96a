"""Sources -> tokenised, split and cached data sets, each with a census of what it teaches.

The cache is keyed by the bytes of the sources, not by their names or times, together with all else that the result
depends on. A prepared folder that is not exactly what was written is thrown away and made again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from weightgate.contract.census import Census, Kind
from weightgate.data.cached import read_meta, write_meta
from weightgate.data.records import Conversation, Document, Preference
from weightgate.data.rows import PairRows, PairWriter, RowWriter, TokenRows
from weightgate.data.sources import (
    Skipped,
    read_conversations,
    read_documents,
    read_preferences,
    read_prompts,
    source_digest,
)
from weightgate.data.split import deduplicate, is_holdout, record_digest, split_digest
from weightgate.data.tokenizer import Tokenizer
from weightgate.data.writing import (
    Side,
    Sides,
    write_conversations,
    write_documents,
    write_preferences,
    write_prompts,
)
from weightgate.errors import CorruptError, DataError
from weightgate.recipe import Source
from weightgate.store.digest import digest_json
from weightgate.store.fs import LocalFs, disk_errors, is_orphan, temporary_name

VERSION = 2
"""Part of every cache key; raised when the same input would be prepared differently."""

Rows = TypeVar("Rows", TokenRows, PairRows)
Writer = TypeVar("Writer", RowWriter, PairWriter)
Record = TypeVar("Record", Document, Conversation, Preference)

Reader = Callable[[Sequence[Source], Path, Skipped | None], Iterator[Record]]
Write = Callable[[Iterator[tuple[int, Record]], Tokenizer, int, Sides[Writer]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared(Generic[Rows]):
    """A data set ready for its loader.

    `digest` stands for the content: for the rows of both sides.
    """

    train: Rows
    holdout: Rows
    census: Census
    digest: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which data to prepare, and how.

    Args:
        sources: as the recipe has them.
        root: the recipe's folder.
        tokenizer: with the chat template to use.
        context: tokens per row; for prompts, the longest prompt.
        holdout: share of the records to keep out.
        cache: folder that prepared data is kept in.
    """

    sources: Sequence[Source]
    root: Path
    tokenizer: Tokenizer
    context: int
    holdout: float
    cache: Path


def prepare_documents(request: Request) -> Prepared[TokenRows]:
    """Prepare raw text for pre-training. Raises `DataError`."""
    return _prepare(request, "documents", read_documents, write_documents, RowWriter, TokenRows.open)


def prepare_conversations(request: Request) -> Prepared[TokenRows]:
    """Prepare conversations for supervised fine-tuning. Raises `DataError`."""
    return _prepare(request, "conversations", read_conversations, write_conversations, RowWriter, TokenRows.open)


def prepare_preferences(request: Request) -> Prepared[PairRows]:
    """Prepare chosen/rejected pairs for a reward model. Raises `DataError`."""
    return _prepare(request, "preferences", read_preferences, write_preferences, PairWriter, PairRows.open)


def prepare_prompts(request: Request) -> Prepared[TokenRows]:
    """Prepare prompts for a policy to answer. Raises `DataError`."""
    return _prepare(request, "prompts", read_prompts, write_prompts, RowWriter, TokenRows.open)


def training_texts(sources: Sequence[Source], root: Path, holdout: float) -> Iterator[str]:
    """Yield the documents that are not held out, for training a tokenizer."""
    for document in read_documents(sources, root, Skipped()):
        if not is_holdout(split_digest(document), holdout):
            yield document.text


def _prepare(
    request: Request,
    kind: Kind,
    read: Reader[Record],
    write: Write[Record, Writer],
    new_writer: Callable[[Path, int], Writer],
    open_rows: Callable[[Path], Rows],
) -> Prepared[Rows]:
    folder = request.cache / cache_key(request, kind).removeprefix("b3:")
    with suppress(CorruptError):
        return _open(folder, open_rows)
    shutil.rmtree(folder, ignore_errors=True)
    temporary = request.cache / temporary_name()
    try:
        before = _stamps(request)
        with disk_errors(LocalFs(), request.cache):
            _sweep(request.cache)
            census = _write(request, kind, read, write, new_writer, temporary)
            if _stamps(request) != before:
                raise DataError("a source changed while it was read", mend="run the same command again")
            write_meta(temporary, census)
            _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _open(folder, open_rows)


def _sweep(cache: Path) -> None:
    """Remove what processes that were killed left half-written."""
    for name in filter(is_orphan, LocalFs().names(cache)):
        shutil.rmtree(cache / name, ignore_errors=True)


def cache_key(request: Request, kind: Kind) -> str:
    """Digest of all that prepared data depends on."""
    key: dict[str, Any] = {
        "version": VERSION,
        "kind": kind,
        "sources": [
            {"bytes": source_digest(source, request.root), **source.model_dump(mode="json")}
            for source in request.sources
        ],
        "tokenizer": request.tokenizer.digest,
        "template": request.tokenizer.template_digest,
        "context": request.context,
        "holdout": repr(request.holdout),
    }
    return digest_json(key)


def _write(
    request: Request,
    kind: Kind,
    read: Reader[Record],
    write: Write[Record, Writer],
    new_writer: Callable[[Path, int], Writer],
    folder: Path,
) -> Census:
    skipped, counts = Skipped(), Counter[str]()
    vocab_size = request.tokenizer.vocab_size
    with new_writer(folder / "train", vocab_size) as train, new_writer(folder / "holdout", vocab_size) as holdout:
        sides = Sides(
            train=Side(writer=train, counts=Counter()),
            holdout=Side(writer=holdout, counts=Counter()),
            share=request.holdout,
        )
        records = enumerate(read(request.sources, request.root, skipped))
        unique = deduplicate(records, lambda numbered: record_digest(numbered[1]), counts)
        write(unique, request.tokenizer, request.context, sides)
        return Census(
            kind=kind,
            unusable=skipped.count,
            holdout_rows=holdout.num_rows,
            **counts,
            **sides.train.counts,
        )


def _open(folder: Path, open_rows: Callable[[Path], Rows]) -> Prepared[Rows]:
    census = read_meta(folder)
    train, holdout = open_rows(folder / "train"), open_rows(folder / "holdout")
    return Prepared(train=train, holdout=holdout, census=census, digest=digest_json([train.digest, holdout.digest]))


def _publish(temporary: Path, folder: Path) -> None:
    """Give the finished folder its name, unless another process was faster."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _stamps(request: Request) -> list[tuple[int, int]]:
    """Size and time of each file that is there, to notice an edit between hashing and reading."""
    paths = [request.root / source.path for source in request.sources if source.path is not None]
    stats = [path.stat() for path in paths if path.exists()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

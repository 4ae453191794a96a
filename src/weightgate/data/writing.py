"""Records -> tokenised rows, counted: one function per kind of record.

Rows of the training side are counted into a census as they are written; the hold-out side is prepared in the same way
and only its number of rows is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from weightgate.data.records import Conversation, Document, Message, Preference
from weightgate.data.rows import PairWriter, RowWriter
from weightgate.data.split import is_holdout, split_digest
from weightgate.data.template import TemplateError
from weightgate.data.tokenizer import Supervised, Tokenizer

_BATCH_RECORDS = 1024
_BATCH_CHARACTERS = 4_000_000
"""Records are tokenised in batches, in parallel; this bounds what a batch holds."""

Record = TypeVar("Record", Document, Conversation, Preference)
Writer = TypeVar("Writer", RowWriter, PairWriter)
Rendered = TypeVar("Rendered")

Numbered = Iterable[tuple[int, Record]]
"""Records with their position in the reading order."""


@dataclass(frozen=True, kw_only=True)
class Side(Generic[Writer]):
    """One side of the split: where its rows go and what is counted about them (names as in `Census`)."""

    writer: Writer
    counts: Counter[str]


@dataclass(frozen=True, kw_only=True)
class Sides(Generic[Writer]):
    """Both sides, and the share of records that is held out."""

    train: Side[Writer]
    holdout: Side[Writer]
    share: float

    def of(self, record: Document | Conversation | Preference) -> Side[Writer]:
        """The side that a record belongs to; counts it."""
        side = self.holdout if is_holdout(split_digest(record), self.share) else self.train
        side.counts["records"] += 1
        return side


def write_documents(records: Numbered[Document], tokenizer: Tokenizer, context: int, sides: Sides[RowWriter]) -> None:
    """Write documents, BOS to EOS, cut into pieces of at most `context` tokens.

    A piece starts with the last token of the piece before it, so every token but BOS is a target exactly once.
    """
    for batch in _batches(records):
        texts = [document.text for _, document in batch]
        for (number, document), ids in zip(batch, tokenizer.document_ids(texts), strict=True):
            side = sides.of(document)
            bos = 0 if tokenizer.bos_id is None else 1
            side.counts["rows_not_one_bos"] += _leading(ids, tokenizer.bos_id) != bos
            side.counts["rows_not_one_eos"] += ids[1:].count(tokenizer.eos_id) != 1
            for start in range(0, max(1, len(ids) - 1), context - 1):
                piece = ids[start : start + context]
                supervised = [False] + [True] * (len(piece) - 1)
                _append(side, piece, supervised, tokenizer, document.domain, number)


def write_conversations(
    records: Numbered[Conversation], tokenizer: Tokenizer, context: int, sides: Sides[RowWriter]
) -> None:
    """Write conversations whose answers are supervised, cut at `context` tokens."""
    for batch in _batches(records):
        rendered = _located(tokenizer.render_conversations, *_messages_and_places(batch))
        for (number, conversation), (ids, supervised) in zip(batch, rendered, strict=True):
            side = sides.of(conversation)
            answers = sum(message.role == "assistant" for message in conversation.messages)
            _count_faults(side.counts, ids, supervised, answers, tokenizer)
            _append_truncated(side, ids, supervised, tokenizer, context, (conversation.domain, number))


def write_preferences(
    records: Numbered[Preference], tokenizer: Tokenizer, context: int, sides: Sides[PairWriter]
) -> None:
    """Write pairs. A pair that does not fit into `context` tokens is dropped: a cut could hide its only difference."""
    for batch in _batches(records):
        rendered = _located(tokenizer.render_conversations, *_both(batch))
        for (number, preference), chosen, rejected in zip(batch, rendered[::2], rendered[1::2], strict=True):
            side = sides.of(preference)
            answers = sum(message.role == "assistant" for message in preference.prompt) + 1
            _count_faults(side.counts, *chosen, answers, tokenizer)
            prompt, one = _split_last_answer(chosen)
            _, other = _split_last_answer(rejected)
            if one == other:
                side.counts["pairs_identical"] += 1
            elif len(prompt) + max(len(one), len(other)) > context:
                side.counts["rows_too_long"] += 1
            else:
                side.writer.append(prompt, one, other, domain=preference.domain, record=number)
                side.counts["rows"] += 1
                side.counts["tokens"] += 2 * len(prompt) + len(one) + len(other)
                side.counts["supervised_tokens"] += len(one) + len(other)
                ends = one[-1] in tokenizer.stop_ids and other[-1] in tokenizer.stop_ids
                side.counts["rows_with_terminator_supervised"] += ends


def write_prompts(records: Numbered[Conversation], tokenizer: Tokenizer, context: int, sides: Sides[RowWriter]) -> None:
    """Write prompts with the generation prompt at their end; one that does not fit into `context` is dropped."""
    for batch in _batches(records):
        rendered = _located(tokenizer.render_prompts, *_messages_and_places(batch))
        for (number, conversation), ids in zip(batch, rendered, strict=True):
            side = sides.of(conversation)
            side.counts["rows_not_one_bos"] += _leading(ids, tokenizer.bos_id) != tokenizer.template_bos
            if len(ids) > context:
                side.counts["rows_too_long"] += 1
            else:
                _append(side, ids, [False] * len(ids), tokenizer, conversation.domain, number)


def _messages_and_places(batch: Sequence[tuple[int, Conversation]]) -> tuple[list[tuple[Message, ...]], list[str]]:
    return [conversation.messages for _, conversation in batch], [conversation.where for _, conversation in batch]


def _both(batch: Sequence[tuple[int, Preference]]) -> tuple[list[tuple[Message, ...]], list[str]]:
    """Both dialogues of every pair, chosen first, and where they stand."""
    messages, places = [], []
    for _, preference in batch:
        for completion in (preference.chosen, preference.rejected):
            messages.append((*preference.prompt, Message(role="assistant", content=completion)))
            places.append(preference.where)
    return messages, places


def _split_last_answer(rendered: Supervised) -> tuple[list[int], list[int]]:
    """(ids before the last answer, its ids up to the terminator)."""
    ids, supervised = rendered
    end = len(ids) - supervised[::-1].index(True)
    start = end - next((i for i, target in enumerate(reversed(supervised[:end])) if not target), end)
    return ids[:start], ids[start:end]


def _count_faults(
    counts: Counter[str], ids: list[int], supervised: list[bool], answers: int, tokenizer: Tokenizer
) -> None:
    """Count what a wrong template does to a whole record, before anything is cut."""
    counts["answers"] += answers
    counts["rows_not_one_bos"] += _leading(ids, tokenizer.bos_id) != tokenizer.template_bos
    ends = np.isin(np.asarray(ids)[np.asarray(supervised)], tokenizer.stop_ids).sum()
    counts["rows_not_one_eos"] += int(ends) != answers


def _leading(ids: list[int], bos_id: int | None) -> int:
    """How many BOS there are before the text. Where EOS is the same token, those further on are not meant as BOS."""
    return next((i for i, index in enumerate(ids) if index != bos_id), len(ids))


def _append_truncated(
    side: Side[RowWriter],
    ids: list[int],
    supervised: list[bool],
    tokenizer: Tokenizer,
    context: int,
    origin: tuple[str, int],
) -> None:
    targets = np.flatnonzero(np.asarray(supervised[:context]))
    if len(targets) == 0:
        side.counts["rows_without_supervision"] += 1
        return
    if len(ids) > context:
        side.counts["rows_truncated"] += 1
        side.counts["tokens_truncated"] += len(ids) - context
        side.counts["answers_cut"] += ids[targets[-1]] not in tokenizer.stop_ids
    _append(side, ids[:context], supervised[:context], tokenizer, *origin)
    side.counts["rows_with_terminator_supervised"] += ids[targets[-1]] in tokenizer.stop_ids


def _append(
    side: Side[RowWriter], ids: list[int], supervised: list[bool], tokenizer: Tokenizer, domain: str, number: int
) -> None:
    num_bytes = int(tokenizer.token_bytes[ids][np.asarray(supervised)].sum())
    side.writer.append(ids, supervised, num_bytes=num_bytes, domain=domain, record=number)
    side.counts["rows"] += 1
    side.counts["tokens"] += len(ids)
    side.counts["supervised_tokens"] += sum(supervised)


def _located(
    render: Callable[[Sequence[Sequence[Message]]], list[Rendered]],
    messages: Sequence[Sequence[Message]],
    places: Sequence[str],
) -> list[Rendered]:
    """Render all at once; where the template refuses one, say which."""
    try:
        return render(messages)
    except TemplateError:
        for one, where in zip(messages, places, strict=True):
            try:
                render([one])
            except TemplateError as error:
                error.where = where
                raise
        raise


def _batches(records: Numbered[Record]) -> Iterator[list[tuple[int, Record]]]:
    batch: list[tuple[int, Record]] = []
    characters = 0
    for number, record in records:
        batch.append((number, record))
        characters += _num_characters(record)
        if len(batch) == _BATCH_RECORDS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _num_characters(record: Document | Conversation | Preference) -> int:
    if isinstance(record, Document):
        return len(record.text)
    if isinstance(record, Conversation):
        return sum(len(message.content) for message in record.messages)
    prompt = sum(len(message.content) for message in record.prompt)
    return 2 * prompt + len(record.chosen) + len(record.rejected)

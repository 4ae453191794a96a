"""Hold-out, duplicates and contamination: which record may be used for what. Torch-free."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from blake3 import blake3

from weightgate.data.records import Conversation, Document, Message, Preference

NGRAM_WORDS = 13
"""Words in a row that count as overlap, after GPT-3's decontamination (Brown et al. 2020, appendix C)."""

CONTAINED_WORDS = 8
"""A prompt of fewer words may stand inside another one by chance."""

Kind = Literal["exact", "contained", "overlap"]

_DIGEST_BYTES = 16
"""128 bits: with 10^9 records the chance of any false duplicate is below 2 * 10^-21."""

_WORD = re.compile(r"\w+")

Item = TypeVar("Item")


def content_digest(parts: Iterable[str]) -> bytes:
    """16-byte BLAKE3 digest of texts, blind to white space and to the form in which Unicode is composed."""
    hasher = blake3()
    for part in parts:
        hasher.update(" ".join(unicodedata.normalize("NFC", part).split()).encode())
        hasher.update(b"\x00")
    return hasher.digest(length=_DIGEST_BYTES)


def record_digest(record: Document | Conversation | Preference) -> bytes:
    """Digest of all that would be learnt from: equal digests are duplicates."""
    if isinstance(record, Document):
        return content_digest([record.text])
    if isinstance(record, Conversation):
        return content_digest(_flat(record.messages))
    return content_digest([*_flat(record.prompt), "chosen", record.chosen, "rejected", record.rejected])


def split_digest(record: Document | Conversation | Preference) -> bytes:
    """Digest that decides the side of the split.

    For conversations and preferences it covers what comes before the first answer, so that one prompt, and
    everything that grew out of it, never stands on both sides.
    """
    if isinstance(record, Document):
        return record_digest(record)
    messages = record.messages if isinstance(record, Conversation) else record.prompt
    return content_digest(_flat(messages[: _num_opening(messages)] or messages))


def _num_opening(messages: Sequence[Message]) -> int:
    """How many messages come before the first answer."""
    return next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))


def _flat(messages: Iterable[Message]) -> list[str]:
    return [text for message in messages for text in (message.role, message.content)]


def is_holdout(digest: bytes, share: float) -> bool:
    """Whether a record with this content digest is held out: a fixed function, the same in every run and order."""
    return int.from_bytes(digest[:8], "big") < share * 2**64


def deduplicate(items: Iterable[Item], digest: Callable[[Item], bytes], counts: Counter[str]) -> Iterator[Item]:
    """Yield each item whose digest is new, and count the others as `duplicates_removed`.

    Holds 16 bytes and their overhead per item, not the items.
    """
    seen: set[bytes] = set()
    for item in items:
        key = digest(item)
        if key in seen:
            counts["duplicates_removed"] += 1
        else:
            seen.add(key)
            yield item


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A prompt found in a training text, and the first place it was found at.

    `kind` is `exact` where the whole training text is the prompt; `contained` where all of the prompt, at least
    `CONTAINED_WORDS` long, stands inside a longer text; `overlap` where a shorter prompt or 13 words of one do.
    """

    where: str
    prompt: str
    kind: Kind


def user_texts(records: Iterable[Conversation | Preference]) -> Iterator[Document]:
    """The user messages of fine-tuning and preference records, each as a text of its own for `contamination`."""
    for record in records:
        messages = record.messages if isinstance(record, Conversation) else record.prompt
        for message in messages:
            if message.role == "user":
                yield Document(text=message.content, domain=record.domain, where=record.where)


def contamination(prompts: Sequence[str], documents: Iterable[Document]) -> list[Hit]:
    """Look for evaluation prompts in training texts, in one pass that keeps only the prompts in memory.

    Case, punctuation and white space do not count. Which kind matters is the caller's to say: a chat prompt must not
    be an exact user prompt of the training data, while an overlap is the point of a probe that asks for recall.
    Returns at most one hit of each kind per prompt, in the order of the documents.
    """
    index = _PromptIndex.build(prompts)
    found: dict[tuple[str, str], Hit] = {}
    for document in documents:
        for prompt, kind in index.matches(document.text):
            found.setdefault((prompt, kind), Hit(where=document.where, prompt=prompt, kind=kind))
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class _PromptIndex:
    words: dict[str, tuple[str, ...]]
    whole: dict[tuple[str, ...], list[str]]
    grams: dict[tuple[str, ...], list[str]]
    sizes_by_first_word: dict[str, set[int]]

    @staticmethod
    def build(prompts: Sequence[str]) -> _PromptIndex:
        words_of: dict[str, tuple[str, ...]] = {}
        whole: dict[tuple[str, ...], list[str]] = {}
        grams: dict[tuple[str, ...], list[str]] = {}
        sizes: dict[str, set[int]] = {}
        for prompt in dict.fromkeys(prompts):
            words = _words(prompt)
            if not words:
                continue
            words_of[prompt] = words
            whole.setdefault(words, []).append(prompt)
            size = min(NGRAM_WORDS, len(words))
            for start in range(len(words) - size + 1):
                grams.setdefault(words[start : start + size], []).append(prompt)
                sizes.setdefault(words[start], set()).add(size)
        return _PromptIndex(words=words_of, whole=whole, grams=grams, sizes_by_first_word=sizes)

    def matches(self, text: str) -> Iterator[tuple[str, Kind]]:
        words = _words(text)
        exact = self.whole.get(words, [])
        for prompt in exact:
            yield prompt, "exact"
        for start, word in enumerate(words):
            for size in self.sizes_by_first_word.get(word, ()):
                for prompt in self.grams.get(words[start : start + size], ()):
                    if prompt not in exact:
                        own = self.words[prompt]
                        inside = len(own) >= CONTAINED_WORDS and words[start : start + len(own)] == own
                        yield prompt, "contained" if inside else "overlap"


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))

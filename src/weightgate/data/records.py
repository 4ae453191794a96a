"""What the columns of a raw row mean: documents, conversations, preferences, prompts.

Each `to_*` function turns one row into one record or raises: `DataError` for a row that is not of this kind at
all, `UnusableRecordError` for a well-formed row that nothing can be learnt from, such as one with an empty answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightgate.data.dialogue import is_dialogue, parse_dialogue
from weightgate.data.files import RawRow, json_name
from weightgate.errors import DataError

ROLES = ("system", "user", "assistant")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "text": (),
    "messages": (),
    "prompt": ("instruction", "question"),
    "input": (),
    "completion": ("output", "answer", "response"),
    "chosen": (),
    "rejected": (),
    "annotator": (),
    "timestamp": (),
    "source": (),
    "checks": (),
}
"""Our name of a column -> names that are understood without a `columns` mapping."""


class UnusableRecordError(DataError):
    """A well-formed record that nothing can be learnt from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A piece of raw text. `where` is `file:line`."""

    text: str
    domain: str
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Messages that end with the assistant (training) or with the user (a prompt).

    `checks` are the scorers' conditions that came with a prompt, as plain JSON objects; None: there were none.
    """

    messages: tuple[Message, ...]
    domain: str
    where: str
    checks: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """One comparison: two completions of the same prompt, the better one first.

    `annotator`, `timestamp` and `source` are as recorded, or None.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    annotator: str | None
    timestamp: str | None
    source: str | None
    domain: str
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """A raw row seen through the `columns` mapping of its source."""

    row: RawRow
    mapping: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether the row has the column that we call `name`."""
        return self._key(name) is not None

    def value(self, name: str) -> Any:
        """The value of a column, of whatever type. Raises `DataError` where the column is missing."""
        key = self._key(name)
        if key is None:
            raise self.wrong(f"a column {name!r}")
        return self.row.values[key]

    def text(self, name: str) -> str:
        """The value of a column that must be text; it may be blank. Raises `DataError` otherwise."""
        return require_text(self.value(name), self._key(name) or name, self.row.where)

    def label(self, name: str) -> str | None:
        """An optional label such as an annotator, as text."""
        value = self.value(name) if self.has(name) else None
        return None if value is None else str(value)

    def wrong(self, expected: str) -> DataError:
        """The error for a row whose columns do not make the record that was asked for."""
        found = ", ".join(sorted(self.row.values)) or "none"
        return DataError(
            "the row has the wrong columns",
            where=self.row.where,
            expected=expected,
            found=f"columns {found}",
            mend="name the columns in the source, such as `columns: {prompt: <column>, completion: <column>}`",
        )

    def _key(self, name: str) -> str | None:
        mapped = self.mapping.get(name)
        if mapped is not None:
            if mapped not in self.row.values:
                raise self.wrong(f"a column {mapped!r}, as `columns: {{{name}: {mapped}}}` says")
            return mapped
        return next((key for key in (name, *_SYNONYMS[name]) if key in self.row.values), None)


def check_mapping(mapping: Mapping[str, str], where: str) -> None:
    """Refuse a `columns` mapping that names something we do not read."""
    for name in mapping:
        if name not in _SYNONYMS:
            near = difflib.get_close_matches(name, _SYNONYMS, n=1, cutoff=0.4)
            raise DataError(
                f"`columns` maps an unknown name {name!r}",
                where=where,
                expected=f"one of {', '.join(_SYNONYMS)}",
                found=name,
                mend=f"did you mean {near[0]!r}?" if near else "the form is `our name: name in the file`",
            )


def require_text(value: object, name: str, where: str) -> str:
    """Return `value` if it is text that UTF-8 can hold; raise `DataError` otherwise."""
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not text", where=where, expected="text", found=json_name(value))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{name!r} holds half of a surrogate pair", where=where, expected="text that UTF-8 can hold"
        ) from None
    return value


def to_document(columns: Columns, domain: str) -> Document:
    """Read a row with the column `text`."""
    text = columns.text("text")
    _require_content(text, "the document", columns.row.where)
    return Document(text=text, domain=domain, where=columns.row.where)


def to_conversation(columns: Columns, domain: str) -> Conversation:
    """Read `messages`, or a prompt with a completion (also instruction/input/output and question/answer)."""
    where = columns.row.where
    if columns.has("messages"):
        messages = _messages(columns.value("messages"), "messages", where)
        if messages[-1].role != "assistant":
            raise DataError(
                "the conversation does not end with the assistant",
                where=where,
                expected="a last message with role assistant",
                found=f"role {messages[-1].role}",
            )
    elif columns.has("prompt") and columns.has("completion"):
        answer = Message(role="assistant", content=columns.text("completion"))
        messages = (*_plain_prompt(columns), answer)
    else:
        raise columns.wrong("`messages`, or `prompt` and `completion`")
    for message in messages:
        if message.role == "assistant":
            _require_content(message.content, "the answer", where)
    return Conversation(messages=messages, domain=domain, where=where, checks=_checks(columns))


def to_prompt(columns: Columns, domain: str) -> Conversation:
    """Read what comes before the last answer: of messages, of a prompt column, or of a preference's dialogue."""
    where = columns.row.where
    if columns.has("messages"):
        messages = _messages(columns.value("messages"), "messages", where)
        messages = messages[:-1] if messages[-1].role == "assistant" else messages
    elif columns.has("prompt"):
        messages = _prompt_column(columns)
    elif columns.has("chosen"):
        messages = to_preference(columns, domain).prompt
    else:
        raise columns.wrong("`messages`, `prompt`, or `chosen` and `rejected`")
    _require_user_last(messages, where)
    return Conversation(messages=messages, domain=domain, where=where, checks=_checks(columns))


def to_preference(columns: Columns, domain: str) -> Preference:
    """Read `chosen` and `rejected`: completions with a `prompt`, whole dialogues, or message lists."""
    where = columns.row.where
    if not (columns.has("chosen") and columns.has("rejected")):
        raise columns.wrong("`chosen` and `rejected`, with `prompt` unless they are whole dialogues")
    prompt, chosen, rejected = _pair(columns)
    _require_user_last(prompt, where)
    _require_content(chosen, "the chosen completion", where)
    _require_content(rejected, "the rejected completion", where)
    return Preference(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        annotator=columns.label("annotator"),
        timestamp=columns.label("timestamp"),
        source=columns.label("source"),
        domain=domain,
        where=where,
    )


def _pair(columns: Columns) -> tuple[tuple[Message, ...], str, str]:
    chosen, rejected, where = columns.value("chosen"), columns.value("rejected"), columns.row.where
    before = _prompt_column(columns) if columns.has("prompt") else ()
    if isinstance(chosen, list) and isinstance(rejected, list):
        pair = _messages(chosen, "chosen", where), _messages(rejected, "rejected", where)
        # Some sets repeat the prompt inside both lists, some do not.
        repeated = not before or pair[0][: len(before)] == before
        return _part(*pair, where) if repeated else _part((*before, *pair[0]), (*before, *pair[1]), where)
    texts = columns.text("chosen"), columns.text("rejected")
    if before:
        return before, *texts
    if is_dialogue(texts[0]) and is_dialogue(texts[1]):
        return _part(_dialogue(texts[0], where), _dialogue(texts[1], where), where)
    raise columns.wrong('a `prompt`, or dialogues that start with "\\n\\nHuman:" in both `chosen` and `rejected`')


def _dialogue(text: str, where: str) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=content) for role, content in parse_dialogue(text, where))


def _part(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], where: str
) -> tuple[tuple[Message, ...], str, str]:
    """Split two dialogues into their common prompt and the two last answers."""
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1].role != "assistant":
            raise UnusableRecordError(f"the {name} dialogue does not end with the assistant", where=where)
    if chosen[:-1] != rejected[:-1]:
        raise UnusableRecordError(
            "the two dialogues part before their last answer",
            where=where,
            expected="the same messages up to the last",
            found=f"{len(chosen)} and {len(rejected)} messages",
        )
    return chosen[:-1], chosen[-1].content, rejected[-1].content


def _prompt_column(columns: Columns) -> tuple[Message, ...]:
    """A prompt given as text, as a dialogue or as a list of messages."""
    value = columns.value("prompt")
    if isinstance(value, list):
        return _messages(value, "prompt", columns.row.where)
    return _plain_prompt(columns)


def _plain_prompt(columns: Columns) -> tuple[Message, ...]:
    """A prompt column, followed by the `input` column where it says something."""
    text = columns.text("prompt")
    extra = columns.text("input") if columns.has("input") else ""
    text = f"{text}\n\n{extra}" if extra.strip() else text
    _require_content(text, "the prompt", columns.row.where)
    return (Message(role="user", content=text),)


def _messages(value: object, name: str, where: str) -> tuple[Message, ...]:
    expected = 'a list of {"role": ..., "content": ...}'
    if not isinstance(value, list):
        raise DataError(f"{name!r} is not a list of messages", where=where, expected=expected, found=json_name(value))
    if not value:
        raise UnusableRecordError(f"{name!r} is empty", where=where, expected=expected)
    messages = tuple(_message(item, f"{name}[{index}]", where) for index, item in enumerate(value))
    if any(message.role == "system" for message in messages[1:]):
        raise DataError("a system message stands after the first message", where=where)
    return messages


def _message(value: object, name: str, where: str) -> Message:
    if not isinstance(value, dict) or "role" not in value or "content" not in value:
        found = f"keys {', '.join(map(str, value))}" if isinstance(value, dict) else json_name(value)
        raise DataError(f"{name} is no message", where=where, expected="keys role and content", found=found)
    if value["role"] not in ROLES:
        raise DataError(
            f"{name} has an unknown role", where=where, expected=f"one of {', '.join(ROLES)}", found=repr(value["role"])
        )
    return Message(role=value["role"], content=require_text(value["content"], f"{name}.content", where))


def _checks(columns: Columns) -> tuple[Mapping[str, Any], ...] | None:
    if not columns.has("checks") or columns.value("checks") is None:
        return None
    checks = columns.value("checks")
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise DataError("'checks' is no list of objects", where=columns.row.where, found=json_name(checks))
    return tuple(checks)


def _require_user_last(messages: tuple[Message, ...], where: str) -> None:
    if not messages or messages[-1].role != "user":
        raise UnusableRecordError("the prompt does not end with the user", where=where)


def _require_content(text: str, name: str, where: str) -> None:
    if not text.strip():
        raise UnusableRecordError(f"{name} is empty", where=where, expected="some text", mend="remove the record")

"""What a raw row means as a judgement: every layout in use, and for each what may be wrong with it.

Stricter than it is picky: names of columns are taken as they come, types are never bent.

| layout | columns |
|---|---|
| pair | chosen and rejected: texts with a prompt, whole dialogues, or lists of messages |
| vote | two numbered answers (completion_a and completion_b, response_1 and response_2, ...) and who is better |
| scored pair | the same with a score of each instead of a label |
| rating | one answer and its rating, or true/false; answers of one prompt and annotator are compared afterwards |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from weightgate.data.dialogue import is_dialogue, parse_dialogue
from weightgate.data.files import json_name
from weightgate.data.records import ROLES
from weightgate.preferences.votes import Fault, Label, Side, Vote, prompt_text

HUGE_CHARACTERS = 100_000

_SLOTS = (
    *((f"{noun}_a", f"{noun}_b") for noun in ("completion", "response", "answer", "output", "text", "conversation")),
    *((f"{noun}_0", f"{noun}_1") for noun in ("completion", "response", "answer", "output", "text")),
    *((f"{noun}_1", f"{noun}_2") for noun in ("completion", "response", "answer", "output", "text")),
)
_NAMES = {
    "prompt": ("prompt", "instruction", "question", "input"),
    "completion": ("completion", "response", "answer", "output"),
    "label": ("label", "winner", "preference", "preferred", "choice", "better"),
    "rating": ("rating", "score", "label"),
    "annotator": ("annotator", "annotator_id", "worker", "worker_id", "rater", "rater_id", "judge", "user_id"),
    "time": ("time", "timestamp", "created_at", "tstamp"),
    "seconds": ("seconds", "duration_seconds", "duration", "response_time"),
    "category": ("category", "topic", "subset", "source", "domain"),
    "shown": ("shown_first",),
}
"""What we call it -> names of columns that mean it, the first found counts."""

_TIES = {
    "tie": "tie",
    "equal": "tie",
    "same": "tie",
    "draw": "tie",
    "both_bad": "both bad",
    "tie (bothbad)": "both bad",
}
_SKIPS = {"skip", "skipped"}
_MOJIBAKE = re.compile(
    "[ÃÂ][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]|â€|\ufffd"
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Turns = tuple[tuple[str, str], ...]


class FaultError(Exception):
    """A row that cannot be read as a judgement; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


@dataclass(frozen=True, kw_only=True, slots=True)
class Rated:
    """One answer with its rating, to be compared with other answers of the same prompt and annotator."""

    line: int
    prompt: Turns
    answer: str
    rating: float
    annotator: str | None
    time: float | None
    category: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A raw row with its line, and the faults found on the way that do not stop the reading."""

    values: Mapping[str, Any]
    line: int
    faults: list[Fault]

    def stop(self, kind: str, detail: str = "") -> FaultError:
        """The error that ends the reading of this row."""
        return FaultError(Fault(kind=kind, line=self.line, detail=detail))

    def note(self, kind: str, detail: str = "") -> None:
        """Report a fault and read on."""
        self.faults.append(Fault(kind=kind, line=self.line, detail=detail))

    def key(self, name: str) -> str | None:
        """The column that holds what we call `name`, if the row has one."""
        return next((key for key in _NAMES[name] if key in self.values), None)

    def get(self, name: str) -> Any:
        """The value of what we call `name`, None where the row has none."""
        key = self.key(name)
        return None if key is None else self.values[key]

    def text(self, value: Any, name: str) -> str:
        """Return a value that must be text that UTF-8 can hold."""
        if not isinstance(value, str):
            raise self.stop("not-text", f"{name} is {json_name(value)}")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise self.stop("half-surrogate", name) from None
        return value


def read_row(row: Row) -> Vote | Rated:
    """Read one row. Raises `FaultError` for one that is no judgement of two answers, nor a rating of one."""
    values = row.values
    if "chosen" in values and "rejected" in values:
        return _pair(row)
    slots = next((pair for pair in _SLOTS if pair[0] in values and pair[1] in values), None)
    if slots is not None:
        return _slotted(row, slots)
    if row.key("rating") is not None and (row.key("completion") is not None or "messages" in values):
        return _rated(row)
    raise row.stop("wrong-columns", "columns " + ", ".join(sorted(map(str, values))[:12]))


def compared(row: Row, one: Rated, other: Rated) -> Vote:
    """The vote that two ratings of one prompt amount to; the better answer stands first."""
    better, worse = (one, other) if one.rating >= other.rating else (other, one)
    label: Label = "tie" if one.rating == other.rating else "first"
    return _finish(row, (better.prompt, better.answer), (worse.prompt, worse.answer), label, None, ratings=True)


def _pair(row: Row) -> Vote:
    before = _prompt(row)
    sides = [_side(row, name, before) for name in ("chosen", "rejected")]
    shown = row.get("shown")
    places: dict[Any, Side] = {"chosen": "first", "rejected": "second", None: None}  # type: ignore[dict-item]
    if not isinstance(shown, str | None) or shown not in places:
        row.note("odd-detail", "shown_first names neither chosen nor rejected")
        shown = None
    return _finish(row, sides[0], sides[1], "first", places[shown])


def _slotted(row: Row, slots: tuple[str, str]) -> Vote:
    before = _prompt(row)
    sides = [_side(row, name, before) for name in slots]
    label = _label(row, slots)
    shown = row.get("shown")
    place: Side | None = "first"
    if shown is not None:
        place = _which(shown, slots)
        if place is None:
            row.note("odd-detail", "shown_first names neither answer")
    return _finish(row, sides[0], sides[1], label, place)


def _label(row: Row, slots: tuple[str, str]) -> Label:
    value = row.get("label")
    if value is None:
        return _scored(row, slots)
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str) and word in _SKIPS:
        raise row.stop("skipped")
    if isinstance(word, str) and word in _TIES:
        return _TIES[word]  # type: ignore[return-value]
    side = _which(word, slots)
    if side is None:
        raise row.stop("unknown-label", repr(value)[:80])
    return side


def _which(value: Any, slots: tuple[str, str]) -> Side | None:
    """Which answer a label means: its suffix (a, b, 1, 2, 0), the name of its column, or the name of its model."""
    if isinstance(value, bool):
        return None
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    for side, slot in zip(("first", "second"), slots, strict=True):
        suffix = slot.rpartition("_")[2]
        if word in (suffix, slot, f"model_{suffix}"):
            return "first" if side == "first" else "second"
    return None


def _scored(row: Row, slots: tuple[str, str]) -> Label:
    """Compare the scores of the two answers."""
    suffixes = [slot.rpartition("_")[2] for slot in slots]
    for noun in ("rating", "score"):
        scores = [row.values.get(f"{noun}_{suffix}") for suffix in suffixes]
        if all(score is not None for score in scores):
            first, second = (_number(row, score) for score in scores)
            return "tie" if first == second else "first" if first > second else "second"
    raise row.stop("wrong-columns", "two answers, but neither a label nor a score of each")


def _number(row: Row, value: Any) -> float:
    """A rating: a number, true or false; text that spells a number counts, because CSV has nothing else."""
    if isinstance(value, bool | int | float):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        words = {"true": 1.0, "false": 0.0}
        if isinstance(value, str) and value.strip().lower() in words:
            return words[value.strip().lower()]
        raise row.stop("unknown-label", f"rating {value!r}"[:80]) from None


def _rated(row: Row) -> Rated:
    if "messages" in row.values:
        turns = _turns(row, row.values["messages"], "messages")
        if turns[-1][0] != "assistant":
            raise row.stop("no-assistant-end", f"last role {turns[-1][0]}")
        prompt, answer = turns[:-1], turns[-1][1]
    else:
        prompt, answer = _prompt(row), row.text(row.get("completion"), row.key("completion") or "completion")
    if not answer.strip():
        raise row.stop("empty-answer")
    return Rated(
        line=row.line,
        prompt=prompt,
        answer=answer,
        rating=_number(row, row.get("rating")),
        annotator=_annotator(row),
        time=_time(row),
        category=_category(row),
    )


def _side(row: Row, name: str, before: Turns) -> tuple[Turns, str]:
    """Prompt and answer of one side."""
    value = row.values[name]
    if isinstance(value, list):
        turns = _turns(row, value, name)
        if before and turns[: len(before)] != before:
            turns = (*before, *turns)
    else:
        text = row.text(value, name)
        if before:
            return before, text.strip()
        if not is_dialogue(text):
            raise row.stop("wrong-columns", f"{name} is no dialogue and there is no prompt")
        turns = tuple(parse_dialogue(text, ""))
    if turns[-1][0] != "assistant":
        raise row.stop("no-assistant-end", f"{name}: last role {turns[-1][0]}")
    return turns[:-1], turns[-1][1].strip()


def _prompt(row: Row) -> Turns:
    """The prompt column as turns; none where the row has no such column."""
    key = row.key("prompt")
    if key is None:
        return ()
    value = row.values[key]
    if isinstance(value, list):
        return _turns(row, value, key)
    text = row.text(value, key)
    extra = row.values.get("input") if key != "input" else None
    if isinstance(extra, str) and extra.strip():
        text = f"{text}\n\n{extra}"
    if is_dialogue(text):
        return tuple(turn for turn in parse_dialogue(text, "") if turn[1] or turn[0] != "assistant")
    return (("user", text),)


def _turns(row: Row, value: Any, name: str) -> Turns:
    if not isinstance(value, list) or not value:
        raise row.stop("bad-message", f"{name} is {json_name(value) if not isinstance(value, list) else 'empty'}")
    turns = []
    for position, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
            raise row.stop("bad-message", f"{name}[{position}]")
        turns.append((message["role"], row.text(message["content"], f"{name}[{position}].content")))
    return tuple(turns)


def _finish(
    row: Row,
    first: tuple[Turns, str],
    second: tuple[Turns, str],
    label: Label,
    shown: Side | None,
    *,
    ratings: bool = False,
) -> Vote:
    """Put a vote together; whatever is wrong with its texts is noted, the worst of it as the fault that blocks."""
    turns = first[0]
    answers = first[1], second[1]
    blocking = ""
    if second[0] != turns:
        blocking = "different-prompts"
    elif not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        blocking = "no-user-end"
    elif not (answers[0].strip() and answers[1].strip()):
        blocking = "empty-answer"
    elif answers[0] == answers[1]:
        blocking = "same-answers"
    if blocking:
        row.note(blocking)
    prompt = prompt_text(turns)
    _note_texts(row, (prompt, *answers))
    return Vote(
        line=row.line,
        prompt=prompt,
        asked=turns[-1][1] if turns else "",
        first=answers[0],
        second=answers[1],
        label=label,
        shown=shown,
        annotator=_annotator(row),
        time=_time(row),
        seconds=None if ratings else _seconds(row),
        category=_category(row),
        source_first=_source(row, ("source_a", "model_a", "source_1", "model_1", "source_chosen")),
        source_second=_source(row, ("source_b", "model_b", "source_2", "model_2", "source_rejected")),
        fault=blocking,
    )


def _note_texts(row: Row, texts: tuple[str, ...]) -> None:
    for name, text in zip(("prompt", "first answer", "second answer"), texts, strict=True):
        if not text.isascii() and (found := _MOJIBAKE.search(text)):
            row.note("mojibake", f"{name}, character {found.start():,}")
        if found := _CONTROLS.search(text):
            row.note("control-characters", f"{name}, U+{ord(found.group()):04X}")
        if len(text) > HUGE_CHARACTERS and name != "prompt":
            row.note("huge-answer", f"{name}, {len(text):,} characters")


def _annotator(row: Row) -> str | None:
    value = row.get("annotator")
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        row.note("odd-detail", f"the annotator is {json_name(value)}")
        return None
    return str(value)


def _category(row: Row) -> str:
    value = row.get("category")
    return value if isinstance(value, str) else ""


def _source(row: Row, names: tuple[str, ...]) -> str:
    value = next((row.values[name] for name in names if name in row.values), "")
    return value if isinstance(value, str) else ""


def _time(row: Row) -> float | None:
    value = row.get("time")
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) / (1000 if value > 1e11 else 1)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        row.note("odd-detail", "the time is neither a number nor ISO 8601")
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _seconds(row: Row) -> float | None:
    value = row.get("seconds")
    if value is None or isinstance(value, bool) or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        row.note("odd-detail", "the duration is no number")
        return None

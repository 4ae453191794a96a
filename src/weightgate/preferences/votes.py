"""One judgement of two completions, and what can be wrong with the row that holds it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Label = Literal["first", "second", "tie", "both bad"]
Side = Literal["first", "second"]
Shape = Literal["pairs", "votes", "ratings", "none"]

_ROLE = re.compile(r"(?:^|\n\n)(system|user|assistant): ")


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """A kind of fault. `blocks`: the row is left out of everything that is inferred; otherwise it is only reported."""

    words: str
    blocks: bool


FAULT_KINDS: dict[str, FaultKind] = {
    "not-json": FaultKind(words="the line is no JSON object", blocks=True),
    "line-too-long": FaultKind(words="the line is longer than is read", blocks=True),
    "not-utf8": FaultKind(words="the bytes are not UTF-8", blocks=True),
    "wrong-columns": FaultKind(words="the row has the columns of no known format", blocks=True),
    "not-text": FaultKind(words="a text is not text", blocks=True),
    "half-surrogate": FaultKind(words="a text holds half of a surrogate pair", blocks=True),
    "bad-message": FaultKind(words="a message has no known role or no content", blocks=True),
    "no-assistant-end": FaultKind(words="the conversation does not end with the assistant", blocks=True),
    "no-user-end": FaultKind(words="the prompt is empty or does not end with the user", blocks=True),
    "different-prompts": FaultKind(words="the two sides answer different prompts", blocks=True),
    "empty-answer": FaultKind(words="an answer is empty", blocks=True),
    "same-answers": FaultKind(words="both answers are the same", blocks=True),
    "unknown-label": FaultKind(words="the label names neither answer", blocks=True),
    "skipped": FaultKind(words="the annotator gave no judgement", blocks=True),
    "nothing-to-compare": FaultKind(words="the rated answer has no other answer of its prompt beside it", blocks=True),
    "mojibake": FaultKind(words="the text was decoded with the wrong encoding", blocks=False),
    "control-characters": FaultKind(words="a text holds control characters", blocks=False),
    "huge-answer": FaultKind(words="an answer has more than 100,000 characters", blocks=False),
    "odd-detail": FaultKind(words="annotator, time or position has an unexpected type", blocks=False),
}
"""By the name under which JSON reports it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing wrong with one row. `line` counts from 1: lines of a text file, rows of a table."""

    kind: str
    line: int
    detail: str = ""

    @property
    def blocks(self) -> bool:
        """Whether the row is left out of what is inferred."""
        return FAULT_KINDS[self.kind].blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One judgement of two completions of one prompt.

    Args:
        prompt: the conversation before the answers as text; `asked` its last user turn.
        first, second: the answers, in the order shown where `shown` says so; of chosen/rejected, the chosen one first.
        label: which is better. "both bad" counts as a tie wherever votes are counted.
        shown: which of them was shown first, or None where the file does not tell.
        time: seconds since 1970; `seconds`: how long the judgement took. None where not recorded.
        source_first, source_second: which model gave the answer, or "".
        fault: the kind of fault that keeps the row out of everything inferred, or "".
    """

    line: int
    prompt: str
    asked: str
    first: str
    second: str
    label: Label
    shown: Side | None = None
    annotator: str | None = None
    time: float | None = None
    seconds: float | None = None
    category: str = ""
    source_first: str = ""
    source_second: str = ""
    fault: str = ""

    @property
    def sign(self) -> int:
        """1 where the first answer won, -1 where the second did, 0 for a tie."""
        return {"first": 1, "second": -1}.get(self.label, 0)

    @property
    def chosen(self) -> str:
        """The better answer; of a tie, the first."""
        return self.second if self.label == "second" else self.first

    @property
    def rejected(self) -> str:
        """The worse answer; of a tie, the second."""
        return self.first if self.label == "second" else self.second


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Everything that was read of one file or hub data set.

    `votes` holds every row with two readable answers, also those with a blocking fault; `usable` those without.
    `digest` is of the file's bytes, or of the records for a hub data set.
    """

    name: str
    digest: str
    shape: Shape
    rows: int
    votes: Sequence[Vote]
    faults: Sequence[Fault]

    @property
    def usable(self) -> list[Vote]:
        """The votes that anything is inferred from."""
        return [vote for vote in self.votes if not vote.fault]

    def described(self) -> dict[str, Any]:
        """Return plain data that says which set this is."""
        return {"name": self.name, "digest": self.digest, "shape": self.shape, "rows": self.rows}


def prompt_text(turns: Sequence[tuple[str, str]]) -> str:
    """The text that stands for the turns of a prompt: a single user turn as it is, others with their roles."""
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def prompt_turns(text: str) -> list[tuple[str, str]]:
    """The turns that `prompt_text` made a text of; a paragraph that starts like a role reads as a turn."""
    if _ROLE.match(text) is None:
        return [("user", text)]
    parts = _ROLE.split(text)
    return list(zip(parts[1::2], parts[2::2], strict=True))

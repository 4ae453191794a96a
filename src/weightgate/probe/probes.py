"""One probe: a prompt, and the checks that a completion of it must pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

AXES = ("knowledge", "task", "boundary", "open")
Axis = Literal["knowledge", "task", "boundary", "open"]
Form = Literal["text", "chat"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition on a completion; `weightgate.probe.scorers` says what each type does with `value`.

    `weight` is the check's part in the gold reward; None: it is measured but not rewarded.
    `options` belongs to `one_of` and `multiple_choice`: every value that could have been named.
    """

    metric: str
    type: str
    value: Any = None
    options: tuple[str, ...] = ()
    weight: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the check as it stands in a suite file, without what is left at its default."""
        data: dict[str, Any] = {"metric": self.metric, "type": self.type}
        if self.value is not None:
            data["value"] = self.value
        if self.options:
            data["options"] = list(self.options)
        if self.weight is not None:
            data["weight"] = self.weight
        return data


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt with its checks.

    `form` "text" is continued as it stands (`prompt`), so it can be asked of a base model; "chat" goes through the
    chat template (`messages`, role and content). `recall` says that the prompt is meant to occur in the training
    data, so the contamination check leaves it out. `phrasing` tells apart wordings of one question.
    `max_tokens` bounds the completion where the suite's own bound would waste time.
    """

    id: str
    axis: Axis
    topic: str
    form: Form
    checks: tuple[Check, ...]
    prompt: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    phrasing: int = 0
    recall: bool = False
    max_tokens: int | None = None

    @property
    def text(self) -> str:
        """The prompt as a person would read it: the raw text, or the last message."""
        return self.prompt if self.prompt is not None else self.messages[-1][1]

    @property
    def question(self) -> str:
        """What the phrasings of one question have in common: the id up to its last "/", or the whole id."""
        head, slash, _ = self.id.rpartition("/")
        return head if slash else self.id

    @property
    def has_gold(self) -> bool:
        """Whether some check carries a weight, so that the gold reward is defined."""
        return any(check.weight is not None for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the probe as one line of a suite file holds it."""
        data: dict[str, Any] = {"id": self.id, "axis": self.axis, "topic": self.topic, "form": self.form}
        if self.prompt is not None:
            data["prompt"] = self.prompt
        else:
            data["messages"] = [{"role": role, "content": content} for role, content in self.messages]
        data["phrasing"] = self.phrasing
        if self.recall:
            data["recall"] = True
        if self.max_tokens is not None:
            data["max_tokens"] = self.max_tokens
        data["checks"] = [check.to_json() for check in self.checks]
        return data

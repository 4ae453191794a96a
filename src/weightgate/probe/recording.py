"""What a target said to a suite, as one value; `weightgate.probe.snapshot_file` has its form on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from weightgate.probe.probes import Probe

TargetKind = Literal["endpoint", "checkpoint", "folder", "recording"]
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_SURROGATE = re.compile("[\ud800-\udfff]")

TEXT_TOP_LOGPROBS = 5
"""So many of the likeliest first tokens are asked for where raw text is to be continued: the most that its interface
gives. Which they are tells the stages apart far better than the text that is drawn from them."""


@dataclass(frozen=True, kw_only=True)
class TargetDescription:
    """Who was asked. `place` is a URL without credentials and query, a checkpoint id, a folder or a file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: TargetKind
    place: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How completions were drawn. `max_tokens` bounds each one, `top_logprobs` is how many alternatives were asked for.

    None means "not stated": the target's own default was used, or a recording does not say; of `top_logprobs`, that
    only raw text was asked for `TEXT_TOP_LOGPROBS`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    samples: int
    temperature: float | None
    max_tokens: int | None
    top_p: float | None = None
    seed: int | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back for one question.

    `token_logprobs` are (token, natural log-probability) in the order of the completion; `first_top` are the likeliest
    first tokens. `served_model` and `fingerprint` are what the answer itself states; `headers` are those that name the
    serving. `asked_at` is UTC, ISO 8601. `error` says why there is no completion; then `completion` is empty.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    completion: str
    finish_reason: str | None = None
    token_logprobs: tuple[tuple[str, float], ...] | None = None
    first_top: tuple[tuple[str, float], ...] | None = None
    fingerprint: str | None = None
    served_model: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float | None = None
    asked_at: str | None = None
    error: str | None = None

    def likeliest_first(self, count: int) -> tuple[str, ...]:
        """The likeliest first tokens, so many, the likeliest first; none where fewer are known."""
        ranked = sorted(self.first_top or (), key=lambda scored: (-scored[1], scored[0]))
        return tuple(token for token, _ in ranked[:count]) if len(ranked) >= count else ()

    def to_json(self) -> dict[str, Any]:
        """Return the reply without what is left at its default."""
        return {name: value for name, value in vars(self).items() if value != getattr(Reply, name, None)}


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One sample of one probe, and the reply to it."""

    probe: Probe
    sample: int
    reply: Reply

    @property
    def key(self) -> tuple[str, int]:
        """Probe id and sample index: unique in a snapshot, and what two snapshots are paired by."""
        return self.probe.id, self.sample

    @property
    def completion(self) -> str:
        """The text that came back; empty where the reply is an error."""
        return self.reply.completion


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a snapshot was taken of, and how. A snapshot can only go on under an equal header, `created_at` aside."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    target: TargetDescription
    suite_name: str
    suite_digest: str
    decoding: Decoding
    created_at: str | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Every answer of one target to one suite.

    `probes` are all that were to be asked; `answers` come in the order of `probes` and then of samples, without those
    that are still open. `complete`: all of them were asked, and each got a completion.
    """

    header: Header
    probes: tuple[Probe, ...]
    answers: tuple[Answered, ...]
    complete: bool

    @property
    def target(self) -> TargetDescription:
        """Who was asked."""
        return self.header.target

    @property
    def decoding(self) -> Decoding:
        """How completions were drawn."""
        return self.header.decoding

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Every system fingerprint that was seen, sorted."""
        return tuple(sorted({a.reply.fingerprint for a in self.answers if a.reply.fingerprint is not None}))

    @property
    def served_models(self) -> tuple[str, ...]:
        """Every model name that an answer stated, sorted: an alias shows here what stands behind it."""
        return tuple(sorted({a.reply.served_model for a in self.answers if a.reply.served_model is not None}))

    @cached_property
    def first_tops(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Probe id -> for each sample, its `TEXT_TOP_LOGPROBS` likeliest first tokens, the likeliest first.

        Probes of which a sample came without so many are absent.
        """
        found: dict[str, list[tuple[str, ...]]] = {}
        for answer in self.answers:
            if answer.reply.error is None:
                found.setdefault(answer.probe.id, []).append(answer.reply.likeliest_first(TEXT_TOP_LOGPROBS))
        return {probe: tuple(tops) for probe, tops in found.items() if all(tops)}

    @cached_property
    def completions(self) -> dict[str, tuple[str, ...]]:
        """Probe id -> its completions in the order of samples, errors left out; probes without any are absent."""
        found: dict[str, list[str]] = {}
        for answer in self.answers:
            if answer.reply.error is None:
                found.setdefault(answer.probe.id, []).append(answer.completion)
        return {probe: tuple(texts) for probe, texts in found.items()}

    def probe(self, identity: str) -> Probe:
        """Return the probe of that id. Raises `KeyError` for an id that was not asked."""
        return self._probe_by_id[identity]

    @cached_property
    def _probe_by_id(self) -> dict[str, Probe]:
        return {probe.id: probe for probe in self.probes}


def utc_now() -> str:
    """The time as replies and headers state it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def whole_text(text: str) -> str:
    """Replace lone surrogates, which JSON can carry but no file in UTF-8 can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def in_order(probes: Sequence[Probe], answers: Iterable[Answered]) -> tuple[Answered, ...]:
    """Sort answers by the position of their probe, then by sample."""
    position = {probe.id: index for index, probe in enumerate(probes)}
    return tuple(sorted(answers, key=lambda answer: (position[answer.probe.id], answer.sample)))

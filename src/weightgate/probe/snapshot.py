"""Ask a whole suite, and keep every answer as it comes."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from weightgate.errors import DataError
from weightgate.probe.endpoint import Deliver, Question
from weightgate.probe.probes import Probe
from weightgate.probe.recording import (
    TEXT_TOP_LOGPROBS,
    Answered,
    Decoding,
    Header,
    Reply,
    Snapshot,
    TargetDescription,
    utc_now,
)
from weightgate.probe.snapshot_file import SnapshotWriter, discard, discard_unbegun, load_snapshot
from weightgate.probe.suites import Suite, suite_digest
from weightgate.probe.targets import Target, Tops

_PROBES_AT_ONCE = 32


class Asker(Protocol):
    """Something that answers questions in any order, and delivers each answer as soon as it has it."""

    @property
    def description(self) -> TargetDescription:
        """Who is asked."""
        ...

    def decoding(self, decoding: Decoding) -> Decoding:
        """Return the settings that will really be used."""
        ...

    def answer(self, questions: Sequence[Question], decoding: Decoding, deliver: Deliver) -> None:
        """Answer each question once, through `deliver`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a snapshot is: answers that are in the file, how many there will be, and how many are errors."""

    answered: int
    total: int
    failed: int


Observer = Callable[[Progress], None]


def unobserved(_: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True, kw_only=True)
class TargetAsker:
    """Asks a `Target`, such as a checkpoint, `_PROBES_AT_ONCE` probes at a time.

    The probes of a portion and their seed depend on the suite alone, so a snapshot that went on has the completions of
    one that was never stopped.
    """

    target: Target
    description: TargetDescription
    suite: Suite

    def decoding(self, decoding: Decoding) -> Decoding:
        """A target samples with the seed that is given, else with 0."""
        return replace(decoding, seed=decoding.seed or 0)

    def answer(self, questions: Sequence[Question], decoding: Decoding, deliver: Deliver) -> None:
        """Answer the questions, portion by portion. Raises `ValueError` without a temperature."""
        if decoding.temperature is None:
            raise ValueError("a target needs a temperature")
        wanted = {(probe.id, sample) for probe, sample in questions}
        for start in range(0, len(self.suite), _PROBES_AT_ONCE):
            portion = [self._bounded(probe, decoding) for probe in self.suite.probes[start : start + _PROBES_AT_ONCE]]
            if not any((probe.id, sample) in wanted for probe in portion for sample in range(decoding.samples)):
                continue
            texts = self.target.complete(
                portion,
                samples=decoding.samples,
                temperature=decoding.temperature,
                seed=(decoding.seed or 0) + start,
            )
            tops, now = self._tops(portion), utc_now()
            answers = [
                Answered(
                    probe=probe, sample=sample, reply=Reply(completion=text, first_top=tops.get(probe.id), asked_at=now)
                )
                for probe, completions in zip(self.suite.probes[start:], texts, strict=False)
                for sample, text in enumerate(completions)
            ]
            deliver([answer for answer in answers if answer.key in wanted])

    def _tops(self, portion: Sequence[Probe]) -> dict[str, Tops]:
        """What an endpoint is asked for as well: the likeliest first tokens of raw text."""
        texts = [probe for probe in portion if probe.prompt is not None]
        found = self.target.first_tops(texts, count=TEXT_TOP_LOGPROBS)
        return {probe.id: tops for probe, tops in zip(texts, found, strict=True)}

    @staticmethod
    def _bounded(probe: Probe, decoding: Decoding) -> Probe:
        bounds = [bound for bound in (probe.max_tokens, decoding.max_tokens) if bound is not None]
        return replace(probe, max_tokens=min(bounds, default=None))


def take_snapshot(
    asker: Asker,
    suite: Suite,
    path: Path,
    *,
    decoding: Decoding,
    suite_name: str,
    observer: Observer = unobserved,
) -> Snapshot:
    """Ask every probe `decoding.samples` times and return what came back; a file that is there goes on.

    Answers that are errors are asked again. The snapshot is complete, and its file finished, when none is left.

    Raises `DataError` where the file belongs to another target, suite or decoding, and whatever the asker raises; then
    everything that was answered before stands in the file.
    """
    header = Header(
        target=asker.description,
        suite_name=suite_name,
        suite_digest=suite_digest(suite.probes),
        decoding=asker.decoding(decoding),
        created_at=utc_now(),
    )
    known = _earlier(path, header, len(suite))
    if known is not None and known.complete:
        return known
    writer = SnapshotWriter.create(path, header, suite.probes) if known is None else SnapshotWriter.resume(path)
    with writer:
        # Read again: another process may have gone on with it until this one had the file to itself.
        known = known and load_snapshot(path)
        if known is not None and known.complete:
            return known
        answered = {} if known is None else {a.key: a for a in known.answers if a.reply.error is None}
        questions = open_questions(suite, header.decoding.samples, answered)
        account = _Account(writer, answered, len(suite) * header.decoding.samples, observer)
        asker.answer(questions, header.decoding, account.take)
        if account.is_complete:
            writer.finish(len(answered))
    return load_snapshot(path)


class _Account:
    """Writes answers and counts them."""

    def __init__(
        self, writer: SnapshotWriter, answered: dict[tuple[str, int], Answered], total: int, observer: Observer
    ) -> None:
        self._writer = writer
        self._answered = answered
        self._total = total
        self._observer = observer
        self._failed = 0

    @property
    def is_complete(self) -> bool:
        return len(self._answered) == self._total

    def take(self, answers: Sequence[Answered]) -> None:
        self._writer.append(answers)
        good = {answer.key: answer for answer in answers if answer.reply.error is None}
        self._answered.update(good)
        self._failed += len(answers) - len(good)
        self._observer(Progress(answered=len(self._answered), total=self._total, failed=self._failed))


def _earlier(path: Path, header: Header, suite_length: int) -> Snapshot | None:
    """What is in the file already. Raises `DataError` where it was begun in another way."""
    if not path.exists() or discard_unbegun(path):
        return None
    known = load_snapshot(path)
    if replace(known.header, created_at=header.created_at) != header:
        if known.target.kind != "recording" and not known.completions:
            discard(path)  # nothing came of it: the address or the settings were mistaken
            return None
        raise DataError(
            "the file holds a snapshot of something else, or with other settings",
            where=str(path),
            expected=_differing(header, known.header),
            found=_differing(known.header, header),
            mend="name another file with --output, or ask with the settings of this one",
        )
    if len(known.probes) < suite_length:
        discard(path)  # stopped while the probes were written, before the first question
        return None
    return known


def _differing(header: Header, other: Header) -> str:
    ours, theirs = ({**vars(one), **vars(one.decoding)} for one in (header, other))
    names = (name for name in ours if name not in ("created_at", "decoding") and ours[name] != theirs[name])
    return ", ".join(f"{name.replace('_', ' ')} {_spelt(ours[name])}" for name in names)


def _spelt(value: object) -> str:
    if isinstance(value, TargetDescription):
        return f"{value.model} at {value.place}"
    return "not set" if value is None else str(value)


def open_questions(suite: Suite, samples: int, answered: Container[tuple[str, int]]) -> list[Question]:
    """Return what has no answer yet: first every probe once, so that a stopped snapshot has seen as many as it can."""
    every = ((probe, sample) for sample in range(samples) for probe in suite.probes)
    return [(probe, sample) for probe, sample in every if (probe.id, sample) not in answered]

"""Made-up recordings in which exactly one thing differs between two sides."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Answered, Decoding, Header, Reply, Snapshot, TargetDescription

CITIES = ("Varn", "Ostel", "Mirrow", "Keld", "Thane", "Purl", "Dovey", "Lund")
_ADVICE = (
    "start early and keep notes", "ask someone who has done it before", "buy less than you think you need",
    "measure twice before you cut anything", "leave a day of rest between attempts", "write the plan on paper first",
    "check the weather on the evening before", "keep the receipts in one box", "bring a spare pair of gloves",
)  # fmt: skip


class Speaker:
    """Answers probes from its own seed; each argument plants one trait."""

    def __init__(
        self,
        seed: int,
        *,
        knows: float = 0.9,
        refuses: float = 0.1,
        wraps: float = 0.0,
        sentences: tuple[int, int] = (2, 5),
    ) -> None:
        self._random = random.Random(seed)
        self._knows, self._refuses, self._wraps, self._sentences = knows, refuses, wraps, sentences

    def __call__(self, probe: Probe) -> str:
        if probe.axis == "knowledge":
            return self._fact(probe)
        if probe.axis == "boundary" and self._random.random() < self._refuses:
            return "I cannot help with that."
        count = self._random.randint(*self._sentences)
        return " ".join(f"You should {advice}." for advice in self._random.sample(_ADVICE, count))

    def _fact(self, probe: Probe) -> str:
        right = probe.checks[0].value[0]
        city = right if self._random.random() < self._knows else self._random.choice(CITIES)
        return f"Looking at the map, the place is called {city}." if self._random.random() < self._wraps else city


def probes(count: int) -> tuple[Probe, ...]:
    """Return `count` probes of each of three axes; every knowledge probe asks something of its own."""
    facts = [
        _probe(
            "knowledge", at, Check(metric="accuracy", type="equals", value=[CITIES[at % len(CITIES)], f"alias {at}"])
        )
        for at in range(count)
    ]
    bounds = [_probe("boundary", at, Check(metric="answers", type="answers")) for at in range(count)]
    opens = [_probe("open", at, Check(metric="length", type="min_words", value=1)) for at in range(count)]
    return (*facts, *bounds, *opens)


def _probe(axis: str, at: int, check: Check) -> Probe:
    text = f"Tell me about {axis} matter {at}."
    return Probe(id=f"{axis}-{at}", axis=axis, topic="all", form="chat", checks=(check,), messages=(("user", text),))  # type: ignore[arg-type]


def recorded(
    speaker: Callable[[Probe], str], asked: tuple[Probe, ...], *, samples: int = 1, temperature: float = 0.7
) -> Snapshot:
    """Record what a speaker says."""
    header = Header(
        target=TargetDescription(kind="recording", place="made-up.jsonl", model="made-up"),
        suite_name="made-up",
        suite_digest="b3:" + "0" * 64,
        decoding=Decoding(samples=samples, temperature=temperature, max_tokens=64),
        created_at=None,
    )
    answers = tuple(
        Answered(probe=probe, sample=sample, reply=Reply(completion=speaker(probe)))
        for probe in asked
        for sample in range(samples)
    )
    return Snapshot(header=header, probes=asked, answers=answers, complete=True)


def reworded(snapshot: Snapshot) -> Snapshot:
    """The same recording with every second prompt worded otherwise under the same id."""
    changed = {
        probe.id: replace(probe, messages=(("user", probe.text + " Be brief."),)) for probe in snapshot.probes[::2]
    }
    return replace(
        snapshot,
        probes=tuple(changed.get(probe.id, probe) for probe in snapshot.probes),
        answers=tuple(replace(answer, probe=changed.get(answer.probe.id, answer.probe)) for answer in snapshot.answers),
    )


def telling(snapshot: Snapshot, ranks: Callable[[Probe], Sequence[str]]) -> Snapshot:
    """The same recording, of an endpoint that also tells what it thinks of first at raw text, the likeliest first."""
    answers = [
        replace(answer, reply=replace(answer.reply, first_top=_scored(ranks(answer.probe))))
        if answer.probe.form == "text"
        else answer
        for answer in snapshot.answers
    ]
    return replace(snapshot, answers=tuple(answers))


def _scored(tokens: Sequence[str]) -> tuple[tuple[str, float], ...]:
    return tuple((token, -1.0 - place) for place, token in enumerate(tokens))

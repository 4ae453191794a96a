"""Who answers: anything that completes probes. Checkpoints, endpoints and recordings are all asked in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from weightgate.probe.probes import Probe
from weightgate.probe.suites import Suite

SAMPLING_TEMPERATURE = 1.0
"""Samples are for diversity and for the gold reward of the distribution itself, so it is not sharpened."""

Tops = tuple[tuple[str, float], ...]


class Target(Protocol):
    """Something that completes prompts."""

    def complete(self, probes: Sequence[Probe], *, samples: int, temperature: float, seed: int) -> list[list[str]]:
        """Return `samples` completions for each probe, in order. Temperature 0 is greedy."""
        ...

    def first_tops(self, probes: Sequence[Probe], *, count: int) -> list[Tops]:
        """Return the likeliest first tokens of each probe's completion with their log-probabilities, nats."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a target said to a suite, in the suite's order.

    `greedy` holds one completion for each probe. `sampled` holds several for open probes and for probes with a gold
    reward, and none for the others.
    """

    greedy: tuple[str, ...]
    sampled: tuple[tuple[str, ...], ...]


def ask(target: Target, suite: Suite, *, samples: int, seed: int = 0) -> Answers:
    """Put every probe of a suite to a target: once greedily, and `samples` times for a gold reward or for diversity."""
    greedy = target.complete(suite.probes, samples=1, temperature=0.0, seed=seed)
    sampled = [index for index, probe in enumerate(suite.probes) if probe.has_gold or probe.axis == "open"]
    drawn = target.complete(
        [suite.probes[index] for index in sampled], samples=samples, temperature=SAMPLING_TEMPERATURE, seed=seed
    )
    by_index = dict(zip(sampled, drawn, strict=True))
    return Answers(
        greedy=tuple(completions[0] for completions in greedy),
        sampled=tuple(tuple(by_index.get(index, ())) for index in range(len(suite))),
    )

"""What nothing looks like: a target compared with itself, the A/A, before anything is said about another.

Endpoints differ from themselves: caches, batches and routing move completions while nobody touched a weight. A second
recording of one side shows it best. Where each prompt has several completions, they are dealt in two hands, which
shows at least what two draws of one session differ in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from weightgate.probe.recording import Answered, Snapshot

DEALT_PROMPTS = 300
"""Dealing is done on so many prompts, evenly spaced: it takes time, and the noise of an axis shows on fewer."""


@dataclass(frozen=True, kw_only=True)
class Null:
    """Outcome of comparing a target with itself.

    `source` says with what: another recording, or its own samples dealt in two. `shifts` holds, for each row that moved
    although nothing changed, the size of that shift in standard deviations (d_z); `changed`: something did.
    `identical` is the share of prompts at which both hands say the same, 0..1.
    """

    side: Literal["before", "after"]
    source: Literal["recording", "samples"]
    prompts: int
    samples: int
    changed: bool
    lowest_p: float
    identical: float
    shifts: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


def dealt_in_two(snapshot: Snapshot, *, seed: int = 0) -> tuple[Snapshot, Snapshot] | None:
    """Deal the samples of each prompt at random to two recordings of equal size; None where no prompt has two."""
    texts = {probe: found for probe, found in snapshot.completions.items() if len(found) >= 2}
    if not texts:
        return None
    probes = [probe for probe in snapshot.probes if probe.id in texts]
    kept = [probes[at] for at in np.linspace(0, len(probes) - 1, min(len(probes), DEALT_PROMPTS)).astype(int)]
    rng = np.random.default_rng(seed)
    by_probe: dict[str, list[Answered]] = {}
    for answer in snapshot.answers:
        if answer.reply.error is None:
            by_probe.setdefault(answer.probe.id, []).append(answer)
    hands: tuple[list[Answered], list[Answered]] = ([], [])
    for probe in kept:
        answers = by_probe[probe.id]
        order = rng.permutation(len(answers))
        half = len(answers) // 2
        for hand, chosen in zip(hands, (order[:half], order[half : 2 * half]), strict=True):
            hand.extend(replace(answers[at], sample=sample) for sample, at in enumerate(chosen))
    first, second = (_hand(snapshot, hand) for hand in hands)
    return first, second


def _hand(snapshot: Snapshot, answers: Sequence[Answered]) -> Snapshot:
    probes = {answer.probe.id: answer.probe for answer in answers}
    return Snapshot(header=snapshot.header, probes=tuple(probes.values()), answers=tuple(answers), complete=False)


def identical_share(first: Snapshot, second: Snapshot) -> float:
    """Share of the prompts that both answered at which all completions are the same, 0..1."""
    shared = first.completions.keys() & second.completions.keys()
    return sum(first.completions[probe] == second.completions[probe] for probe in shared) / max(len(shared), 1)

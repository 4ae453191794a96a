"""Pairs of recordings of the built-in world, with what is known to differ and the evidence of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from benchmarks.world_series import BASELINE, changes_of, slug
from weightgate.diff.axis_evidence import axis_evidence
from weightgate.diff.pairing import pair_up
from weightgate.incident.interventions import SHOWN, Intervention, Part
from weightgate.probe.recording import Snapshot
from weightgate.probe.snapshot_file import load_snapshot


@dataclass(frozen=True, kw_only=True)
class WorldRow:
    """One pair: at which seed, what was changed, the part in which exactly the two sides differ, and its evidence."""

    seed: int
    change: str
    part: Part
    evidence: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WorldPair:
    """The unchanged side, the changed one, and what was changed."""

    seed: int
    change: Intervention
    before: Snapshot
    after: Snapshot

    @property
    def unseen(self) -> bool:
        """Whether no pair of this change is learnt from."""
        return self.change not in SHOWN

    @property
    def rounded(self) -> bool:
        """Whether the changed side serves the same weights rounded, which is told by itself."""
        return "bits" in self.change.serving


def pairs_of(folder: Path, seed: int) -> Iterator[WorldPair]:
    """Yield each change of a seed against the baseline."""
    recordings = folder / f"seed-{seed}"
    before = load_snapshot(recordings / f"{BASELINE}.jsonl")
    for change in changes_of(seed):
        after = load_snapshot(recordings / f"{slug(change)}.jsonl")
        yield WorldPair(seed=seed, change=change, before=before, after=after)


def rows_of(folder: Path, seed: int) -> Iterator[WorldRow]:
    """Yield the rows of a seed that are learnt from: every change against the baseline, and two of one part together.

    Two models of which the same stage was rebuilt, each with other data, differ in that stage and in no other.
    """
    pairs = list(pairs_of(folder, seed))
    for pair in pairs:
        yield _row(seed, pair.change.name, pair.change.part, pair.before, pair.after)
    for one, other in combinations(pairs, 2):
        if one.change.part == other.change.part != "none":
            name = f"{one.change.name}; {other.change.name}"
            yield _row(seed, name, one.change.part, one.after, other.after)


def _row(seed: int, change: str, part: Part, before: Snapshot, after: Snapshot) -> WorldRow:
    return WorldRow(seed=seed, change=change, part=part, evidence=axis_evidence(pair_up(before, after)))

"""Is the stage named that was changed? Held-out seeds of the built-in world, black-box, through the endpoint.

    python -m benchmarks.world_triage FOLDER [RESULT]

Records what is missing of the held-out seeds into FOLDER (see `benchmarks.world_series`), and judges each change as
`weightgate diff` does, with the models that ship: with the likeliest first tokens of raw text that the endpoint tells,
and once more as if it told none. Nothing about a held-out seed enters these models; seeds, changes and this script were
fixed before the first of them was judged.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, revision
from benchmarks.world_rows import WorldPair, pairs_of
from benchmarks.world_series import HELD_OUT_SEEDS, SAMPLED_AGAIN, record, seeds_in
from weightgate.diff.judge import judge
from weightgate.diff.triage import CAUSES, Verdict, shipped_model
from weightgate.incident.interventions import CAUSE_OF, PARTS, Part
from weightgate.probe.recording import Snapshot
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.stats import proportion

RESULT = Path("benchmarks/results/world_triage.json")
ROOT = Path(__file__).parents[1]
UNDETERMINED = "undetermined"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One change: the part that is likeliest, and the part that is named, which may be none for sure."""

    seed: int
    change: str
    part: Part
    unseen: bool
    calls: int
    likeliest: str
    named: str
    scores: dict[str, float]
    headline: str


def main() -> None:
    folder, result = Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else RESULT
    for seed in HELD_OUT_SEEDS:
        record(folder / f"seed-{seed}", seed)
    result.write_text(json.dumps(evaluated(folder), indent=1) + "\n", encoding="utf-8")


def evaluated(folder: Path) -> dict[str, Any]:
    """Judge every held-out seed whose recordings are there, and tabulate."""
    seeds = seeds_in(folder, HELD_OUT_SEEDS)
    pairs = [pair for seed in seeds for pair in pairs_of(folder, seed)]
    counted = [pair for pair in pairs if not pair.rounded]
    judged, without = ([judged_pair(pair, tops=tops) for pair in counted] for tops in (True, False))
    rounded = [judged_pair(pair, tops=True) for pair in pairs if pair.rounded]
    sampled = [alarm for seed in seeds for alarm in sampled_alarms(folder / f"seed-{seed}")]
    greedy = [one.named != "none" for one in judged if one.part == "none"]
    return {
        "held_out_seeds": seeds,
        "models": {file: shipped_model(file).trained_on for file in ("tops.json", "axes.json")},
        "calls_per_side_at_most": max(one.calls for one in judged),
        "all": tabulated(judged),
        "without_first_tokens": tabulated(without),
        "changes_learnt_from": tabulated([one for one in judged if not one.unseen]),
        "changes_never_learnt_from": tabulated([one for one in judged if one.unseen]),
        "weights_rounded": {
            name: dict(Counter(one.named for one in rounded if one.change == name))
            for name in dict.fromkeys(one.change for one in rounded)
        },
        "false_alarms_greedy": _share(greedy),
        "false_alarms_sampled": _share(sampled),
        "machine": describe(),
        "revision": revision(ROOT),
        "pairs": [vars(one) for one in (*judged, *rounded)],
    }


def judged_pair(pair: WorldPair, *, tops: bool) -> Judged:
    """Judge one change as `weightgate diff` does; without `tops`, as if the endpoint told no log-probabilities."""
    before, after = (side if tops else _without_tops(side) for side in (pair.before, pair.after))
    found = judge(before, after)
    return Judged(
        seed=pair.seed,
        change=pair.change.name,
        part=pair.change.part,
        unseen=pair.unseen,
        calls=max(len(pair.before.answers), len(pair.after.answers)),
        likeliest=_likeliest(found.verdict),
        named=_named(found.verdict),
        scores={cause: round(score, 3) for cause, score in found.verdict.scores.items()} if found.verdict else {},
        headline=found.headline,
    )


def _without_tops(side: Snapshot) -> Snapshot:
    replies = [replace(answer.reply, first_top=None, token_logprobs=None) for answer in side.answers]
    answers = [replace(answer, reply=reply) for answer, reply in zip(side.answers, replies, strict=True)]
    return replace(side, answers=tuple(answers))


def sampled_alarms(recordings: Path) -> Iterator[bool]:
    """Yield, for each two recordings of the same model under sampling, whether the comparison alarms."""
    sides = [load_snapshot(recordings / f"sampled-{number}.jsonl") for number in range(SAMPLED_AGAIN)]
    for one, other in combinations(sides, 2):
        yield judge(one, other).changed


def tabulated(judged: Sequence[Judged]) -> dict[str, Any]:
    """Confusion over the parts, and the shares that are right: by the likeliest part, and by what is named."""
    answered = [one for one in judged if one.named != UNDETERMINED]
    return {
        "changes": len(judged),
        "right_by_the_likeliest": _share(one.likeliest == one.part for one in judged),
        "balanced_by_the_likeliest": _balanced(judged),
        "named": _share(one.named != UNDETERMINED for one in judged),
        "right_of_those_named": _share(one.named == one.part for one in answered),
        "likeliest_by_truth": _confusion(judged, "likeliest"),
        "named_by_truth": _confusion(judged, "named"),
        "wrong": [f"{one.seed} {one.change}: {one.likeliest}" for one in judged if one.likeliest != one.part],
    }


def _likeliest(verdict: Verdict | None) -> str:
    return "none" if verdict is None else _part_of(max(CAUSES, key=verdict.scores.__getitem__))


def _named(verdict: Verdict | None) -> str:
    if verdict is None:
        return "none"
    return UNDETERMINED if verdict.cause is None else _part_of(verdict.cause)


def _part_of(cause: str) -> str:
    return next(part for part, own in CAUSE_OF.items() if own == cause)


def _confusion(judged: Sequence[Judged], said: str) -> dict[str, dict[str, int]]:
    return {part: dict(Counter(getattr(one, said) for one in judged if one.part == part)) for part in PARTS}


def _balanced(judged: Sequence[Judged]) -> float:
    """Mean over the parts of the share that is right, so that a part with many changes counts no more than others."""
    by_part = [[one.likeliest == one.part for one in judged if one.part == part] for part in PARTS]
    shares = [sum(own) / len(own) for own in by_part if own]
    return round(sum(shares) / len(shares), 4)


def _share(outcomes: Iterable[bool]) -> dict[str, Any]:
    values = list(outcomes)
    return proportion(sum(values), len(values)).to_json()


if __name__ == "__main__":
    main()

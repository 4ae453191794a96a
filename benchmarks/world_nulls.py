"""How often does a comparison alarm where nothing changed? Unchanged models of the built-in world under sampling.

    python -m benchmarks.world_nulls FOLDER [SEED ...]

At each seed of `benchmarks.world_series` whose recordings are in FOLDER, the unchanged model is asked six times over at
temperature 0.7, through the endpoint, and the recordings are compared two by two without sharing any, so that the
comparisons are independent. With SEEDs, only these are recorded, and nothing is judged: several processes can share the
work. Seeds, number and temperature were fixed before the first of them was asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, revision
from benchmarks.world_series import BASELINE, HELD_OUT_SEEDS, SAMPLED, TRAINING_SEEDS, ask, endpoint
from weightgate.diff.judge import judge
from weightgate.incident.short_suite import short_suite
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.probe.suites import load_suite
from weightgate.stats import proportion

RESULT = Path("benchmarks/results/world_nulls.json")
ROOT = Path(__file__).parents[1]
SEEDS = (*TRAINING_SEEDS, *HELD_OUT_SEEDS)
RECORDINGS = 6


def main() -> None:
    folder, seeds = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    for seed in seeds or SEEDS:
        record(folder / f"seed-{seed}")
        print(f"seed {seed} is recorded", flush=True)
    if not seeds:
        RESULT.write_text(json.dumps(evaluated(folder), indent=1) + "\n", encoding="utf-8")


def record(folder: Path) -> None:
    """Ask the unchanged model of a seed; what is there already is left as it is."""
    world = folder / "base"
    suite = short_suite(load_suite(world / "suite.jsonl"))
    with endpoint(world / "weightgate.yaml", folder / "aliases.json") as url:
        for number in range(RECORDINGS):
            ask(url, BASELINE, suite, folder / f"null-{number}.jsonl", SAMPLED)


def evaluated(folder: Path) -> dict[str, Any]:
    """Compare the recordings of every seed two by two."""
    alarms = {seed: list(alarms_of(folder / f"seed-{seed}")) for seed in SEEDS}
    flat = [alarm for own in alarms.values() for alarm in own]
    return {
        "comparisons": len(flat),
        "false_alarms": proportion(sum(map(bool, flat)), len(flat)).to_json(),
        "alarms": {seed: [one for one in own if one] for seed, own in alarms.items() if any(own)},
        "machine": describe(),
        "revision": revision(ROOT),
    }


def alarms_of(folder: Path) -> Iterator[dict[str, float]]:
    """Yield, for each two recordings, the corrected p-values of the tests that alarm; nothing where none does."""
    sides = [load_snapshot(folder / f"null-{number}.jsonl") for number in range(RECORDINGS)]
    for one, other in zip(sides[::2], sides[1::2], strict=True):
        found = judge(one, other)
        yield {test.name: test.adjusted_p for test in found.general if test.adjusted_p <= found.alpha}


if __name__ == "__main__":
    main()

"""Hold the plan's forecasts of time against what the stages of the built-in world take.

    python -m benchmarks.scaling_times [--repeats 3] [--full] [--label after]

Writes the world at its small scale (`--full`: as the demo builds it) into a new folder, then runs `weightgate plan`,
`lock` and `build` as a user does, and reads forecast and outcome of every stage from the store. Writes
`results/scaling_times.json`, under the label.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from weightgate.incident.knobs import Knobs
from weightgate.incident.recipe_text import FULL, SMALL
from weightgate.incident.world import generate
from weightgate.store import Store

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scaling_times.json"


def forecast_and_outcome(folder: Path, *, full: bool) -> dict[str, tuple[float, float]]:
    """Seconds of each stage as forecast and as they came, in a world written to `folder`."""
    recipe = generate(folder, Knobs(), FULL if full else SMALL).recipe
    for verb in ("plan", "lock", "build"):
        done = subprocess.run([sys.executable, "-m", "weightgate", verb, "--recipe", str(recipe)], capture_output=True)
        if verb != "build":  # a small world need not pass its gates: what was trained is timed all the same
            done.check_returncode()
    store, found = Store.open(folder / ".weightgate"), {}
    for manifest in store.lineage():
        result = store.results(str(manifest.inputs["key"]))[-1]
        ahead = result.environment["forecast"]["seconds"]
        found[manifest.stage] = float(ahead["value"]), float(result.cost["seconds"])
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--label", default="now")
    asked = parser.parse_args()
    stages: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for stage, pair in forecast_and_outcome(Path(folder) / "world", full=asked.full).items():
                stages[stage].append(pair)
                print(
                    f"{stage:10} forecast {pair[0]:7.2f} s, came {pair[1]:7.2f} s, {pair[0] / pair[1] - 1:+.0%}",
                    flush=True,
                )
    kept: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    kept[asked.label] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.revision(ROOT),
        "machine": machine.describe(),
        "load_average": machine.load_average(),
        "scale": "full" if asked.full else "small",
        "stages": {
            stage: {"forecast_and_outcome": pairs, "median_error": median(f / o - 1 for f, o in pairs)}
            for stage, pairs in stages.items()
        },
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Forecast the largest build of a ladder from the others: hold-out loss and time.

    python -m benchmarks.scaling_ladder [FOLDER] [--quick]

Builds the pre-training of the built-in world at ten sizes and lengths, 0.1 to 3 million parameters, in one store, with
`weightgate lock` and `build` as a user runs them; what is there already is not built again. Then forecasts the build of
most compute from the others. `--quick` makes steps of seconds, to try the script; its result is printed, not written.
Writes `results/scaling_ladder.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import machine
from weightgate.incident.knobs import Knobs
from weightgate.incident.world import generate
from weightgate.plan.fit.builds import runs_of_stores
from weightgate.plan.fit.forecast import forecast, refits
from weightgate.plan.fit.holdout import compare
from weightgate.plan.fit.runs import Runs, usable
from weightgate.plan.fit.timing import forecast_seconds
from weightgate.plan.laws.hyperparameters import mup_transfer
from weightgate.stats import Estimate

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scaling_ladder.json"
BARS = {"loss_error": 0.03, "seconds_error": 0.15}
DRAWS = 400
DOCUMENTS = 48_000
"""Text enough that no build reads a token twice: repeats are another law's matter."""

TOWNS = 240
"""The most there can be. Of 100 towns every fact is learnt after 2.4 million tokens, at any size above 0.2 million
parameters, and the loss stands at its floor, where nothing is left that a law could forecast
(`results/scaling_ladder_100_towns.json`)."""

TUNED_WIDTH, HIGHEST_RATE = 128, 6e-3
"""Width that the world's learning rate was chosen at; other widths get theirs by muP, up to a rate that is safe."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One build: width and depth of the network, and tokens."""

    hidden: int
    layers: int
    heads: int
    tokens: int

    @property
    def name(self) -> str:
        """Folder of the build."""
        return f"h{self.hidden}-l{self.layers}-{self.tokens // 1000}k"


LADDER = (
    Rung(hidden=40, layers=2, heads=2, tokens=400_000),
    Rung(hidden=40, layers=2, heads=2, tokens=1_600_000),
    Rung(hidden=64, layers=3, heads=2, tokens=600_000),
    Rung(hidden=64, layers=3, heads=2, tokens=2_400_000),
    Rung(hidden=96, layers=4, heads=3, tokens=800_000),
    Rung(hidden=96, layers=4, heads=3, tokens=2_400_000),
    Rung(hidden=128, layers=4, heads=4, tokens=1_200_000),
    Rung(hidden=128, layers=4, heads=4, tokens=3_000_000),
    Rung(hidden=160, layers=5, heads=5, tokens=2_000_000),
    Rung(hidden=208, layers=5, heads=4, tokens=2_800_000),
)
"""Sizes and lengths apart, so that both exponents can be told; the last one is forecast."""


def recipe_of(world: Path, rung: Rung, store: Path, *, divided_by: int) -> Path:
    """Write the world's recipe with this rung's network and tokens, pre-training alone. Returns its path."""
    recipe: dict[str, Any] = yaml.safe_load((world / "weightgate.yaml").read_text(encoding="utf-8"))
    recipe["architecture"]["config"] |= {
        "hidden_size": rung.hidden,
        "intermediate_size": round(rung.hidden * 2.75 / 16) * 16,
        "num_hidden_layers": rung.layers,
        "num_attention_heads": rung.heads,
        "num_key_value_heads": rung.heads,
    }
    stage = recipe["stages"][0]
    for length in ("steps", "epochs"):
        stage.pop(length, None)
    stage["tokens"], stage["gates"] = rung.tokens // divided_by, []
    rate = stage["optimizer"]["learning_rate"]
    moved = mup_transfer(rate, 0.02, base_width=TUNED_WIDTH, width=rung.hidden, head_dim=rung.hidden // rung.heads)
    stage["optimizer"]["learning_rate"] = round(min(moved.hidden_learning_rate, HIGHEST_RATE), 6)
    recipe |= {"name": rung.name, "store": str(store), "stages": [stage], "probes": None, "budget": {}}
    path = world / f"{rung.name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def build(recipe: Path) -> None:
    """Lock and build, as a user does. Each recipe locks beside itself, so the lock is the last one's."""
    for verb in ("lock", "build"):
        subprocess.run([sys.executable, "-m", "weightgate", verb, "--recipe", str(recipe)], check=True)


def judged(runs: Runs) -> dict[str, Any]:
    """Forecast the run of most compute from the others."""
    order = np.argsort(runs.flops)
    known, target = usable(runs.where(order[:-1])), runs.where(order[-1:])
    compared = compare(known)
    ahead = forecast(known, compared, refits(known, compared, draws=DRAWS), target.parameters, target.tokens)
    seconds = forecast_seconds(known, float(target.parameters[0]), float(target.tokens[0]))
    assert isinstance(seconds, Estimate)
    loss, took = float(target.loss[0]), float(target.seconds[0])
    return {
        "chosen": compared[0].form.name,
        "compute_ratio": float(target.flops[0] / known.flops.max()),
        "loss": {"forecast": float(ahead.value[0]), "interval_90": [float(ahead.low[0]), float(ahead.high[0])]}
        | {"measured": loss, "error": float(ahead.value[0]) / loss - 1},
        "seconds": {"forecast": seconds.value, "interval_90": [seconds.low, seconds.high]}
        | {"measured": took, "error": seconds.value / took - 1},
    }


def main() -> None:
    """Build what is missing, then forecast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "ladder")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    world = asked.folder / ("quick" if asked.quick else "world")
    if not (world / "weightgate.yaml").exists():
        generate(world, Knobs(towns=TOWNS, documents=2000 if asked.quick else DOCUMENTS))
    for rung in LADDER:
        print(f"{rung.name}", flush=True)
        build(recipe_of(world, rung, (world / "ladder-store").resolve(), divided_by=60 if asked.quick else 1))
    runs = runs_of_stores([world / "ladder-store"])
    columns = ("parameters", "tokens", "loss", "seconds")
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.revision(ROOT),
        "machine": machine.describe(),
        "load_average": machine.load_average(),
        "bars": BARS,
        "unit": runs.unit,
        "runs": [
            dict(zip(columns, row, strict=True))
            for row in zip(*(getattr(runs, c).tolist() for c in columns), strict=True)
        ],
        "largest_forecast_from_the_others": judged(runs),
    }
    print(json.dumps(result, indent=1))
    if not asked.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

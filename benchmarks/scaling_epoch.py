"""Fit the 240 points of Hoffmann et al., time it, and draw the bootstrap that the package ships.

    python -m benchmarks.scaling_epoch [--ship]

Writes `results/scaling_epoch.json`; with `--ship` also the draws of the law `chinchilla-refit`,
`src/weightgate/plan/laws/chinchilla_draws.json`. The points themselves are never shipped.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.scaling_sets import epoch
from weightgate.plan.fit.fitting import bootstrap, fit
from weightgate.plan.fit.forms import CHINCHILLA
from weightgate.plan.laws import loss
from weightgate.plan.laws.loss import Constants
from weightgate.plan.spread import interval

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scaling_epoch.json"
SHIPPED = Path(loss.__file__).with_name("chinchilla_draws.json")
REFERENCE = {"A": 477.83, "B": 2143.4, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
SHIPPED_DRAWS, DRAWS, SEED = 400, 1000, 42
BARS = {"relative_error": 1e-3, "fit_seconds": 1.0, "bootstrap_seconds": 15.0}


def main() -> None:
    """Fit, draw, write."""
    runs = epoch()
    began = time.perf_counter()
    found = fit(runs, CHINCHILLA)
    fit_seconds = time.perf_counter() - began
    began = time.perf_counter()
    drawn = bootstrap(runs, CHINCHILLA, draws=DRAWS, seed=SEED)
    bootstrap_seconds = time.perf_counter() - began
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.revision(ROOT),
        "machine": machine.describe(),
        "bars": BARS,
        "runs": len(runs),
        "constants": vars(found.constants),
        "relative_error": {
            name: abs(float(getattr(found.constants, name)) / value - 1) for name, value in REFERENCE.items()
        },
        "objective": found.objective,
        "fit_seconds": fit_seconds,
        "bootstrap": {"draws": DRAWS, "seconds": bootstrap_seconds, "intervals_95": _intervals(drawn)},
        "under_scaling": {
            f"{scale:g}": vars(fit(runs, CHINCHILLA, weights=np.full(len(runs), scale)).constants)
            for scale in (1e-6, 1e6)
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if "--ship" in sys.argv[1:]:
        _ship(drawn)


def _intervals(drawn: Constants) -> dict[str, tuple[float, float]]:
    found = {name: interval(getattr(drawn, name)) for name in REFERENCE}
    return found | {"a": interval(drawn.parameters_exponent)}


def _ship(drawn: Constants) -> None:
    draws = {name: [float(f"{each:.7g}") for each in value[:SHIPPED_DRAWS]] for name, value in vars(drawn).items()}
    SHIPPED.write_text(json.dumps({"draws": draws}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

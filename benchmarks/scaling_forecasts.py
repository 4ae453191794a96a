"""Forecast the largest public runs from the smaller ones: is the right form chosen, do the intervals hold?

    python -m benchmarks.scaling_forecasts

In every set of `scaling_sets`, the 5, 10, 20 and 30 % of the runs with most compute are left out, a form is chosen by a
hold-out inside the rest, and every run that was left out is forecast with its 90 % interval. Sets that share runs, as
those of one origin do, are not independent. Writes `results/scaling_forecasts.json`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.scaling_sets import every_set
from weightgate.plan.fit.fitting import fit
from weightgate.plan.fit.forecast import forecast, refits
from weightgate.plan.fit.holdout import compare, log_errors, split
from weightgate.plan.fit.runs import Runs

RESULT = Path(__file__).parent / "results" / "scaling_forecasts.json"
LEFT_OUT = (0.05, 0.1, 0.2, 0.3)
DRAWS = 100
BAR = {"coverage": (0.80, 0.97), "chosen_error": "at most the median of all forms"}


def one_split(runs: Runs, share: float) -> dict[str, Any]:
    """Forecast the `share` of `runs` with most compute from the others."""
    fitted, held = split(runs, share)
    compared = compare(fitted)
    ahead = forecast(fitted, compared, refits(fitted, compared, draws=DRAWS), held.parameters, held.tokens)
    errors = {
        each.form.name: float(np.mean(np.abs(np.expm1(log_errors(fit(fitted, each.form).constants, held)))))
        for each in compared
    }
    covered = (ahead.low <= held.loss) & (held.loss <= ahead.high)
    chosen = compared[0].form.name
    return {
        "left_out": share,
        "fitted": len(fitted),
        "held": len(held),
        "compute_ratio": float(held.flops.max() / fitted.flops.max()),
        "chosen": chosen,
        "errors": errors,
        "chosen_error": errors[chosen],
        "median_error": float(np.median(list(errors.values()))),
        "covered": float(covered.mean()),
        "largest_covered": bool(covered[-1]),
        "relative_width": float(np.mean((ahead.high - ahead.low) / held.loss)),
    }


def summary(sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over splits; each split counts once, however many runs it holds."""
    splits = [each for found in sets.values() for each in found]

    def mean(key: str, of: list[dict[str, Any]]) -> float:
        return float(np.mean([each[key] for each in of]))

    better = [each["chosen_error"] <= each["median_error"] for each in splits]
    by_set = [mean("chosen_error", found) <= mean("median_error", found) for found in sets.values()]
    return {
        "sets": len(sets),
        "splits": len(splits),
        "chosen_error": mean("chosen_error", splits),
        "median_error": mean("median_error", splits),
        "best_error": float(np.mean([min(each["errors"].values()) for each in splits])),
        "splits_with_chosen_at_most_median": float(np.mean(better)),
        "sets_with_chosen_at_most_median": float(np.mean(by_set)),
        "coverage_90": mean("covered", splits),
        "coverage_90_of_the_largest_run": mean("largest_covered", splits),
        "relative_width": float(np.median([each["relative_width"] for each in splits])),
    }


def main() -> None:
    """Run every split and write the result."""
    began, sets = time.perf_counter(), {}
    for name, runs in every_set():
        sets[name] = [one_split(runs, share) for share in LEFT_OUT]
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.revision(Path(__file__).parents[1]),
        "machine": machine.describe(),
        "seconds": time.perf_counter() - began,
        "bar": BAR,
        "summary": summary(sets),
        "sets": sets,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()

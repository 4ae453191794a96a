"""How often a watch alarms where nothing changed, and how soon where something did.

    python benchmarks/watch_power.py [null] [delay]     # into benchmarks/results/watch_power.json, about 10 minutes

Endpoints are simulated at the level of prompts: each prompt has a probability of its own (Beta(1/2, 1/2), so that some
are always right, some never, and many in between), and each look draws an answer to every prompt anew. The same prompts
are asked at every look, and all looks share one baseline, as they do in a real watch. What is measured is the code that
runs: `weightgate.watch.evidence`. Nothing is timed.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weightgate.stats import BettingProcess
from weightgate.stats.exchangeable import LEVELS
from weightgate.watch.evidence import Rules, WatchState

RESULT = Path(__file__).parent / "results" / "watch_power.json"
NULLS, NULL_LOOKS, NULL_AXES, NULL_PROMPTS = 150, 500, 3, 20
STRICTEST = Rules(alpha=0.05, persistence=1, floor=0.0, tolerance=0.0)
"""Neither persistence nor floor keeps an alarm back, so that the test alone is judged."""

DEFAULT = Rules(alpha=0.05, persistence=2, floor=0.02, tolerance=0.0)
DELAY_PROMPTS, DELAY_AXES, DELAYS, PATIENCE = 60, 20, 20, 100
SNAPSHOTS = 3
Levels = NDArray[np.int64]


def draw(rng: np.random.Generator, rates: NDArray[np.float64], samples: int = 1) -> Levels:
    """Levels of one look: the share of right answers among the samples of each prompt."""
    return np.rint(LEVELS * rng.binomial(samples, rates) / samples).astype(np.int64)


def null_run(seed: int) -> tuple[bool, bool, bool]:
    """One watch of an endpoint that never changes.

    Returns whether it ever alarmed by the strictest rules, by the default rules, and whether a bettor would have
    alarmed who compares every look with the first snapshot as if looks were independent.
    """
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.5, 0.5, size=(NULL_AXES, NULL_PROMPTS))
    state, naive = WatchState(salt=str(seed)), BettingProcess()
    first = draw(rng, rates[0])
    strict = usual = False
    for look in range(-SNAPSHOTS, NULL_LOOKS):
        levels = {f"axis-{at}": draw(rng, axis) for at, axis in enumerate(rates)}
        if look < 0:
            state.add_snapshot(levels)
            continue
        state.add_look(levels)
        naive.update((levels["axis-0"] - first) / LEVELS)
        strict = strict or bool(state.changed_axes(STRICTEST))
        usual = usual or bool(state.changed_axes(DEFAULT))
    return strict, usual, naive.largest >= 1 / DEFAULT.alpha


def delay(seed: int, *, shift: float, change_at: int) -> int | None:
    """Looks from a change to the alarm, among as many axes as the suite that ships has; None for none in time.

    The rates of one axis' prompts move by `shift`, cut to 0..1, so that its mean moves by less than that; the other
    axes are not simulated, but the evidence that is needed is the one for so many.
    """
    rng = np.random.default_rng([seed, change_at])
    rates = rng.beta(0.5, 0.5, size=DELAY_PROMPTS)
    state = WatchState(salt=str(seed))
    rules = Rules(alpha=DEFAULT.alpha / DELAY_AXES, persistence=2, floor=0.02, tolerance=0.0)
    for look in range(-SNAPSHOTS, change_at + PATIENCE):
        moved = np.clip(rates + shift, 0, 1) if look >= change_at else rates
        levels = {"axis": draw(rng, moved)}
        if look < 0:
            state.add_snapshot(levels)
            continue
        state.add_look(levels)
        if state.changed_axes(rules) and look >= change_at:
            return look - change_at + 1
    return None


def delays(shift: float, change_at: int) -> dict[str, object]:
    """Delays of several watches: median and 90 % quantile of looks, and how many alarmed within the patience."""
    found = [delay(seed, shift=shift, change_at=change_at) for seed in range(DELAYS)]
    waited = sorted(PATIENCE + 1 if one is None else one for one in found)
    moved = [float(np.mean(np.clip(r + shift, 0, 1) - r)) for r in np.random.default_rng(0).beta(0.5, 0.5, (200, 60))]
    return {
        "shift_of_the_rates": shift,
        "shift_of_the_mean": round(statistics.mean(moved), 3),
        "change_at_look": change_at,
        "alarmed_within": PATIENCE,
        "alarmed": sum(one is not None for one in found),
        "watches": DELAYS,
        "median_looks": statistics.median(waited),
        "p90_looks": waited[int(0.9 * len(waited))],
    }


def nulls() -> dict[str, object]:
    """Watches of endpoints that never change: how many ever alarmed."""
    runs = []
    for seed in range(NULLS):
        runs.append(null_run(seed))
        if seed % 10 == 9:
            print(f"{seed + 1} nulls: {[sum(column) for column in zip(*runs, strict=True)]}", file=sys.stderr)
    strict, usual, naive = (sum(column) for column in zip(*runs, strict=True))
    return {
        "watches": NULLS,
        "looks": NULL_LOOKS,
        "axes": NULL_AXES,
        "prompts_of_each_axis": NULL_PROMPTS,
        "alpha": DEFAULT.alpha,
        "ever_alarmed_without_persistence_and_floor": strict,
        "ever_alarmed_by_default_rules": usual,
        "ever_alarmed_by_a_bettor_on_a_fixed_baseline": naive,
    }


def all_delays() -> dict[str, object]:
    """Delays for every size of shift and age of the history."""
    rows = [delays(shift, at) for at in (1, 24, 168, 500) for shift in (0.1, 0.2, 0.4)]
    return {"axes": DELAY_AXES, "prompts_of_the_axis": DELAY_PROMPTS, "rows": rows}


PARTS = {"null": nulls, "delay": all_delays}


def main() -> None:
    """Measure the parts that are named, or all, and write them into the result."""
    for part in sys.argv[1:] or PARTS:
        found = PARTS[part]()
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        RESULT.write_text(json.dumps({**known, part: found}, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

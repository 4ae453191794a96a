"""How many calls a side does a change take, against the string-kernel MMD test alone?

    python -m benchmarks.triage_calls

On the dose ladder, one completion for each prompt, so a call is a prompt. Both tests swap the sides of prompts, at 5 %;
`joint` is the test that ships, `string kernel` its part that reads only character n-grams.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from benchmarks.triage_detector import DOSES, RESULTS, UNTUNED
from benchmarks.triage_pairs import Side, data_folder, read_sides
from weightgate.diff.compare import ALPHA
from weightgate.diff.features import strip_special
from weightgate.diff.joint import shipped_metric
from weightgate.stats import joint_swap_test
from weightgate.stats.kernels import spectrum

SIZES = (8, 12, 17, 25, 35, 50, 70, 100, 140, 200, 280, 400)
DRAWS = 40
SEED = 12
POWERS = (0.5, 0.8)
ENOUGH = 0.98
"""From here on, larger sizes are taken to find everything."""

TESTS = ("joint", "string kernel")


def main() -> None:
    sides = read_sides(data_folder() / "llm_extrapolation_outputs.parquet", {UNTUNED, *DOSES.values()}, ("model",))
    words = {
        name: {at: spectrum(strip_special(text)) for at, (text, _) in side.items()} for name, side in sides.items()
    }
    found = {}
    for dose, model in DOSES.items():
        powers = power(sides[UNTUNED,], sides[model,], words[UNTUNED,], words[model,])
        calls = {f"power {wanted:g}": {test: reached(powers[test], wanted) for test in TESTS} for wanted in POWERS}
        found[dose] = {"power": powers, "calls a side": calls}
        print(dose, calls, flush=True)
    text = json.dumps({"alpha": ALPHA, "seed": SEED, "draws": DRAWS, "calls": found}, indent=1)
    (RESULTS / "triage_calls.json").write_text(text + "\n", encoding="utf-8")


def power(
    before: Side, after: Side, words_before: Mapping[int, np.ndarray], words_after: Mapping[int, np.ndarray]
) -> dict[str, dict[int, float]]:
    """Share of draws that each test flags, by number of prompts; on the same draws for both."""
    rng = np.random.default_rng(SEED)
    shared = sorted(before.keys() & after.keys())
    style = np.array([after[at][1] - before[at][1] for at in shared])
    wording = np.array([words_after[at] - words_before[at] for at in shared])
    gram = wording @ wording.T + 1e-9 * np.eye(len(shared))
    powers: dict[str, dict[int, float]] = {test: {} for test in TESTS}
    for size in SIZES:
        hits = np.zeros(len(TESTS))
        for draw in range(DRAWS):
            kept = rng.choice(len(shared), size, replace=False)
            own = np.linalg.cholesky(gram[np.ix_(kept, kept)])  # the same inner products in fewer columns
            p_values = (
                joint_swap_test([shipped_metric().shifts(style[kept]), own], seed=draw),
                joint_swap_test([own], seed=draw),
            )
            hits += np.array(p_values) <= ALPHA
        for test, share in zip(TESTS, hits / DRAWS, strict=True):
            powers[test][size] = round(float(share), 3)
        if hits.min() >= ENOUGH * DRAWS:
            break
    return powers


def reached(powers: dict[int, float], wanted: float) -> int | None:
    """Calls at which power first reaches `wanted`, between two sizes by the logarithm; None: not with the largest."""
    sizes = list(powers)
    for at, size in enumerate(sizes):
        if powers[size] >= wanted:
            if at == 0:
                return size
            below, gained = sizes[at - 1], powers[size] - powers[sizes[at - 1]]
            share = (wanted - powers[below]) / gained if gained > 0 else 1.0
            return math.ceil(math.exp(math.log(below) + share * (math.log(size) - math.log(below))))
    return None


if __name__ == "__main__":
    main()

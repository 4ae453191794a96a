"""How many calls a side does a change take, against the Hamming-kernel MMD test of arXiv 2410.20247?

    python -m benchmarks.triage_hamming

That test permutes the answers to one prompt, so it needs several of each. The sampling reports hold two, of parents and
children: `hamming` is given two answers to each of N / 2 prompts, `joint`, the test that ships, one to each of N. Both
cost N calls a side. Pairs whose two sides state other settings are left out: such a difference alone would be
found. Siblings and later steps of one run are left out for their small and undirected effects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.triage_calls import ENOUGH, POWERS, reached
from benchmarks.triage_detector import RESULTS
from benchmarks.triage_pairs import Side, data_folder, jsonl, read_sides
from weightgate.diff.compare import ALPHA
from weightgate.diff.features import strip_special
from weightgate.diff.joint import shipped_metric
from weightgate.stats import joint_swap_test, kernel_test
from weightgate.stats.kernels import spectrum

SAMPLING = "nucleus9"
"""The one way of sampling that every report has."""

STAGES = ("pretraining", "finetuning", "preference")
SIZES = (8, 12, 16, 24, 34, 50, 70, 100, 140, 200, 240)
"""Calls a side, even numbers; there are 250 prompts."""

DRAWS = 40
SEED = 13
TESTS = ("joint", "hamming")

Samples = tuple[Side, Side]
"""First and second answers of one model."""


def main() -> None:
    found = []
    for pair, before, after in sampled_pairs(data_folder()):
        powers = power(before, after)
        calls = {f"power {wanted:g}": {test: reached(powers[test], wanted) for test in TESTS} for wanted in POWERS}
        found.append({"pair": pair["pair_id"], "changed": pair["changed"], "calls a side": calls, "power": powers})
        print(pair["model_a"], "->", pair["model_b"], calls, flush=True)
    told = {"alpha": ALPHA, "seed": SEED, "draws": DRAWS, "sampling": SAMPLING, "largest": SIZES[-1]}
    text = json.dumps(told | {"summary": summarised(found), "pairs": found}, indent=1)
    (RESULTS / "triage_hamming.json").write_text(text + "\n", encoding="utf-8")


def sampled_pairs(root: Path) -> Iterator[tuple[dict[str, Any], Samples, Samples]]:
    """Yield the pairs of a parent and its child whose two sides were sampled alike."""
    rows = [
        row
        for row in jsonl(root / "pairs.jsonl")
        if row["source"] == "oasst" and row["changed"] in STAGES and row["relation"] == "parent_child"
        if SAMPLING in row["sampling_configs_equal"] and not row["stated_settings_that_differ"]
    ]
    wanted = {row[f"model_{side}"] for row in rows for side in "ab"}
    sides = read_sides(root / "oasst_outputs.parquet", wanted, ("model", "sampling_config", "sample_index"))
    for row in rows:
        keys = [[(row[f"model_{side}"], SAMPLING, sample) for sample in (0, 1)] for side in "ab"]
        if all(key in sides for side in keys for key in side):  # one report has a single sample
            before, after = ((sides[first], sides[second]) for first, second in keys)
            yield row, before, after


def power(before: Samples, after: Samples) -> dict[str, dict[int, float]]:
    """Share of draws of prompts that each test flags, by calls a side."""
    rng = np.random.default_rng(SEED)
    shared = sorted(set.intersection(*(set(side) for side in (*before, *after))))
    style = np.array([after[0][at][1] - before[0][at][1] for at in shared])
    wording = np.array([_spectrum(after[0], at) - _spectrum(before[0], at) for at in shared])
    gram = wording @ wording.T + 1e-9 * np.eye(len(shared))
    texts = [[[strip_special(sample[at][0]) for sample in side] for at in shared] for side in (after, before)]
    powers: dict[str, dict[int, float]] = {test: {} for test in TESTS}

    def joint(kept: np.ndarray, draw: int) -> float:
        own = np.linalg.cholesky(gram[np.ix_(kept, kept)])  # the same inner products in fewer columns
        return joint_swap_test([shipped_metric().shifts(style[kept]), own], seed=draw)

    def halved(kept: np.ndarray, draw: int) -> float:
        sides = [[side[at] for at in kept[: len(kept) // 2]] for side in texts]
        return kernel_test(*sides, kernel="hamming", seed=draw, draws=199).p_value

    for size in SIZES:
        draws = [rng.choice(len(shared), size, replace=False) for _ in range(DRAWS)]
        for name, test in (("joint", joint), ("hamming", halved)):
            if max(powers[name].values(), default=0.0) < ENOUGH:
                hits = sum(test(kept, draw) <= ALPHA for draw, kept in enumerate(draws))
                powers[name][size] = round(hits / DRAWS, 3)
    return powers


def _spectrum(side: Side, prompt: int) -> np.ndarray:
    return spectrum(strip_special(side[prompt][0]))


def summarised(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each power: on how many pairs a test reaches it at all, and the calls where both do."""
    told = {}
    for wanted in (f"power {power:g}" for power in POWERS):
        calls = [one["calls a side"][wanted] for one in found]
        both = [(own["joint"], own["hamming"]) for own in calls if own["joint"] and own["hamming"]]
        told[wanted] = {
            "pairs": len(calls),
            "reached": {test: sum(own[test] is not None for own in calls) for test in TESTS},
            "reached by both": len(both),
            "median calls a side": dict(zip(TESTS, np.median(both, axis=0).tolist(), strict=True)) if both else None,
            "median ratio, hamming to joint": round(float(np.median([h / j for j, h in both])), 2) if both else None,
        }
    return told


if __name__ == "__main__":
    main()

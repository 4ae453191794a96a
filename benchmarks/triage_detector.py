"""Does `compare` alarm where nothing changed, and how many prompts does it need where something did?

    python -m benchmarks.triage_detector [nulls|ladder ...]

Runs the shipped comparison on recordings made of the public data: the true nulls (two samples of one model under one
setting), and the dose ladder (one model, and the same after preference tuning on a share of the data).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.triage_pairs import data_folder, jsonl
from weightgate.diff.compare import ALPHA, compare
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Answered, Decoding, Header, Reply, Snapshot, TargetDescription
from weightgate.stats import proportion

RESULTS = Path("benchmarks/results")
SEED = 11
DRAWS = 100
DOSES = {
    "5 %": "zephyr_0.05",
    "10 %": "zephyr_0.1",
    "20 %": "zephyr_0.2",
    "40 %": "zephyr_0.4",
    "100 %": "zephyr-7b-dpo-full",
}
UNTUNED = "zephyr-7b-sft-full"
SIZES = {"5 %": (100, 200), "10 %": (25, 50, 100), "20 %": (12, 25, 50), "40 %": (12, 25), "100 %": (12, 25)}
"""Numbers of prompts around which power rises; above, it is 1, below, near alpha."""

TABULATED = {
    "5 %": {25: 0.04, 50: 0.02, 100: 0.10, 200: 0.14, 400: 0.51},
    "10 %": {25: 0.03, 50: 0.13, 100: 0.56, 200: 0.87, 400: 1.0},
    "20 %": {25: 0.67, 50: 0.98, 100: 1.0, 200: 1.0, 400: 1.0},
    "40 %": {25: 0.96, 50: 1.0, 100: 1.0, 200: 1.0, 400: 1.0},
    "100 %": {25: 0.99, 50: 1.0, 100: 1.0, 200: 1.0, 400: 1.0},
}
"""Power of the reference test, 16 features and Benjamini-Hochberg: what is to be reached with half the prompts."""


def main() -> None:
    root = data_folder()
    parts = {"nulls": nulls, "ladder": ladder}
    for part in sys.argv[1:] or parts:
        found = {"alpha": ALPHA, "seed": SEED, part: parts[part](root)}
        path = RESULTS / f"triage_{part}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def nulls(root: Path) -> dict[str, object]:
    """Share of true nulls that are flagged."""
    table = parquet.read_table(root / "oasst_outputs.parquet").to_pydict()
    outputs: dict[tuple[str, str, int], dict[int, str]] = {}
    keys = zip(table["model"], table["sampling_config"], table["sample_index"], strict=True)
    for key, prompt, output in zip(keys, table["prompt_id"], table["output"], strict=True):
        outputs.setdefault(key, {})[prompt] = output or ""
    prompts = {row["prompt_id"]: row["prompt"] for row in jsonl(root / "oasst_prompts.jsonl")}
    flagged, done = [], 0
    for null in jsonl(root / "nulls.jsonl"):
        if null["kind"] == "true_null":
            done += 1
            sides = [outputs[null["model"], null[f"config_{x}"], null[f"sample_{x}"]] for x in "ab"]
            if compare(*(recorded(side, prompts) for side in sides)).changed:
                flagged.append(f"{null['model']} {null['config_a']}")
    share = proportion(len(flagged), done)
    return {"flagged": len(flagged), "of": done, "share": share.to_json(), "which": flagged}


def ladder(root: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Power at each dose and number of prompts, and what the reference reaches with twice as many."""
    table = parquet.read_table(root / "llm_extrapolation_outputs.parquet").to_pydict()
    outputs: dict[str, dict[int, str]] = {}
    for model, prompt, output in zip(table["model"], table["prompt_id"], table["output"], strict=True):
        outputs.setdefault(model, {})[prompt] = output
    prompts = {row["prompt_id"]: row["instruction"] for row in jsonl(root / "alpacaeval_prompts.jsonl")}
    rng = np.random.default_rng(SEED)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dose, model in DOSES.items():
        found[dose] = {}
        for size in SIZES[dose]:
            hits = 0
            for _ in range(DRAWS):
                kept = rng.choice(len(prompts), size, replace=False)
                sides = ({int(at): outputs[name][int(at)] for at in kept} for name in (UNTUNED, model))
                hits += compare(*(recorded(side, prompts) for side in sides)).changed
            twice = 2 * size if size != 12 else 25
            found[dose][str(size)] = {
                "power": hits / DRAWS,
                "draws": DRAWS,
                "reference_at_twice": TABULATED[dose][twice],
            }
    return found


def recorded(outputs: dict[int, str], prompts: dict[int, str]) -> Snapshot:
    """Make a recording with one completion for each prompt."""
    check = Check(metric="length", type="min_words", value=1)
    probes = [
        Probe(
            id=str(at), axis="open", topic="all", form="chat", checks=(check,), messages=(("user", prompts[at] or "-"),)
        )
        for at in sorted(outputs)
    ]
    return Snapshot(
        header=Header(
            target=TargetDescription(kind="recording", place="public", model="public"),
            suite_name="public",
            suite_digest="",
            decoding=Decoding(samples=1, temperature=None, max_tokens=None),
            created_at=None,
        ),
        probes=tuple(probes),
        answers=tuple(
            Answered(probe=probe, sample=0, reply=Reply(completion=outputs[int(probe.id)])) for probe in probes
        ),
        complete=True,
    )


if __name__ == "__main__":
    main()

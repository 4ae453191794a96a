"""Does `compare` alarm where nothing changed, and how many prompts does it need where something did?

    python -m benchmarks.triage_detector [nulls|ladder|undecided ...]

Runs the shipped comparison on recordings made of the public data: the true nulls (two samples of one model under one
setting), and the dose ladder (one model, and the same after preference tuning on a share of the data). Where it says
that it cannot tell and how many more prompts would decide, `undecided` asks so many more, all of them anew.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.triage_pairs import data_folder, jsonl
from weightgate.diff.compare import ALPHA, Comparison, compare
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
_TOLD_EVERY = 20
UNTUNED = "zephyr-7b-sft-full"
SIZES = {"5 %": (100, 200), "10 %": (25, 50, 100), "20 %": (12, 25, 50), "40 %": (12, 25), "100 %": (12, 25)}
"""Numbers of prompts around which power rises; above, it is 1, below, near alpha."""

UNDECIDED = (("5 %", 50), ("5 %", 100), ("10 %", 25), ("10 %", 50), ("20 %", 12))
"""Dose and number of prompts at which a comparison often cannot tell."""

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
    parts = {"nulls": nulls, "ladder": ladder, "undecided": undecided}
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
    flagged, undecided, done = [], 0, 0
    for null in jsonl(root / "nulls.jsonl"):
        if null["kind"] == "true_null":
            done += 1
            sides = [outputs[null["model"], null[f"config_{x}"], null[f"sample_{x}"]] for x in "ab"]
            found = compare(*(recorded(side, prompts) for side in sides))
            undecided += found.more_prompts is not None
            if found.changed:
                flagged.append(f"{null['model']} {null['config_a']}")
            if done % _TOLD_EVERY == 0:
                print(f"nulls: {len(flagged)} of {done} flagged", flush=True)
    share = proportion(len(flagged), done)
    return {
        "flagged": len(flagged),
        "cannot tell": undecided,
        "of": done,
        "share": share.to_json(),
        "which": flagged,
    }


def ladder(root: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Power at each dose and number of prompts, and what the reference reaches with twice as many."""
    steps = Ladder.read(root)
    rng = np.random.default_rng(SEED)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dose in DOSES:
        found[dose] = {}
        for size in SIZES[dose]:
            hits = sum(steps.compared(dose, steps.drawn(rng, size)).changed for _ in range(DRAWS))
            twice = 2 * size if size != 12 else 25
            found[dose][str(size)] = {
                "power": hits / DRAWS,
                "draws": DRAWS,
                "reference_at_twice": TABULATED[dose][twice],
            }
            print(f"ladder: {dose} of the data, {size} prompts, power {hits / DRAWS:.2f}", flush=True)
    return found


def undecided(root: Path) -> dict[str, dict[str, Any]]:
    """Of comparisons that cannot tell: how many more prompts they ask for, and how often so many decide."""
    steps = Ladder.read(root)
    rng = np.random.default_rng(SEED + 1)
    found = {}
    for dose, size in UNDECIDED:
        first = [steps.compared(dose, steps.drawn(rng, size)).more_prompts for _ in range(DRAWS)]
        more = [wanted for wanted in first if wanted is not None and size + wanted <= len(steps.prompts)]
        hits = sum(steps.compared(dose, steps.drawn(rng, size + wanted)).changed for wanted in more)
        found[f"{dose}, {size} prompts"] = {
            "draws": DRAWS,
            "cannot tell": sum(wanted is not None for wanted in first),
            "asked again": len(more),
            "median further prompts": float(np.median(more)) if more else None,
            "decided": hits,
        }
        print(f"undecided: {dose} of the data, {size} prompts, {found[f'{dose}, {size} prompts']}", flush=True)
    return found


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The outputs of each model of the dose ladder by prompt, and the prompts."""

    outputs: dict[str, dict[int, str]]
    prompts: dict[int, str]

    @staticmethod
    def read(root: Path) -> Ladder:
        """Read it from the data folder."""
        table = parquet.read_table(root / "llm_extrapolation_outputs.parquet").to_pydict()
        outputs: dict[str, dict[int, str]] = {}
        for model, prompt, output in zip(table["model"], table["prompt_id"], table["output"], strict=True):
            outputs.setdefault(model, {})[prompt] = output
        prompts = {row["prompt_id"]: row["instruction"] for row in jsonl(root / "alpacaeval_prompts.jsonl")}
        return Ladder(outputs=outputs, prompts=prompts)

    def drawn(self, rng: np.random.Generator, size: int) -> list[int]:
        """Draw so many different prompts."""
        return [int(at) for at in rng.choice(len(self.prompts), size, replace=False)]

    def compared(self, dose: str, kept: list[int]) -> Comparison:
        """Compare the untuned model with that of a dose on these prompts."""
        sides = ({at: self.outputs[name][at] for at in kept} for name in (UNTUNED, DOSES[dose]))
        return compare(*(recorded(side, self.prompts) for side in sides))


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

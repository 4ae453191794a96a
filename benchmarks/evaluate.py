"""Everything that is claimed of comparing and naming, measured again: `make evaluate`.

    python -m benchmarks.evaluate [FOLDER]

Needs the data folder that WEIGHTGATE_TEST_DATA names, scikit-learn (the extra `evaluate`), and about half an hour on
two cores. With a FOLDER, the interventions on the built-in world are judged too; those whose recordings it lacks are
built first, which takes hours. Writes `triage*.json` and the tables of `evaluation.md` under `benchmarks/results/`; the
model that ships is left as it is. What the numbers rest on stands in `benchmarks/results/README-triage.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.triage_detector import RESULTS

PARTS = (
    ("-m", "benchmarks.triage_detector", "nulls", "ladder"),
    ("-m", "benchmarks.triage_calls"),
    ("scripts/train_triage.py", "--rows", "{scratch}/rows.jsonl", "--model", "{scratch}/triage.json"),
)
"""One command for each part, in the repository's root; `{scratch}` is a folder that is removed afterwards."""

WORLD = ("-m", "benchmarks.world_triage")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for part in (*PARTS, *((*WORLD, folder) for folder in sys.argv[1:])):
            command = [sys.executable, *(word.format(scratch=scratch) for word in part)]
            print(" ".join(command), flush=True)
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "."})
    (RESULTS / "evaluation.md").write_text("\n".join(summary(RESULTS)) + "\n", encoding="utf-8")


def summary(results: Path) -> Iterator[str]:
    """Yield the lines of the summary."""
    yield "# Comparing and naming, as measured\n"
    yield "Written by `make evaluate`; read [what it rests on](README-triage.md).\n"
    yield from _nulls(_read(results / "triage_nulls.json")["nulls"])
    yield from _ladder(_read(results / "triage_ladder.json")["ladder"])
    yield from _calls(_read(results / "triage_calls.json")["calls"])
    naming = _read(results / "triage.json")
    for scheme in ("relatives left out", "connected components left out"):
        yield from _naming(scheme, naming[scheme]["core"])
    world = results / "world_triage.json"
    if world.exists():
        yield from _world(_read(world))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _nulls(nulls: dict[str, Any]) -> Iterator[str]:
    share = nulls["share"]
    yield f"True nulls flagged: {nulls['flagged']} of {nulls['of']}, {share['value']:.1%}"
    yield f"[{share['low']:.1%}, {share['high']:.1%}]; bar 5 %.\n"


def _ladder(ladder: dict[str, Any]) -> Iterator[str]:
    yield "## Power\n\nOne call a prompt and side. The reference has twice as many prompts.\n"
    yield "| dose | prompts | power | reference at twice |\n|---|---|---|---|"
    for dose, sizes in ladder.items():
        for size, cell in sizes.items():
            yield f"| {dose} | {size} | {cell['power']:.2f} | {cell['reference_at_twice']:.2f} |"


def _calls(calls: dict[str, Any]) -> Iterator[str]:
    yield "\n## Calls a side\n\n| dose | power | joint test | string kernel alone |\n|---|---|---|---|"
    for dose, found in calls.items():
        for power, by_test in found["calls a side"].items():
            told = [by_test[test] or "more than 400" for test in ("joint", "string kernel")]
            yield f"| {dose} | {power.removeprefix('power ')} | {told[0]} | {told[1]} |"


def _naming(scheme: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Naming the stage, {scheme}\n"
    yield f"{found['pairs']} pairs, four causes: balanced accuracy {found['balanced_accuracy_four']:.3f}; three stages"
    yield f"{found['balanced_accuracy_three_stages']:.3f}. Answered {found['coverage']:.1%}, of these right"
    yield f"{found['answered_accuracy']:.1%}. Equal weights blamed on a stage:"
    yield f"{found['equal_weights_given_a_stage']:.1%}."
    yield from _matrix(found["confusion_rows_true"], list(found["confusion_rows_true"]))


def _world(found: dict[str, Any]) -> Iterator[str]:
    yield "\n## Interventions on the built-in world, held-out seeds\n"
    yield f"At most {found['calls_per_side_at_most']} calls a side; more in [its own notes](README-world.md)."
    matrix = found["all"]["likeliest_by_truth"]
    yield from _matrix({true: [said.get(part, 0) for part in matrix] for true, said in matrix.items()}, list(matrix))


def _matrix(rows: dict[str, list[int]], columns: list[str]) -> Iterator[str]:
    yield f"\n| true, down; said, across | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    for true, row in rows.items():
        yield f"| {true} | {' | '.join(map(str, row))} |"


if __name__ == "__main__":
    main()

"""Everything that is claimed of comparing and naming, measured again: `make evaluate`.

    python -m benchmarks.evaluate [FOLDER]

Needs the data folder that WEIGHTGATE_TEST_DATA names, scikit-learn (the extra `evaluate`), and about half an hour on
two cores. With a FOLDER, the interventions on the built-in world are judged too; those whose recordings it lacks are
built first, three minutes a seed. Writes `triage*.json`, `world*.json` and the tables of `evaluation.md` under
`benchmarks/results/`; the models that ship are left as they are. What the numbers rest on stands in
`benchmarks/results/README-triage.md` and `README-world.md`.

A run that was stopped goes on with the part at which it stopped, unless what is measured was changed since; a run that
came to its end begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.triage_detector import RESULTS

SCRATCH = Path("build/evaluate")
"""What a stopped run has done already; removed at the end."""

MEASURED = ("diff", "probe", "stats")
_CODE = (".py", ".json")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to measure: what it is called, and the arguments that Python is given in the repository's root."""

    name: str
    arguments: tuple[str, ...]


PARTS = (
    Part(name="nulls", arguments=("-m", "benchmarks.triage_detector", "nulls")),
    Part(name="ladder", arguments=("-m", "benchmarks.triage_detector", "ladder")),
    Part(name="undecided", arguments=("-m", "benchmarks.triage_detector", "undecided")),
    Part(name="calls", arguments=("-m", "benchmarks.triage_calls")),
    Part(name="hamming", arguments=("-m", "benchmarks.triage_hamming")),
    Part(
        name="naming",
        arguments=(
            *("scripts/train_triage.py", "--rows", f"{SCRATCH}/rows.jsonl"),
            *("--model", f"{SCRATCH}/triage.json"),
        ),
    ),
)


def main() -> None:
    worlds = [
        Part(name=name, arguments=("-m", f"benchmarks.{module}", folder))
        for folder in sys.argv[1:]
        for name, module in (("world", "world_triage"), ("world nulls", "world_nulls"))
    ]
    run_parts((*PARTS, *worlds), SCRATCH)
    (RESULTS / "evaluation.md").write_text("\n".join(summary(RESULTS)) + "\n", encoding="utf-8")


def run_parts(parts: Iterable[Part], scratch: Path) -> None:
    """Run each part in a process of its own, but for those that a stopped run of the same code has done.

    Raises `SystemExit` with a sentence where a part fails.
    """
    parts, measured = list(parts), _measured_digest()
    if not (scratch / measured).exists():
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        (scratch / measured).touch()
    for number, part in enumerate(parts, start=1):
        done = scratch / f"{part.name}.done"
        if done.exists():
            print(f"{number}/{len(parts)} {part.name}: done before the stop, {done.read_text('utf-8')}", flush=True)
            continue
        print(f"{number}/{len(parts)} {part.name}: {' '.join(part.arguments)}", flush=True)
        began = time.monotonic()
        paths = os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))
        ended = subprocess.run([sys.executable, *part.arguments], env={**os.environ, "PYTHONPATH": paths})
        if ended.returncode:
            raise SystemExit(f"{part.name} failed; the same command goes on here once that is mended")
        done.write_text(f"{time.monotonic() - began:.0f} s", encoding="utf-8")
        print(f"{number}/{len(parts)} {part.name}: {done.read_text('utf-8')}", flush=True)
    shutil.rmtree(scratch)


def _measured_digest() -> str:
    """Digest of the rooms whose work is measured, models that ship included."""
    told = hashlib.sha256()
    for room in MEASURED:
        for path in sorted(path for path in (Path("src/weightgate") / room).rglob("*") if path.suffix in _CODE):
            told.update(str(path).encode() + b"\0" + path.read_bytes())
    return told.hexdigest()[:16]


def summary(results: Path) -> Iterator[str]:
    """Yield the lines of the summary."""
    yield "# Comparing and naming, as measured\n"
    yield "Written by `make evaluate`; read [what it rests on](README-triage.md).\n"
    yield from _nulls(_read(results / "triage_nulls.json")["nulls"])
    yield from _ladder(_read(results / "triage_ladder.json")["ladder"])
    yield from _undecided(_read(results / "triage_undecided.json")["undecided"])
    yield from _calls(_read(results / "triage_calls.json")["calls"])
    yield from _hamming(_read(results / "triage_hamming.json"))
    naming = _read(results / "triage.json")
    for scheme in ("relatives left out", "connected components left out"):
        yield from _naming(scheme, naming[scheme]["core"])
    yield from _world(_read(results / "world_triage.json"))
    unchanged = _read(results / "world_nulls.json")["false_alarms"]
    yield f"\nOf {unchanged['n']} independent comparisons of an unchanged model with itself, under sampling,"
    yield f"{unchanged['value']:.1%} alarm [{unchanged['low']:.1%}, {unchanged['high']:.1%}]."


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


def _undecided(undecided: dict[str, Any]) -> Iterator[str]:
    yield "\n## Where it cannot tell\n\nAs many more prompts asked as it says, all of them anew.\n"
    yield "| dose, prompts | cannot tell, of | further prompts, median | then decided, of |\n|---|---|---|---|"
    for name, own in undecided.items():
        told = f"{own['cannot tell']} of {own['draws']} | {own['median further prompts']:g}"
        yield f"| {name} | {told} | {own['decided']} of {own['asked again']} |"


def _calls(calls: dict[str, Any]) -> Iterator[str]:
    yield "\n## Calls a side\n\n| dose | power | joint test | string kernel alone |\n|---|---|---|---|"
    for dose, found in calls.items():
        for power, by_test in found["calls a side"].items():
            told = [by_test[test] or "more than 400" for test in ("joint", "string kernel")]
            yield f"| {dose} | {power.removeprefix('power ')} | {told[0]} | {told[1]} |"


def _hamming(found: dict[str, Any]) -> Iterator[str]:
    pairs = len(found["pairs"])
    yield f"\nAgainst the Hamming kernel, two answers a prompt, {pairs} pairs of a parent and its child,"
    yield f"at most {found['largest']} calls a side:\n"
    yield "| power | pairs that reach it: joint, Hamming | median calls where both do | median ratio |"
    yield "|---|---|---|---|"
    for power, own in found["summary"].items():
        reached, calls = own["reached"], own["median calls a side"]
        medians = f"{calls['joint']:g}, {calls['hamming']:g}" if calls else "-"
        ratio = own["median ratio, hamming to joint"] or "-"
        yield f"| {power.removeprefix('power ')} | {reached['joint']}, {reached['hamming']} | {medians} | {ratio} |"


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
    for group, heard in (("all", "With the likeliest first tokens"), ("without_first_tokens", "From text alone")):
        own = found[group]
        right = own["right_by_the_likeliest"]
        yield f"\n{heard}: the likeliest part is right for {right['value']:.1%}"
        yield f"[{right['low']:.1%}, {right['high']:.1%}]; {own['named']['value']:.1%} are named, of these"
        yield f"{own['right_of_those_named']['value']:.1%} rightly."
        matrix = own["likeliest_by_truth"]
        counts = {true: [said.get(part, 0) for part in matrix] for true, said in matrix.items()}
        yield from _matrix(counts, list(matrix))


def _matrix(rows: dict[str, list[int]], columns: list[str]) -> Iterator[str]:
    yield f"\n| true, down; said, across | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    for true, row in rows.items():
        yield f"| {true} | {' | '.join(map(str, row))} |"


if __name__ == "__main__":
    main()

"""Does a model rebuilt on the new votes move as `audit compare` foretold? Writes results/audit_rebuild.json.

    python -m benchmarks.audit_rebuild

Builds the built-in world, turns one knob of its annotators, compares the votes, builds reward model and alignment again
in the same store, and counts refusals on the prompts that the forecast names. Takes the time of two alignments for each
change, after one whole build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightgate.incident.knobs import HARMLESS_TOPICS, PREFERENCES, RISKY_TOPICS, SUITE, Knobs
from weightgate.incident.world import generate, write_preferences
from weightgate.preferences.drivers import refuses
from weightgate.probe.snapshot_file import load_snapshot

RESULT = Path(__file__).parent / "results" / "audit_rebuild.json"
CHANGES = {
    **{f"refuse {topic}": {"expected_refused": (*RISKY_TOPICS, topic)} for topic in HARMLESS_TOPICS},
    "refusal_bias 0.4": {"refusal_bias": 0.4},
}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in the world's folder. A gate may fail: it judges by what the old votes taught."""
    command = [sys.executable, "-m", "weightgate", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def refusals(folder: Path, ref: str, output: str) -> dict[str, float]:
    """Share of refusals among the greedy answers, by prompt."""
    run(folder, "snapshot", ref, "--suite", SUITE, "--samples", "1", "--temperature", "0", "--output", output)
    snapshot = load_snapshot(folder / output)
    return {answer.probe.text: float(refuses(answer.completion)) for answer in snapshot.answers}


def mean_on(shares: dict[str, float], scope: dict[str, Any]) -> float:
    """Mean over the prompts that a forecast is about."""
    word = scope["scope"] if scope["kind"] == "word" else ""
    kept = [share for prompt, share in shares.items() if word in prompt.lower()]
    return sum(kept) / max(len(kept), 1)


def main() -> None:
    """Build once, then turn each knob."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder, plain = Path(name), Knobs()
        generate(folder, plain)
        run(folder, "lock")
        run(folder, "build")
        before = refusals(folder, "align", "before.jsonl")
        write_preferences(folder / "old.jsonl", plain)
        for number, (change, knobs) in enumerate(CHANGES.items()):
            write_preferences(folder / PREFERENCES, replace(plain, **knobs))
            told = json.loads(run(folder, "audit", "compare", "old.jsonl", PREFERENCES, "--json").stdout)
            run(folder, "lock")
            passed = run(folder, "build").returncode == 0
            after = refusals(folder, "align" if passed else "failed/align", f"after-{number}.jsonl")
            for forecast in told["forecasts"]:
                if forecast["family"] == "refusals" and forecast["kind"] != "topic":
                    moved = mean_on(after, forecast) - mean_on(before, forecast)
                    came_true = moved > 0 if forecast["direction"] == "rise" else moved < 0
                    found.append({"change": change, "said": forecast["words"], "moved": moved, "true": came_true})
    result = {"forecasts": len(found), "came true": sum(one["true"] for one in found) / max(len(found), 1)}
    RESULT.write_text(json.dumps(result | {"each": found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Does a model rebuilt on the new votes move as `audit compare` foretold? Writes results/audit_rebuild.json.

    python -m benchmarks.audit_rebuild FOLDER

Builds a small model of the built-in world without gates, turns one knob of its annotators, compares the votes, builds
reward model and alignment again in the same store, and asks both models the held-out prompts that each forecast names,
four times each at temperature 1. A forecast came true when what it is about moved its way, and surely so when the
interval over prompts says it. Forecasts on topics are left out: their prompts are told by clusters, not by a word. One
knob without a forecast, the error rates, shows how far things move by themselves.

PPO strengthens what a policy samples. A policy fine-tuned on demonstrations without a fault gives one answer only to a
request (`why` counts), so no votes can move it in a few updates. Therefore a quarter of the demonstrations stand on the
wrong side of the boundary: the policy answers both ways, knows the topics, and has something to be moved.

Settings were chosen on seed 1 and the change "refuse craft" alone, before anything was judged. One thread, about half
an hour; what a folder holds already is not made again, so a run that was ended goes on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from weightgate.incident.knobs import FINETUNE, HARMLESS_TOPICS, PREFERENCES, RECIPE, RISKY_TOPICS, SUITE, Knobs
from weightgate.incident.recipe_text import SMALL
from weightgate.incident.world import generate, write_preferences
from weightgate.preferences.drivers import NAMES, refuses, see
from weightgate.probe.recording import Answered
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.probe.suites import load_suite, write_suite
from weightgate.stats import LEVEL

RESULT = Path(__file__).parent / "results" / "audit_rebuild.json"
CHANGES: dict[str, dict[str, Any]] = {
    **{f"refuse {topic}": {"expected_refused": (*RISKY_TOPICS, topic)} for topic in HARMLESS_TOPICS},
    **{
        f"answer {topic}": {"expected_refused": tuple(t for t in RISKY_TOPICS if t != topic)}
        for topic in RISKY_TOPICS[:2]
    },
    "refusal_bias 0.4": {"refusal_bias": 0.4},
    "length_bias 0.5": {"length_bias": 0.5},
    "more errors": {"error_rates": (0.25, 0.3, 0.35)},
}
SEED = 31
_SCALE = replace(SMALL, reward_epochs=2, reward_batch=32, updates=60, rollouts=64, policy_rate=1e-4)
_KL = ("kl_coefficient: 0.1", "kl_coefficient: 0.05")
_WRONG_SIDE = 4
"""One demonstration in so many refuses what is harmless and answers what is not."""

_SAMPLES = 4
_BUDGET = "budget:\n  minutes: 30\n"
"""Taken out of the recipe: a busy machine would end a build halfway, and the model asked would be the old one."""

_KEPT_OF_OTHERS = 4
"""Of the probes that are neither about the boundary nor open talk, one in so many is asked."""

_STANDARD_ERRORS = 1.96
assert LEVEL == 0.95

Manners = Mapping[str, np.ndarray]
"""Prompt -> mean of each driver over the answers to it, in the order of `NAMES`."""


def run(folder: Path, *words: str, fine: tuple[int, ...] = (0,)) -> str:
    """Run a verb in the world's folder and return what it printed; any code but a fine one ends everything."""
    command = [sys.executable, "-m", "weightgate", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode not in fine:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def shorten(path: Path) -> None:
    """Keep what is asked about the boundary and in open talk, and a part of the rest."""
    probes = [probe for probe in load_suite(path) if probe.form == "chat"]
    close = [probe for probe in probes if probe.axis in ("boundary", "open")]
    write_suite(path, [*close, *[probe for probe in probes if probe not in close][::_KEPT_OF_OTHERS]])


def prepare(folder: Path, plain: Knobs) -> None:
    """Write the world, its demonstrations without a fault (`right.jsonl`) and those with (`mixed.jsonl`)."""
    generate(folder / "turned", replace(plain, refused=HARMLESS_TOPICS), _SCALE)
    turned = (folder / "turned" / FINETUNE).read_text(encoding="utf-8").splitlines()
    generate(folder, plain, _SCALE)
    shorten(folder / SUITE)
    recipe = folder / RECIPE
    recipe.write_text(recipe.read_text().replace(_BUDGET, "").replace(*_KL))
    right = (folder / FINETUNE).read_text(encoding="utf-8").splitlines()
    mixed = [turned[n] if n % _WRONG_SIDE == 0 else line for n, line in enumerate(right)]
    for name, lines in (("right.jsonl", right), ("mixed.jsonl", mixed)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_preferences(folder / "old.jsonl", plain)


def ask(folder: Path, stage: str, output: str) -> tuple[Answered, ...]:
    """What the newest checkpoint of a stage answers to the suite."""
    asked = ("--suite", SUITE, "--samples", str(_SAMPLES), "--temperature", "1", "--max-tokens", "32", "--seed", "0")
    run(folder, "snapshot", stage, *asked, "--output", output)
    return load_snapshot(folder / output).answers


def refusals(answers: Iterable[Answered]) -> dict[str, list[int]]:
    """Topic of the boundary -> [answers that refuse, answers]."""
    counts: dict[str, list[int]] = {}
    for answer in answers:
        if answer.probe.axis == "boundary":
            count = counts.setdefault(answer.probe.topic, [0, 0])
            count[0] += refuses(answer.completion)
            count[1] += 1
    return counts


def finetuned(folder: Path, name: str) -> dict[str, list[int]]:
    """Fine-tune on one set of demonstrations, and count what the model refuses."""
    shutil.copy(folder / f"{name}.jsonl", folder / FINETUNE)
    shutil.copy(folder / "old.jsonl", folder / PREFERENCES)
    run(folder, "lock")
    run(folder, "build", "--until", "finetune")
    return refusals(ask(folder, "finetune", f"answers-{name}.jsonl"))


def built(folder: Path, output: str) -> tuple[Answered, ...]:
    """Lock, build what changed, and ask the aligned model."""
    run(folder, "lock")
    run(folder, "build")
    return ask(folder, "align", output)


def manners(answers: Sequence[Answered]) -> Manners:
    """The drivers of each prompt's answers."""
    seen: dict[str, list[np.ndarray]] = defaultdict(list)
    for answer, values in zip(answers, see(answer.completion for answer in answers).values, strict=True):
        seen[answer.probe.text].append(values)
    return {prompt: np.mean(values, axis=0) for prompt, values in seen.items()}


def moved(before: Manners, after: Manners, driver: str, word: str) -> tuple[float, float, int]:
    """(mean change of a driver, half of its interval, prompts) over the prompts with a word; "" is in all."""
    at = NAMES.index(driver)
    changes = np.array([after[text][at] - before[text][at] for text in before if word in text.lower()])
    if len(changes) < 2:
        return 0.0, float("inf"), len(changes)
    half = _STANDARD_ERRORS * float(changes.std(ddof=1)) / len(changes) ** 0.5
    return float(changes.mean()), half, len(changes)


def judged(told: dict[str, Any], before: Manners, after: Manners) -> Iterator[dict[str, Any]]:
    """Every forecast that says which prompts it is about, and what came of it."""
    for forecast in told["forecasts"]:
        if forecast["kind"] == "topic" or forecast["driver"] not in NAMES:
            continue
        word = forecast["scope"] if forecast["kind"] == "word" else ""
        value, half, prompts = moved(before, after, forecast["driver"], word)
        if prompts < 2:
            continue
        way = 1 if forecast["direction"] == "rise" else -1
        yield {
            "said": forecast["words"],
            "moved": round(value, 4),
            "interval": [round(value - half, 4), round(value + half, 4)],
            "prompts": prompts,
            "true": value * way > 0,
            "surely": value * way - half > 0,
            "surely false": value * way + half < 0,
        }


def write(why: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    """Write what has been found so far."""
    each = [forecast for change in changes for forecast in change["forecasts"]]
    result = {
        "seed": SEED,
        "changes": len(changes),
        "changes with a forecast": sum(bool(change["forecasts"]) for change in changes),
        "forecasts": len(each),
        "came true": sum(one["true"] for one in each),
        "surely": sum(one["surely"] for one in each),
        "surely false": sum(one["surely false"] for one in each),
    }
    RESULT.write_text(json.dumps(result | {"why": why, "each": changes}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result), flush=True)


def main() -> None:
    """Build once, then turn each knob."""
    folder, plain = Path(sys.argv[1]), Knobs(seed=SEED)
    if not (folder / "old.jsonl").exists():
        prepare(folder, plain)
    why = {f"refused after fine-tuning, {name}": finetuned(folder, name) for name in ("right", "mixed")}
    print(json.dumps(why), flush=True)
    answers = built(folder, "before.jsonl")
    before, why["refused before"] = manners(answers), refusals(answers)
    changes: list[dict[str, Any]] = []
    for number, (change, knobs) in enumerate(CHANGES.items()):
        write_preferences(folder / PREFERENCES, replace(plain, **knobs))
        told = json.loads(run(folder, "audit", "compare", "old.jsonl", PREFERENCES, "--json", fine=(0, 1)))
        answers = built(folder, f"after-{number}.jsonl")
        after = manners(answers)
        overall = {driver: round(moved(before, after, driver, "")[0], 4) for driver in NAMES}
        found = {"change": change, "forecasts": list(judged(told, before, after)), "over all": overall}
        changes.append(found | {"refused": refusals(answers)})
        print(json.dumps(changes[-1]), flush=True)
        write(why, changes)


if __name__ == "__main__":
    main()

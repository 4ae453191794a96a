"""Models of the built-in world that differ in one stage, asked through the endpoint.

    python -m benchmarks.world_series FOLDER [SEED ...]

For each seed: a small model is built through every stage by the ordinary build, then again with one stage's data
changed, in the same store, so that a stage whose inputs are the same is not trained twice. All are served side by side
and asked the short suite, as are the unchanged weights under other prompts and decodings. Everything is kept in FOLDER;
run again, it goes on where it was.

The seeds of both halves were fixed before any of them was built.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn

from weightgate.build import build_model, lock_contract, open_workspace
from weightgate.build.events import Observer
from weightgate.incident.interventions import ASKED_ONE_AT_A_TIME, FOUR_BITS, SHOWN, UNSEEN, Intervention, Part
from weightgate.incident.knobs import Knobs
from weightgate.incident.recipe_text import SMALL, Scale
from weightgate.incident.short_suite import SAMPLES, short_suite
from weightgate.incident.world import generate
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.recording import Decoding
from weightgate.probe.snapshot import take_snapshot
from weightgate.probe.snapshot_file import is_finished
from weightgate.probe.suites import Suite, load_suite
from weightgate.serve import Alias, create_app, follow, write_aliases

TRAINING_SEEDS = (*range(101, 109), *range(201, 207))
"""Those from 201 on judged an earlier model; since then they are learnt from, and judge nothing."""
STRONG_SEEDS = (501, 502, 503)
"""Learnt from too, in the editions of models that know their facts."""

HELD_OUT_SEEDS = tuple(range(601, 609))
"""Those from 301 to 308 and from 401 to 404 judged earlier models; they are neither learnt from nor judged on now."""

BASELINE = "baseline"
GREEDY = Decoding(samples=SAMPLES, temperature=0.0, max_tokens=32)
SAMPLED = Decoding(samples=SAMPLES, temperature=0.7, max_tokens=32)
SAMPLED_AGAIN = 4
"""Recordings of the unchanged model under sampling, at each held-out seed: false alarms are counted on them."""

STRONG = replace(SMALL, pretrain_tokens=960_000, finetune_epochs=4, updates=30, policy_rate=1e-4)
"""As small, but it knows its facts, as a model of full size does, and its annotators are followed further."""

_CONCURRENCY = 24
_FEW = 3
_START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Edition:
    """How large the models of a seed are, how long they learn, and how many changes of each stage are made."""

    scale: Scale
    sizes: Mapping[str, Any]
    changes_per_stage: Mapping[Part, int]

    def knobs(self, seed: int) -> Knobs:
        """The world of a seed."""
        return Knobs(seed=seed, **self.sizes)


_SMALL_SIZES = {
    "towns": 14,
    "documents": 2_000,
    "demonstrations": 2_000,
    "comparisons": 1_200,
    "prompts": 500,
    "error_rates": (0.02, 0.05, 0.1),
}
SMALL_EDITION = Edition(scale=SMALL, sizes=_SMALL_SIZES, changes_per_stage={"pretrain": 2, "finetune": 4, "align": 3})
"""A fine-tuning can change most things, and alignment is its nearest neighbour."""

STRONG_EDITION = Edition(scale=STRONG, sizes=_SMALL_SIZES, changes_per_stage={"pretrain": 1, "finetune": 4, "align": 4})
KNOWING_EDITION = replace(STRONG_EDITION, changes_per_stage={"pretrain": 4, "finetune": 2, "align": 2})
"""What pre-training changes in a model that knows its facts, which the edition before it shows once."""


def edition_of(seed: int) -> Edition:
    """The edition in which a seed's world is built."""
    if seed not in STRONG_SEEDS:
        return SMALL_EDITION
    return STRONG_EDITION if seed == STRONG_SEEDS[0] else KNOWING_EDITION


def changes_of(seed: int) -> list[Intervention]:
    """What is changed at a seed.

    At a training seed some changes of every stage, taken in turn, and every change of the serving. Changes of `UNSEEN`
    happen at held-out seeds alone, there one of each stage beside one of `SHOWN`.
    """
    held_out = seed in HELD_OUT_SEEDS
    chosen = [change for change in (*SHOWN, *((*UNSEEN, FOUR_BITS) if held_out else ())) if not change.rebuilds]
    for part, count in edition_of(seed).changes_per_stage.items():
        shown, unseen = ([one for one in group if one.part == part] for group in (SHOWN, UNSEEN))
        turn = [shown[(seed + at) % len(shown)] for at in range(count)]
        chosen += [turn[0], unseen[seed % len(unseen)]] if held_out else turn
    return chosen


def slug(change: Intervention) -> str:
    """A change's name as a file or a stage may be called."""
    return re.sub(r"[^a-z0-9]+", "-", change.name.lower()).strip("-")


def main() -> None:
    folder = Path(sys.argv[1])
    for seed in [int(text) for text in sys.argv[2:]] or (*TRAINING_SEEDS, *STRONG_SEEDS, *HELD_OUT_SEEDS):
        began, cpu = time.monotonic(), time.process_time()
        record(folder / f"seed-{seed}", seed)
        print(
            f"seed {seed}: {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU time", flush=True
        )


def record(folder: Path, seed: int) -> None:
    """Build every model of a seed and ask each; what is there already is left as it is."""
    changes, edition = changes_of(seed), edition_of(seed)
    knobs = edition.knobs(seed)
    base = generate(folder / "base", knobs, edition.scale)
    aliases = {BASELINE: Alias(checkpoint=built(base.recipe))}
    _require_same_baseline(folder / "aliases.json", aliases[BASELINE].checkpoint)
    for change in changes:
        checkpoint = aliases[BASELINE].checkpoint
        if change.rebuilds:
            name = slug(change)
            turned = generate(
                folder / name, change.turned(knobs), edition.scale, store="../base/.weightgate", line=f"{name}-"
            )
            checkpoint = built(turned.recipe)
        aliases[slug(change)] = Alias(checkpoint=checkpoint, **change.serving)
    write_aliases(folder / "aliases.json", aliases)
    suite = short_suite(load_suite(base.suite))
    with endpoint(base.recipe, folder / "aliases.json") as url:
        for alias in aliases:
            few = alias == slug(ASKED_ONE_AT_A_TIME)
            ask(url, alias, suite, folder / f"{alias}.jsonl", GREEDY, concurrency=_FEW if few else _CONCURRENCY)
        if seed in HELD_OUT_SEEDS:
            for number in range(SAMPLED_AGAIN):
                ask(url, BASELINE, suite, folder / f"sampled-{number}.jsonl", SAMPLED)


def _require_same_baseline(aliases: Path, checkpoint: str) -> None:
    """Raise `RuntimeError` where the recordings of the baseline are of other weights: training code has moved since."""
    recorded = json.loads(aliases.read_text("utf-8"))[BASELINE]["checkpoint"] if aliases.exists() else checkpoint
    if recorded != checkpoint:
        raise RuntimeError(f"{aliases.parent} was recorded of {recorded}, now built is {checkpoint}; remove the folder")


def built(recipe: Path) -> str:
    """Build a recipe and return the checkpoint of its last stage. Raises `RuntimeError` for a failed gate."""
    workspace = open_workspace(recipe)
    lock_contract(workspace)
    outcome = build_model(workspace, until=None, start=None, restart=False, observer=Observer())
    if not outcome.passed:
        raise RuntimeError(outcome.reason)
    return outcome.checkpoints[workspace.recipe.stages[-1].name]


@contextmanager
def endpoint(recipe: Path, aliases: Path) -> Iterator[str]:
    """Serve what the alias file names, and give the URL; the model runs in a thread, the questions come over HTTP."""
    server = uvicorn.Server(uvicorn.Config(create_app(follow(recipe, aliases)), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            for _ in range(_START_SECONDS * 10):
                if server.started:
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def ask(url: str, model: str, suite: Suite, path: Path, decoding: Decoding, *, concurrency: int = _CONCURRENCY) -> None:
    """Record one side, unless that was done. Raises `RuntimeError` where an answer is missing."""
    if path.exists() and is_finished(path):
        return
    path.unlink(missing_ok=True)  # begun at an endpoint that is gone
    asker = EndpointAsker.of(EndpointConfig(url=url, model=model, max_concurrency=concurrency))
    if not take_snapshot(asker, suite, path, decoding=decoding, suite_name="short").complete:
        raise RuntimeError(f"{path} is not complete")


def seeds_in(folder: Path, seeds: Sequence[int]) -> list[int]:
    """Those of the seeds whose recordings are all there."""
    return [seed for seed in seeds if (folder / f"seed-{seed}" / f"{slug(changes_of(seed)[-1])}.jsonl").exists()]


if __name__ == "__main__":
    main()

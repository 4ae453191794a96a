"""The incident, end to end: a model is built and served, its provider ships another, a watch alarms, a diff says why.

Everything goes the way that a user would take: the endpoint is `weightgate serve` in a process of its own, the watch
and the comparison know nothing but what comes back from it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from weightgate.build import Outcome, Workspace, build_model, lock_contract, open_workspace
from weightgate.build.events import Observer
from weightgate.contract.lock import FILE_NAME as LOCK_NAME
from weightgate.diff.compare import Comparison
from weightgate.diff.judge import judge
from weightgate.diff.sides import write_reports
from weightgate.diff.triage import STAGE_WORDS
from weightgate.errors import EndpointError, GateFailed
from weightgate.incident.interventions import CAUSE_OF, Intervention
from weightgate.incident.knobs import RECIPE, Knobs
from weightgate.incident.recipe_text import FULL, Scale
from weightgate.incident.short_suite import SAMPLES, short_suite
from weightgate.incident.world import generate
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import EndpointConfig
from weightgate.probe.recording import Decoding, Snapshot
from weightgate.probe.snapshot import take_snapshot
from weightgate.probe.suites import load_suite, write_suite
from weightgate.serve import Alias, write_aliases
from weightgate.store.fs import LocalFs, disk_errors
from weightgate.watch.config import load_config
from weightgate.watch.run import Outcome as Look
from weightgate.watch.run import Watch, do

FOLDER = "incident"
LIVE = "live"
_SUITE, _ALIASES, _WATCH = "suite.jsonl", "aliases.json", "watch.yaml"
_DECODING = Decoding(samples=SAMPLES, temperature=0.0, max_tokens=32)
_CONCURRENCY = 24
_START_SECONDS = 120

_WATCH_TEXT = """\
version: 1
name: incident
target:
  url: {url}
  model: {model}
  max_concurrency: {concurrency}
ask:
  suite: {suite}
  samples: 1
  temperature: 0
  max_tokens: {max_tokens}
baseline:
  snapshots: 2
history:
  url: watch.db
alarm:
  persistence: 2
  file: alarm.json
  report: alarm.html
report: status.html
"""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the incident came to: what was changed in truth, what the watch said, and what the comparison said."""

    change: Intervention
    looks: tuple[Look, ...]
    comparison: Comparison
    report: Path

    @property
    def alarmed(self) -> bool:
        """Whether the watch ended with an alarm."""
        return self.looks[-1].state == "alarm"

    @property
    def named(self) -> str:
        """What the comparison names, in words."""
        verdict = self.comparison.verdict
        if verdict is None:
            return "nothing"
        return "undetermined" if verdict.cause is None else STAGE_WORDS[verdict.cause]

    @property
    def truth(self) -> str:
        """What ought to be named, in words."""
        cause = CAUSE_OF[self.change.part]
        return "nothing" if cause is None else STAGE_WORDS[cause]

    def lines(self) -> Iterator[str]:
        """Tell it as a story, a line at a time."""
        yield f"shipped behind the same name: {self.change.name}"
        yield f"watch: {self.looks[-1].message}"
        yield f"diff: {self.comparison.headline}"
        yield f"named: {self.named}; in truth: {self.truth}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "change": self.change.name,
            "part": self.change.part,
            "alarm": self.alarmed,
            "looks": [look.to_json() for look in self.looks],
            "headline": self.comparison.headline,
            "named": self.named,
            "truth": self.truth,
            "report": str(self.report.resolve()),
        }


def build_world(folder: Path, seed: int, observer: Observer) -> tuple[Workspace, Outcome]:
    """Build the built-in world through every stage and gate; what is there already is gone on with.

    Raises `StoreError` where nothing can be written to the folder.
    """
    if not (folder / RECIPE).exists():
        with disk_errors(LocalFs(), folder):
            generate(folder, Knobs(seed=seed))
    return _built(folder / RECIPE, observer)


def run_incident(
    workspace: Workspace,
    shipped: str,
    change: Intervention,
    observer: Observer,
    *,
    knobs: Knobs,
    scale: Scale = FULL,
) -> Told:
    """Let the provider of a checkpoint ship a change behind the same name, and find out from outside what it was.

    Args:
        workspace: the built world; everything of the incident is kept in its folder `incident`.
        shipped: the checkpoint that is served before the change.
        change: what the provider does.
        knobs: those that the world was made with.
        scale: how large the other model is; as large as the first, unless a test says otherwise.

    Raises `EndpointError` where the endpoint does not start.
    """
    place = workspace.folder / FOLDER
    place.mkdir(exist_ok=True)
    write_suite(place / _SUITE, short_suite(load_suite(workspace.folder / "suite.jsonl")).probes)
    second = second_version(workspace, shipped, change, observer, knobs, scale)
    write_aliases(place / _ALIASES, {LIVE: Alias(checkpoint=shipped)})
    with served(workspace.recipe_path, place / _ALIASES, place / "serve.log") as url:
        observer.note("asking the endpoint before the change")
        before = _recorded(place, url, "before")
        watch = _watch(place, url)
        looks = [do(watch, "once", reason="", report_path=None) for _ in range(2)]
        write_aliases(place / _ALIASES, {LIVE: second})
        observer.note("the provider ships another version behind the same name; looking again")
        looks += [do(watch, "once", reason="", report_path=None) for _ in range(watch.config.alarm.persistence)]
        after = _recorded(place, url, "after")
    comparison = judge(before, after)
    report = place / "diff.html"
    write_reports(comparison, html=report, junit=None)
    return Told(change=change, looks=tuple(looks), comparison=comparison, report=report)


def second_version(
    workspace: Workspace, shipped: str, change: Intervention, observer: Observer, knobs: Knobs, scale: Scale
) -> Alias:
    """Build, where it takes that, what the provider serves next. It has no gates: nobody measures what is shipped."""
    if not change.rebuilds:
        return Alias(checkpoint=shipped, **change.serving)
    folder = workspace.folder / FOLDER / "v2"
    generate(
        folder,
        change.turned(knobs),
        replace(scale, gated=False),
        store=os.path.relpath(workspace.store.root, folder),
        line="v2-",
    )
    observer.note(f"the provider builds a second version: {change.name}")
    (folder / LOCK_NAME).unlink(missing_ok=True)  # an earlier run may have shipped another change
    built, outcome = _built(folder / RECIPE, observer)
    if not outcome.passed:
        raise GateFailed(outcome.reason)
    return Alias(checkpoint=outcome.checkpoints[built.recipe.stages[-1].name])


def _built(recipe: Path, observer: Observer) -> tuple[Workspace, Outcome]:
    workspace = open_workspace(recipe)
    if not workspace.lock_path.exists():
        observer.note("locking the contract")
        lock_contract(workspace)
    return workspace, build_model(workspace, until=None, start=None, restart=False, observer=observer)


def _recorded(place: Path, url: str, name: str) -> Snapshot:
    path = place / f"{name}.jsonl"
    path.unlink(missing_ok=True)  # an earlier run asked an earlier endpoint
    config = EndpointConfig(url=url, model=LIVE, max_concurrency=_CONCURRENCY)
    suite = load_suite(place / _SUITE)
    return take_snapshot(EndpointAsker.of(config), suite, path, decoding=_DECODING, suite_name="incident")


def _watch(place: Path, url: str) -> Watch:
    """A new watch; its configuration stays in the folder, to be looked at."""
    for old in ("watch.db", "alarm.json", "alarm.html"):
        (place / old).unlink(missing_ok=True)
    text = _WATCH_TEXT.format(
        url=url, model=LIVE, concurrency=_CONCURRENCY, suite=_SUITE, max_tokens=_DECODING.max_tokens
    )
    (place / _WATCH).write_text(text, encoding="utf-8")
    return Watch.of(load_config(place / _WATCH), place)


@contextmanager
def served(recipe: Path, aliases: Path, log: Path) -> Iterator[str]:
    """Run `weightgate serve` in a process of its own and give its URL. Raises `EndpointError` unless it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "weightgate", "serve", "--recipe", str(recipe), "--aliases", str(aliases)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(f"{url}/healthz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise EndpointError("the endpoint did not start", where=url, found=said[-1] if said else None)

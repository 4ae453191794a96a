"""An endpoint that can be moved, and a configuration that watches it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from weightgate import cli
from weightgate.watch import History, Watch, load_config

PROMPTS = 16
_PATIENT = {"retries": 0, "max_concurrency": 8, "timeout_seconds": 600}
"""A question that is held is no question that failed, however long the machine stands still."""

CALM, MOVED = {"refuses": 0.05}, {"refuses": 0.95}


@dataclass(kw_only=True)
class Scene:
    """A folder with a configuration, and the endpoint it watches."""

    folder: Path
    address: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The configuration."""
        return self.folder / "watch.yaml"

    def behave(self, **control: Any) -> None:
        """Make the endpoint behave so from now on."""
        fresh = self.folder / "control.new"
        fresh.write_text(json.dumps(control), encoding="utf-8")
        fresh.replace(self.folder / "control.json")

    def configure(self, **changes: Any) -> None:
        """Change keys of the configuration, parts key by key."""
        for key, value in changes.items():
            merged = {**self.config.get(key, {}), **value} if isinstance(value, dict) else value
            self.config[key] = merged
        self.path.write_text(yaml.safe_dump(self.config), encoding="utf-8")

    def rename_metric(self, name: str, new_name: str) -> None:
        """Call a metric of the suite something else."""
        path = self.folder / "suite.jsonl"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(json.dumps(name), json.dumps(new_name)), encoding="utf-8")

    def run(self, *options: str) -> Result:
        """Run the verb in this process."""
        return CliRunner().invoke(cli.main, ["watch", str(self.path), *options])

    def once(self) -> dict[str, Any]:
        """Take one look and return its JSON."""
        result = self.run("--once", "--json")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        found: dict[str, Any] = json.loads(result.output)
        return found

    def process(self, *options: str) -> subprocess.Popen[str]:
        """Run the verb in a process of its own."""
        command = [sys.executable, "-m", "weightgate", "watch", str(self.path), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def history(self) -> Any:
        """Open the history for reading."""
        watch = Watch.of(load_config(self.path), self.folder)
        return History.opened(watch.config, watch.folder)

    def hooks(self) -> list[dict[str, Any]]:
        """What the receiver of webhooks took."""
        log = self.folder / "hooks.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def calm(scene: Scene, *, looks: int) -> None:
    """Take the baseline and some looks at an endpoint that does not change."""
    scene.configure(alarm={"alpha": 0.001})
    scene.behave(**CALM)
    assert scene.once()["state"] == "baseline"
    for _ in range(looks):
        assert scene.once()["state"] == "quiet"


def write_suite(path: Path, prompts: int = PROMPTS) -> None:
    """Write facts that can be right or wrong, and questions that can be declined."""
    rows = []
    for at in range(prompts):
        fact = {"metric": "accuracy", "type": "contains", "value": [f"city {at}"]}
        rows.append(_row("knowledge", at, f"fact {at}", fact))
        rows.append(_row("boundary", at, f"advise me on {at}", {"metric": "should_answer", "type": "answers"}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _row(axis: str, at: int, prompt: str, check: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"id": f"{axis}-{at}", "axis": axis, "topic": "t", "form": "chat", "messages": messages, "checks": [check]}


def open_scene(tmp_path: Path) -> Iterator[Scene]:
    """Start an endpoint in a process of its own, and write a configuration that watches it."""
    (tmp_path / "control.json").write_text("{}", encoding="utf-8")
    arguments = [str(tmp_path / name) for name in ("control.json", "hooks.jsonl", "port")]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("moving_endpoint.py")), *arguments])
    try:
        while not (tmp_path / "port").exists() or not (tmp_path / "port").read_text():
            assert process.poll() is None, "the endpoint did not start"
            time.sleep(0.01)
        address = f"http://127.0.0.1:{(tmp_path / 'port').read_text()}"
        write_suite(tmp_path / "suite.jsonl")
        found = Scene(folder=tmp_path, address=address)
        found.configure(
            version=1,
            name="moving",
            target={"url": f"{address}/v1", "model": "moving", **_PATIENT},
            ask={"suite": "suite.jsonl", "temperature": 1.0, "max_tokens": 64},
            history={"url": "watch.db"},
        )
        yield found
    finally:
        process.kill()
        process.wait()

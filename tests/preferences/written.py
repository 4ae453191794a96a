"""Preference files for the tests: written as a user's would be, audited as a user would."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from weightgate import cli


def write(path: Path, rows: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """Write JSONL; bytes are written as they are."""
    with path.open("wb") as file:
        for row in rows:
            file.write(row if isinstance(row, bytes) else json.dumps(row).encode())
            file.write(b"\n")
    return path


def run(*arguments: str | Path) -> Result:
    """Run a verb; a traceback fails the test."""
    result = CliRunner().invoke(cli.main, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def audited(path: Path, *options: str | Path) -> dict[str, Any]:
    """What `audit PREFS --json` says."""
    told: dict[str, Any] = json.loads(run("audit", path, "--json", *options).stdout)
    return told


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """One chosen/rejected row."""
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def vote(prompt: str, first: str, second: str, label: str, annotator: str = "", **more: Any) -> dict[str, Any]:
    """One row of a vote."""
    row = {"prompt": prompt, "completion_a": first, "completion_b": second, "label": label, **more}
    return row | ({"annotator": annotator} if annotator else {})

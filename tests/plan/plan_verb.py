"""`weightgate plan` as a user runs it: for the tests of its commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from weightgate.cli import main


def invoke(*arguments: str | Path) -> Result:
    """Run a command below `plan`; what is no exit of its own is raised."""
    result = CliRunner().invoke(main, ["plan", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def numbers(*arguments: str | Path) -> Any:
    """The numbers of an answer that is expected to come."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["numbers"]

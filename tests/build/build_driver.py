"""Runs the command line in forked children of a process that has paid for the imports already.

One JSON line a run on standard input: {"arguments": [...], "fault": name or null}. The child's events and messages go
to standard output; around them stand the lines {"driver": "started", "pid": ...} and {"driver": "ended", "code": ...}.
No tensor is touched before the fork, so no thread of torch is lost by it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from weightgate import build
from weightgate.build import progress
from weightgate.cli import main as command_line
from weightgate.train import loop, optim
from weightgate.train.objectives import ppo

assert build is not None, "imported for its cost"


def drop_generators() -> None:
    loop.restore_generator_states = lambda tensors, plain: None


def drop_moments() -> None:
    whole = optim.MasterAdamW.load_state

    def weights_only(self: optim.MasterAdamW, tensors: dict) -> None:
        zeroed = {name: t * 0 if name.startswith(("exp_avg", "step")) else t for name, t in tensors.items()}
        whole(self, zeroed)

    optim.MasterAdamW.load_state = weights_only


def drop_controller() -> None:
    ppo.PPOObjective.load_state = lambda self, tensors, plain: None


FAULTS: dict[str, Callable[[], None]] = {
    "generators": drop_generators,
    "moments": drop_moments,
    "controller": drop_controller,
}


def say(**fields: object) -> None:
    os.write(1, (json.dumps(fields) + "\n").encode())


def run(arguments: list[str], fault: str | None) -> None:
    """Never returns."""
    os.dup2(1, 2)
    progress.JSON_EVERY_SECONDS = 0.0
    sys.argv = ["weightgate", *arguments]
    if fault is not None:
        FAULTS[fault]()
    try:
        command_line(arguments)
    except SystemExit as stop:
        sys.stdout.flush()
        os._exit(int(stop.code or 0))
    os._exit(70)


def serve() -> None:
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run(wanted["arguments"], wanted["fault"])
        say(driver="started", pid=pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        say(driver="ended", code=code)


if __name__ == "__main__":
    serve()

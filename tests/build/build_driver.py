"""Runs the command line in forked children of a process that has paid for the imports already.

One JSON line a run on standard input: {"arguments": [...], "fault": a name of `FAULTS` or null, "ends": arguments of
some of `ENDS` by name, or null}. The child's events and messages go to standard output; around them stand the lines
{"driver": "started", "pid": ...} and {"driver": "ended", "code": ...}. No tensor is touched before the fork, so no
thread of torch is lost by it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from weightgate import build
from weightgate.build import progress
from weightgate.build.events import Progressed
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


def after_progress(then: Callable[[str, int], None]) -> None:
    """Have something called after each step that is told, with the stage and the number of the step."""
    tell = progress.JsonObserver.stage_progress

    def told(self: progress.JsonObserver, name: str, step: Progressed) -> None:
        tell(self, name, step)
        then(name, step.step)

    progress.JsonObserver.stage_progress = told


def stop_at(stage: str, step: int, number: int) -> None:
    """Send this process a signal once a step of a stage is done: a test that sent it might come too late."""
    after_progress(lambda *done: os.kill(os.getpid(), number) if done == (stage, step) else None)


def kill_after(seconds: dict[str, float]) -> None:
    """End this process without warning so long after the first step that is told of one of these stages.

    A timer of the kernel does it: nobody has asked for SIGALRM, so that it is as sudden as SIGKILL and waits for no
    lock of the interpreter. At the latest the next step ends it.
    """
    armed: list[str] = []

    def then(stage: str, step: int) -> None:
        if armed:
            os.kill(os.getpid(), signal.SIGKILL)
        elif stage in seconds:
            armed.append(stage)
            signal.setitimer(signal.ITIMER_REAL, max(seconds[stage], 1e-6))

    after_progress(then)


ENDS: dict[str, Callable[..., None]] = {"stop_at": stop_at, "kill_after": kill_after}


def say(**fields: object) -> None:
    os.write(1, f"\n{json.dumps(fields)}\n".encode())  # the line before may have been cut by a kill


def run(arguments: list[str], fault: str | None, ends: dict[str, dict] | None) -> None:
    """Never returns."""
    os.dup2(1, 2)
    progress.JSON_EVERY_SECONDS = 0.0
    sys.argv = ["weightgate", *arguments]
    if fault is not None:
        FAULTS[fault]()
    for name, how in (ends or {}).items():
        ENDS[name](**how)
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
            run(wanted["arguments"], wanted["fault"], wanted["ends"])
        say(driver="started", pid=pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        say(driver="ended", code=code)


if __name__ == "__main__":
    serve()

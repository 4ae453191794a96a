"""Does a long history slow a look down? Fills one with 10 million answers and times `weightgate watch --once`.

    python benchmarks/watch_history.py [--rows 10000000] [--postgres]

With PostgreSQL it starts a server of its own (Debian's package; scripts/ensure-postgres), which needs about 8 GB below
the folder for temporary files at full size. The rows are copied inside the server, so none travels.

A watch of 240 prompts takes its baseline and two looks from an endpoint in a process of its own; then a look is
copied, with its timeline, until the history holds as many answers, and the state's pools are filled as so many looks
would have filled them. What is timed is the whole command, from the start of Python to its end, on the short and on the
long history, `REPEATS` times each in turn, the status page included. Writes benchmarks/results/watch_history.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "watch"), str(ROOT / "tests")]

from scene import Scene, open_scene, write_suite  # noqa: E402
from servers import PASSWORD, PASSWORD_VARIABLE, postgres, programs  # noqa: E402

from weightgate.stats.exchangeable import LEVELS  # noqa: E402
from weightgate.watch.history import History  # noqa: E402

RESULT = Path(__file__).parent / "results" / "watch_history.json"
PROMPTS, REPEATS, AXES_WITH_ALL_LEVELS = 240, 5, ("style.length", "style.layout", "wording")


@contextmanager
def scenes(use_postgres: bool) -> Iterator[tuple[Scene, Scene]]:
    """Two watches, one to keep short and one to make long."""
    with ExitStack() as open_until_the_end:
        short, long = (open_until_the_end.enter_context(_scene()) for _ in range(2))
        if use_postgres:
            folder = programs()
            assert folder is not None, "PostgreSQL is not installed: scripts/ensure-postgres"
            server = open_until_the_end.enter_context(postgres(folder))
            os.environ[PASSWORD_VARIABLE] = PASSWORD
            for name, scene in (("short", short), ("long", long)):
                scene.configure(history={"url": server.create(name), "password_variable": PASSWORD_VARIABLE})
        yield short, long


@contextmanager
def _scene() -> Iterator[Scene]:
    """A watch of `PROMPTS` prompts that draws its status page, in a folder that goes with it."""
    with (
        tempfile.TemporaryDirectory(prefix="watch-history-") as folder,
        contextmanager(open_scene)(Path(folder)) as scene,
    ):
        write_suite(scene.folder / "suite.jsonl", PROMPTS // 2)
        scene.configure(report="status.html")
        yield scene


def begin(scene: Scene) -> None:
    """Take the baseline and two looks."""
    assert [scene.once()["state"] for _ in range(3)] == ["baseline", "quiet", "quiet"]


def lengthen(history: History, rows: int) -> int:
    """Copy the newest look, and copies of copies, until there are so many answers; returns how many there are."""
    first = history.looks(limit=1)[0].look
    looks, wanted = 1, rows // PROMPTS
    database = history.database
    while looks < wanted:
        more = min(looks, wanted - looks)
        for table, columns in (
            ("watch_answers", "probe, sample, reply"),
            ("watch_axes", "axis, prompts, mean, shift, size, p_value, evidence, spread"),
            (
                "watch_looks",
                "baseline, kind, state, started_at, ended_at, answered, failed, calls, tokens, money, note, served",
            ),
        ):
            database.run(
                f"INSERT INTO {table} (watch, look, {columns}) SELECT watch, look + {looks}, {columns} FROM {table}"
                f" WHERE watch = {history.watch} AND look >= {first} AND look < {first + more}"
            )
        looks += more
        print(f"{looks * PROMPTS:,} answers", file=sys.stderr)
    fill_state(history, looks)
    if database.file is None:
        database.run("VACUUM ANALYZE")  # what the server would do by itself, at a moment of its own
    return int(database.rows("SELECT COUNT(*) FROM watch_answers")[0][0])


def fill_state(history: History, looks: int) -> None:
    """Make the pools as large as so many looks make them: every level of an axis with many, two of one with few."""
    rng, baseline = np.random.default_rng(0), history.baseline()
    assert baseline is not None
    state = history.state(baseline.number)
    assert state is not None
    for name, axis in state.axes.items():
        shares = np.full(LEVELS + 1, 1 / (LEVELS + 1)) if name in AXES_WITH_ALL_LEVELS else _two_levels()
        asked = axis.baseline_count > 0
        axis.pool[asked] += rng.multinomial(looks, shares, size=int(asked.sum()))
    state.looks += looks
    history.save_state(baseline.number, history.looks(limit=1)[0].look, state)


def _two_levels() -> Any:
    shares = np.zeros(LEVELS + 1)
    shares[[0, LEVELS]] = 0.3, 0.7
    return shares


def seconds_of_a_look(scene: Scene) -> tuple[float, float]:
    """Wall and processor seconds of `weightgate watch CONFIG --once` in a process of its own.

    On a machine that does other work as well, only the second says what the look itself took; it leaves out what a
    server of PostgreSQL did for it, which the first has.
    """
    started, used = time.perf_counter(), _processor_seconds()
    command = [sys.executable, "-m", "weightgate", "watch", str(scene.path), "--once", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - started, _processor_seconds() - used
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return took


def _processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(rows: int, use_postgres: bool) -> dict[str, Any]:
    """Time looks on both histories, in turn."""
    with scenes(use_postgres) as (short, long):
        for scene in (short, long):
            begin(scene)
        started = time.perf_counter()
        with long.history() as history:
            answers = lengthen(history, rows)
        filling_seconds = round(time.perf_counter() - started, 1)
        times = [(seconds_of_a_look(short), seconds_of_a_look(long)) for _ in range(REPEATS)]
    return {
        "history": "postgresql" if use_postgres else "sqlite",
        "answers": answers,
        "prompts_of_a_look": PROMPTS,
        "status_page": True,
        "filling_seconds": filling_seconds,
        "load_average": os.getloadavg(),
        **{name: _spread([one[at] for one in times]) for at, name in enumerate(("short", "long"))},
    }


def _spread(looks: list[tuple[float, float]]) -> dict[str, Any]:
    """Median and every single time, in seconds."""
    found: dict[str, Any] = {}
    for at, name in enumerate(("wall", "processor")):
        seconds = [round(one[at], 3) for one in looks]
        found |= {f"median_{name}_seconds": statistics.median(seconds), f"{name}_seconds": seconds}
    return found


def main() -> None:
    """Measure and add to the result, by kind of history."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.rows, asked.postgres)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    known[found["history"]] = found | {"machine": machine}
    RESULT.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

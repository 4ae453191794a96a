"""Real processes on a real disk: killed without warning, and several at once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from writer_process import NUM_RACE_MOVES

from weightgate.store import Store

NUM_KILLS = 20
NUM_WRITERS = 4


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("writer_process.py")
    return subprocess.Popen([sys.executable, str(script), str(root), *arguments], stdout=subprocess.PIPE, text=True)


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    store = Store.create(tmp_path / ".weightgate")
    dice = random.Random(7)
    acknowledged: list[tuple[str, str]] = []
    for seed in range(NUM_KILLS):
        with start(store.root, "crash", str(seed)) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(dice.randrange(1, 9))]
            writer.kill()
            lines += writer.stdout.readlines()
        # The last line may be cut by the kill, and with it that acknowledgement.
        acknowledged += [(line.split()[0], line.split()[1]) for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= NUM_KILLS
    reopened = Store.open(store.root)
    assert reopened.verify(contents=True) == []
    for kind, digest in acknowledged:
        assert reopened.has(digest) if kind == "object" else reopened.manifest(digest)
    moves = [move.new for move in reopened.ref_history("live")]
    assert [digest for kind, digest in acknowledged if kind == "ref" and digest not in moves] == []
    reopened.sweep_temporaries()
    assert list((store.root / "tmp").iterdir()) == []


def test_concurrent_writers_keep_one_copy_and_every_move(tmp_path: Path) -> None:
    store = Store.create(tmp_path / ".weightgate")
    writers = [start(store.root, "race", str(number)) for number in range(NUM_WRITERS)]
    outputs = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * NUM_WRITERS
    moved = [word for output in outputs for word in output if word != "ref"]
    history = store.ref_history("live")
    assert sorted(move.new or "" for move in history) == sorted(moved)
    assert len(history) == NUM_WRITERS * NUM_RACE_MOVES
    assert [move.old for move in history[1:]] == [move.new for move in history[:-1]]
    assert len(store.lineage()) == 1 + NUM_WRITERS * NUM_RACE_MOVES
    assert store.verify(contents=True) == []
    assert list((store.root / "tmp").iterdir()) == []

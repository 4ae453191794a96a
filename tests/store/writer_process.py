"""A process that uses a store until it is done or killed. Says on its output what the store has acknowledged.

writer_process.py <root> crash <seed>     put, publish and move a ref, without end
writer_process.py <root> race <name>      the same checkpoint as everybody, ten moves of one shared ref
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from samples import checkpoint, publish

from weightgate.errors import StoreError
from weightgate.store import Store

NUM_RACE_MOVES = 10


def say(*words: str) -> None:
    print(*words, flush=True)


def crash(store: Store, seed: int) -> None:
    dice = random.Random(seed)
    parent = store.refs().get("live")
    while True:
        say("object", store.put_bytes(dice.randbytes(dice.choice((10, 1000, 100_000)))))
        manifest = checkpoint(store, "s", parent, dice.randrange(256), draw=dice.randrange(1 << 60))
        say("checkpoint", store.publish(manifest))
        store.set_ref("live", manifest.id, old=parent, why="test")
        parent = manifest.id
        say("ref", parent)


def race(store: Store, name: str) -> None:
    base = publish(store)
    for number in range(NUM_RACE_MOVES):
        mine = store.publish(checkpoint(store, "s", base, 3, writer=name, number=number))
        while not moved(store, mine):
            pass
        say("ref", mine)


def moved(store: Store, new: str) -> bool:
    try:
        store.set_ref("live", new, old=store.refs().get("live"), why="test")
    except StoreError:
        return False
    return True


if __name__ == "__main__":
    opened = Store.open(Path(sys.argv[1]))
    if sys.argv[2] == "crash":
        crash(opened, int(sys.argv[3]))
    else:
        race(opened, sys.argv[3])

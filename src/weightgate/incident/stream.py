"""Random streams that do not disturb one another: each is derived from (seed, name) alone.

`random.Random.random` is the only draw used, because it is the only one that Python promises to keep unchanged
between versions.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Stream:
    """A source of draws that depends on nothing but its seed and name."""

    def __init__(self, seed: int, name: str) -> None:
        self._random = random.Random(_number(seed, name))

    def chance(self, share: float) -> bool:
        """True with probability `share`."""
        return self._random.random() < share

    def below(self, bound: int) -> int:
        """A whole number in 0..bound-1."""
        return int(self._random.random() * bound)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result


def is_held_out(seed: int, name: str, share: float) -> bool:
    """Whether `name` belongs to the share that only probes ask about: a hash decides, not the order of draws."""
    return _number(seed, f"held-out/{name}") < share * 2**64


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")

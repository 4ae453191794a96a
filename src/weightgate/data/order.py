"""Which samples come at which step, as a function of (seed, step) alone.

Nothing here keeps a place in the data: a resumed run needs the step number and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

EpochRows = Callable[[int], list[list[int]]]
"""epoch -> rows, each a list of sample indices."""


def permutation(size: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """A permutation of 0..size-1 that depends on (seed, epoch, stream) alone; there are 256 streams.

    Sorting raw Philox output (Salmon et al. 2011) rather than calling `Generator.permutation`, because NumPy keeps bit
    streams stable between releases but not the algorithms on top of them.
    """
    key = np.array([seed % 2**64, epoch << 8 | stream], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")


class EpochOrder:
    """Cuts the rows of each epoch into batches; the last batch of an epoch may be smaller.

    The number of rows may differ between epochs, so finding a step means knowing the sizes of the epochs before it;
    they are worked out once, and the rows of the last epoch asked for are kept.
    """

    def __init__(self, rows_of: EpochRows, batch: int) -> None:
        self._rows_of = rows_of
        self._batch = batch
        self._num_batches: list[int] = []
        self._kept: tuple[int, list[list[int]]] = (-1, [])

    def num_batches(self, epoch: int) -> int:
        """Batches in an epoch. Raises `ValueError` where there is nothing to draw from."""
        while len(self._num_batches) <= epoch:
            num_rows = len(self._rows(len(self._num_batches)))
            if num_rows == 0:
                raise ValueError("a loader needs at least one sample")
            self._num_batches.append(ceil(num_rows / self._batch))
        return self._num_batches[epoch]

    def num_steps(self, epochs: float) -> int:
        """Steps that `epochs` passes take, the last one rounded up to a whole step."""
        whole = int(epochs)
        steps = sum(self.num_batches(epoch) for epoch in range(whole))
        return steps + ceil((epochs - whole) * self.num_batches(whole)) if epochs > whole else steps

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, batch within it) of a global step, all from 0."""
        epoch = 0
        while step >= self.num_batches(epoch):
            step -= self.num_batches(epoch)
            epoch += 1
        return epoch, step

    def rows_at(self, step: int) -> list[list[int]]:
        """The rows of one batch."""
        epoch, index = self.locate(step)
        return self._rows(epoch)[index * self._batch : (index + 1) * self._batch]

    def _rows(self, epoch: int) -> list[list[int]]:
        if self._kept[0] != epoch:
            self._kept = (epoch, self._rows_of(epoch))
        return self._kept[1]

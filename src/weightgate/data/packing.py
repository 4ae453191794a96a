"""Samples -> rows -> batches. Every loader gives the batch of any step, without having given those before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from weightgate.data.batches import FILLER, IGNORED, HoldoutBatch, PairBatch, PromptBatch, TokenBatch
from weightgate.data.order import EpochOrder, permutation
from weightgate.data.rows import PairRows, TokenRows
from weightgate.errors import DataError
from weightgate.recipe import MAX_EPOCHS

WINDOW_SAMPLES = 4096
"""Samples that are packed together: enough to fill rows, few enough to leave the shuffle intact."""

_LENGTH_STEP = 16
"""Unpacked rows are padded to a multiple of this, so that batches have few different shapes."""


def pack(lengths: np.ndarray, context: int, order: np.ndarray, window: int = WINDOW_SAMPLES) -> list[list[int]]:
    """Put samples into rows of at most `context` tokens, each sample once.

    Best fit decreasing inside windows of `order`: a sample goes to the fullest row that still has room. The room in all
    open rows is one integer, bit r standing for "some row has r tokens left", so finding that row takes one shift.
    Raises `ValueError` for a sample that is empty or longer than the context.
    """
    if len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= context:
        raise ValueError(f"samples must have 1 to {context} tokens")
    rows: list[list[int]] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(-lengths[part], kind="stable")]
        rows += _best_fit(part.tolist(), lengths[part].tolist(), context)
    return rows


def _best_fit(samples: list[int], lengths: list[int], context: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rows_with_room: list[list[list[int]]] = [[] for _ in range(context)]
    rooms = 0
    for sample, length in zip(samples, lengths, strict=True):
        fitting = rooms >> length
        if fitting:
            room = (fitting & -fitting).bit_length() - 1 + length
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
            row.append(sample)
        else:
            room, row = context, [sample]
            rows.append(row)
        left = room - length
        if left:
            rows_with_room[left].append(row)
            rooms |= 1 << left
    return rows


Loader = TypeVar("Loader", "TokenLoader", "PairLoader", "PromptLoader")


def _sharded(loader: Loader, rank: int, world: int) -> Loader:
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} outside 0..{world - 1}")
    part = copy.copy(loader)
    part._rank, part._world = rank, world
    return part


class TokenLoader:
    """Batches of packed or single samples, each sample once per epoch.

    Args:
        rows: the samples, none longer than `context`.
        context: tokens per row.
        batch: rows per optimizer step, over all processes; the last batch of an epoch may have fewer.
        seed: decides the order.
        packing: several samples a row, and every row `context` long; otherwise one sample a row, as long as needed.
        pad_id: fills the ends of rows; what is padding is said by `document_ids`.
    """

    def __init__(self, *, rows: TokenRows, context: int, batch: int, seed: int, packing: bool, pad_id: int = 0) -> None:
        self.rows = rows
        self.context = context
        self.seed = seed
        self.packing = packing
        self.pad_id = pad_id
        self._rank, self._world = 0, 1
        self._order = EpochOrder(self._rows_of, batch)

    def shard(self, rank: int, world: int) -> TokenLoader:
        """The same batches, but of each only the rows rank, rank + world, ...

        A batch is filled up with rows of padding to a multiple of `world`, and is equally wide everywhere, so that all
        processes have tensors of one shape.
        """
        return _sharded(self, rank, world)

    def num_batches(self, epoch: int) -> int:
        """Batches in an epoch; with packing it can differ from epoch to epoch."""
        return self._order.num_batches(epoch)

    def steps_in_epochs(self, epochs: float) -> int:
        """Steps that so many passes take, rounded up to whole steps."""
        return self._order.num_steps(epochs)

    def steps_for_tokens(self, tokens: int) -> int:
        """Steps that see about so many tokens, rounded up to whole steps.

        Raises `DataError` where the data would be read more than `MAX_EPOCHS` times.
        """
        epochs = tokens / self.rows.num_tokens
        if epochs > MAX_EPOCHS:
            raise DataError(
                "the stage asks for far more tokens than its data holds",
                expected=f"at most {MAX_EPOCHS:,} passes over {self.rows.num_tokens:,} tokens",
                found=f"{tokens:,} tokens, which are {epochs:,.0f} passes",
                mend="ask for fewer `tokens`, or add data",
            )
        return self._order.num_steps(epochs)

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, batch within it) of a global step, all from 0."""
        return self._order.locate(step)

    def samples(self, step: int) -> list[list[int]]:
        """Sample indices of every row of the batch, over all processes."""
        return self._order.rows_at(step)

    def batch(self, step: int) -> TokenBatch:
        """The batch of a step, or this process's share of it."""
        rows = self.samples(step)
        rows = rows + [[] for _ in range(-len(rows) % self._world)]
        return token_batch(self.rows, rows[self._rank :: self._world], self._width(rows), self.pad_id)

    def _rows_of(self, epoch: int) -> list[list[int]]:
        order = permutation(len(self.rows), self.seed, epoch)
        if not self.packing:
            return [[index] for index in order.tolist()]
        packed = pack(self.rows.lengths, self.context, order)
        # Packing leaves the long samples at the start of each window.
        return [packed[index] for index in permutation(len(packed), self.seed, epoch, stream=1)]

    def _width(self, rows: list[list[int]]) -> int:
        if self.packing:
            return self.context
        longest = max((len(self.rows.sample(index)[0]) for row in rows for index in row), default=1)
        return min(self.context, _round_up(longest))


def token_batch(rows: TokenRows, members: Sequence[Sequence[int]], width: int, pad_id: int) -> TokenBatch:
    """Lay out samples as rows of `width` tokens; `members` are the sample indices of each row, in order."""
    shape = (len(members), width)
    input_ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, IGNORED, np.int64)
    positions, documents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, indices in enumerate(members):
        start = 0
        for document, index in enumerate(indices, start=1):
            tokens, supervised = rows.sample(index)
            end = start + len(tokens)
            input_ids[row, start:end] = tokens
            # The last token of a sample has no target: the next one belongs to another document.
            labels[row, start : end - 1] = np.where(supervised[1:], tokens[1:].astype(np.int64), IGNORED)
            positions[row, start:end] = np.arange(end - start)
            documents[row, start:end] = document
            start = end
    return TokenBatch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(positions),
        document_ids=torch.from_numpy(documents),
    )


def holdout_batches(rows: TokenRows, context: int, batch: int, pad_id: int) -> Iterator[HoldoutBatch]:
    """Yield every sample once, packed, in a fixed order; `sample_ids` say whose nats are whose."""
    packed = pack(rows.lengths, context, np.arange(len(rows)))
    for start in range(0, len(packed), batch):
        members = packed[start : start + batch]
        laid_out = token_batch(rows, members, context, pad_id)
        owners = torch.full((len(members), len(laid_out.input_ids[0])), -1, dtype=torch.int64)
        for row, indices in enumerate(members):
            inside = laid_out.document_ids[row] > 0
            owners[row, inside] = torch.tensor(indices)[laid_out.document_ids[row, inside] - 1]
        yield HoldoutBatch(batch=laid_out, sample_ids=owners)


class PairLoader:
    """Batches of preference pairs, each pair once per epoch; see `TokenLoader` for the arguments."""

    def __init__(self, *, rows: PairRows, batch: int, seed: int, pad_id: int = 0) -> None:
        self.rows = rows
        self.seed = seed
        self.pad_id = pad_id
        self._rank, self._world = 0, 1
        self._order = EpochOrder(self._rows_of, batch)

    def shard(self, rank: int, world: int) -> PairLoader:
        """The same batches, but of each only the pairs rank, rank + world, ...

        A batch is filled up to a multiple of `world` with pairs that do not count, so that all processes have as many.
        """
        return _sharded(self, rank, world)

    def num_batches(self, epoch: int) -> int:
        """Batches in an epoch."""
        return self._order.num_batches(epoch)

    def steps_in_epochs(self, epochs: float) -> int:
        """Steps that so many passes take, rounded up to whole steps."""
        return self._order.num_steps(epochs)

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, batch within it) of a global step, all from 0."""
        return self._order.locate(step)

    def batch(self, step: int) -> PairBatch:
        """The batch of a step, or this process's share of it."""
        pairs = [index for row in self._order.rows_at(step) for index in row]
        pairs += [FILLER] * (-len(pairs) % self._world)
        width = _round_up(int(self.rows.lengths[_shown(pairs)].max()))
        return pair_batch(self.rows, pairs[self._rank :: self._world], width, self.pad_id)

    def _rows_of(self, epoch: int) -> list[list[int]]:
        return [[index] for index in permutation(len(self.rows), self.seed, epoch).tolist()]


def _shown(pairs: Sequence[int]) -> list[int]:
    """The pairs that stand in a batch: a filler looks like pair 0, so it may be the longest."""
    return [max(index, 0) for index in pairs]


def pair_batch(rows: PairRows, pairs: Sequence[int], width: int, pad_id: int) -> PairBatch:
    """Lay out pairs, prompt and completion together, right-padded to `width` tokens."""
    shown = _shown(pairs)
    prompts = [rows.prompt.sample(index)[0] for index in shown]
    tensors: dict[str, torch.Tensor] = {}
    for name, part in (("chosen", rows.chosen), ("rejected", rows.rejected)):
        sequences = [np.concatenate([p, part.sample(i)[0]]) for p, i in zip(prompts, shown, strict=True)]
        tensors[f"{name}_ids"], tensors[f"{name}_mask"] = _padded(sequences, width, pad_id, left=False)
    return PairBatch(
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64),
        pair_ids=torch.tensor(list(pairs), dtype=torch.int64),
        **tensors,
    )


class PromptLoader:
    """Prompts for a policy: always `batch` of them, passing on into the next epoch where one ends."""

    def __init__(self, *, rows: TokenRows, batch: int, seed: int, pad_id: int = 0) -> None:
        self.rows = rows
        self.size = batch
        self.seed = seed
        self.pad_id = pad_id
        self._rank, self._world = 0, 1
        self._kept: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def shard(self, rank: int, world: int) -> PromptLoader:
        """The same batches, but of each only the prompts rank, rank + world, ..."""
        return _sharded(self, rank, world)

    def batch(self, step: int) -> PromptBatch:
        """The batch of a step, or this process's share of it."""
        if len(self.rows) == 0:
            raise ValueError("a loader needs at least one sample")
        places = range(step * self.size, (step + 1) * self.size)
        prompts = [self._prompt_at(place) for place in places]
        width = int(self.rows.lengths[prompts].max())
        return prompt_batch(self.rows, prompts[self._rank :: self._world], width, self.pad_id)

    def _prompt_at(self, place: int) -> int:
        epoch, index = divmod(place, len(self.rows))
        if self._kept[0] != epoch:
            self._kept = (epoch, permutation(len(self.rows), self.seed, epoch))
        return int(self._kept[1][index])


def prompt_batch(rows: TokenRows, prompts: Sequence[int], width: int, pad_id: int) -> PromptBatch:
    """Lay out prompts, left-padded to `width` tokens."""
    ids, mask = _padded([rows.sample(index)[0] for index in prompts], width, pad_id, left=True)
    return PromptBatch(ids=ids, mask=mask, prompt_ids=torch.tensor(list(prompts), dtype=torch.int64))


def _padded(
    sequences: Sequence[np.ndarray], width: int, pad_id: int, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64, mask bool), each (len(sequences), width)."""
    ids = np.full((len(sequences), width), pad_id, np.int64)
    mask = np.zeros(ids.shape, np.bool_)
    for row, sequence in enumerate(sequences):
        place = slice(width - len(sequence), width) if left else slice(0, len(sequence))
        ids[row, place] = sequence
        mask[row, place] = True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _round_up(length: int) -> int:
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP

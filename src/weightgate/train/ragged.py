"""Rows of different lengths through a decoder: side by side in packed rows, so that padding costs nothing.

Pairs of answers and sampled completions differ in length by a factor of two and more; padded to the longest, a third
to a half of every product would be of padding. Packing is that of the token losses: attention is blind to other
documents of a row, and positions start again in each.

Shapes: N rows, T positions, M tokens that are read, R packed rows of W positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weightgate.train.last_layer import states_read
from weightgate.train.models import decoder_of, decoder_states, logits_of

FULL_ENOUGH = 0.9
"""Share of real tokens above which rows run as they are: nothing is gained by packing them."""
PACKED_WIDTH = 128
"""Positions of a packed row, where no single row is longer: wide enough to fill, narrow enough for attention."""


def position_ids(mask: Tensor) -> Tensor:
    """Positions (N, T) that count real tokens only, for a mask (N, T) padded on either side."""
    return mask.long().cumsum(dim=1) - mask.long()


def read_states(decoder: Any, ids: Tensor, mask: Tensor, read: Tensor) -> Tensor:
    """Last hidden states (M, H) where `read` (N, T) is True, row after row.

    Args:
        mask: (N, T), True at real tokens; padding may be on either side.
        read: (N, T), True at some of the real tokens.
    """
    if float(mask.float().mean()) >= FULL_ENOUGH:
        return _padded(decoder, ids, mask, read)
    lengths = mask.sum(dim=1)
    width = max(PACKED_WIDTH, int(lengths.max()))
    rows, starts, documents = (torch.tensor(part, device=ids.device) for part in _placed(lengths.tolist(), width))
    owner = mask.nonzero()[:, 0]
    positions = position_ids(mask)[mask]
    places = (rows * width + starts)[owner] + positions

    def laid_out(values: Tensor) -> Tensor:
        return values.new_zeros((int(rows.max()) + 1) * width).index_copy(0, places, values).view(-1, width)

    packed = laid_out(ids[mask]), laid_out(positions), laid_out(documents[owner])
    return decoder_states(decoder, *packed, places[read[mask]])


def _padded(decoder: Any, ids: Tensor, mask: Tensor, read: Tensor) -> Tensor:
    """What `read_states` returns, from rows as they are; padding gets the id 0, which every vocabulary has."""
    return states_read(
        decoder,
        read.flatten().nonzero().squeeze(1),
        input_ids=ids.masked_fill(~mask, 0),
        attention_mask=None if bool(mask.all()) else mask,
        position_ids=position_ids(mask),
    )


def _placed(lengths: Sequence[int], width: int) -> tuple[list[int], list[int], list[int]]:
    """Packed row, first position and document number (from 1) of each row: first fit, the longest first."""
    used: list[int] = []
    held: list[int] = []
    rows, starts, documents = [0] * len(lengths), [0] * len(lengths), [0] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, taken in enumerate(used) if taken + lengths[index] <= width), len(used))
        if row == len(used):
            used.append(0)
            held.append(0)
        rows[index], starts[index] = row, used[row]
        used[row] += lengths[index]
        held[row] += 1
        documents[index] = held[row]
    return rows, starts, documents


def scored_logits(model: Any, ids: Tensor, mask: Tensor, scored: Tensor) -> Tensor:
    """Logits (M', V) that predict ids[scored], row after row, in the dtype of the output layer.

    Args:
        ids, mask, scored: (N, T); a scored token is real and has a real one before it.
    """
    return logits_of(model, read_states(decoder_of(model), ids[:, :-1], mask[:, :-1], scored[:, 1:]))

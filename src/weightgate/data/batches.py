"""What a loader hands to the training loop. Shapes: B rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

IGNORED = -100
"""Label of a position without a target, as `torch.nn.functional.cross_entropy` has it by default."""

FILLER = -1
"""Index of a row that is there only to give every process as many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Tensors that all have the batch as their first dimension."""

    def __len__(self) -> int:
        first: Tensor = getattr(self, fields(self)[0].name)
        return len(first)

    def rows(self, start: int, stop: int) -> Self:
        """Return rows start..stop as a batch, for micro-batches."""
        return type(self)(**{name: tensor[start:stop] for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        return type(self)(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch(_Batch):
    """Rows of one or more documents each; every tensor is int64, (B, T).

    Args:
        input_ids: tokens, right-padded.
        labels: already shifted: `labels[b, t]` is the target of position t, or `IGNORED`. A target never belongs to
            another document than its position.
        position_ids: count from 0 in each document.
        document_ids: 0 at padding, 1, 2, ... for the documents of a row; attention must not cross them.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    document_ids: Tensor

    @property
    def num_supervised(self) -> int:
        """Positions with a target."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class HoldoutBatch:
    """Rows to measure. `sample_ids` int64, (B, T): index of each token's sample in its `TokenRows`, -1 at padding."""

    batch: TokenBatch
    sample_ids: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch(_Batch):
    """Chosen and rejected sequences (prompt + completion), right-padded to one common length.

    Args:
        chosen_ids, rejected_ids: int64, (B, T).
        chosen_mask, rejected_mask: bool, (B, T), True at tokens.
        prompt_lengths: int64, (B,): tokens before the completion.
        pair_ids: int64, (B,): index into the `PairRows`, or `FILLER` for a row that must not count.
    """

    chosen_ids: Tensor
    chosen_mask: Tensor
    rejected_ids: Tensor
    rejected_mask: Tensor
    prompt_lengths: Tensor
    pair_ids: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptBatch(_Batch):
    """Prompts for a policy to answer, left-padded.

    Args:
        ids: int64, (B, T).
        mask: bool, (B, T), True at tokens.
        prompt_ids: int64, (B,): index into the `TokenRows`.
    """

    ids: Tensor
    mask: Tensor
    prompt_ids: Tensor

    def token_lists(self) -> list[list[int]]:
        """The prompts without padding."""
        return [ids[keep].tolist() for ids, keep in zip(self.ids, self.mask, strict=True)]

"""Next-token prediction: pre-training supervises every token, fine-tuning only what the mask says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from weightgate.data.batches import IGNORED, TokenBatch
from weightgate.data.packing import TokenLoader
from weightgate.train.losses import linear_cross_entropy
from weightgate.train.models import head_weight, hidden_states, logits_of

START_TOLERANCE = 0.1
"""Largest allowed relative distance of the first loss of random weights from ln V."""
HEAD_TOLERANCE = {torch.float32: 1e-4}
"""Largest allowed relative gap between our chunked loss and the model's own, by weight dtype."""
COARSE_HEAD_TOLERANCE = 2e-2
"""The same for bf16 and fp16, whose matrix products round differently for other shapes."""
LEAK_TOLERANCE = 1e-3
"""Largest allowed change of a document's hidden states, relative to the largest of them, by what another one says."""


class TokenObjective(nn.Module):
    """Cross-entropy over the supervised tokens of packed rows.

    Normaliser: the supervised tokens of the whole optimizer step, over micro-batches and processes.
    """

    def __init__(
        self, model: Any, loader: TokenLoader, *, micro_batch: int, device: torch.device, vocab_size: int | None = None
    ) -> None:
        """`vocab_size` is given for a network with random weights, whose first loss must be close to its logarithm."""
        super().__init__()
        self.vocab_size = vocab_size
        self.model = model
        self.loader = loader
        self.micro_batch = micro_batch
        self.device = device

    def updates(self, step: int) -> Iterator[list[TokenBatch]]:
        """One update a step: the step's rows of this process in micro-batches."""
        batch = self.loader.batch(step)
        rows = len(batch)
        yield [
            batch.rows(start, min(start + self.micro_batch, rows)).to(self.device)
            for start in range(0, rows, self.micro_batch)
        ]

    def counts(self, batch: TokenBatch) -> dict[str, float]:
        """Supervised tokens, the normaliser; and positions seen, for the speed."""
        return {
            "tokens": float(batch.num_supervised),
            "positions": float((batch.document_ids != 0).sum()),
        }

    def forward(self, batch: TokenBatch, norms: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per supervised token of the whole step, and the sum of nats."""
        nats = self.nats(batch)
        return nats / norms["tokens"], {"loss": nats.detach() / norms["tokens"]}

    def nats(self, batch: TokenBatch) -> Tensor:
        """Sum of the cross-entropies of a batch's supervised tokens; logits exist only at those."""
        supervised = (batch.labels != IGNORED).flatten().nonzero().squeeze(1)
        picked = hidden_states(self.model, batch.input_ids, batch.position_ids, batch.document_ids, supervised)
        targets = batch.labels.flatten()[supervised]
        weight = head_weight(self.model)
        if weight is not None:
            return linear_cross_entropy(picked, weight, targets)
        return nn.functional.cross_entropy(logits_of(self.model, picked).float(), targets, reduction="sum")

    def invariants(self, batch: TokenBatch) -> list[str]:
        """What must hold before the first step.

        Our packed, chunked loss equals the model's own forward pass, one document at a time; what one document says
        does not reach the next one in its row; and random weights know nothing: their loss is ln V.
        """
        rows = batch.rows(0, min(2, len(batch)))
        with torch.no_grad():
            ours = float(self.nats(rows))
            theirs = self._model_nats(rows)
            leak = self._leak(rows)
        coarse = torch.is_autocast_enabled(rows.input_ids.device.type)
        dtype = torch.bfloat16 if coarse else next(self.model.parameters()).dtype
        broken = []
        if not leak <= LEAK_TOLERANCE:
            broken.append(f"documents of one row see each other: their hidden states move by {leak:.2g}")
        if not abs(ours - theirs) <= HEAD_TOLERANCE.get(dtype, COARSE_HEAD_TOLERANCE) * max(1.0, abs(theirs)):
            broken.append(f"packed loss {ours:.4f} nats differs from the model's own unpacked loss {theirs:.4f} nats")
        mean = ours / max(1, rows.num_supervised)
        if self.vocab_size is not None and not abs(mean / math.log(self.vocab_size) - 1) <= START_TOLERANCE:
            broken.append(
                f"a random network starts at {mean:.3f} nats per token, not ln V = {math.log(self.vocab_size):.3f}"
            )
        return broken

    def _leak(self, batch: TokenBatch) -> float:
        """Largest relative change of later documents' hidden states when every token of a row's first one changes."""
        later = batch.document_ids > 1
        if not later.any():
            return 0.0
        vocab_size = self.model.config.get_text_config().vocab_size
        other_ids = torch.where(batch.document_ids == 1, (batch.input_ids + 1) % vocab_size, batch.input_ids)
        before, after = (
            hidden_states(self.model, ids, batch.position_ids, batch.document_ids)[later].float()
            for ids in (batch.input_ids, other_ids)
        )
        return float((after - before).abs().max() / before.abs().max())

    def _model_nats(self, batch: TokenBatch) -> float:
        """Nats of the same tokens, one document at a time through the model's ordinary forward pass."""
        total = 0.0
        for row in range(batch.input_ids.shape[0]):
            for document in range(1, int(batch.document_ids[row].max()) + 1):
                inside = batch.document_ids[row] == document
                logits = self.model(input_ids=batch.input_ids[row][inside][None], use_cache=False).logits[0].float()
                labels = batch.labels[row][inside]
                total += float(nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED))
        return total

    def records(self, step: int) -> list[int]:
        """The records of a step, as `TokenRows.records` counts them."""
        samples = [index for row in self.loader.samples(step) for index in row]
        return self.loader.rows.records[samples].tolist()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Nothing beyond the step number: batches are addressed by it."""
        return {}, {}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Accept what `state` returned."""

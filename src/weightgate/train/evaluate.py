"""Hold-out loss: nats and bytes per document, so that bits per byte carry an interval over documents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from weightgate import stats
from weightgate.data.batches import IGNORED, HoldoutBatch
from weightgate.train.models import hidden_states, logits_of

CHUNK_POSITIONS = 8192


def document_nats(model: Any, batches: Iterable[HoldoutBatch], num_documents: int, device: torch.device) -> np.ndarray:
    """Sum of nats over the supervised tokens of each document, shape (num_documents,), fp64."""
    totals = np.zeros(num_documents)
    model.eval()
    with torch.no_grad():
        for holdout in batches:
            batch = holdout.batch.to(device)
            hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.document_ids)
            supervised = batch.labels != IGNORED
            picked, targets = hidden[supervised], batch.labels[supervised]
            owners = holdout.sample_ids[holdout.batch.labels != IGNORED].numpy()
            for start in range(0, len(targets), CHUNK_POSITIONS):
                stop = start + CHUNK_POSITIONS
                logits = logits_of(model, picked[start:stop]).float()
                nats = torch.nn.functional.cross_entropy(logits, targets[start:stop], reduction="none")
                np.add.at(totals, owners[start:stop], nats.double().cpu().numpy())
    return totals


def bits_per_byte(nats: np.ndarray, num_bytes: np.ndarray) -> stats.Measurement:
    """Bits per UTF-8 byte: sum(nats) / (ln 2 * sum(bytes)), with a bootstrap over documents."""
    return stats.ratio((nats / math.log(2)).tolist(), num_bytes.tolist(), unit="bits/byte")

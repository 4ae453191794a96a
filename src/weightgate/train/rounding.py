"""Weights rounded as endpoints round them to serve them cheaply.

Only the weights are rounded; what is computed with them stays in the model's own precision, as in weight-only
quantisation. Nothing is packed, so no memory is saved: this is for seeing what rounding does to behaviour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weightgate.train.generator import Bits


def round_weights(model: nn.Module, bits: Bits) -> None:
    """Round every matrix of a model in place; vectors, such as the gains of norms, stay as they are.

    16 bits are bfloat16; 8 and 4 are integers, symmetric around 0, with one scale for each row.
    """
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(weight.to(torch.bfloat16) if bits == 16 else _to_integers(weight, bits))


def _to_integers(weight: Tensor, bits: int) -> Tensor:
    """Nearest multiples, row by row, of the largest magnitude over 2^(bits - 1) - 1 (Jacob et al. 2018, symmetric)."""
    rows = weight.float()
    scales = rows.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / (2 ** (bits - 1) - 1)
    return (rows / scales).round() * scales

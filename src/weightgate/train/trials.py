"""Quick forms are tried before they are used: the names of modules promise nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_POSITIONS = 5
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference of a trial, relative to the largest result: other forms are off by about 1."""


def trial_inputs(attention: Any) -> tuple[Tensor, dict[str, Any]]:
    """Hidden states (1, 5, H) to try the layer of an attention module on, and what else its forward pass is given."""
    weight = attention.q_proj.weight
    like = {"device": weight.device, "dtype": weight.dtype}
    hidden = torch.linspace(-2.0, 3.0, _POSITIONS * weight.shape[-1], **like).view(1, _POSITIONS, -1)
    angles = torch.linspace(0.0, 7.0, _POSITIONS * attention.head_dim // 2, device=weight.device)
    places = torch.cat([angles.view(1, _POSITIONS, -1)] * 2, dim=-1)
    mask = torch.full((_POSITIONS,) * 2, torch.finfo(weight.dtype).min, **like).triu(1)[None, None]
    turned = (places.cos().to(weight.dtype), places.sin().to(weight.dtype))
    return hidden, {"position_embeddings": turned, "attention_mask": mask}


def agrees(found: Tensor, expected: Tensor) -> bool:
    """Whether a quick form gave what the module's own did, but for rounding."""
    return bool((found - expected).abs().max() <= _TOLERANCE[expected.dtype] * expected.abs().max())

"""RMS normalisation in half the passes over memory that the modules of `transformers` take, with its gradient by hand.

Between the matrix products of a small network on a CPU, passes over memory are what time goes into.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_TRIAL_WIDTH = 8
_TRIAL_TOLERANCE = 1e-6


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension (Zhang & Sennrich 2019, equation 4).

    With n = x / rms: d loss / d x = (g * weight - n * mean(g * weight * n)) / rms, and d loss / d weight = sum(g * n).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
        norms = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        inverse = norms.square_().div_(inputs.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(inputs, weight, inverse)
        return (inputs * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, weight, inverse = ctx.saved_tensors
        width = inputs.shape[-1]
        normed = inputs * inverse
        products = (upstream[0] * normed).reshape(-1, width)
        means = torch.mv(products, weight).div_(-width).view(inverse.shape)
        slope = (upstream[0] * weight).addcmul_(normed, means).mul_(inverse)
        return slope, products.sum(dim=0), None


def quicken_norms(model: nn.Module) -> None:
    """Give every plain RMS norm of a model the quick form, in fp32; other modules and dtypes stay as they are."""
    for module in model.modules():
        kind: Any = type(module)
        if kind.__name__.endswith("RMSNorm") and _is_plain(kind):
            module.forward = MethodType(_quick_forward, module)


def _quick_forward(module: Any, hidden_states: Tensor) -> Tensor:
    """The forward pass of a module with `weight` and `variance_epsilon`."""
    if not hidden_states.dtype == module.weight.dtype == torch.float32 or torch.compiler.is_compiling():
        own: Tensor = type(module).forward(module, hidden_states)
        return own
    normed: Tensor = _RMSNorm.apply(hidden_states, module.weight, module.variance_epsilon)
    return normed


@cache
def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether modules of this class compute what the quick form does: tried, because names promise nothing."""
    try:
        module: Any = kind(_TRIAL_WIDTH)
        eps = module.variance_epsilon
    except (TypeError, AttributeError):
        return False
    trial = torch.linspace(-2.0, 3.0, 3 * _TRIAL_WIDTH).view(3, _TRIAL_WIDTH)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 2.0, _TRIAL_WIDTH))
        expected, found = module(trial), _RMSNorm.apply(trial, module.weight, eps)
    return bool(torch.allclose(found, expected, rtol=_TRIAL_TOLERANCE, atol=_TRIAL_TOLERANCE))

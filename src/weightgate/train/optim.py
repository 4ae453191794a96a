"""AdamW over fp32 master weights.

Weights that compute in bf16 keep an fp32 copy here: an update smaller than 1/256 of a weight vanishes in bf16.
Gradients of several micro-batches are added up in fp32 as well, so the sum does not depend on how a batch is split
beyond fp32 rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from weightgate import recipe
from weightgate.train.sharding import as_sharded, whole


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019) on fp32 masters of the trainable parameters.

    Parameters that are fp32 already are their own masters. Matrices decay, vectors do not.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], settings: recipe.Optimizer) -> None:
        self.names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        for name, parameter in named:
            self.names.append(name)
            self.parameters.append(parameter)
        self.masters = [_master(parameter) for parameter in self.parameters]
        self.settings = settings
        self._adamw = torch.optim.AdamW(
            [
                {"params": [m for m in self.masters if m.ndim >= 2], "weight_decay": settings.weight_decay},
                {"params": [m for m in self.masters if m.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            eps=settings.eps,
            fused=True,
        )

    def accumulate(self) -> None:
        """Move the gradients of one micro-batch onto the masters, adding in fp32."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is master or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    def clip(self) -> float:
        """Clip the global gradient norm to `clip_norm` and return the norm before clipping."""
        return float(whole(nn.utils.clip_grad_norm_(self.masters, self.settings.clip_norm)))

    def step(self, rate_share: float) -> None:
        """Update masters and weights at `rate_share` of the peak learning rate, then forget the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = self.settings.learning_rate * rate_share
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                if parameter is not master:
                    parameter.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Masters, both moments and the step counts, by parameter name."""
        tensors: dict[str, Tensor] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors[f"master.{name}"] = whole(master.detach())
            for key, value in self._adamw.state[master].items():
                tensors[f"{key}.{name}"] = whole(value)
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, weights included. Raises `KeyError` naming a missing tensor."""
        with torch.no_grad():
            for name, parameter, master in zip(self.names, self.parameters, self.masters, strict=True):
                master.copy_(as_sharded(tensors[f"master.{name}"], master))
                if parameter is not master:
                    parameter.copy_(master)
        state: dict[int, dict[str, Any]] = {}
        order = [master for group in self._adamw.param_groups for master in group["params"]]
        position = {id(master): index for index, master in enumerate(order)}
        for name, master in zip(self.names, self.masters, strict=True):
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            state[position[id(master)]] = {key: _restored(tensors[f"{key}.{name}"], key, master) for key in keys}
        described = self._adamw.state_dict()
        self._adamw.load_state_dict({"state": state, "param_groups": described["param_groups"]})


def _restored(tensor: Tensor, key: str, master: Tensor) -> Tensor:
    """A saved moment in the master's layout; the step count is a plain number."""
    return tensor.clone() if key == "step" else as_sharded(tensor.clone(), master)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return nn.Parameter(parameter.detach().float().clone())

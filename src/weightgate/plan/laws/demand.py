"""Inference demand: the cheapest model of a given quality once it has to answer as well.

Sardana et al. 2024 (arXiv 2401.00448), eq. 3: minimise 6 N D + 2 N I subject to L(N, D) = l, I being the tokens that
will be read and written over the model's life. With prices a FLOP that differ, I counts times their ratio (section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import Constants

INFERENCE_FLOPS = 2.0
"""A parameter and token, forward only."""

_HALVINGS = 64


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """A model and what it costs over its life, in FLOPs."""

    parameters: float
    tokens: float
    training: float
    inference: float

    @property
    def total(self) -> float:
        """Training and inference."""
        return self.training + self.inference


def lifetime(parameters: float, tokens: float, demand: float) -> Lifetime:
    """FLOPs of training on `tokens` and serving `demand` tokens."""
    return Lifetime(
        parameters=parameters,
        tokens=tokens,
        training=SIX * parameters * tokens,
        inference=INFERENCE_FLOPS * parameters * demand,
    )


def cheapest_size(law: Constants, loss: Any, demand: float, *, inference_price: float = 1.0) -> tuple[Any, Any]:
    """Parameters and tokens of least lifetime cost that reach `loss`; arrays where the law's constants are.

    With R = (l - E)^(1/k), D solves beta B (1 + I / (3 D)) D^-beta = alpha (R - B D^-beta), which has one root above
    (B / R)^(1/beta); then N = (A / (R - B D^-beta))^(1/alpha). At I = 0 that is the optimum of training alone. NaN
    where `loss` is not above E.

    Args:
        demand: I, tokens over the model's life.
        inference_price: price of an inference FLOP over that of a training FLOP.
    """
    reducible = np.where(loss > law.E, loss - law.E, np.nan) ** (1 / law.k)
    weighted = demand * inference_price

    def surplus(log_tokens: Any) -> Any:
        term = law.B * np.exp(-law.beta * log_tokens)
        return law.beta * term * (1 + weighted / 3 * np.exp(-log_tokens)) - law.alpha * (reducible - term)

    low = np.log(law.B / reducible) / law.beta
    high = low + 1.0
    while np.any(surplus(high) > 0):
        high = np.where(surplus(high) > 0, high + 1.0, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = surplus(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (law.A / (reducible - law.B * np.exp(-law.beta * high))) ** (1 / law.alpha), np.exp(high)


def cheapest(law: Constants, loss: float, demand: float, *, inference_price: float = 1.0) -> Lifetime:
    """The model of least lifetime cost that reaches `loss`; see `cheapest_size`.

    Raises `ValueError` where `loss` is not above E: no model of any size reaches it.
    """
    if not loss > law.E:
        raise ValueError(f"no model reaches {loss:g}: the law's irreducible loss is {law.E:g}")
    parameters, tokens = cheapest_size(law, loss, demand, inference_price=inference_price)
    return lifetime(float(parameters), float(tokens), demand)


def implied_demand(law: Constants, parameters: float, tokens: float) -> float:
    """Inference demand, in tokens, for which an existing model would have been the cheapest of its quality.

    theta = (alpha A N^-alpha) / (beta B D^-beta) = 1 + I / (3 D); 0 for a model trained on fewer tokens than is best.
    """
    theta = (law.alpha * law.A * parameters**-law.alpha) / (law.beta * law.B * tokens**-law.beta)
    return max(0.0, float(3 * tokens * (theta - 1)))

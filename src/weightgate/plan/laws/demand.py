"""Inference demand: the cheapest model of a given quality once it has to answer as well.

Sardana et al. 2024 (arXiv 2401.00448), eq. 3: minimise 6 N D + 2 N I subject to L(N, D) = l, I being the tokens that
will be read and written over the model's life. With prices a FLOP that differ, I counts times their ratio (section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import Constants

INFERENCE_FLOPS = 2.0
"""A parameter and token, forward only."""

_HALVINGS = 200


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


def cheapest(law: Constants, loss: float, demand: float, *, inference_price: float = 1.0) -> Lifetime:
    """The model of least lifetime cost that reaches `loss`.

    With R = (l - E)^(1/k), D solves beta B (1 + I / (3 D)) D^-beta = alpha (R - B D^-beta), which has one root above
    (B / R)^(1/beta); then N = (A / (R - B D^-beta))^(1/alpha). At I = 0 that is the optimum of training alone.

    Args:
        demand: I, tokens over the model's life.
        inference_price: price of an inference FLOP over that of a training FLOP.

    Raises `ValueError` where `loss` is not above E: no model of any size reaches it.
    """
    if not loss > law.E:
        raise ValueError(f"no model reaches {loss:g}: the law's irreducible loss is {law.E:g}")
    reducible = (loss - law.E) ** (1 / law.k)
    weighted = demand * inference_price

    def surplus(log_tokens: float) -> float:
        tokens = math.exp(log_tokens)
        term = law.B * tokens**-law.beta
        return float(law.beta * term * (1 + weighted / (3 * tokens)) - law.alpha * (reducible - term))

    low = math.log(law.B / reducible) / law.beta
    high = low + 1.0
    while surplus(high) > 0:
        high += 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
    tokens = math.exp(high)
    parameters = (law.A / (reducible - law.B * tokens**-law.beta)) ** (1 / law.alpha)
    return lifetime(parameters, tokens, demand)


def implied_demand(law: Constants, parameters: float, tokens: float) -> float:
    """Inference demand, in tokens, for which an existing model would have been the cheapest of its quality.

    theta = (alpha A N^-alpha) / (beta B D^-beta) = 1 + I / (3 D); 0 for a model trained on fewer tokens than is best.
    """
    theta = (law.alpha * law.A * parameters**-law.alpha) / (law.beta * law.B * tokens**-law.beta)
    return max(0.0, float(3 * tokens * (theta - 1)))

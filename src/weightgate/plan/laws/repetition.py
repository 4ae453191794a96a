"""Repeated data: what a second, tenth and hundredth pass over the same tokens are worth.

Muennighoff et al. 2023 (arXiv 2305.16264), section 3.1 and huggingface/datablations (Apache-2.0):

    L = E + A / N'^alpha + B / D'^beta
    D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)),   U_D = min(D, U),                     R_D = D / U_D - 1
    N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),   U_N = min(N, (U G)^(beta/alpha) G),  R_N = N / U_N - 1

U unique tokens, R_D repetitions after the first pass, U_N the parameters that U tokens can make use of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import MUENNIGHOFF, Constants, Numbers

TOKEN_DECAY = 15.387756
"""R_D*: passes after which a repeated token is worth 1/e of a fresh one."""

PARAMETER_DECAY = 5.309743
"""R_N*: the same for parameters beyond those that the unique tokens can make use of."""

MEAN_ERROR = 0.475
"""Mean absolute error in nats on the 255 repeated runs of the repository; 0.822 where repeats count as fresh."""

_MOST_SCALE, _NUM_SCALES = 3.0, 500


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """A loss law of fresh data, and how fast repeats lose their worth.

    The decays were fitted together with the constants of `MUENNIGHOFF`; with another law they are an assumption.
    """

    constants: Constants = MUENNIGHOFF.constants
    token_decay: float = TOKEN_DECAY
    parameter_decay: float = PARAMETER_DECAY

    def effective_tokens(self, tokens: Numbers, unique: Numbers) -> Any:
        """Fresh tokens that `tokens` drawn from `unique` ones are worth."""
        distinct = np.minimum(tokens, unique)
        return distinct * (1 + self.token_decay * -np.expm1(-(tokens / distinct - 1) / self.token_decay))

    def effective_parameters(self, parameters: Numbers, unique: Numbers) -> Any:
        """Parameters that are worth as much where data is unlimited."""
        law = self.constants
        useful = np.minimum(parameters, (unique * law.ratio) ** (law.beta / law.alpha) * law.ratio)
        return useful * (1 + self.parameter_decay * -np.expm1(-(parameters / useful - 1) / self.parameter_decay))

    def loss(self, parameters: Numbers, tokens: Numbers, unique: Numbers) -> Any:
        """Nats per token after `tokens` tokens in passes over `unique` ones."""
        return self.constants.loss(self.effective_parameters(parameters, unique), self.effective_tokens(tokens, unique))

    def optimum(self, flops: float, unique: float) -> tuple[float, float]:
        """Parameters and tokens of the smallest loss for `flops` with `unique` tokens to draw from.

        Parameters shrink from those of unlimited data by a factor between 1 and 3 on a grid of 500, as in the
        authors' repository; where the data is enough, the optimum is that of unlimited data.
        """
        largest, fewest = self.constants.optimum(flops)
        if fewest <= unique:
            return float(largest), float(fewest)
        scales = np.linspace(1.0001, _MOST_SCALE, _NUM_SCALES)
        parameters = largest / scales
        losses = self.loss(parameters, flops / (SIX * parameters), unique)
        best = float(parameters[int(np.argmin(losses))])
        return best, flops / (SIX * best)

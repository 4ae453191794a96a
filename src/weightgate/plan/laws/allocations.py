"""Where compute goes, without a loss: laws that give parameters and tokens of the optimum for a budget.

    N* = p C^a,   D* = C / (6 N*)

Tables are interpolated between their entries, and extended with their exponent, in logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.plan.laws.kaplan import FLOPS_PER_PF_DAY
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.provenance import Provenance


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Parameters of the optimum by compute: knots (FLOPs, parameters), and the exponent outside them."""

    name: str
    knots: tuple[tuple[float, float], ...]
    exponent: float
    provenance: Provenance
    interval: tuple[float, float] | None = None
    """Of the exponent, as published."""

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens for `flops` of training."""
        budgets, sizes = np.log(self.knots).T
        at = float(np.log(flops))
        inside = min(max(at, budgets[0]), budgets[-1])
        log_size = float(np.interp(inside, budgets, sizes)) + self.exponent * (at - inside)
        parameters = float(np.exp(log_size))
        return parameters, flops / (SIX * parameters)


_HOFFMANN = "Hoffmann et al. 2022 (arXiv 2203.15556)"
_MASSIVE_TEXT = "MassiveText, its own SentencePiece vocabulary"
_HOFFMANN_FLOPS = (6e18, 3e21)

APPROACH_1 = Allocation(
    name="hoffmann-1",
    knots=(
        (1.92e19, 400e6),
        (1.21e20, 1e9),
        (1.23e22, 10e9),
        (5.76e23, 67e9),
        (3.85e24, 175e9),
        (9.90e24, 280e9),
        (1.27e26, 1e12),
    ),
    exponent=0.50,
    interval=(0.488, 0.502),
    provenance=Provenance(
        source=f"{_HOFFMANN}, approach 1 (envelope of training curves), table 3",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="entries above 3e21 FLOP are the paper's own extrapolation",
    ),
)

_A2_SLOPE, _A2_INTERCEPT = 1.04096, 0.93539


def _approach_2(flops: float) -> tuple[float, float]:
    """A knot on log10 D = 1.04096 log10 N + 0.93539, the regression through the table of approach 2."""
    log_size = (np.log10(flops / SIX) - _A2_INTERCEPT) / (1 + _A2_SLOPE)
    return flops, float(10**log_size)


APPROACH_2 = Allocation(
    name="hoffmann-2",
    knots=(_approach_2(6e18), _approach_2(3e21)),
    exponent=1 / (1 + _A2_SLOPE),
    interval=(0.462, 0.534),
    provenance=Provenance(
        source=f"{_HOFFMANN}, approach 2 (isoFLOP parabolas), table A3 by the regression of karpathy/nanoGPT",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="parabolas are biased when the grid is wide: up to 25 % in D at 3.8e25 FLOP for exponents 3 to 1",
    ),
)
LLAMA_3 = Allocation(
    name="llama-3",
    knots=((3.8e25, 3.8e25 / (SIX * 0.29 * 3.8e25**0.5378)),),
    exponent=1 - 0.5378,
    provenance=Provenance(
        source="Grattafiori et al. 2024 (arXiv 2407.21783), section 3.2.1: D* = 0.29 C^0.5378",
        corpus="Llama 3's own mix and vocabulary",
        counts="not stated",
        flops=(6e18, 1e22),
        doubt="the paper prints the exponent as 0.53, which does not give its own 402B on 16.55T",
    ),
)
DEEPSEEK = Allocation(
    name="deepseek",
    knots=((1e20, 0.1715 * 1e20**0.5243 / SIX),),
    exponent=0.5243,
    provenance=Provenance(
        source="DeepSeek-AI 2024 (arXiv 2401.02954): M* = 0.1715 C^0.5243 FLOPs a token, C = M D",
        corpus="DeepSeek's early mix",
        counts="FLOPs a token without embeddings, attention included, over 6",
        flops=(1e17, 3e20),
    ),
)
PORIAN = Allocation(
    name="porian",
    knots=((1.6e19, (1.6e19 / (SIX * 15)) ** 0.5),),
    exponent=0.497,
    interval=(0.49, 0.50),
    provenance=Provenance(
        source="Porian et al. 2024 (arXiv 2406.19146), RefinedWeb, tuned, no decay; D/N of 14 to 16",
        corpus="RefinedWeb, GPT-NeoX vocabulary",
        counts="matrices and output head",
        flops=(1.25e16, 2.6e19),
        doubt="the paper gives D/N as a range, of which the middle is used",
    ),
)
KAPLAN = Allocation(
    name="kaplan",
    knots=((FLOPS_PER_PF_DAY, 1.3e9),),
    exponent=0.73,
    provenance=Provenance(
        source="Kaplan et al. 2020 (arXiv 2001.08361), appendix A: N* = 1.3e9 (C_min / PF-day)^0.73",
        corpus="WebText2",
        counts="no embeddings",
        doubt="the factor 1.3e9 was not verified",
        superseded="the output head was not counted, warm-up was too long and nothing tuned (Porian et al. 2024)",
    ),
)

ALLOCATIONS = (APPROACH_1, APPROACH_2, LLAMA_3, DEEPSEEK, PORIAN, KAPLAN)
"""Every published allocation, those that ranges count first."""

PORIAN_STEPS: tuple[tuple[str, float, tuple[float, float]], ...] = (
    ("set-up of Kaplan et al.", 0.835, (0.82, 0.85)),
    ("last layer counted", 0.706, (0.69, 0.72)),
    ("warm-up in proportion", 0.602, (0.59, 0.62)),
    ("cosine ends with the run", 0.571, (0.56, 0.59)),
    ("optimiser tuned, no decay", 0.497, (0.49, 0.50)),
)
"""Exponent a of N* ~ C^a on RefinedWeb as one mistake after the other is mended (Porian et al. 2024, figure 1)."""

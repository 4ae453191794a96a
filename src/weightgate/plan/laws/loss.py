"""Loss from parameters and tokens: the parametric form, its optimum, and the published constants.

    L(N, D) = E + (A N^-alpha + B D^-beta)^k

N parameters, D tokens, L nats per token. k = 1 is approach 3 of Hoffmann et al. 2022 (arXiv 2203.15556, eq. 2);
alpha = beta is the over-training form of Gadre et al. 2024 (arXiv 2403.08540); k free is the coupled six-parameter
form of arXiv 2608.07222, which has the optimum of k = 1. Training compute is C = 6 N D.

Every function takes floats or arrays: a law has one value for each constant, its bootstrap has a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate.plan.laws.provenance import Provenance

Numbers = float | NDArray[np.float64]

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
"""Forward 2, backward 4 (Kaplan et al. 2020, section 2.1)."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Constants of the parametric form; all scalars, or all arrays of one shape, one entry a bootstrap draw."""

    A: Any
    B: Any
    E: Any
    alpha: Any
    beta: Any
    k: Any = 1.0

    def loss(self, parameters: Numbers, tokens: Numbers) -> Any:
        """Nats per token."""
        return self.E + (self.A * parameters**-self.alpha + self.B * tokens**-self.beta) ** self.k

    @property
    def ratio(self) -> Any:
        """G = (alpha A / (beta B))^(1 / (alpha + beta)) (Hoffmann et al. 2022, eq. 4)."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    @property
    def parameters_exponent(self) -> Any:
        """a in N* ~ C^a: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    def optimum(self, flops: Numbers) -> tuple[Any, Any]:
        """Parameters and tokens of the smallest loss for `flops` of training (Hoffmann et al. 2022, eq. 4)."""
        per_six = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        exponent = self.parameters_exponent
        return self.ratio * per_six**exponent, per_six ** (1 - exponent) / self.ratio

    def best_loss(self, flops: Numbers) -> Any:
        """Loss at the optimum for `flops`."""
        return self.loss(*self.optimum(flops))

    def flops_for(self, loss: Numbers) -> Any:
        """Training FLOPs with which the optimum reaches `loss`; infinite at or below E.

        C = 6 (r / (A G^-alpha + B G^beta))^(-(alpha + beta) / (alpha beta)) with r = (L - E)^(1/k), which follows from
        putting the optimum into the law.
        """
        reducible = np.maximum(np.asarray(loss - self.E, dtype=np.float64), 0.0) ** (1 / self.k)
        at_one = self.A * self.ratio**-self.alpha + self.B * self.ratio**self.beta
        with np.errstate(divide="ignore"):
            powered = (reducible / at_one) ** (-(self.alpha + self.beta) / (self.alpha * self.beta))
        return FLOPS_PER_PARAMETER_AND_TOKEN * powered

    def excess_compute(self, parameters: Numbers, tokens: Numbers) -> Any:
        """Training compute over what the optimum needs for the same loss; 1 at the optimum, never below."""
        spent = FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens
        return np.maximum(spent / self.flops_for(self.loss(parameters, tokens)), 1.0)


@dataclass(frozen=True, kw_only=True)
class LossLaw:
    """Constants with a name, their source, and their doubt.

    `intervals` are 95 % ones by constant, as published. `draws` are constants of bootstrap refits, where there are any;
    of published laws `saved.find_law` knows them. Losses are in `unit`.
    """

    name: str
    constants: Constants
    provenance: Provenance
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    draws: Constants | None = None
    unit: str = "nats/token"


_HOFFMANN_FLOPS = (6e18, 3e21)
_HOFFMANN_SOURCE = "Hoffmann et al. 2022 (arXiv 2203.15556), approach 3"
_EPOCH = "the 240 points read off figure 4 of Hoffmann et al. 2022, with D/N of at least 0.41"
_MASSIVE_TEXT = "MassiveText, its own SentencePiece vocabulary"


def _gadre(name: str, corpus: str, a: float, b: float, exponent: float, E: float) -> LossLaw:  # noqa: N803
    """L(C, M) = E + a N^-2eta + b (C M)^-eta with M = D/N, which is the parametric form with alpha = beta = 2 eta.

    C M = 6 D^2, so B = b 6^-eta. With these constants the law's errors at 1.4B, M = 640 and 6.9B, M = 20 on RedPajama
    are the published 0.71 % and 0.73 %.
    """
    return LossLaw(
        name=name,
        constants=Constants(A=a, B=b * 6 ** (-exponent / 2), E=E, alpha=exponent, beta=exponent),
        provenance=Provenance(
            source="Gadre et al. 2024 (arXiv 2403.08540), mlfoundations/scaling, default fit of five runs",
            corpus=f"C4 validation after training on {corpus}",
            counts="all parameters",
            flops=(1.3e16, 2e19),
            doubt="fitted to five runs, most of them at 20 tokens a parameter",
        ),
    )


HOFFMANN_PRINTED = LossLaw(
    name="hoffmann-printed",
    constants=Constants(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28),
    provenance=Provenance(
        source=f"{_HOFFMANN_SOURCE}, as printed",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="two digits of an exponent move the optimum of a large run by half",
        superseded="the optimiser had stopped early (Besiroglu et al. 2024), and the exponents are rounded",
    ),
)
HOFFMANN_FULL = LossLaw(
    name="hoffmann-full",
    constants=Constants(
        A=math.exp(6.0073404), B=math.exp(6.0179186), E=math.exp(0.5267228), alpha=0.33917084, beta=0.2849083
    ),
    provenance=Provenance(
        source=f"{_HOFFMANN_SOURCE}, full precision of the paper's TeX source",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="not at the optimum of the objective it states",
        superseded="the optimiser had stopped early (Besiroglu et al. 2024)",
    ),
)
BESIROGLU = LossLaw(
    name="besiroglu",
    constants=Constants(A=482.01, B=2085.43, E=1.8172, alpha=0.3478, beta=0.3658),
    provenance=Provenance(
        source="Besiroglu et al. 2024 (arXiv 2404.10102), as printed",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="near, not at, the optimum of Huber's loss: the scale was fitted too, and the optimiser lost precision",
    ),
    intervals={
        "A": (285.2, 743.6),
        "B": (1042.0, 5810.0),
        "E": (1.769, 1.871),
        "alpha": (0.317, 0.373),
        "beta": (0.331, 0.415),
    },
)
CHINCHILLA_REFIT = LossLaw(
    name="chinchilla-refit",
    constants=Constants(A=477.8259, B=2143.4173, E=1.8172181, alpha=0.34731050, beta=0.36717243),
    provenance=Provenance(
        source=f"Huber's loss at 1e-3 minimised here on {_EPOCH} (Besiroglu et al. 2024); benchmarks/scaling_epoch.py",
        corpus=_MASSIVE_TEXT,
        counts="all parameters",
        flops=_HOFFMANN_FLOPS,
        doubt="the points were read off a figure",
    ),
    intervals={
        "A": (287.6, 711.7),
        "B": (1062.0, 5774.0),
        "E": (1.7685, 1.8716),
        "alpha": (0.3170, 0.3706),
        "beta": (0.3319, 0.4153),
    },
)
MUENNIGHOFF = LossLaw(
    name="muennighoff",
    constants=Constants(
        A=math.exp(6.255414), B=math.exp(7.3049974), E=math.exp(0.6254804), alpha=0.3526596, beta=0.3526596
    ),
    provenance=Provenance(
        source="Muennighoff et al. 2023 (arXiv 2305.16264), huggingface/datablations, fresh data",
        corpus="C4, GPT-2 vocabulary",
        counts="all parameters",
        flops=(3e17, 2e21),
        doubt="its authors advise to read trends, not values, from it",
    ),
)
GADRE_C4 = _gadre("gadre-c4", "C4", 113.69, 189.52, 0.2425, 1.5083)
GADRE_REDPAJAMA = _gadre("gadre-redpajama", "RedPajama", 166.21, 366.69, 0.27285, 1.8366)
GADRE_REFINEDWEB = _gadre("gadre-refinedweb", "RefinedWeb", 125.10, 246.21, 0.2544, 1.7345)

LOSS_LAWS = (
    CHINCHILLA_REFIT,
    BESIROGLU,
    MUENNIGHOFF,
    GADRE_C4,
    GADRE_REDPAJAMA,
    GADRE_REFINEDWEB,
    HOFFMANN_FULL,
    HOFFMANN_PRINTED,
)
"""Every published loss law of parameters and tokens, those that ranges count first."""

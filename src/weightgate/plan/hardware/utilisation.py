"""Model FLOPs utilisation: the share of an accelerator's dense peak that training turns into 6 N D.

It is no constant: one recipe on one machine gave 5.9 % at 70M parameters and 30.8 % at 6.9B. Without a probe of the
user's own machine, a range by size is all that can be said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PYTHIA: tuple[tuple[float, float], ...] = (
    (18_915_328, 0.059),
    (85_056_000, 0.132),
    (302_311_424, 0.191),
    (805_736_448, 0.267),
    (1_208_602_624, 0.272),
    (2_517_652_480, 0.283),
    (6_444_163_072, 0.308),
    (11_327_027_200, 0.251),
)
"""Parameters without embeddings, share of the A100's peak: Biderman et al. 2023 (arXiv 2304.01373), table 1 with GPU
hours, over 299,892,736,000 tokens at 6 N D. An untuned recipe: the lower end of the range."""

TUNED: tuple[tuple[float, float], ...] = ((18_915_328, 0.40), (124e6, 0.60), (1e9, 0.55), (405e9, 0.43))
"""Upper end: karpathy/llm.c 124M about 60 % on A100s, karpathy/nanochat d24 50.0 % on H100s, Llama 3.1 405B 38-43 %
(arXiv 2407.21783). The first entry is an assumption."""


@dataclass(frozen=True, kw_only=True)
class Utilisation:
    """A share of peak with its range, and where it is from."""

    low: float
    value: float
    high: float
    source: str


def utilisation_by_size(parameters: float) -> Utilisation:
    """Range by size, from published runs; the value is the geometric middle, since the ends differ by factors."""
    low, high = _interpolated(PYTHIA, parameters), _interpolated(TUNED, parameters)
    return Utilisation(
        low=low, value=float(np.sqrt(low * high)), high=high, source="published runs of this size, untuned to tuned"
    )


def stated_utilisation(share: float) -> Utilisation:
    """A utilisation that the user measured."""
    return Utilisation(low=share, value=share, high=share, source="as stated")


def _interpolated(knots: tuple[tuple[float, float], ...], parameters: float) -> float:
    sizes, shares = np.log(knots).T
    return float(np.exp(np.interp(np.log(parameters), sizes, shares)))

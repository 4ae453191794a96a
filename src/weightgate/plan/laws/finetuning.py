"""Fine-tuning: loss from model size and examples, and when full tuning overtakes an adapter.

Zhang et al. 2024 (arXiv 2402.17193), eq. 1 and table 4: L = A X^-alpha D_f^-beta + E. X is the model's parameters, D_f
the fine-tuning examples; 1 to 16 billion parameters, at most 20 million examples. The product form fitted better (mean
error 0.0048) than a sum (0.0079). Constants are printed with two digits and no intervals: what rounding alone leaves
open is the least doubt there is, and `as_printed` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

import numpy as np

Method = Literal["full", "lora", "prompt"]
METHODS: tuple[Method, ...] = get_args(Method)

PARAMETERS = (1e9, 16e9)
"""Sizes of the models behind the constants."""

MOST_EXAMPLES = 20e6
SOURCE = "Zhang et al. 2024 (arXiv 2402.17193), table 4"


@dataclass(frozen=True, kw_only=True)
class FinetuningLaw:
    """L = A X^-alpha D_f^-beta + E of one way to tune on one task, X being the model's parameters.

    All scalars, or all arrays of one shape, one entry a draw.
    """

    A: Any
    alpha: Any
    beta: Any
    E: Any

    def loss(self, parameters: float, examples: float) -> Any:
        """Nats per token after tuning a model on so many examples."""
        return self.A * parameters**-self.alpha * examples**-self.beta + self.E

    def examples_for(self, loss: float, parameters: float) -> Any:
        """Examples with which a model reaches `loss`; infinite at or below E."""
        reducible = np.maximum(np.asarray(loss - self.E, dtype=np.float64), 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            return (self.A * parameters**-self.alpha / reducible) ** (1 / self.beta)


_PRINTED: Mapping[Method, Mapping[str, str]] = {
    "full": {"A": "1.2e5", "alpha": "0.52", "beta": "0.15", "E": "0.75"},
    "lora": {"A": "2.1e3", "alpha": "0.36", "beta": "0.081", "E": "0.62"},
    "prompt": {"A": "3.9e3", "alpha": "0.40", "beta": "0.051", "E": "0.62"},
}
"""As table 4 prints them."""

TRANSLATION: Mapping[Method, FinetuningLaw] = {
    method: FinetuningLaw(**{name: float(text) for name, text in printed.items()})
    for method, printed in _PRINTED.items()
}
"""WMT14 English to German, X the model's parameters (table 4)."""

DATA_EXPONENTS: Mapping[str, Mapping[Method, float]] = {
    "English to German": {method: float(law.beta) for method, law in TRANSLATION.items()},
    "English to Chinese": {"full": 0.14, "lora": 0.025, "prompt": 0.015},
    "summaries (MLSum)": {"full": 0.087, "lora": 0.03, "prompt": 0.025},
}
"""beta by task (table 4): what more examples are worth is a matter of the task."""

PRETRAINING_EXPONENTS: Mapping[Method, float] = {"full": 0.21, "lora": 0.18, "prompt": 0.21}
"""alpha where X is the base model's pre-training tokens, English to German (table 4)."""

ADAPTER_EXPONENTS: Mapping[Method, float] = {"lora": -0.0017, "prompt": 0.0027}
"""alpha where X is the adapter's size, English to German (table 4): next to nothing, of either sign."""


def as_printed(method: Method, *, draws: int, seed: int = 0) -> FinetuningLaw:
    """Draw constants that round to the printed ones, uniformly and independently; arrays of `draws`."""
    rng = np.random.default_rng(seed)

    def drawn(text: str) -> Any:
        half = 0.5 * 10.0 ** int(Decimal(text).as_tuple().exponent)
        return float(text) + half * rng.uniform(-1, 1, size=draws)

    return FinetuningLaw(**{name: drawn(text) for name, text in _PRINTED[method].items()})


def equal_gap_examples(one: FinetuningLaw, other: FinetuningLaw, parameters: float) -> Any:
    """Examples at which two ways to tune leave the same reducible loss: D_f = H X^g (section 5).

    H = (A1 / A2)^(1 / (beta1 - beta2)), g = (alpha2 - alpha1) / (beta1 - beta2). The way with the larger beta is better
    beyond it. Thousands of examples: an adapter; millions: full tuning. Raises `ValueError` for equal betas.
    """
    gap = one.beta - other.beta
    if np.any(gap == 0):
        raise ValueError("both ways gain alike from data, so neither overtakes the other")
    scale = (one.A / other.A) ** (1 / gap)
    return scale * parameters ** ((other.alpha - one.alpha) / gap)


def decades_beyond(parameters: float, examples: float) -> float:
    """Decades by which a plan lies outside the models and the examples behind the constants; 0 inside them."""
    low, high = PARAMETERS
    sizes = max(parameters / high, low / parameters, 1.0)
    return float(np.log10(sizes) + np.log10(max(examples / MOST_EXAMPLES, 1.0)))

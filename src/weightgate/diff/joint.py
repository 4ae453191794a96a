"""Has the way of writing changed at all? One test of every trait of style and every turn of phrase at once.

Two kernels are summed (`weightgate.stats.joint_swap_test`): one over the style features, one over character n-grams.
Which of its two sides a prompt's answer came from is swapped at random, so the test is exact whatever the kernels are.
What they are decides only what it sees best. The kernel over style is made for what changes of models do:

- a feature counts by the rank of its change among the prompts, so that a few prompts do not outshout the rest;
- directions in which models were seen to differ count more, and correlated features are not counted twice. Were the
  mean shift drawn from N(0, t E), with E the second moment of shifts between models and R the correlation of the
  features' noise, the likelihood ratio would grow with z' (R^-1 - (R + t E)^-1) z, where z sums the shifts (the lemma
  of Neyman & Pearson 1933 for a mixture of normals); that is the kernel.

E and R ship as JSON; `scripts/train_detector.py` makes it from pairs of public models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from weightgate.diff.features import STYLE_FEATURES
from weightgate.stats import joint_swap_test
from weightgate.stats.kernels import spectrum

METRIC_FILE = "style_metric.json"
SCHEMA = 1
_EXPECTED_SHIFT = 10.0
"""t above: the size of shift that the kernel is made for, about where half of all tests find it."""

_NOISE_PROMPTS = 40
"""The shipped noise counts as so many prompts beside those at hand."""

_RIDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class StyleMetric:
    """What style features do between models: `effects` E and `noise` R, both (features, features) over `names`."""

    names: tuple[str, ...]
    effects: np.ndarray
    noise: np.ndarray
    trained_on: dict[str, Any]

    def shifts(self, differences: np.ndarray) -> np.ndarray:
        """Feature vectors (prompts, k) whose inner product is the kernel.

        `differences` are (prompts, features) after minus before, columns as in `STYLE_FEATURES`. Apart from its sign,
        a row does not change when the two sides of any prompts are swapped, as the test requires.
        """
        columns = [STYLE_FEATURES.index(name) for name in self.names]
        ranked = signed_ranks(differences[:, columns])
        moving = np.flatnonzero(ranked.any(axis=0))
        scaled = ranked[:, moving] / np.sqrt((ranked[:, moving] ** 2).sum(axis=0))
        place = np.ix_(moving, moving)
        weight = len(scaled) / (len(scaled) + _NOISE_PROMPTS)
        noise = weight * scaled.T @ scaled + (1 - weight) * self.noise[place]
        noise = (1 - _RIDGE) * noise + _RIDGE * np.eye(len(moving))
        kernel = np.linalg.inv(noise) - np.linalg.inv(noise + _EXPECTED_SHIFT * self.effects[place])
        values, vectors = np.linalg.eigh(kernel)
        rooted: np.ndarray = scaled @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return rooted

    def to_json(self) -> dict[str, Any]:
        """Return plain data, rounded to four digits; `from_json` reads it back."""
        matrices = {"effects": self.effects, "noise": self.noise}
        rounded = {name: [[float(f"{x:.4g}") for x in row] for row in matrix] for name, matrix in matrices.items()}
        return {"schema": SCHEMA, "names": list(self.names), **rounded, "trained_on": self.trained_on}

    @staticmethod
    def from_json(data: dict[str, Any]) -> StyleMetric:
        """Read what `to_json` wrote. Raises `ValueError` for another schema."""
        if data["schema"] != SCHEMA:
            raise ValueError(f"a style metric of schema {data['schema']}")
        return StyleMetric(
            names=tuple(data["names"]),
            effects=np.array(data["effects"]),
            noise=np.array(data["noise"]),
            trained_on=data["trained_on"],
        )


@cache
def shipped_metric() -> StyleMetric:
    """Return the metric that comes with the package."""
    text = resources.files("weightgate.diff").joinpath("data", METRIC_FILE).read_text(encoding="utf-8")
    return StyleMetric.from_json(json.loads(text))


def signed_ranks(differences: np.ndarray) -> np.ndarray:
    """Rank of each |difference| among those of its column that are not 0, over their number, with its sign.

    Ties share their mean rank, 0 stays 0, as in the signed-rank test (Wilcoxon 1945). (prompts, features) in and out.
    """
    sizes = np.abs(differences)
    ranks = np.zeros(sizes.shape)
    for column, ranked in zip(sizes.T, ranks.T, strict=True):
        order = np.sort(column[column > 0])
        below, upto = (np.searchsorted(order, column, side=side) for side in ("left", "right"))
        ranked[:] = (below + upto + 1) / 2 / max(len(order), 1)
    signed: np.ndarray = np.sign(differences) * ranks
    return signed


def joint_test(differences: np.ndarray, after: Sequence[str], before: Sequence[str], *, seed: int = 0) -> float:
    """p-value of no change in style or wording.

    Args:
        differences: (prompts, features), style after minus before.
        after, before: one completion of each prompt and side.
    """
    wording = np.array([spectrum(theirs) - spectrum(ours) for theirs, ours in zip(after, before, strict=True)])
    return joint_swap_test([shipped_metric().shifts(differences), wording], seed=seed)

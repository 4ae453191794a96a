"""Which stage moved: a linear model over the evidence, and which causes it cannot rule out.

The model is multinomial logistic regression; its coefficients, and the scores that it gave to pairs of families it had
not seen, ship as JSON with where they come from (`scripts/train_triage.py` makes the file). From those scores comes a
conformal p-value for each cause (Vovk, Gammerman & Shafer 2005, section 4.5, per class): how usual would this score be,
if that were the cause? A verdict needs all causes but one ruled out. How a cause is ruled out depends on the model:

- by its p-value: a stage at `alpha`, "no weight change" only at `ALPHA_SAME_WEIGHTS`, so that of changes that left the
  weights alone no larger share is blamed;
- where the model has a `mass`, by not being among the likeliest causes that make up so much of the scores (adaptive
  prediction sets; Romano, Sesia & Candès 2020). With a few dozen pairs of each cause this ranks pairs better: it asks
  for one sure score rather than for three coarse p-values.

A linear model is as sure of evidence unlike any that it has seen as of any other. So a model may have a `reach`: beyond
it, as where one side is silent or speaks another language, no cause is named.

A verdict on behaviour alone is a hypothesis. In a lineage of one's own, rebuilding from the stage before confirms it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np

from weightgate.stats import conformal_p_value

Cause = Literal["pretraining", "finetuning", "preference", "no weight change"]
CAUSES: tuple[Cause, ...] = ("pretraining", "finetuning", "preference", "no weight change")
STAGE_WORDS: dict[Cause, str] = {
    "pretraining": "pre-training",
    "finetuning": "fine-tuning",
    "preference": "preference alignment",
    "no weight change": "the prompt or the serving, not the weights",
}
ALPHA_SAME_WEIGHTS = 0.1
MODEL_FILES = ("tops.json", "axes.json", "triage.json")
"""Models that ship. The first judges whose evidence the recordings hold: the likeliest first tokens of raw text, else
scored axes, else style and wording."""

_STYLE_BASIS = "style and wording, calibrated on public pairs of models"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class TriageModel:
    """Coefficients, and the scores of held-out families that calibrate them.

    `names` is the evidence that is read, in the order of the columns of `coefficients` (causes, names), after centring
    by `centre` and dividing by `scale`, both (names,). `intercepts` is (causes,). `calibration` holds, for each cause,
    the scores that pairs of that cause got for it while their families were left out. `alpha` is the share of pairs of
    a cause that may be told not to be of it; `mass`, if any, the sum of scores that achieved this on left-out families;
    `reach`, if any, the largest `strangeness` among them.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    calibration: dict[Cause, tuple[float, ...]]
    alpha: float
    trained_on: dict[str, Any]
    mass: float | None = None
    reach: float | None = None

    @property
    def basis(self) -> str:
        """What it reads and what it was calibrated on, in words."""
        return str(self.trained_on.get("basis", _STYLE_BASIS))

    def scores(self, found: Mapping[str, float]) -> dict[Cause, float]:
        """Probability of each cause under the model, 0..1, summing to 1. Raises `KeyError` for missing evidence."""
        logits = self.coefficients @ self._standardised(found) + self.intercepts
        odds = np.exp(logits - logits.max())
        return dict(zip(CAUSES, map(float, odds / odds.sum()), strict=True))

    def strangeness(self, found: Mapping[str, float]) -> float:
        """Distance from the evidence that was learnt from, in its standard deviations: root mean square over names."""
        return float(np.sqrt(np.mean(self._standardised(found) ** 2)))

    def _standardised(self, found: Mapping[str, float]) -> np.ndarray:
        values: np.ndarray = (np.array([found[name] for name in self.names]) - self.centre) / self.scale
        return values

    def plausibility(self, scores: Mapping[Cause, float]) -> dict[Cause, float]:
        """Conformal p-value of each cause: among pairs of that cause, how many had so low a score for it?"""
        return {
            cause: conformal_p_value(-scores[cause], [-score for score in self.calibration[cause]]) for cause in CAUSES
        }

    def fitting(self, scores: Mapping[Cause, float], plausible: Mapping[Cause, float]) -> tuple[Cause, ...]:
        """Causes that are not ruled out."""
        if self.mass is None:
            return fitting_causes(plausible, self.alpha)
        return likely_causes(scores, self.mass)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, rounded to six digits; `from_json` reads it back."""
        return {
            "schema": SCHEMA,
            "causes": list(CAUSES),
            "names": list(self.names),
            "centre": _rounded(self.centre),
            "scale": _rounded(self.scale),
            "coefficients": [_rounded(row) for row in self.coefficients],
            "intercepts": _rounded(self.intercepts),
            "calibration": {cause: _rounded(np.sort(scores)) for cause, scores in self.calibration.items()},
            "alpha": self.alpha,
            "mass": self.mass,
            "reach": self.reach,
            "trained_on": self.trained_on,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> TriageModel:
        """Read what `to_json` wrote. Raises `ValueError` for another schema or other causes."""
        if data["schema"] != SCHEMA or tuple(data["causes"]) != CAUSES:
            raise ValueError(f"a triage model of schema {data['schema']} over {data['causes']}")
        return TriageModel(
            names=tuple(data["names"]),
            centre=np.array(data["centre"]),
            scale=np.array(data["scale"]),
            coefficients=np.array(data["coefficients"]),
            intercepts=np.array(data["intercepts"]),
            calibration={cause: tuple(data["calibration"][cause]) for cause in CAUSES},
            alpha=data["alpha"],
            trained_on=data["trained_on"],
            mass=data.get("mass"),
            reach=data.get("reach"),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the triage says. `cause` None is "undetermined": several causes fit, or none does.

    `scores` sum to 1; `plausibility` are p-values and do not: several causes may fit, and several may have moved.
    `why` is one sentence; `declared` says that the cause follows from what the two sides state, not from the model;
    `basis` says which model judged, and on what it was calibrated.
    """

    cause: Cause | None
    scores: dict[Cause, float]
    plausibility: dict[Cause, float]
    fitting: tuple[Cause, ...]
    why: str
    declared: bool = False
    basis: str = ""

    @property
    def runner_up(self) -> Cause:
        """The likeliest cause apart from the one named, or the second likeliest."""
        ranked = sorted(CAUSES, key=lambda cause: -self.scores[cause])
        return next(cause for cause in ranked if cause != (self.cause or ranked[0]))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a verdict without a cause says "undetermined"."""
        return {
            "cause": self.cause or "undetermined",
            "scores": dict(self.scores),
            "plausibility": dict(self.plausibility),
            "fitting": list(self.fitting),
            "runner_up": self.runner_up,
            "why": self.why,
            "declared": self.declared,
            "basis": self.basis,
        }


@cache
def shipped_model(file: str = MODEL_FILES[-1]) -> TriageModel:
    """Return a model that comes with the package."""
    text = resources.files("weightgate.diff").joinpath("data", file).read_text(encoding="utf-8")
    return TriageModel.from_json(json.loads(text))


def model_for(found: Mapping[str, float]) -> TriageModel:
    """Return the first model of `MODEL_FILES` that can read the evidence. Raises `KeyError` where none can."""
    models = [shipped_model(file) for file in MODEL_FILES]
    fitting = [model for model in models if found.keys() >= set(model.names)]
    if not fitting:
        raise KeyError(next(name for name in models[-1].names if name not in found))
    return fitting[0]


def triage(found: Mapping[str, float], model: TriageModel | None = None) -> Verdict:
    """Judge the evidence of a change that is known to be real. Raises `KeyError` for missing evidence."""
    model = model or model_for(found)
    if model.reach is not None and model.strangeness(found) > model.reach:
        return undetermined("this evidence is further from the usual than that of any pair that the triage learnt from")
    scores = model.scores(found)
    plausible = model.plausibility(scores)
    fitting = model.fitting(scores, plausible)
    cause = fitting[0] if len(fitting) == 1 else None
    return Verdict(
        cause=cause,
        scores=scores,
        plausibility=plausible,
        fitting=fitting,
        why=_why(cause, fitting, scores, model.mass),
        basis=model.basis,
    )


def fitting_causes(plausible: Mapping[Cause, float], alpha: float) -> tuple[Cause, ...]:
    """Causes that their p-values do not rule out, stages at `alpha`."""
    levels = {cause: min(alpha, ALPHA_SAME_WEIGHTS) if cause == "no weight change" else alpha for cause in CAUSES}
    return tuple(cause for cause in CAUSES if plausible[cause] > levels[cause])


def likely_causes(scores: Mapping[Cause, float], mass: float) -> tuple[Cause, ...]:
    """The fewest causes whose scores sum to `mass`."""
    ranked = sorted(CAUSES, key=lambda cause: -scores[cause])
    before = np.cumsum([0.0, *(scores[cause] for cause in ranked)])
    kept = {cause for cause, sum_before in zip(ranked, before, strict=False) if sum_before < mass}
    return tuple(cause for cause in CAUSES if cause in kept)


def declared_verdict(why: str) -> Verdict:
    """No weight change, because of what the two sides state rather than of how they behave."""
    sure = {cause: float(cause == "no weight change") for cause in CAUSES}
    return Verdict(
        cause="no weight change",
        scores=sure,
        plausibility=dict(sure),
        fitting=("no weight change",),
        why=why,
        declared=True,
    )


def undetermined(why: str) -> Verdict:
    """No cause is named, and none is ruled out."""
    return Verdict(
        cause=None,
        scores=dict.fromkeys(CAUSES, 1 / len(CAUSES)),
        plausibility=dict.fromkeys(CAUSES, 1.0),
        fitting=CAUSES,
        why=why,
    )


def _why(cause: Cause | None, fitting: tuple[Cause, ...], scores: Mapping[Cause, float], mass: float | None) -> str:
    if cause is not None and mass is not None:
        return f"{STAGE_WORDS[cause]} scores {scores[cause]:.2f}, and {mass:.2f} is enough for a verdict"
    if cause is not None:
        return f"every other cause is unlike this evidence; {STAGE_WORDS[cause]} scores {scores[cause]:.2f}"
    if not fitting:
        return "the evidence is unlike anything the triage was calibrated on"
    return "the evidence fits " + " and ".join(STAGE_WORDS[one] for one in fitting)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]

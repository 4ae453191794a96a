"""Train the triage on public pairs, judge it on families it never saw, and write the model that ships.

    PYTHONPATH=. python scripts/train_triage.py --rows ROWS.jsonl [--model FILE] [--results FILE]

Needs scikit-learn and the data folder of `benchmarks/triage_pairs.py`, which makes ROWS on the first run.

Judging is nested. An outer fold leaves out every pair that shares a model or a family with it; within the rest, five
inner folds of the same kind choose the regularisation and the training rows. Then each family of the rest is left out
once more, as the outer folds are: a model that saw four fifths of the rest is less sure than the one that is judged,
and an operating point taken from it would answer more pairs than were wanted. The scores of these left-out families

- set one temperature, at which scores are probabilities (Guo et al. 2017): abstaining below a bound on the largest
  probability is the best rule there is, but only on probabilities (Chow 1970);
- are the calibration scores of the conformal p-values;
- and say how sure an answer must be for `WANTED_COVERAGE` of them to get one.

How strange the strangest left-out pair is says how far the model reaches.

Nothing about an outer fold is known when its model is made. What was decided by looking at all pairs first stands in
`benchmarks/results/README-triage.md`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.triage_pairs import PairRow, load_rows
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from weightgate.diff.evidence import EVIDENCE
from weightgate.diff.triage import CAUSES, TriageModel, likely_causes, triage

_STATED = ("documented", "name")
SEED = 20_240
INNER_FOLDS = 5
WANTED_COVERAGE = 0.61
"""Of left-out rows: an answer is as sure as it can be while so many pairs get one. 60 % is the bar."""

TEMPERATURES = tuple(round(0.2 + 0.05 * step, 2) for step in range(37))
COVERAGES = tuple(round(0.4 + 0.05 * step, 2) for step in range(13))
PENALTIES = (0.005, 0.015, 0.05)
ROW_SETS: dict[str, Callable[[PairRow], bool]] = {
    "core": lambda row: row.core,
    "all": lambda row: True,
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to train: inverse regularisation strength, and which rows."""

    penalty: float
    rows: str


CANDIDATES = tuple(Candidate(penalty=penalty, rows=rows) for penalty, rows in product(PENALTIES, ROW_SETS))
Fold = tuple[list[int], list[int]]
"""Positions of the rows to train on and of those left out."""

Scheme = Callable[[Sequence[PairRow]], list[Fold]]


def main() -> None:
    arguments = _arguments()
    rows = load_rows(arguments.rows)
    results = {name: judged(rows, scheme) for name, scheme in SCHEMES.items()}
    model = trained(rows, by_family, "everything")
    arguments.model.write_text(json.dumps(model.to_json(), indent=1) + "\n", encoding="utf-8")
    arguments.results.write_text(json.dumps({"seed": SEED, **results}, indent=1) + "\n", encoding="utf-8")


def by_family(rows: Sequence[PairRow]) -> list[Fold]:
    """One fold for each family: no row of the rest shares a family or a model with it."""
    families = sorted({row.family for row in rows})
    return [_without_relatives(rows, {family}) for family in families]


def by_component(rows: Sequence[PairRow]) -> list[Fold]:
    """One fold for each connected component of families that share models: the strictest split."""
    families = {row.family for row in rows}
    folds = []
    while families:
        component = {min(families)}
        while (grown := component | _neighbours(rows, component)) != component:
            component = grown
        families -= component
        folds.append(_without_relatives(rows, component))
    return folds


SCHEMES: dict[str, Scheme] = {
    "relatives left out": by_family,
    "connected components left out": by_component,
}


def _neighbours(rows: Sequence[PairRow], families: set[str]) -> set[str]:
    models = {model for row in rows if row.family in families for model in row.models}
    return {row.family for row in rows if models & set(row.models)}


def _without_relatives(rows: Sequence[PairRow], families: set[str]) -> Fold:
    test = [at for at, row in enumerate(rows) if row.family in families]
    models = {model for at in test for model in rows[at].models}
    rest = [at for at, row in enumerate(rows) if row.family not in families and not models & set(row.models)]
    return rest, test


def inner_folds(rows: Sequence[PairRow]) -> list[Fold]:
    """Deal the families to `INNER_FOLDS` folds; relatives of a fold are left out of its training too."""
    families = sorted({row.family for row in rows})
    dealt = np.random.default_rng(SEED).permutation(len(families)) % INNER_FOLDS
    return [
        _without_relatives(rows, {family for family, own in zip(families, dealt, strict=True) if own == fold})
        for fold in range(INNER_FOLDS)
    ]


def judged(rows: list[PairRow], scheme: Scheme) -> dict[str, Any]:
    """Train on the rest of each fold, judge its own pairs, and tabulate."""
    verdicts = []
    for number, (rest, test) in enumerate(scheme(rows)):
        model = trained([rows[at] for at in rest], scheme, f"fold {number}")
        verdicts += [_told(rows[at], model) for at in test]
    return by_part(verdicts)


def by_part(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Tabulate the core pairs, all, and parts between; and keep every verdict."""
    parts: dict[str, Callable[[dict[str, Any]], bool]] = {
        "core": lambda told: told["core"],
        "all but preference siblings": lambda told: told["core"] or told["relation"] != "sibling",
        "all": lambda told: True,
        "core, documented or stated in the name": lambda told: told["core"] and told["provenance"] in _STATED,
    }
    return {name: tabulated([told for told in verdicts if part(told)]) for name, part in parts.items()} | {
        "pairs": verdicts
    }


def _told(row: PairRow, model: TriageModel) -> dict[str, Any]:
    verdict = triage(row.evidence, model)
    scores = model.scores(row.evidence)  # those of the verdict say nothing beyond the model's reach
    return {
        "pair": row.pair,
        "family": row.family,
        "core": row.core,
        "relation": row.relation,
        "provenance": row.provenance,
        "cause": row.cause,
        "likeliest": max(CAUSES, key=lambda cause: scores[cause]),
        "answer": verdict.cause,
        "scores": {cause: round(score, 4) for cause, score in scores.items()},
        "plausibility": {cause: round(p, 4) for cause, p in model.plausibility(scores).items()},
        "mass": model.mass,
        "temperature": model.trained_on["temperature"],
        "candidate": model.trained_on["candidate"],
    }


def tabulated(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Confusion, balanced accuracy with and without "no weight change", and what abstaining buys."""
    matrix = _confusion(verdicts, "likeliest", CAUSES)
    stages = CAUSES[:3]
    trained_only = [told for told in verdicts if told["cause"] in stages]
    for told in trained_only:
        told["stage"] = max(stages, key=lambda cause: told["scores"][cause])
    answered = [told for told in verdicts if told["answer"] is not None]
    same = [told for told in verdicts if told["cause"] == "no weight change"]
    return {
        "pairs": len(verdicts),
        "confusion_rows_true": dict(zip(CAUSES, matrix, strict=True)),
        "balanced_accuracy_four": _balanced(matrix),
        "balanced_accuracy_three_stages": _balanced(_confusion(trained_only, "stage", stages)),
        "coverage": round(len(answered) / len(verdicts), 4),
        "answered_accuracy": _share(told["answer"] == told["cause"] for told in answered),
        "answered_balanced_accuracy": _balanced(_confusion(answered, "answer", CAUSES)),
        "equal_weights_given_a_stage": _share(told["answer"] in stages for told in same),
        "equal_weights_given_a_stage_without_abstaining": _share(told["likeliest"] in stages for told in same),
        "abstention_curve": [_at_coverage(verdicts, coverage) for coverage in COVERAGES],
    }


def _at_coverage(verdicts: list[dict[str, Any]], coverage: float) -> dict[str, Any]:
    """Accuracy of the surest pairs, had one bound on the score served every fold."""
    surest = sorted(verdicts, key=lambda told: -told["scores"][told["likeliest"]])[: round(coverage * len(verdicts))]
    return {"coverage": coverage, "accuracy": _share(told["likeliest"] == told["cause"] for told in surest)}


def _confusion(verdicts: list[dict[str, Any]], said: str, causes: Sequence[str]) -> list[list[int]]:
    return [
        [sum(told["cause"] == true and told[said] == given for told in verdicts) for given in causes] for true in causes
    ]


def _balanced(matrix: list[list[int]]) -> float:
    shares = [row[at] / sum(row) for at, row in enumerate(matrix) if sum(row)]
    return round(sum(shares) / len(shares), 4) if shares else 0.0


def _share(outcomes: Iterator[bool] | Sequence[bool]) -> float | None:
    values = list(outcomes)
    return round(sum(values) / len(values), 4) if values else None


def trained(rows: list[PairRow], scheme: Scheme, what: str) -> TriageModel:
    """Choose a candidate on inner folds, calibrate it on the folds of the scheme, and fit it to all rows."""
    folds = inner_folds(rows)
    qualities = {one: _quality(rows, _scores(rows, _left_out_models(rows, folds, one))) for one in CANDIDATES}
    best = max(CANDIDATES, key=qualities.__getitem__)
    judges = _left_out_models(rows, scheme(rows), best)
    raw = _scores(rows, judges)
    temperature = max(TEMPERATURES, key=lambda one: _quality(rows, tempered(raw, one)))
    scores = tempered(raw, temperature)
    calibration = {
        cause: tuple(float(scores[at, CAUSES.index(cause)]) for at, row in enumerate(rows) if _counts(row, cause))
        for cause in CAUSES
    }
    mass, missed = _mass(rows, scores)
    risks = " and ".join(f"{_mean_risk(rows, one):.4f}" for one in (raw, scores))
    print(f"{what}: {best}, temperature {temperature}, mass {mass}, missed {missed}, risk {risks}", flush=True)
    model = fitted(rows, best, calibration)
    return replace(
        model,
        coefficients=model.coefficients / temperature,
        intercepts=model.intercepts / temperature,
        mass=mass,
        reach=max(judge.strangeness(row.evidence) for judge, row in zip(judges, rows, strict=True)),
        alpha=missed,
        trained_on=model.trained_on | {"temperature": temperature},
    )


def tempered(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Scores (rows, causes) of the model whose logits are divided by the temperature."""
    powered = scores ** (1 / temperature)
    shares: np.ndarray = powered / powered.sum(axis=1, keepdims=True)
    return shares


def _counts(row: PairRow, cause: str) -> bool:
    return row.core and row.cause == cause


def _left_out_models(rows: list[PairRow], folds: list[Fold], candidate: Candidate) -> list[TriageModel]:
    """For each row, the model of the fold that leaves it out."""
    found: dict[int, TriageModel] = {}
    for rest, test in folds:
        found |= dict.fromkeys(test, fitted([rows[at] for at in rest], candidate, {}))
    return [found[at] for at in range(len(rows))]


def _scores(rows: list[PairRow], judges: list[TriageModel]) -> np.ndarray:
    return np.array([list(judge.scores(row.evidence).values()) for judge, row in zip(judges, rows, strict=True)])


def _quality(rows: list[PairRow], scores: np.ndarray) -> float:
    """Mean logarithmic score over the core rows, causes counting alike: it uses more of each answer than accuracy."""
    means = []
    for at, cause in enumerate(CAUSES):
        own = [float(np.log(scores[index, at])) for index, row in enumerate(rows) if _counts(row, cause)]
        means.append(float(np.mean(own)))
    return float(np.mean(means))


def _mass(rows: list[PairRow], scores: np.ndarray) -> tuple[float, float]:
    """The largest mass that answers `WANTED_COVERAGE` of the core rows, and the share whose cause it misses.

    A pair is answered where its largest score reaches the mass.
    """
    core = [at for at, row in enumerate(rows) if row.core]
    surest = np.sort(scores[core].max(axis=1))[::-1]
    mass = math.floor(1e4 * surest[math.ceil(WANTED_COVERAGE * len(core)) - 1]) / 1e4
    kept = {at: likely_causes(dict(zip(CAUSES, map(float, scores[at]), strict=True)), mass) for at in core}
    return mass, round(float(np.mean([rows[at].cause not in kept[at] for at in core])), 4)


def _mean_risk(rows: list[PairRow], scores: np.ndarray) -> float:
    """Share of wrong answers among the surest k, averaged over all k (Geifman, Uziel & El-Yaniv 2019, AURC)."""
    core = np.array([at for at, row in enumerate(rows) if row.core])
    order = core[np.argsort(-scores[core].max(axis=1), kind="stable")]
    wrong = [CAUSES[int(scores[at].argmax())] != rows[at].cause for at in order]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def fitted(rows: Sequence[PairRow], candidate: Candidate, calibration: dict[Any, tuple[float, ...]]) -> TriageModel:
    """Fit one candidate: standardised evidence, causes weighted to count alike."""
    used = [row for row in rows if ROW_SETS[candidate.rows](row)]
    values = np.array([[row.evidence[name] for name in EVIDENCE] for row in used])
    scaler = StandardScaler().fit(values)
    machine = LogisticRegression(C=candidate.penalty, class_weight="balanced", max_iter=1000)
    machine.fit(scaler.transform(values), [CAUSES.index(row.cause) for row in used])
    return TriageModel(
        names=EVIDENCE,
        centre=scaler.mean_,
        scale=scaler.scale_,
        coefficients=machine.coef_,
        intercepts=machine.intercept_,
        calibration=calibration,
        alpha=0.0,
        trained_on={"candidate": vars(candidate), "rows": len(used), "families": len({row.family for row in used})},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and judge the triage.")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("src/weightgate/diff/data/triage.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/triage.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

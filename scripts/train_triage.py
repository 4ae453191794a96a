"""Train the triage on public pairs, judge it on families it never saw, and write the model that ships.

    PYTHONPATH=. python scripts/train_triage.py --rows ROWS.jsonl [--also WORLD.jsonl] [--model FILE] [--results FILE]

Needs scikit-learn and the data folder of `benchmarks/triage_pairs.py`, which makes ROWS on the first run. `--also` adds
rows of the same form, such as interventions on the built-in world.

Judging is nested. An outer fold leaves out every pair that shares a model or a family with it; within the rest, inner
folds of the same kind choose the regularisation, the evidence and the training rows, give the calibration scores, and
choose the level at which the triage abstains. Nothing about an outer fold is known when its model is made. What
was decided by looking at all pairs first stands in `benchmarks/results/README-triage.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.triage_pairs import PairRow, load_rows, read_rows
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from weightgate.diff.evidence import EVIDENCE
from weightgate.diff.triage import CAUSES, TriageModel, fitting_causes, triage

_STATED = ("documented", "name")
SEED = 20_240
INNER_FOLDS = 5
WANTED_COVERAGE = 0.5
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
PENALTIES = (0.005, 0.015, 0.05, 0.15)
EVIDENCE_SETS: dict[str, tuple[str, ...]] = {
    "all": EVIDENCE,
    "without correlations": tuple(name for name in EVIDENCE if not name.startswith("along.")),
}
ROW_SETS: dict[str, Callable[[PairRow], bool]] = {
    "core": lambda row: row.core,
    "all": lambda row: True,
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to train: inverse regularisation strength, which evidence, which rows."""

    penalty: float
    evidence: str
    rows: str


CANDIDATES = tuple(
    Candidate(penalty=penalty, evidence=evidence, rows=rows)
    for penalty, evidence, rows in product(PENALTIES, EVIDENCE_SETS, ROW_SETS)
)
Fold = tuple[list[int], list[int]]
"""Positions of the rows to train on and of those left out."""


def main() -> None:
    arguments = _arguments()
    rows = load_rows(arguments.rows) + [row for path in arguments.also for row in read_rows(path)]
    results = {scheme: judged(rows, folds(rows)) for scheme, folds in SCHEMES.items()}
    model = trained(rows, "everything")
    arguments.model.write_text(json.dumps(model.to_json(), indent=1) + "\n", encoding="utf-8")
    arguments.results.write_text(json.dumps({"seed": SEED, **results}, indent=1) + "\n", encoding="utf-8")


def by_family(rows: Sequence[PairRow]) -> list[Fold]:
    """One fold for each family: no row of the rest shares a family or a model with it."""
    families = sorted({row.family for row in rows if row.source != "oasst"})
    return [_without_relatives(rows, {family}) for family in families]


def by_component(rows: Sequence[PairRow]) -> list[Fold]:
    """One fold for each connected component of families that share models: the strictest split."""
    families = {row.family for row in rows if row.source != "oasst"}
    folds = []
    while families:
        component = {min(families)}
        while (grown := component | _neighbours(rows, component)) != component:
            component = grown
        families -= component
        folds.append(_without_relatives(rows, component))
    return folds


SCHEMES: dict[str, Callable[[Sequence[PairRow]], list[Fold]]] = {
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


def judged(rows: list[PairRow], folds: list[Fold]) -> dict[str, Any]:
    """Train on the rest of each fold, judge its chat pairs, and tabulate."""
    verdicts = []
    for number, (rest, test) in enumerate(folds):
        own = [at for at in test if rows[at].source != "oasst"]
        model = trained([rows[at] for at in rest], f"fold {number}")
        verdicts += [_told(rows[at], model) for at in own]
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
    return {
        "pair": row.pair,
        "family": row.family,
        "core": row.core,
        "relation": row.relation,
        "provenance": row.provenance,
        "cause": row.cause,
        "likeliest": max(CAUSES, key=lambda cause: verdict.scores[cause]),
        "answer": verdict.cause,
        "scores": {cause: round(score, 4) for cause, score in verdict.scores.items()},
        "plausibility": {cause: round(p, 4) for cause, p in verdict.plausibility.items()},
        "alpha": model.alpha,
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
        "abstention_curve": [_at_level(verdicts, alpha) for alpha in ALPHAS],
    }


def _at_level(verdicts: list[dict[str, Any]], alpha: float) -> dict[str, Any]:
    """Coverage and accuracy had every fold abstained at this level."""
    answers = []
    for told in verdicts:
        fitting = fitting_causes(told["plausibility"], alpha)
        if len(fitting) == 1:
            answers.append(fitting[0] == told["cause"])
    return {"alpha": alpha, "coverage": round(len(answers) / len(verdicts), 4), "accuracy": _share(answers)}


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


def trained(rows: list[PairRow], what: str) -> TriageModel:
    """Choose a candidate on inner folds, calibrate it with their scores, and fit it to all rows."""
    folds = inner_folds(rows)
    scored = {candidate: _left_out_scores(rows, folds, candidate) for candidate in CANDIDATES}
    best = max(CANDIDATES, key=lambda candidate: _quality(rows, scored[candidate]))
    calibration = {
        cause: tuple(float(scored[best][at, CAUSES.index(cause)]) for at, row in enumerate(rows) if _counts(row, cause))
        for cause in CAUSES
    }
    model = fitted(rows, best, calibration)
    alpha = _level(rows, scored[best], model)
    print(f"{what}: {best}, inner balanced accuracy {_quality(rows, scored[best]):.3f}, alpha {alpha}", flush=True)
    return fitted(rows, best, calibration, alpha)


def _counts(row: PairRow, cause: str) -> bool:
    return row.core and row.cause == cause


def _left_out_scores(rows: list[PairRow], folds: list[Fold], candidate: Candidate) -> np.ndarray:
    scores = np.full((len(rows), len(CAUSES)), 1 / len(CAUSES))
    for rest, test in folds:
        model = fitted([rows[at] for at in rest], candidate, {})
        for at in test:
            if rows[at].core:
                scores[at] = list(model.scores(rows[at].evidence).values())
    return scores


def _quality(rows: list[PairRow], scores: np.ndarray) -> float:
    """Balanced accuracy over the core rows."""
    shares = []
    for at, cause in enumerate(CAUSES):
        own = [scores[index].argmax() == at for index, row in enumerate(rows) if _counts(row, cause)]
        shares.append(float(np.mean(own)))
    return float(np.mean(shares))


def _level(rows: list[PairRow], scores: np.ndarray, model: TriageModel) -> float:
    """The level that answers most accurately among those that answer `WANTED_COVERAGE` of the inner rows."""
    outcomes = []
    for alpha in ALPHAS:
        answers = []
        core = [(at, row) for at, row in enumerate(rows) if row.core]
        for at, row in core:
            plausible = model.plausibility(dict(zip(CAUSES, map(float, scores[at]), strict=True)))
            fitting = fitting_causes(plausible, alpha)
            if len(fitting) == 1:
                answers.append(fitting[0] == row.cause)
        coverage = len(answers) / len(core)
        accuracy = float(np.mean(answers)) if answers else 0.0
        outcomes.append((coverage >= WANTED_COVERAGE, accuracy if coverage >= WANTED_COVERAGE else coverage, alpha))
    return max(outcomes)[2]


def fitted(
    rows: Sequence[PairRow], candidate: Candidate, calibration: dict[Any, tuple[float, ...]], alpha: float = 0.3
) -> TriageModel:
    """Fit one candidate: standardised evidence, classes weighted to count alike."""
    names = EVIDENCE_SETS[candidate.evidence]
    used = [row for row in rows if ROW_SETS[candidate.rows](row)]
    values = np.array([[row.evidence[name] for name in names] for row in used])
    scaler = StandardScaler().fit(values)
    machine = LogisticRegression(C=candidate.penalty, class_weight="balanced", max_iter=1000)
    machine.fit(scaler.transform(values), [CAUSES.index(row.cause) for row in used])
    return TriageModel(
        names=names,
        centre=scaler.mean_,
        scale=scaler.scale_,
        coefficients=machine.coef_,
        intercepts=machine.intercept_,
        calibration=calibration,
        alpha=alpha,
        trained_on={"candidate": vars(candidate), "rows": len(used), "families": len({row.family for row in used})},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and judge the triage.")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument("--model", type=Path, default=Path("src/weightgate/diff/data/triage.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/triage.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

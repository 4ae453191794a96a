"""Train the triage on public pairs, judge it on families it never saw, and write the model that ships.

    PYTHONPATH=. python scripts/train_triage.py --rows ROWS.jsonl [--model FILE] [--results FILE]

Needs scikit-learn and the data folder of `benchmarks/triage_pairs.py`, which makes ROWS on the first run.

Judging is nested. An outer fold leaves out every pair that shares a model or a family with it; within the rest, inner
folds of the same kind choose the regularisation and the training rows, give the calibration scores, and choose how sure
an answer must be. Nothing about an outer fold is known when its model is made. What was decided by looking at all pairs
first stands in `benchmarks/results/README-triage.md`.
"""

from __future__ import annotations

import argparse
import json
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
from weightgate.diff.triage import CAUSES, Cause, TriageModel, likely_causes, triage

_STATED = ("documented", "name")
SEED = 20_240
INNER_FOLDS = 5
WANTED_COVERAGE = 0.6
"""Of inner rows: an answer is as sure as it can be while so many pairs get one."""

MASSES = tuple(round(0.3 + 0.01 * step, 2) for step in range(70))
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


def main() -> None:
    arguments = _arguments()
    rows = load_rows(arguments.rows)
    results = {scheme: judged(rows, folds(rows)) for scheme, folds in SCHEMES.items()}
    model = trained(rows, "everything")
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
    """Train on the rest of each fold, judge its own pairs, and tabulate."""
    verdicts = []
    for number, (rest, test) in enumerate(folds):
        model = trained([rows[at] for at in rest], f"fold {number}")
        verdicts += [_told(rows[at], model) for at in test]
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
        "mass": model.mass,
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
        "abstention_curve": [_at_mass(verdicts, mass) for mass in MASSES[::5]],
    }


def _at_mass(verdicts: list[dict[str, Any]], mass: float) -> dict[str, Any]:
    """Coverage and accuracy had every fold asked for this mass."""
    sets = [(likely_causes(told["scores"], mass), told["cause"]) for told in verdicts]
    answers = [fitting[0] == cause for fitting, cause in sets if len(fitting) == 1]
    return {"mass": mass, "coverage": round(len(answers) / len(verdicts), 4), "accuracy": _share(answers)}


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
    mass, missed = _mass(rows, scored[best])
    print(f"{what}: {best}, inner score {_quality(rows, scored[best]):.3f}, mass {mass}, missed {missed}", flush=True)
    return replace(fitted(rows, best, calibration), mass=mass, alpha=missed)


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
    """Mean logarithmic score over the core rows, causes counting alike: it uses more of each answer than accuracy."""
    means = []
    for at, cause in enumerate(CAUSES):
        own = [float(np.log(scores[index, at])) for index, row in enumerate(rows) if _counts(row, cause)]
        means.append(float(np.mean(own)))
    return float(np.mean(means))


def _mass(rows: list[PairRow], scores: np.ndarray) -> tuple[float, float]:
    """The largest mass that answers `WANTED_COVERAGE` of the inner rows, and the share whose cause it misses."""
    told = [(row.cause, dict(zip(CAUSES, map(float, own), strict=True))) for row, own in zip(rows, scores, strict=True)]
    core = [one for one, row in zip(told, rows, strict=True) if row.core]

    def sets(mass: float) -> list[tuple[str, tuple[Cause, ...]]]:
        return [(cause, likely_causes(own, mass)) for cause, own in core]

    enough = [mass for mass in MASSES if np.mean([len(kept) == 1 for _, kept in sets(mass)]) >= WANTED_COVERAGE]
    mass = max(enough, default=MASSES[0])
    return mass, round(float(np.mean([cause not in kept for cause, kept in sets(mass)])), 4)


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

"""Train the models that name a stage by raw text and facts, on interventions on the built-in world; write what ships.

    PYTHONPATH=. python scripts/train_axes.py FOLDER

One reads the likeliest first tokens, the other is for recordings without them. FOLDER holds the recordings of
`benchmarks/world_series.py`. Only training seeds are read. The penalty is chosen, and
the conformal scores are made, with each seed left out in turn. Of the penalties whose loss is within one standard
error of the best (over seeds; Breiman et al. 1984, section 3.4.3) the strongest is taken, because what the model will
judge is less like the training seeds than these are like each other. How strange the strangest pair of a left-out seed
is says how far the model reaches. Needs scikit-learn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.world_rows import WorldRow, rows_of
from benchmarks.world_series import STRONG_SEEDS, TRAINING_SEEDS, seeds_in
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from weightgate.diff.axis_evidence import AXIS_TERMS, TOP_TERMS
from weightgate.diff.triage import CAUSES, Cause, TriageModel, fitting_causes
from weightgate.incident.interventions import CAUSE_OF

DATA = Path("src/weightgate/diff/data")
MODELS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "tops.json": (
        "the likeliest first tokens of raw text",
        TOP_TERMS,
        "; the same weights rounded to 4 bits can pass for a fine-tuning or an alignment",
    ),
    "axes.json": ("scored axes and agreement", AXIS_TERMS, ""),
}
"""File of a model: what it reads, in words and by name, and what has to be said of it."""

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ALPHA = 0.03
"""Each stage is ruled out at this level, so that as many changes of it go unnamed though nothing else fits."""

SLACK = 1.25
"""The strangest pair yet is not the strangest that there is."""


def main() -> None:
    folder = Path(sys.argv[1])
    seeds = seeds_in(folder, (*TRAINING_SEEDS, *STRONG_SEEDS))
    rows = [row for seed in seeds for row in rows_of(folder, seed) if row.part != "none"]
    for file, (reads, names, caveat) in MODELS.items():
        model = trained(rows, names, reads, caveat)
        (DATA / file).write_text(json.dumps(model.to_json(), indent=1) + "\n", encoding="utf-8")


def trained(rows: Sequence[WorldRow], names: tuple[str, ...], reads: str, caveat: str) -> TriageModel:
    """Choose the penalty, calibrate with seeds left out, and print what that came to."""
    models = {penalty: _left_out(rows, names, penalty) for penalty in PENALTIES}
    scored = {penalty: _scores(rows, own) for penalty, own in models.items()}
    truth = [_cause(row) for row in rows]
    losses = {penalty: _losses(rows, found) for penalty, found in scored.items()}
    least = min(losses.values(), key=np.mean)
    within = np.mean(least) + np.std(least, ddof=1) / np.sqrt(len(least))
    best = min(penalty for penalty, own in losses.items() if np.mean(own) <= within)
    calibration: dict[Cause, tuple[float, ...]] = {
        cause: tuple(float(scored[best][at, CAUSES.index(cause)]) for at, own in enumerate(truth) if own == cause)
        for cause in CAUSES
    }
    reach = SLACK * max(models[best][row.seed].strangeness(row.evidence) for row in rows)
    basis = f"{reads}, calibrated on {len(rows)} known changes of the built-in world{caveat}"
    model = fitted(rows, names, best)
    model = replace(model, calibration=calibration, reach=reach, trained_on={"basis": basis, **model.trained_on})
    right = [CAUSES[int(found.argmax())] == cause for found, cause in zip(scored[best], truth, strict=True)]
    print(f"{reads}: {len(rows)} pairs, penalty {best}, right {np.mean(right):.3f}")
    print(_named(model, rows, scored[best], truth))
    print({penalty: round(float(np.mean(own)), 4) for penalty, own in losses.items()}, f"within {within:.4f}")
    for at, row in enumerate(rows):
        if not right[at]:
            print(f"  {row.seed} {row.change}: {dict(zip(CAUSES, scored[best][at].round(2).tolist(), strict=True))}")
    return model


def _cause(row: WorldRow) -> Cause:
    cause = CAUSE_OF[row.part]
    assert cause is not None
    return cause


def _named(model: TriageModel, rows: Sequence[WorldRow], scores: np.ndarray, truth: Sequence[Cause]) -> str:
    """How many of the single changes are named with their seed left out, and how many of those rightly."""
    single = [at for at, row in enumerate(rows) if ";" not in row.change]
    told = [dict(zip(CAUSES, map(float, scores[at]), strict=True)) for at in single]
    fitting = [fitting_causes(model.plausibility(each), model.alpha) for each in told]
    named = [(own[0], truth[at]) for own, at in zip(fitting, single, strict=True) if len(own) == 1]
    right = sum(said == true for said, true in named)
    return f"{len(named)} of {len(single)} single changes are named, {right} of them rightly"


def _losses(rows: Sequence[WorldRow], scores: np.ndarray) -> list[float]:
    """Mean logarithmic loss of each seed, nats."""
    own = [-np.log(scores[at, CAUSES.index(_cause(row))]) for at, row in enumerate(rows)]
    seeds = sorted({row.seed for row in rows})
    return [float(np.mean([loss for loss, row in zip(own, rows, strict=True) if row.seed == seed])) for seed in seeds]


def _left_out(rows: Sequence[WorldRow], names: tuple[str, ...], penalty: float) -> dict[int, TriageModel]:
    """For each seed, a model of the others."""
    seeds = {row.seed for row in rows}
    return {seed: fitted([row for row in rows if row.seed != seed], names, penalty) for seed in seeds}


def _scores(rows: Sequence[WorldRow], models: Mapping[int, TriageModel]) -> np.ndarray:
    """Scores (rows, causes) of each row by the model of its seed."""
    return np.array([list(models[row.seed].scores(row.evidence).values()) for row in rows])


def fitted(rows: Sequence[WorldRow], names: tuple[str, ...], penalty: float) -> TriageModel:
    """Fit standardised evidence, classes weighted to count alike. Nothing calibrates it yet."""
    values = np.array([[row.evidence[name] for name in names] for row in rows])
    scaler = StandardScaler().fit(values)
    machine = LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000)
    machine.fit(scaler.transform(values), [CAUSES.index(_cause(row)) for row in rows])
    seeds = sorted({row.seed for row in rows})
    return TriageModel(
        names=names,
        centre=scaler.mean_,
        scale=scaler.scale_,
        coefficients=machine.coef_,
        intercepts=machine.intercept_,
        calibration=dict.fromkeys(CAUSES, ()),
        alpha=ALPHA,
        trained_on={
            "seeds": seeds,
            "penalty": penalty,
            "changes": sorted({row.change for row in rows}),
        },
    )


if __name__ == "__main__":
    main()

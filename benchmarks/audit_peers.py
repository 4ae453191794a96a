"""Annotators as the audit and as crowd-kit see them, on planted votes. Writes results/audit_peers.json.

    pip install --target PEERS pandas scikit-learn tqdm attrs nltk
    pip install --target PEERS --no-deps crowd-kit==1.4.2
    PYTHONPATH=PEERS python -m benchmarks.audit_peers

The votes are those of `audit_planted.annotators`: 12 judges with error rates of 5 to 40 %, five votes on each of 600
pairs, ten seeds; one judge of another seed leans to the answer shown first. Crowd-kit gets the same votes: one-coin
Dawid-Skene, Dawid-Skene with a confusion matrix each, GLAD, and noisy Bradley-Terry. The
tests hold the audit to the figures in the file and need no crowd-kit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from crowdkit.aggregation import GLAD, DawidSkene, NoisyBradleyTerry, OneCoinDawidSkene

from benchmarks.audit_planted import RATES, table
from benchmarks.planted_votes import Judge, Planted, draw_pairs, judge
from weightgate.preferences.annotators import consensus_of, roster_of
from weightgate.preferences.table import Table
from weightgate.stats import Estimate

RESULT = Path(__file__).parent / "results" / "audit_peers.json"
SEEDS = range(10)
LEANING_SEED = 11
LEANING = {0: 0.5, 5: 0.25}
"""Judge -> share of votes that go to the answer shown first, on one more set."""

_WITHIN = 0.03
_ROUNDS = 200


def judges(leaning: dict[int, float] | None = None) -> list[Judge]:
    """One judge for each rate."""
    return [
        Judge(name=f"judge-{number}", error_rate=rate, position=(leaning or {}).get(number, 0.0))
        for number, rate in enumerate(RATES)
    ]


def drawn(seed: int, leaning: dict[int, float] | None = None) -> Planted:
    """The planted votes of one seed."""
    return judge(draw_pairs(seed, 600), judges(leaning), votes_each=5, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One judge of one set: the planted rate, the share of wrong votes, and each program's error rate."""

    seed: int
    judge: int
    planted: float
    wrong: float
    audit: float
    one_coin: float
    confusion: float
    glad_ability: float


def by_worker(series: pd.Series, names: Sequence[str]) -> list[float]:
    """Values of a series by worker in the order of `names`."""
    return [float(series.loc[name]) for name in names]


def seen(seed: int) -> tuple[list[Seen], dict[str, float]]:
    """Every judge of one seed, and how often each program's labels are the right ones."""
    planted = drawn(seed)
    votes = table(planted)
    names = [one.name for one in judges()]
    frame = pd.DataFrame(
        {"task": votes.item, "worker": [votes.annotators[at] for at in votes.annotator], "label": votes.agreed}
    )
    coin = OneCoinDawidSkene(n_iter=_ROUNDS, tol=1e-9).fit(frame)
    matrix = DawidSkene(n_iter=_ROUNDS, tol=1e-9).fit(frame)
    glad = GLAD(n_iter=100).fit(frame)
    roster = {one.name: one.error_rate for one in roster_of(votes)}
    skills, ability = by_worker(coin.skills_, names), by_worker(glad.alphas_, names)
    confusion = matrix.errors_
    rows = []
    for number, name in enumerate(names):
        mine = [bad for row, bad in zip(planted.rows, planted.wrong, strict=True) if row["annotator"] == name]
        own = roster[name]
        assert isinstance(own, Estimate)
        right = float(np.mean([confusion.loc[(name, label), label] for label in (-1, 1)]))
        rows.append(
            Seen(
                seed=seed,
                judge=number,
                planted=RATES[number],
                wrong=float(np.mean(mine)),
                audit=own.value,
                one_coin=1 - skills[number],
                confusion=1 - right,
                glad_ability=ability[number],
            )
        )
    truth = _truth(votes, planted)
    consensus = consensus_of(votes.item, votes.annotator, votes.agreed, len(votes.annotators)).truth
    labels = {"audit": np.where(consensus > 0.5, 1, -1)}
    for program, fitted in (("one-coin", coin), ("confusion", matrix), ("glad", glad)):
        labels[program] = fitted.labels_.sort_index().to_numpy()
    return rows, {program: float((found == truth).mean()) for program, found in labels.items()}


def _truth(votes: Table, planted: Planted) -> Any:
    """For each item which of its texts is right: a vote's outcome, turned where the vote was wrong."""
    truth = np.zeros(int(votes.item.max()) + 1, dtype=int)
    truth[votes.item] = np.where(planted.wrong, -votes.agreed, votes.agreed)
    return truth


def leaning() -> list[dict[str, Any]]:
    """Skills and leanings beside crowd-kit's noisy Bradley-Terry, on the set where two judges lean."""
    votes = table(drawn(LEANING_SEED, LEANING))
    frame = pd.DataFrame(
        {
            "worker": [votes.annotators[at] for at in votes.annotator],
            "left": [vote.first for vote in votes.votes],
            "right": [vote.second for vote in votes.votes],
            "label": [vote.chosen for vote in votes.votes],
        }
    )
    theirs = NoisyBradleyTerry(n_iter=_ROUNDS, random_state=0).fit(frame)
    found = []
    for number, one in sorted((int(one.name.split("-")[1]), one) for one in roster_of(votes)):
        assert isinstance(one.skill, Estimate)
        assert isinstance(one.first_bias, Estimate)
        found.append(
            {
                "judge": number,
                "leans": LEANING.get(number, 0.0),
                "audit skill": one.skill.value,
                "audit first": one.first_bias.value,
                "crowd-kit skill": float(theirs.skills_.loc[one.name]),
                "crowd-kit bias": float(theirs.biases_.loc[one.name]),
            }
        )
    return found


def ranks_agree(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's correlation of ranks."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def told_apart(leaners: list[dict[str, Any]]) -> dict[str, Any]:
    """How well both programs' skills rank the judges that do not lean, and what they say of those that do.

    Two answers of one pair are compared with each other alone, so each pair's scores stand by themselves.
    """
    straight = [one for one in leaners if not one["leans"]]
    rates = [-RATES[one["judge"]] for one in straight]
    return {
        f"rank correlation of {program}'s skills with the planted rates": ranks_agree(
            [one[f"{program} skill"] for one in straight], rates
        )
        for program in ("audit", "crowd-kit")
    } | {"each": leaners}


def main() -> None:
    """Run every seed and write the result."""
    rows: list[Seen] = []
    right: list[dict[str, float]] = []
    for seed in SEEDS:
        found, labels = seen(seed)
        rows += found
        right.append(labels)
        print(seed, labels, flush=True)
    leaners = leaning()
    programs = ("audit", "one_coin", "confusion")
    result = {
        "crowd-kit": version("crowd-kit"),
        "judges": len(rows),
        "within 3 points of the share of wrong votes": {
            name: float(np.mean([abs(getattr(row, name) - row.wrong) <= _WITHIN for row in rows])) for name in programs
        },
        "within 3 points of the planted rate": {
            name: float(np.mean([abs(getattr(row, name) - row.planted) <= _WITHIN for row in rows]))
            for name in programs
        },
        "largest difference from one-coin": max(abs(row.audit - row.one_coin) for row in rows),
        "rank correlation with GLAD's ability": float(
            np.mean(
                [
                    ranks_agree(
                        [1 - row.audit for row in rows if row.seed == seed],
                        [row.glad_ability for row in rows if row.seed == seed],
                    )
                    for seed in SEEDS
                ]
            )
        ),
        "labels right": {name: float(np.mean([each[name] for each in right])) for name in right[0]},
        "noisy Bradley-Terry": told_apart(leaners),
        "each": [vars(row) for row in rows],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "each"}, indent=1))


if __name__ == "__main__":
    main()

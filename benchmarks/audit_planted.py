"""Does the audit find what was planted, and nothing where nothing was? Writes results/audit_planted.json.

    python -m benchmarks.audit_planted

Annotators: 12 judges with error rates of 5 to 40 %, five votes on each of 600 pairs, ten seeds. Flips: 10 % of votes
are wrong, with three votes a pair and with one. Biases: a quarter of all votes go by one thing alone; clean sets have
errors and no bias.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted_votes import Judge, Planted, draw_pairs, judge
from weightgate.preferences.annotators import roster_of
from weightgate.preferences.bias import style_of
from weightgate.preferences.noise import noise_of
from weightgate.preferences.rows import Row, read_row
from weightgate.preferences.table import Table, table_of
from weightgate.preferences.votes import Vote
from weightgate.stats import Estimate

RESULT = Path(__file__).parent / "results" / "audit_planted.json"
RATES = (0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.33, 0.36, 0.4)
BIASES = {"length": "length", "position": "position", "refusal": "refusal", "format": "list"}
"""What is planted -> the driver under which it must be reported."""

_WITHIN = 0.03
_BIASED_SHARE = 0.25
_BIAS_PAIRS = 2_000


def table(planted: Planted) -> Table:
    """The planted rows as the audit reads them."""
    votes = [read_row(Row(values=row, line=line, faults=[])) for line, row in enumerate(planted.rows, start=1)]
    return table_of([vote for vote in votes if isinstance(vote, Vote)])


def annotators(seeds: range) -> dict[str, Any]:
    """How close implied error rates come to what each judge did, and to the rate it was planted with."""
    close_to_done, close_to_rate, binomial, total = 0, 0, 0, 0
    judges = [Judge(name=f"judge-{number}", error_rate=rate) for number, rate in enumerate(RATES)]
    for seed in seeds:
        planted = judge(draw_pairs(seed, 600), judges, votes_each=5, seed=seed)
        who = [row["annotator"] for row in planted.rows]
        votes, wrong = Counter(who), Counter(name for name, bad in zip(who, planted.wrong, strict=True) if bad)
        for one in roster_of(table(planted)):
            if votes[one.name] < 200 or not isinstance(one.error_rate, Estimate):
                continue
            done, rate = wrong[one.name] / votes[one.name], RATES[int(one.name.split("-")[1])]
            total += 1
            close_to_done += abs(one.error_rate.value - done) <= _WITHIN
            close_to_rate += abs(one.error_rate.value - rate) <= _WITHIN
            binomial += abs(done - rate) <= _WITHIN
    return {
        "annotators": total,
        "within 3 points of the share of wrong votes": close_to_done / total,
        "within 3 points of the planted rate": close_to_rate / total,
        "the share of wrong votes itself within 3 points of the planted rate": binomial / total,
    }


def flips(seeds: range, votes_each: int) -> dict[str, Any]:
    """Precision and recall of the listed rows, and the best of both along the ranking."""
    judges = [Judge(name=f"judge-{number}", error_rate=0.1) for number in range(8)]
    found = []
    for seed in seeds:
        planted = judge(draw_pairs(seed, 2_000), judges, votes_each=votes_each, seed=seed)
        noise = noise_of(table(planted))
        wrong = np.array(planted.wrong)
        listed = np.array([one.row for one in noise.suspects], dtype=int)
        order = noise.rows[np.argsort(-noise.wrong, kind="stable")]
        recall = np.cumsum(wrong[order]) / wrong.sum()
        precision = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
        share = noise.share
        found.append(
            {
                "listed precision": float(wrong[listed].mean()) if len(listed) else 0.0,
                "listed recall": float(wrong[listed].sum() / wrong.sum()),
                "precision at recall 0.6": float(precision[np.searchsorted(recall, 0.6)]),
                "share inside its interval": float(
                    isinstance(share, Estimate) and share.low <= wrong.mean() <= share.high
                ),
            }
        )
    return {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}


def biases(seeds: range) -> dict[str, Any]:
    """How often each planted bias is reported with the right sign, and what else is."""
    result: dict[str, Any] = {}
    for planted, driver in BIASES.items():
        hits, beside = 0, 0
        for seed in seeds:
            judges = [replace(Judge(name=f"judge-{n}"), **{planted: _BIASED_SHARE}) for n in range(6)]
            effects = style_of(table(judge(draw_pairs(seed, _BIAS_PAIRS), judges, votes_each=1, seed=seed))).effects
            reported = {effect.driver: effect for effect in effects if effect.reported}
            hit = reported.pop(driver, None)
            hits += hit is not None and isinstance(hit.equal, Estimate) and hit.equal.value > 0.5
            beside += len(reported)
        result[planted] = {"found": hits / len(seeds), "other drivers reported": beside}
    return result


def clean(seeds: range) -> dict[str, Any]:
    """Sets without bias in which any driver is reported."""
    alarmed: Counter[str] = Counter()
    sets = 0
    for seed in seeds:
        judges = [Judge(name=f"judge-{number}") for number in range(6)]
        effects = style_of(table(judge(draw_pairs(seed, _BIAS_PAIRS), judges, votes_each=1, seed=seed))).effects
        reported = [effect.driver for effect in effects if effect.reported]
        alarmed.update(reported)
        sets += bool(reported)
    return {"sets": len(seeds), "sets with a report": sets, "drivers": dict(alarmed)}


def main() -> None:
    """Run everything and write the result."""
    result = {
        "annotators": annotators(range(10)),
        "flips, three votes a pair": flips(range(5), 3),
        "flips, one vote a pair": flips(range(5), 1),
        "biases": biases(range(10)),
        "clean": clean(range(100, 120)),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

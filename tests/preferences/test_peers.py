"""The audit's annotators beside crowd-kit's, on the planted votes of `benchmarks.audit_peers`, which wrote the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.audit_planted import RATES, table
from benchmarks.planted_votes import Judge, draw_pairs, judge

from weightgate.preferences.annotators import roster_of
from weightgate.stats import Estimate

THEIRS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "benchmarks" / "results" / "audit_peers.json").read_text()
)


@pytest.mark.parametrize("seed", [0, 7])
def test_error_rates_are_those_of_crowd_kits_one_coin_model(seed: int) -> None:
    judges = [Judge(name=f"judge-{number}", error_rate=rate) for number, rate in enumerate(RATES)]
    votes = table(judge(draw_pairs(seed, 600), judges, votes_each=5, seed=seed))
    rates = {one.name: one.error_rate for one in roster_of(votes)}
    each = [one for one in THEIRS["each"] if one["seed"] == seed]
    assert len(each) == len(RATES)
    for one in each:
        ours = rates[f"judge-{one['judge']}"]
        assert isinstance(ours, Estimate)
        assert ours.value == pytest.approx(one["audit"], abs=1e-6)
        assert ours.value == pytest.approx(one["one_coin"], abs=0.005)

"""Do intervals hold where only nine runs were made? Writes results/scaling_few_runs.json.

    python -m benchmarks.scaling_few_runs

Ladders of nine runs, losses from published laws with errors of half a percent, on the sizes and lengths of
`scaling_ladder`; the tenth is forecast. Counted is how often the loss without its error lies in the interval at 90 % of
the form that forecasts best, by bootstrap and by profile, how often in the whole forecast's, and how wide each is. Some
minutes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling_ladder import LADDER
from weightgate.plan.fit.fitting import fit
from weightgate.plan.fit.forecast import LEVEL, forecast, refits
from weightgate.plan.fit.forms import Floats
from weightgate.plan.fit.holdout import compare
from weightgate.plan.fit.prediction import forecast_profile
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import LOSS_LAWS, LossLaw

RESULT = Path(__file__).parent / "results" / "scaling_few_runs.json"
LADDERS, DRAWS, NOISE = 40, 200, 0.005
_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def ladder(law: LossLaw, seed: int) -> tuple[Runs, float, float, float]:
    """Nine runs, then parameters, tokens and true loss of the tenth. Sizes are those of the ladder times a thousand."""
    size = np.array([1e3 * 12 * rung.layers * rung.hidden**2 for rung in LADDER])
    tokens = np.array([1e4 * rung.tokens for rung in LADDER])
    order = np.argsort(size * tokens)
    size, tokens = size[order], tokens[order]
    loss = np.asarray(law.constants.loss(size, tokens))
    errors = np.exp(np.random.default_rng(seed).normal(0.0, NOISE, len(size)))
    runs = Runs(
        parameters=size[:-1],
        tokens=tokens[:-1],
        loss=(loss * errors)[:-1],
        seconds=np.full(len(size) - 1, np.nan),
        clusters=tuple(map(str, range(len(size) - 1))),
    )
    return runs, float(size[-1]), float(tokens[-1]), float(loss[-1])


def intervals(law: LossLaw, seed: int) -> tuple[dict[str, tuple[float, float]], float]:
    """Ends by name, and the true loss."""
    runs, parameters, tokens, truth = ladder(law, seed)
    compared = compare(runs)
    drawn = refits(runs, compared, draws=DRAWS, seed=seed)
    best = compared[0].form
    profile = forecast_profile(runs, fit(runs, best), parameters, tokens)
    resampled = np.asarray(drawn[best.name].loss(parameters, tokens))
    whole = forecast(runs, compared, drawn, np.array([parameters]), np.array([tokens]), seed=seed)
    return {
        "bootstrap": _ends(resampled),
        "profile": _ends(np.exp(profile.draw(4000, np.random.default_rng(seed)))),
        "whole forecast": (float(whole.low[0]), float(whole.high[0])),
    }, truth


def _ends(losses: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(losses, _ENDS)
    return float(low), float(high)


def main() -> None:
    """Run every ladder of every law."""
    found = []
    laws = [law for law in LOSS_LAWS if law.unit == "nats/token" and not law.provenance.superseded]
    for seed in range(LADDERS):
        law = laws[seed % len(laws)]
        ends, truth = intervals(law, seed)
        found.append({"law": law.name, "truth": truth, "ends": ends})
        print(seed, law.name, truth, ends, flush=True)
    result: dict[str, Any] = {"ladders": len(found), "laws": [law.name for law in laws], "level": LEVEL}
    for name in found[0]["ends"]:
        ends = np.array([each["ends"][name] for each in found])
        truths = np.array([each["truth"] for each in found])
        width = np.log(ends[:, 1] / ends[:, 0])
        result[name] = {
            "holds": float(np.mean((ends[:, 0] <= truths) & (truths <= ends[:, 1]))),
            "median width": float(np.expm1(np.median(width))),
            "width of the widest tenth": float(np.expm1(np.quantile(width, 0.9))),
        }
    RESULT.write_text(json.dumps(result | {"each": found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

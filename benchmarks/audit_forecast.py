"""Does `audit compare` foretell the boundary that moves? Writes results/audit_forecast.json.

    python -m benchmarks.audit_forecast

One knob of the simulated annotators is turned in the built-in world, everything else stays; both sets are compared. A
change counts as foretold when a forecast of its family has the right direction and none the wrong one. Families that
the knob does not touch must have no forecast. Error rates and new draws of the same annotators touch none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weightgate.incident.knobs import HARMLESS_TOPICS, PREFERENCES, RISKY_TOPICS, Knobs
from weightgate.incident.world import write_preferences
from weightgate.preferences.compare import Comparison, compare
from weightgate.preferences.reading import read_preferences
from weightgate.preferences.votes import Preferences

RESULT = Path(__file__).parent / "results" / "audit_forecast.json"
FAMILIES = ("refusals", "length", "hedging", "format", "courtesy")
SEEDS = (21, 22)
"""Seeds that were not looked at while the method was made; that was done on seed 0."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One turn of one knob: the family it moves, or "", and where to."""

    name: str
    old: Knobs
    new: Knobs
    family: str
    direction: str


def changes() -> Iterator[Change]:
    """Every change, and its reverse where it has one."""
    for seed in SEEDS:
        plain = Knobs(seed=seed)
        turned = [
            *(("length_bias", replace(plain, length_bias=share), "length", "rise") for share in (0.15, 0.3, 0.5)),
            *(("refusal_bias", replace(plain, refusal_bias=share), "refusals", "rise") for share in (0.2, 0.4)),
            *(
                (f"refuse {topic}", _refusing(plain, *RISKY_TOPICS, topic), "refusals", "rise")
                for topic in HARMLESS_TOPICS
            ),
            *(
                (f"answer {topic}", _refusing(plain, *(t for t in RISKY_TOPICS if t != topic)), "refusals", "fall")
                for topic in RISKY_TOPICS
            ),
        ]
        back = {"rise": "fall", "fall": "rise"}
        for name, knobs, family, direction in turned:
            yield Change(name=f"{name}, seed {seed}", old=plain, new=knobs, family=family, direction=direction)
            yield Change(
                name=f"{name} undone, seed {seed}", old=knobs, new=plain, family=family, direction=back[direction]
            )
        worse = replace(plain, error_rates=tuple(min(0.45, rate + 0.12) for rate in plain.error_rates))
        yield Change(name=f"more errors, seed {seed}", old=plain, new=worse, family="", direction="")
        yield Change(name=f"fewer errors, seed {seed}", old=worse, new=plain, family="", direction="")
        yield Change(name=f"another draw, seed {seed}", old=plain, new=Knobs(seed=seed + 10), family="", direction="")


def _refusing(knobs: Knobs, *topics: str) -> Knobs:
    return replace(knobs, expected_refused=tuple(topics))


def judged(change: Change, found: Comparison) -> dict[str, Any]:
    """Which families have a forecast, and whether the one that was turned has the right one."""
    told: dict[str, set[str]] = {}
    for shift in found.forecasts:
        told.setdefault(shift.family, set()).add(shift.direction)
    wrong = sorted(family for family in FAMILIES if family != change.family and family in told)
    return {
        "change": change.name,
        "family": change.family,
        "right": told.get(change.family) == {change.direction} if change.family else None,
        "left alone": len(FAMILIES) - bool(change.family),
        "false": wrong,
        "fading": round(found.fading, 3),
        "said": [shift.words for shift in found.forecasts[:6]],
    }


def main() -> None:
    """Run every change and write the result."""
    rows: list[dict[str, Any]] = []
    sets: dict[Knobs, Preferences] = {}
    with tempfile.TemporaryDirectory() as folder:
        for change in changes():
            for knobs in (change.old, change.new):
                if knobs not in sets:
                    write_preferences(Path(folder) / PREFERENCES, knobs)
                    sets[knobs] = read_preferences(str(Path(folder) / PREFERENCES))
            rows.append(judged(change, compare(sets[change.old], sets[change.new])))
            print(json.dumps(rows[-1]), flush=True)
    turned = [row for row in rows if row["right"] is not None]
    result = {
        "changes of one knob": len(turned),
        "right direction": sum(row["right"] for row in turned) / len(turned),
        "families left alone": sum(row["left alone"] for row in rows),
        "false forecasts": sum(len(row["false"]) for row in rows) / sum(row["left alone"] for row in rows),
        "changes": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "changes"}, indent=2))


if __name__ == "__main__":
    main()

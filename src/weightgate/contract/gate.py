"""Gates: the conditions a checkpoint must meet before a later stage may start. They fail closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from weightgate.recipe import Gate
from weightgate.stats import Estimate, Measurement, Unmeasured

Status = Literal["passed", "failed", "not measured", "waived"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one gate said about one checkpoint.

    `condition` is the gate in words; `value`, `low`, `high` are of the quantity the condition is about: the
    measurement itself, or its change against the parent. They are None when it was not measured.
    """

    measure: str
    condition: str
    status: Status
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    threshold: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def judge(
    gates: Sequence[Gate], measurements: Mapping[str, Measurement], parent: Mapping[str, Measurement]
) -> list[Verdict]:
    """Judge every condition of every gate. A measurement that is missing or `Unmeasured` has not passed."""
    verdicts: list[Verdict] = []
    for gate in gates:
        here = measurements.get(gate.measure, Unmeasured(reason="nothing measured it at this boundary"))
        before = parent.get(gate.measure, Unmeasured(reason="the parent has no such measurement"))
        change = _change(here, before)
        if gate.min is not None:
            verdicts.append(_verdict(gate, here, "at least", gate.min, at_least=True))
        if gate.max is not None:
            verdicts.append(_verdict(gate, here, "at most", gate.max, at_least=False))
        if gate.max_drop is not None:
            verdicts.append(_verdict(gate, change, "falls by at most", -gate.max_drop, at_least=True))
        if gate.max_rise is not None:
            verdicts.append(_verdict(gate, change, "rises by at most", gate.max_rise, at_least=False))
    return verdicts


def passed(verdicts: Sequence[Verdict]) -> bool:
    """True when every verdict lets the next stage start."""
    return all(verdict.status in ("passed", "waived") for verdict in verdicts)


def _verdict(gate: Gate, measured: Measurement, words: str, threshold: float, *, at_least: bool) -> Verdict:
    condition = f"{gate.measure} {words} {abs(threshold) if 'by' in words else threshold:g}"
    if gate.judge == "interval":
        condition += " over its whole interval"
    if isinstance(measured, Unmeasured) or not math.isfinite(measured.value):
        reason = measured.reason if isinstance(measured, Unmeasured) else "the value is not finite"
        return Verdict(
            measure=gate.measure,
            condition=condition,
            status="not measured",
            value=None,
            low=None,
            high=None,
            n=0,
            unit="",
            threshold=threshold,
            reason=reason,
        )
    worst = (measured.low if at_least else measured.high) if gate.judge == "interval" else measured.value
    holds = worst >= threshold if at_least else worst <= threshold
    return Verdict(
        measure=gate.measure,
        condition=condition,
        status="passed" if holds else "failed",
        value=measured.value,
        low=measured.low,
        high=measured.high,
        n=measured.n,
        unit=measured.unit,
        threshold=threshold,
        reason=f"{'changed by' if 'by' in words else 'measured'} {measured}",
    )


def _change(here: Measurement, before: Measurement) -> Measurement:
    """Difference to the parent; the interval treats both sides as independent, which is wide rather than narrow."""
    if isinstance(here, Unmeasured):
        return here
    if isinstance(before, Unmeasured):
        return before
    value = here.value - before.value
    down = math.hypot(here.value - here.low, before.high - before.value)
    up = math.hypot(here.high - here.value, before.value - before.low)
    return Estimate(
        value=value,
        low=value - down,
        high=value + up,
        n=min(here.n, before.n),
        unit=here.unit,
        method="independent difference",
    )

"""Charts of a law: isoFLOP curves, and the frontier with its band; the user's point on both."""

from __future__ import annotations

import numpy as np

from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import Constants, LossLaw
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.spread import counted_laws, interval
from weightgate.report.page import Axis, LineChart, Series

_CURVE_POINTS = 61
_WIDTH = 12.0
"""IsoFLOP curves are drawn from the optimum divided by this to the optimum times this."""

_BUDGETS = (0.25, 1.0, 4.0)
_DECADES = 1.5

Point = tuple[float, float]


def isoflop_chart(law: LossLaw, flops: float, point: Point) -> LineChart:
    """Loss over parameters at a quarter, the whole and four times `flops`; `point` is (parameters, tokens)."""
    series = []
    for factor in _BUDGETS:
        budget = factor * flops
        sizes = float(law.constants.optimum(budget)[0]) * np.geomspace(1 / _WIDTH, _WIDTH, _CURVE_POINTS)
        band = _band(law, sizes, budget) if factor == 1.0 else ()
        points = tuple(zip(sizes.tolist(), _isoflop(law.constants, sizes, budget).tolist(), strict=True))
        series.append(Series(name=f"{budget:.2g} FLOP", points=points, band=band))
    best = [law.constants.optimum(factor * flops) for factor in _BUDGETS]
    optima = tuple((float(n), float(law.constants.loss(n, d))) for n, d in best)
    series.append(Series(name="optimum", points=optima, style="points"))
    here = (point[0], float(law.constants.loss(*point)))
    series.append(Series(name="this plan", points=(here,), style="points"))
    return LineChart(
        title="Loss at equal compute",
        x=Axis(label="parameters", log=True),
        y=Axis(label=f"loss ({law.unit})"),
        series=tuple(series),
        caption=f"{law.name}; the band is the law's 95 % bootstrap." if law.draws else law.name,
    )


def _isoflop(constants: Constants, sizes: np.ndarray, flops: float) -> np.ndarray:
    return np.asarray(constants.loss(sizes, flops / (SIX * sizes)))


def _band(law: LossLaw, sizes: np.ndarray, flops: float) -> tuple[tuple[float, float, float], ...]:
    if law.draws is None:
        return ()
    return tuple((float(n), *interval(law.draws.loss(float(n), flops / (SIX * float(n))))) for n in sizes)


def frontier_chart(law: LossLaw, flops: float, point: Point) -> LineChart:
    """Parameters of the optimum over compute: this law with its bootstrap, the range over laws, this plan."""
    budgets = np.geomspace(flops / 10**_DECADES, flops * 10**_DECADES, _CURVE_POINTS)
    own = tuple((float(c), float(law.constants.optimum(float(c))[0])) for c in budgets)
    laws = counted_laws(law)
    optima = [[float(each.constants.optimum(float(c))[0]) for each in laws] for c in budgets]
    around = tuple((float(c), min(sizes), max(sizes)) for c, sizes in zip(budgets, optima, strict=True))
    middle = tuple((float(c), float(np.median(sizes))) for c, sizes in zip(budgets, optima, strict=True))
    band: tuple[tuple[float, float, float], ...] = ()
    if law.draws is not None:
        band = tuple((float(c), *interval(law.draws.optimum(float(c))[0])) for c in budgets)
    series = [Series(name=f"{law.name}, 95 % bootstrap", points=own, band=band)]
    if len(laws) > 1:
        series.append(Series(name=f"median and range of {len(laws)} laws", points=middle, band=around))
    spent = SIX * point[0] * point[1]
    series.append(Series(name="this plan", points=((spent, point[0]),), style="points"))
    return LineChart(
        title="Best size by compute",
        x=Axis(label="training compute (FLOP)", log=True),
        y=Axis(label="parameters", log=True),
        series=tuple(series),
        caption=f"This plan: {spell_quantity(point[0])} parameters on {spell_quantity(point[1])} tokens.",
    )

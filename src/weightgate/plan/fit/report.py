"""`weightgate plan fit`: laws fitted to one's own runs, judged by hold-out, with a forecast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.answer import Answer
from weightgate.plan.fit.diagnosis import claim_finding, diagnose
from weightgate.plan.fit.fitting import DRAWS, Fit, bootstrap, fit
from weightgate.plan.fit.forecast import LEVEL, Forecast, forecast, nearly_as_good, refits
from weightgate.plan.fit.holdout import HeldOut, compare
from weightgate.plan.fit.profile import CHI_SQUARED_95, Profile, profiles
from weightgate.plan.fit.runs import Runs
from weightgate.plan.fit.timing import forecast_seconds
from weightgate.plan.laws.loss import Constants, LossLaw
from weightgate.plan.laws.provenance import Provenance
from weightgate.plan.plots import frontier_chart, isoflop_chart
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.spread import interval
from weightgate.report.finding import Finding
from weightgate.report.page import (
    Axis,
    Block,
    Column,
    Figure,
    Findings,
    Headline,
    LineChart,
    Mark,
    Page,
    Section,
    Series,
    Table,
)
from weightgate.stats import Estimate, Measurement

_FURTHER = 4.0
"""Without a point to forecast, the optimum of this many times the largest run's compute is."""

_NAMES = ("A", "B", "E", "alpha", "beta", "k")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Everything that a fit to some runs gave."""

    runs: Runs
    fits: dict[str, Fit]
    compared: tuple[HeldOut, ...]
    drawn: dict[str, Constants]
    by_cluster: Constants | None
    profiled: Mapping[str, Profile]

    @property
    def best(self) -> Fit:
        """The form that forecasts best."""
        return self.fits[self.compared[0].form.name]

    @property
    def law(self) -> LossLaw:
        """The best form as a law, with its draws."""
        flops = self.runs.flops
        return LossLaw(
            name=f"{self.best.form.name}-of-{self.runs.origin}",
            constants=self.best.constants,
            provenance=Provenance(
                source=f"fitted to {len(self.runs)} runs of {self.runs.origin}",
                corpus="that of the runs",
                counts="parameters as the runs state them",
                flops=(float(flops.min()), float(flops.max())),
            ),
            draws=self.drawn[self.best.form.name],
            unit=self.runs.unit,
        )


def fit_runs(runs: Runs, *, draws: int = DRAWS, seed: int = 0) -> Fitted:
    """Fit every form, choose by hold-out, and draw again.

    Raises `DataError` where by every form the loss rises with parameters or with tokens.
    """
    every = compare(runs)
    fits = {each.form.name: fit(runs, each.form) for each in every}
    compared = tuple(each for each in every if _falls(fits[each.form.name].constants))
    if not compared:
        raise DataError(
            "no law fits these runs: by each form their loss rises with parameters, or with tokens",
            where=runs.origin,
            expected="runs of one recipe, finished, whose loss falls with both",
            found="; ".join(_exponents(name, each.constants) for name, each in fits.items()),
        )
    best = compared[0].form
    clustered = len(set(runs.clusters)) < len(runs) and len(set(runs.clusters)) > best.num_free
    return Fitted(
        runs=runs,
        fits=fits,
        compared=compared,
        drawn=refits(runs, compared, draws=draws, seed=seed),
        by_cluster=bootstrap(runs, best, by_cluster=True, draws=draws, seed=seed) if clustered else None,
        profiled=profiles(runs, fits[best.name]),
    )


def _falls(constants: Constants) -> bool:
    """Whether the loss falls with parameters and with tokens; a form that fits otherwise is no law."""
    return bool(constants.alpha > 0 and constants.beta > 0)


def _exponents(name: str, constants: Constants) -> str:
    return f"{name} alpha {float(constants.alpha):.3g}, beta {float(constants.beta):.3g}"


def fit_answer(fitted: Fitted, *, point: tuple[float, float] | None = None, claims: Sequence[LossLaw] = ()) -> Answer:
    """Answer with the forms, the constants and the forecast.

    Args:
        point: parameters and tokens to forecast; None: the optimum of four times the largest run's compute.
        claims: laws to hold against the optimum on these runs.
    """
    runs, law = fitted.runs, fitted.law
    if point is None:
        best = law.constants.optimum(_FURTHER * float(runs.flops.max()))
        point = float(best[0]), float(best[1])
    ahead = forecast(runs, fitted.compared, fitted.drawn, np.array([point[0]]), np.array([point[1]]))
    seconds = forecast_seconds(runs, *point)
    found = diagnose(runs, fitted.best, fitted.drawn[fitted.best.form.name], fitted.profiled)
    found = [*(claim_finding(runs, fitted.best, claim) for claim in claims), *found]
    found = [*(Finding(severity="note", headline=note) for note in runs.notes), *found]
    blocks: list[Block | Section] = [
        _headline(fitted, ahead, seconds),
        _forms_table(fitted),
        _constants_table(fitted),
        Findings(title="What to know before believing it", findings=tuple(found)),
        _fit_chart(fitted),
        *([_floor_chart(fitted.profiled["E"], runs.unit)] if "E" in fitted.profiled else []),
        isoflop_chart(law, float(6 * point[0] * point[1]), point),
        frontier_chart(law, float(6 * point[0] * point[1]), point),
    ]
    title = f"{len(runs)} runs of {runs.origin}"
    page = Page(title="Scaling laws of your runs", subtitle=title, blocks=tuple(blocks))
    return Answer(numbers=_numbers(fitted, ahead, seconds, found), page=page)


def _numbers(fitted: Fitted, ahead: Forecast, seconds: Measurement, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "runs": len(fitted.runs),
        "unit": fitted.runs.unit,
        "chosen": fitted.best.form.name,
        "forms": {
            each.form.name: {
                "constants": vars(fitted.fits[each.form.name].constants),
                "objective": fitted.fits[each.form.name].objective,
                "error_in_sample": _error(fitted.fits[each.form.name]),
                "error_held_out": each.error,
                "bias_held_out": each.bias,
            }
            for each in fitted.compared
        },
        "intervals_95": _intervals(fitted.drawn[fitted.best.form.name]),
        "intervals_95_by_cluster": _intervals(fitted.by_cluster) if fitted.by_cluster else None,
        "intervals_95_by_profile": {name: _profile_json(each) for name, each in fitted.profiled.items()},
        "forecast": {
            "parameters": float(ahead.parameters[0]),
            "tokens": float(ahead.tokens[0]),
            "loss": float(ahead.value[0]),
            "interval_90": [float(ahead.low[0]), float(ahead.high[0])],
            "seconds": seconds.to_json(),
        },
        "findings": [finding.to_json() for finding in found],
    }


def _profile_json(profiled: Profile) -> dict[str, Any]:
    return {"low": profiled.low, "high": profiled.high, "open": [profiled.open_low, profiled.open_high]}


def _intervals(draws: Constants) -> dict[str, list[float]]:
    shape = np.shape(draws.A)
    return {name: list(interval(np.broadcast_to(getattr(draws, name), shape))) for name in _NAMES}


def _error(fitted: Fit) -> float:
    return float(np.mean(np.abs(np.expm1(fitted.residuals))))


def _headline(fitted: Fitted, ahead: Forecast, seconds: Measurement) -> Headline:
    best, nats = fitted.compared[0], fitted.runs.unit
    text = (
        f"{best.form.name} forecasts these runs best, {best.error:.2%} off where the largest were held out: "
        f"{spell_quantity(float(ahead.parameters[0]))} parameters on {spell_quantity(float(ahead.tokens[0]))} tokens "
        f"would reach {ahead.value[0]:.4g} {nats} ({ahead.low[0]:.4g} to {ahead.high[0]:.4g} at {LEVEL:.0%})."
    )
    parameters, tokens = (float(each) for each in fitted.law.constants.optimum(float(fitted.runs.flops.max())))
    figures = [
        Figure(label="runs", value=str(len(fitted.runs))),
        Figure(
            label="best tokens a parameter", value=f"{tokens / parameters:.3g}", note="at the largest run's compute"
        ),
        Figure(label="error", value=f"{best.error:.2%}", note=f"{_error(fitted.best):.2%} inside the data"),
    ]
    if isinstance(seconds, Estimate):
        figures.append(
            Figure(label="time", value=f"{seconds.value:,.3g} s", note=f"{seconds.low:,.3g} to {seconds.high:,.3g}")
        )
    return Headline(severity="note", text=text, figures=tuple(figures))


def _forms_table(fitted: Fitted) -> Table:
    names = ("form", "free", "error inside", "error held out", "bias held out", "objective", "says")
    taking_part = {each.form.name for each in nearly_as_good(fitted.compared)}
    rows = tuple(
        (
            each.form.name + (" *" if each.form.name in taking_part else ""),
            str(each.form.num_free),
            f"{_error(fitted.fits[each.form.name]):.2%}",
            f"{each.error:.2%}",
            f"{each.bias:+.2%}",
            f"{fitted.fits[each.form.name].objective:.4g}",
            each.form.says,
        )
        for each in fitted.compared
    )
    columns = tuple(Column(name=name, align="left" if name in ("form", "says") else "right") for name in names)
    return Table(
        title="Which form forecasts best",
        columns=columns,
        rows=rows,
        caption="Held out: the 10 % of the runs with most compute. * takes part in the interval of the forecast.",
    )


def _constants_table(fitted: Fitted) -> Table:
    by_run = _intervals(fitted.drawn[fitted.best.form.name])
    by_cluster = _intervals(fitted.by_cluster) if fitted.by_cluster else None
    columns = [Column(name="constant"), *(Column(name=n, align="right") for n in ("value", "95 %, by run"))]
    columns += [Column(name="95 %, by cluster", align="right")] if by_cluster else []
    columns.append(Column(name="95 %, by likelihood", align="right"))
    rows = []
    for name in _NAMES:
        value = float(getattr(fitted.best.constants, name))
        cells = [name, f"{value:.6g}", _ends(by_run[name])]
        cells += [_ends(by_cluster[name])] if by_cluster else []
        rows.append((*cells, _profile_ends(fitted.profiled.get(name))))
    draws = len(np.atleast_1d(fitted.drawn[fitted.best.form.name].A))
    return Table(
        title=f"Constants of {fitted.best.form.name}",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=f"L = E + (A N^-alpha + B D^-beta)^k; {draws} refits to runs drawn again, each from its own start; "
        "by likelihood: one constant held, all others at their best.",
    )


def _profile_ends(profiled: Profile | None) -> str:
    """The interval; an end that the runs leave open is marked."""
    if profiled is None:
        return ""
    low = "0" if profiled.open_low else f"{profiled.low:.4g}"
    return f"{low} to {'any' if profiled.open_high else f'{profiled.high:.4g}'}"


def _ends(ends: list[float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _fit_chart(fitted: Fitted) -> LineChart:
    """Measured against fitted loss, over compute."""
    runs = fitted.runs
    order = np.argsort(runs.flops)
    predicted = np.asarray(fitted.best.constants.loss(runs.parameters, runs.tokens))
    frontier = np.geomspace(runs.flops.min(), _FURTHER * runs.flops.max(), 60)
    draws = fitted.drawn[fitted.best.form.name]
    lowest = tuple((float(c), float(fitted.best.constants.best_loss(float(c)))) for c in frontier)
    band = tuple((float(c), *interval(draws.best_loss(float(c)))) for c in frontier)
    return LineChart(
        title="Runs, fit and frontier",
        x=Axis(label="training compute (FLOP)", log=True),
        y=Axis(label=f"loss ({runs.unit})", log=True),
        series=(
            Series(name="frontier, 95 % bootstrap", points=lowest, band=band),
            Series(name="measured", points=_points(runs.flops[order], runs.loss[order]), style="points"),
            Series(name="fitted", points=_points(runs.flops[order], predicted[order]), style="points"),
        ),
        caption=f"{fitted.best.form.name}; largest residual "
        f"{math.expm1(float(np.abs(fitted.best.residuals).max())):.1%}.",
    )


def _floor_chart(profiled: Profile, unit: str) -> LineChart:
    """How much worse the runs are explained with each irreducible loss."""
    cut = 4 * CHI_SQUARED_95
    shown = tuple((value, deviance) for value, deviance in profiled.points if deviance <= cut)
    return LineChart(
        title="How well the irreducible loss is known",
        x=Axis(label=f"E ({unit})"),
        y=Axis(label="twice the fall of the log-likelihood"),
        series=(Series(name="all other constants at their best", points=shown),),
        y_marks=(Mark(at=CHI_SQUARED_95, label="95 %"),),
        caption="Flat: the runs say nothing about it.",
    )


def _points(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple(zip(x.tolist(), y.tolist(), strict=True))

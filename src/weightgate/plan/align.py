"""`weightgate plan align`: gold reward along KL, where it peaks, and the KL that a recipe should allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.plan.answer import Answer
from weightgate.plan.doubted import Doubted, doubted
from weightgate.plan.fit.reward_curve import FittedCurve
from weightgate.plan.laws import overoptimisation
from weightgate.plan.laws.overoptimisation import READ_OFF, SIZES, Curve, Search
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.spread import interval
from weightgate.report.finding import Finding, Severity
from weightgate.report.page import (
    Axis,
    Block,
    Cell,
    Column,
    Figure,
    Findings,
    Headline,
    LineChart,
    Mark,
    Page,
    Prose,
    Series,
    Table,
)

MOST_OF_IT = 0.9
"""Share of the peak's gold reward at which a KL budget is set: the last tenth costs two thirds of the KL."""

_DRAWS = 2000
_CURVE_POINTS = 61
_LADDER = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_MOST_N = 1e12
"""Best-of-n of more than this many samples is not worth spelling."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one alignment reached: KL in nats a completion, and the rise of gold reward."""

    kl: float
    gold: float
    name: str


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """An alignment as planned.

    Fields:
        reward_parameters: of the reward model.
        comparisons: pairs it learns from; None where nobody said.
        kl: KL in nats a completion that is asked about; None: none.
        kl_source: whose limit it is, such as "the recipe's gate".
        search: how the policy is found.
        own: one's own curve in both forms, the better first; empty where there is none.
        measured: the points behind it.
    """

    reward_parameters: float
    comparisons: float | None = None
    kl: float | None = None
    kl_source: str = "your limit"
    search: Search = "ppo"
    own: tuple[FittedCurve, ...] = ()
    measured: tuple[Measured, ...] = ()

    @property
    def curve(self) -> Curve:
        """The curve that gives values: one's own where there is one, else what was read off."""
        return self.own[0].curve if self.own else overoptimisation.read_off_curve(self.reward_parameters)

    @property
    def draws(self) -> Curve:
        """Curves within the doubt."""
        if self.own:
            return self.own[0].draws
        return overoptimisation.read_off_draws(self.reward_parameters, draws=_DRAWS)

    @property
    def said(self) -> str:
        """Whose curve it is."""
        if self.own:
            return f"the curve of {len(self.measured)} runs of your own"
        return f"curves of reward models of {spell_quantity(READ_OFF[0][0])} to {spell_quantity(READ_OFF[-1][0])}"


def align(plan: Alignment) -> Answer:
    """Answer for an alignment."""
    curve, draws = plan.curve, plan.draws
    peak, gold = doubted(curve.peak_kl, draws.peak_kl), doubted(curve.peak_gold, draws.peak_gold)
    budget = peak.times(overoptimisation.kl_share(MOST_OF_IT, curve.search))
    here = None if plan.kl is None else doubted(curve.gold(plan.kl), draws.gold(plan.kl))
    numbers: dict[str, Any] = {
        "reward_model_parameters": plan.reward_parameters,
        "comparisons": plan.comparisons,
        "curve": {"a": float(curve.a), "b": float(curve.b), "search": curve.search, "own": bool(plan.own)},
        "peak_kl": peak.to_json(),
        "gold_at_peak": gold.to_json(),
        "kl_of_nine_tenths": budget.to_json(),
        "kl": plan.kl,
        "kl_from": plan.kl_source if plan.kl is not None else None,
        "gold_at_kl": here.to_json() if here else None,
        "fitted": [_fit_json(each) for each in plan.own],
    }
    blocks: list[Block] = [
        _headline(plan, peak, gold, budget),
        Findings(findings=tuple(_findings(plan, peak, budget))),
        _ladder(plan, gold),
        _own_table(plan) if plan.own else _sizes_table(plan),
        _chart(plan, peak, budget),
        Prose(text=_WARNING),
    ]
    subtitle = f"a reward model of {spell_quantity(plan.reward_parameters)} parameters"
    if plan.comparisons is not None:
        subtitle += f", {spell_quantity(plan.comparisons)} comparisons"
    return Answer(numbers=numbers, page=Page(title="Gold reward along KL", subtitle=subtitle, blocks=tuple(blocks)))


_WARNING = (
    "Gao et al. 2022 (arXiv 2210.10760): a policy of 1.2B against reward models of 3M to 3B, 90,000 comparisons that a "
    "gold model of 6B labelled; its reward is the unit. No coefficients are tabulated: a third party read a of about "
    "0.38 and b of 0.167 (12M), 0.124 (300M) and 0.118 (3B) off its figures. Ranges take 5 % of reading error each, "
    "and either way to go from size to b. Where your own alignments are at hand, their curve goes before.\n\n"
    "A KL penalty does not move this curve, it stops earlier on it. What moves it: a larger reward model, more "
    "comparisons, and several reward models (the least of four or five, or their mean less their variance) with a "
    "small penalty of 0.01, which all but ended over-optimisation where one model needed twenty times the penalty "
    "(arXiv 2310.02743). Gate on a reward that the policy was not trained on: the trained one only rises."
)


def _fit_json(each: FittedCurve) -> dict[str, Any]:
    peak = doubted(each.curve.peak_kl, each.draws.peak_kl)
    return {
        "form": each.curve.search,
        "a": float(each.curve.a),
        "b": float(each.curve.b),
        "a_95": list(interval(each.draws.a)),
        "b_95": list(interval(each.draws.b)),
        "aic": each.aic,
        "residual": each.residual,
        "peak_kl": peak.to_json(),
    }


def _nats(value: float) -> str:
    return "no end" if np.isinf(value) else spell_quantity(value)


def _headline(plan: Alignment, peak: Doubted, gold: Doubted, budget: Doubted) -> Headline:
    if np.isinf(peak.value):
        text = f"By {plan.said}, gold reward rises without a peak: follow KL further before a limit is set."
    else:
        text = (
            f"By {plan.said}, gold reward rises up to a KL of {_nats(peak.value)} nats a completion "
            f"({peak.ends(_nats)}), and nine tenths of the rise are there at {_nats(budget.value)} "
            f"({budget.ends(_nats)}): a limit of {_nats(budget.low)} is the safe one."
        )
    figures = (
        Figure(label="peak, nats of KL", value=_nats(peak.value), note=peak.ends(_nats)),
        Figure(label="gold reward there", value=f"{gold.value:.2f}", note=f"{gold.low:.2f} to {gold.high:.2f}"),
        Figure(label="KL to allow", value=_nats(budget.low), note="nine tenths, at the low end"),
    )
    return Headline(severity="note", text=text, figures=figures)


def _findings(plan: Alignment, peak: Doubted, budget: Doubted) -> list[Finding]:
    found = [] if plan.kl is None else [_limit_finding(plan, plan.kl, peak, budget)]
    if not plan.own:
        found += _size_findings(plan.reward_parameters)
    elif max(each.kl for each in plan.measured) < peak.value:
        found.append(
            Finding(
                severity="warn",
                headline=f"your runs end at a KL of {max(each.kl for each in plan.measured):.3g}, before the peak",
                detail="Where a curve turns is hardly known before it has turned.",
            )
        )
    if plan.own and plan.own[0].curve.search != plan.search:
        found.append(
            Finding(
                severity="note",
                headline=f"your runs follow the curve of {plan.own[0].curve.search}, not that of {plan.search}",
                detail="By AIC; both are in the table.",
            )
        )
    return found + _data_findings(plan.comparisons)


def _limit_finding(plan: Alignment, kl: float, peak: Doubted, budget: Doubted) -> Finding:
    share = float(plan.curve.gold(kl) / plan.curve.peak_gold) if np.isfinite(peak.value) else float("nan")
    begin = f"{plan.kl_source} allows {kl:.3g} nats"
    if kl > peak.value:
        return Finding(
            severity="fail",
            headline=f"{begin}, beyond the peak at {_nats(peak.value)} ({peak.ends(_nats)})",
            detail=f"Gold reward falls there while the trained reward rises. Allow {_nats(budget.low)}.",
        )
    if kl > peak.low:
        return Finding(
            severity="warn",
            headline=f"{begin}, and the peak may come as early as {_nats(peak.low)}",
            detail=f"{_nats(budget.low)} gives nine tenths of the gold reward even then.",
        )
    if kl < budget.low / 2 and np.isfinite(share):
        return Finding(
            severity="note",
            headline=f"{begin}, where {share:.0%} of the peak's gold reward are reached",
            detail=f"Up to {_nats(budget.low)} there is more to have, as long as the held-out measures agree.",
        )
    reached = f": {share:.0%} of the peak's gold reward" if np.isfinite(share) else ""
    return Finding(severity="pass", headline=f"{begin}, before any peak{reached}")


def _size_findings(parameters: float) -> list[Finding]:
    low, high = READ_OFF[0][0], READ_OFF[-1][0]
    if low <= parameters <= high:
        return []
    severity: Severity = "note" if SIZES[0] <= parameters <= SIZES[1] else "warn"
    end = low if parameters < low else high
    return [
        Finding(
            severity=severity,
            headline=f"no curve was read for a reward model of {spell_quantity(parameters)}: that of "
            f"{spell_quantity(end)} stands in",
            detail=f"It lies {abs(np.log10(parameters / end)):.1f} decades outside. "
            + ("A smaller reward model peaks earlier and lower." if parameters < low else "A larger one peaks later.")
            + " A few alignments of your own at different KL make a curve: `--runs`.",
        )
    ]


def _data_findings(comparisons: float | None) -> list[Finding]:
    if comparisons is None or comparisons >= overoptimisation.PAPERS_COMPARISONS:
        return []
    if comparisons < overoptimisation.LEAST_COMPARISONS:
        return [
            Finding(
                severity="warn",
                headline=f"{spell_quantity(comparisons)} comparisons: below about 2,000 the paper's reward models were "
                "hardly better than chance",
                detail="On simpler data fewer may do: gate on `reward.pair_accuracy` before PPO is started.",
            )
        ]
    return [
        Finding(
            severity="note",
            headline=f"the curves are of 90,000 comparisons; {spell_quantity(comparisons)} peak earlier and lower",
            detail="By how much the paper shows in figures, not in numbers.",
        )
    ]


def _ladder(plan: Alignment, gold: Doubted) -> Table:
    curve, draws = plan.curve, plan.draws
    steps = sorted({*_LADDER, *([plan.kl] if plan.kl is not None else [])})
    rows = []
    for kl in steps:
        here = doubted(curve.gold(kl), draws.gold(kl))
        share = f"{here.value / gold.value:.0%}" if np.isfinite(gold.value) and gold.value else ""
        rows.append(
            (
                Cell(text=f"{kl:.3g}", detail=plan.kl_source if kl == plan.kl else ""),
                Cell(text=f"{here.value:.3f}", detail=f"{here.low:.3f} to {here.high:.3f}"),
                share,
                _samples(kl),
            )
        )
    return Table(
        title="Gold reward by KL",
        columns=tuple(
            Column(name=name, align="right")
            for name in ("KL, nats a completion", "gold reward", "of the peak's", "best of n goes as far with")
        ),
        rows=tuple(rows),
        caption=f"{plan.said}. n from ln n - (n - 1) / n, an upper bound on the KL of best-of-n (arXiv 2401.01879).",
    )


def _samples(kl: float) -> str:
    return f"over {spell_quantity(_MOST_N)}" if kl > np.log(_MOST_N) - 1 else f"{overoptimisation.n_for_kl(kl):,}"


def _sizes_table(plan: Alignment) -> Table:
    share = overoptimisation.kl_share(MOST_OF_IT, "ppo")
    rows = []
    sizes: Sequence[float] = sorted({*(size for size, _ in READ_OFF), plan.reward_parameters})
    for size in sizes:
        one = Alignment(reward_parameters=size)
        peak, gold = doubted(one.curve.peak_kl, one.draws.peak_kl), doubted(one.curve.peak_gold, one.draws.peak_gold)
        rows.append(
            (
                Cell(text=spell_quantity(size), detail="this plan" if size == plan.reward_parameters else ""),
                f"{float(one.curve.b):.3f}",
                Cell(text=_nats(peak.value), detail=peak.ends(_nats)),
                Cell(text=f"{gold.value:.2f}", detail=f"{gold.low:.2f} to {gold.high:.2f}"),
                Cell(text=_nats(peak.value * share), detail=peak.times(share).ends(_nats)),
            )
        )
    names = ("reward model", "b", "peak, nats", "gold reward there", "nine tenths at")
    return Table(
        title="By size of the reward model",
        columns=tuple(Column(name=name, align="right") for name in names),
        rows=tuple(rows),
        caption=f"R = d (a - b ln d), d the square root of the KL, a = {overoptimisation.READ_OFF_A}.",
    )


def _own_table(plan: Alignment) -> Table:
    rows = []
    for each in plan.own:
        peak = doubted(each.curve.peak_kl, each.draws.peak_kl)
        a, b = interval(each.draws.a), interval(each.draws.b)
        rows.append(
            (
                {"ppo": "d (a - b ln d)", "best-of-n": "d (a - b d)"}[each.curve.search],
                Cell(text=f"{float(each.curve.a):.4g}", detail=f"{a[0]:.4g} to {a[1]:.4g}"),
                Cell(text=f"{float(each.curve.b):.4g}", detail=f"{b[0]:.4g} to {b[1]:.4g}"),
                Cell(text=_nats(peak.value), detail=peak.ends(_nats)),
                f"{each.residual:.3g}",
                f"{each.aic:.1f}",
            )
        )
    names = ("form", "a", "b", "peak, nats", "residual", "AIC")
    return Table(
        title="Your runs in both forms",
        columns=tuple(Column(name=name, align="left" if name == "form" else "right") for name in names),
        rows=tuple(rows),
        caption=f"Least squares over {len(plan.measured)} runs; 95 % of refits to runs drawn again. The first form "
        "gives the answer.",
    )


def _chart(plan: Alignment, peak: Doubted, budget: Doubted) -> LineChart:
    curve, draws = plan.curve, plan.draws
    reach = [each.kl for each in plan.measured] + [plan.kl or 0.0, 1.0]
    far = max(*reach, 1.6 * (peak.high if np.isfinite(peak.high) and peak.high < 10 * peak.value else peak.value))
    # The curve starts with the square root of the KL: points lie closer where it bends.
    kls = (far if np.isfinite(far) else 2 * max(reach)) * np.linspace(0.0, 1.0, _CURVE_POINTS) ** 2
    series = [
        Series(
            name="your own curve" if plan.own else "curve as read off",
            points=tuple((float(kl), float(curve.gold(kl))) for kl in kls),
            band=tuple((float(kl), *interval(draws.gold(float(kl)))) for kl in kls),
        )
    ]
    if plan.measured:
        points = tuple((each.kl, each.gold) for each in plan.measured)
        series.append(Series(name="measured", points=points, style="points"))
    marks = [Mark(at=each, label=label) for each, label in ((budget.low, "allow"), (peak.value, "peak"))]
    if plan.kl is not None:
        marks.append(Mark(at=plan.kl, label=plan.kl_source))
    return LineChart(
        title="Gold reward along KL",
        x=Axis(label="KL from the reference (nats a completion)"),
        y=Axis(label="gold reward"),
        series=tuple(series),
        x_marks=tuple(mark for mark in marks if np.isfinite(mark.at)),
        caption=f"{plan.said}; the band is the 95 % range.",
    )

"""`weightgate plan optimal`: the best size and number of tokens for a budget, over every law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weightgate.plan.answer import Answer
from weightgate.plan.budget import Compute, Cost, Machines, cost_of
from weightgate.plan.downstream import task_error, tasks_table
from weightgate.plan.laws import hyperparameters
from weightgate.plan.laws.allocations import ALLOCATIONS
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import LOSS_LAWS, LossLaw
from weightgate.plan.laws.provenance import Provenance
from weightgate.plan.plots import frontier_chart, isoflop_chart
from weightgate.plan.quantities import spell_quantity, spell_range
from weightgate.plan.spread import Spread, counted_laws, spread
from weightgate.report.finding import Finding
from weightgate.report.page import (
    Block,
    Cell,
    Column,
    Figure,
    Findings,
    Headline,
    Page,
    Section,
    Table,
)

_FAR = 0.5
"""Decades of compute outside a law's runs from which on a page says so."""


@dataclass(frozen=True, kw_only=True)
class LawsOptimum:
    """What one law says about a budget; `loss` is None for laws that only allocate."""

    law: str
    parameters: float
    tokens: float
    loss: float | None
    unit: str
    provenance: Provenance

    @property
    def counts(self) -> bool:
        """Whether ranges count it."""
        return not self.provenance.superseded


def optimum_by_law(flops: float, law: LossLaw) -> list[LawsOptimum]:
    """Every law's answer, the chosen one first. A law in another unit stands alone."""
    others = [each for each in LOSS_LAWS if each.name != law.name] if len(counted_laws(law)) > 1 else []
    rows = [_of_loss_law(each, flops) for each in (law, *others)]
    if others:
        rows += [
            LawsOptimum(
                law=each.name,
                parameters=each.optimum(flops)[0],
                tokens=each.optimum(flops)[1],
                loss=None,
                unit="",
                provenance=each.provenance,
            )
            for each in ALLOCATIONS
        ]
    return sorted(rows, key=lambda row: not row.counts)


def _of_loss_law(law: LossLaw, flops: float) -> LawsOptimum:
    parameters, tokens = (float(each) for each in law.constants.optimum(flops))
    loss = float(law.constants.loss(parameters, tokens))
    return LawsOptimum(
        law=law.name, parameters=parameters, tokens=tokens, loss=loss, unit=law.unit, provenance=law.provenance
    )


def optimal(
    compute: Compute, law: LossLaw, *, machines: Machines | None = None, point: tuple[float, float] | None = None
) -> Answer:
    """Answer for a budget.

    Args:
        machines: what to price the budget on; None: no time and price.
        point: parameters and tokens of the user's own plan, shown beside the optimum.
    """
    flops = compute.flops.value
    rows = optimum_by_law(flops, law)
    allocated = [row for row in rows if row.counts and row.loss is None]
    parameters = spread(law, lambda c: c.optimum(flops)[0], more=tuple(row.parameters for row in allocated))
    tokens = spread(law, lambda c: c.optimum(flops)[1], more=tuple(row.tokens for row in allocated))
    gain = spread(law, lambda c: c.best_loss(flops) - c.best_loss(2 * flops))
    cost = cost_of(flops, parameters.value, machines) if machines else None
    shown = point or (parameters.value, tokens.value)
    numbers: dict[str, Any] = {
        "flops": compute.flops.to_json(),
        "parameters": parameters.to_json(),
        "tokens": tokens.to_json(),
        "loss": spread_of_loss(law, flops),
        "loss_bought_by_doubling": gain.to_json(),
        "task_error": task_error(*shown).to_json(),
        "cost": cost.to_json() if cost else None,
        "laws": [_row_json(row) for row in rows],
    }
    if point is not None:
        numbers["excess_compute"] = spread(law, lambda c: c.excess_compute(*point)).to_json()
    blocks: list[Block | Section] = [
        _headline(compute, law, parameters, tokens, gain, cost),
        *_point_findings(law, point),
        laws_table(rows, flops),
        isoflop_chart(law, SIX * shown[0] * shown[1] if point else flops, shown),
        frontier_chart(law, flops, shown),
        tasks_table(*shown),
        settings_table(parameters.value, tokens.value),
        *_doubts(rows[0], flops),
        _sources(rows),
    ]
    return Answer(
        numbers=numbers, page=Page(title="Best use of a training budget", subtitle=compute.said, blocks=tuple(blocks))
    )


def spread_of_loss(law: LossLaw, flops: float) -> dict[str, Any]:
    """Loss at the optimum with the law's own bootstrap; other laws' losses are of other texts."""
    own = spread(law, lambda c: c.best_loss(flops))
    return {"value": own.value, "bootstrap_95": list(own.bootstrap) if own.bootstrap else None, "unit": law.unit}


def _row_json(row: LawsOptimum) -> dict[str, Any]:
    return {
        "law": row.law,
        "parameters": row.parameters,
        "tokens": row.tokens,
        "loss": row.loss,
        "counted": row.counts,
        "source": row.provenance.source,
        "doubt": row.provenance.doubt or row.provenance.superseded,
    }


def _headline(
    compute: Compute, law: LossLaw, parameters: Spread, tokens: Spread, gain: Spread, cost: Cost | None
) -> Headline:
    flops = compute.flops
    text = (
        f"For {compute.said}, train {spell_quantity(parameters.value)} parameters "
        f"({spell_range(parameters.low, parameters.high)}) on {spell_quantity(tokens.value)} tokens "
        f"({spell_range(tokens.low, tokens.high)}); doubling the budget buys {gain.value:.3f} {law.unit.split('/')[0]} "
        f"({gain.low:.3f} to {gain.high:.3f})."
    )
    figures = [
        Figure(label="compute", value=f"{flops.value:.3g} FLOP", note=_ends(flops.low, flops.high, "{:.2g}")),
        Figure(label="tokens a parameter", value=f"{tokens.value / parameters.value:.3g}", note=law.name),
        Figure(
            label=f"loss, {law.unit}",
            value=f"{float(law.constants.best_loss(flops.value)):.3f}",
            note=_loss_note(law, flops.value),
        ),
    ]
    if cost is not None:
        figures.append(
            Figure(
                label="time", value=f"{cost.hours.value:,.3g} h", note=_ends(cost.hours.low, cost.hours.high, "{:,.3g}")
            )
        )
    if cost is not None and cost.dollars is not None:
        dollars = cost.dollars
        figures.append(
            Figure(label="price", value=f"${dollars.value:,.0f}", note=_ends(dollars.low, dollars.high, "${:,.0f}"))
        )
    return Headline(severity="note", text=text, figures=tuple(figures))


def _ends(low: float, high: float, form: str) -> str:
    return "" if low == high else f"{form.format(low)} to {form.format(high)}"


def _loss_note(law: LossLaw, flops: float) -> str:
    own = spread(law, lambda c: c.best_loss(flops)).bootstrap
    return f"{own[0]:.3f} to {own[1]:.3f} by bootstrap" if own else "no interval: this law has no draws"


def laws_table(rows: list[LawsOptimum], flops: float) -> Table:
    """What each law says, and how far the budget lies outside its runs."""
    columns = (
        Column(name="law"),
        Column(name="parameters", align="right"),
        Column(name="tokens", align="right"),
        Column(name="tokens a parameter", align="right"),
        Column(name="loss", align="right"),
        Column(name="remark"),
    )
    return Table(
        title="What each law says",
        columns=columns,
        rows=tuple(_law_row(row, flops) for row in rows),
        caption="Losses are of different texts and tokenizers and do not compare; sizes do, as far as the same "
        "parameters are counted.",
    )


def _law_row(row: LawsOptimum, flops: float) -> tuple[Cell | str, ...]:
    beyond = row.provenance.decades_beyond(flops)
    remarks = ["not counted in ranges"] if not row.counts else []
    remarks += [f"{beyond:.1f} decades outside its runs"] if beyond > _FAR else []
    return (
        Cell(text=row.law, severity=None if row.counts else "warn"),
        spell_quantity(row.parameters),
        spell_quantity(row.tokens),
        f"{row.tokens / row.parameters:.3g}",
        "" if row.loss is None else f"{row.loss:.3f}",
        "; ".join(remarks),
    )


def _sources(rows: list[LawsOptimum]) -> Section:
    columns = (Column(name="law"), Column(name="source"), Column(name="N counts"), Column(name="doubt"))
    table = Table(
        columns=columns,
        rows=tuple(
            (
                row.law,
                Cell(text=row.provenance.source, detail=row.provenance.corpus),
                row.provenance.counts,
                "; ".join(filter(None, (row.provenance.superseded, row.provenance.doubt))),
            )
            for row in rows
        ),
    )
    return Section(
        title="Where the laws come from",
        summary="papers, what N counts, and what is known to be wrong with each",
        blocks=(table,),
        collapsed=True,
    )


def settings_table(parameters: float, tokens: float) -> Table:
    """Learning rate and batch as several laws advise them for AdamW."""
    columns = (
        Column(name="law"),
        Column(name="peak learning rate", align="right"),
        Column(name="batch, tokens", align="right"),
        Column(name="source"),
    )
    rows = tuple(
        (
            each.law,
            f"{each.learning_rate:.2g}",
            spell_quantity(each.batch_tokens),
            Cell(text=each.source, detail=each.doubt),
        )
        for each in hyperparameters.advised(parameters, tokens)
    )
    return Table(
        title="Learning rate and batch",
        columns=columns,
        rows=rows,
        caption="Starting points: each law was fitted with its own optimizer settings, schedule and data.",
    )


def _point_findings(law: LossLaw, point: tuple[float, float] | None) -> list[Findings]:
    if point is None:
        return []
    excess = spread(law, lambda c: c.excess_compute(*point))
    text = (
        f"{spell_quantity(point[0])} parameters on {spell_quantity(point[1])} tokens take "
        f"{excess.described(lambda value: f'{value:.2f}')} times the compute that their loss needs."
    )
    return [Findings(findings=(Finding(severity="pass" if excess.value < 1.2 else "warn", headline=text),))]


def _doubts(row: LawsOptimum, flops: float) -> list[Findings]:
    beyond = row.provenance.decades_beyond(flops)
    if beyond <= _FAR:
        return []
    low, high = row.provenance.flops
    found = Finding(
        severity="warn",
        headline=f"{flops:.2g} FLOP lies {beyond:.1f} decades outside the runs behind {row.law}",
        detail=f"Its runs span {low:.1g} to {high:.1g} FLOP. Tokens a parameter are hardly known that far out: fit a "
        "law to your own runs with `weightgate plan fit`.",
    )
    return [Findings(findings=(found,))]

"""`weightgate plan next`: what the next doubling of compute, data or parameters buys, in loss and in money."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weightgate.plan.answer import Answer
from weightgate.plan.budget import Machines, cost_of
from weightgate.plan.doubted import Doubted
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.laws.loss import Constants, LossLaw
from weightgate.plan.laws.repetition import Repetition
from weightgate.plan.plots import frontier_chart, isoflop_chart
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.spread import Spread, spread
from weightgate.report.page import Cell, Column, Headline, Page, Table


@dataclass(frozen=True, kw_only=True)
class Run:
    """A pre-training run as planned: parameters, tokens read, and how many of them are unique."""

    parameters: float
    tokens: float
    unique: float

    @property
    def flops(self) -> float:
        """6 N D."""
        return SIX * self.parameters * self.tokens

    def loss(self, constants: Constants) -> Any:
        """Loss with repeats counted for what they are worth."""
        return Repetition(constants=constants).loss(self.parameters, self.tokens, self.unique)


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """One doubling: what it buys, and what it costs more. `dollars` is None where no machine was named."""

    name: str
    gain: Spread
    more_flops: float
    dollars: Doubted | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.name,
            "gain": self.gain.to_json(),
            "more_flops": self.more_flops,
            "more_dollars": self.dollars.to_json() if self.dollars else None,
        }


COMPUTE, TOKENS, PARAMETERS, UNIQUE = (
    "compute, split as is best",
    "tokens read",
    "parameters",
    "unique data, at the same compute",
)


def doublings(run: Run, law: LossLaw, machines: Machines | None = None) -> dict[str, Doubling]:
    """Every doubling from `run`, by name."""
    flops = run.flops

    def best_of_twice(constants: Constants) -> Any:
        # The gain from the plan's own point to the optimum of twice the compute, repeats counted at that optimum.
        parameters, tokens = constants.optimum(2 * flops)
        return Repetition(constants=constants).loss(parameters, tokens, run.unique)

    after: dict[str, tuple[Callable[[Constants], Any], float, float]] = {
        COMPUTE: (best_of_twice, flops, run.parameters * 2**0.5),
        TOKENS: (Run(parameters=run.parameters, tokens=2 * run.tokens, unique=run.unique).loss, flops, run.parameters),
        PARAMETERS: (
            Run(parameters=2 * run.parameters, tokens=run.tokens, unique=run.unique).loss,
            flops,
            2 * run.parameters,
        ),
        UNIQUE: (_twice_the_data(run), 0.0, run.parameters),
    }
    return {
        name: Doubling(
            name=name,
            gain=spread(law, lambda c, loss=loss: run.loss(c) - loss(c)),  # type: ignore[misc]
            more_flops=more,
            dollars=cost_of(more, size, machines).dollars if machines and more else None,
        )
        for name, (loss, more, size) in after.items()
    }


def _twice_the_data(run: Run) -> Callable[[Constants], Any]:
    """Twice the unique tokens for the same compute: fewer repeats, or more tokens on a smaller model if none repeat."""
    if run.tokens >= 2 * run.unique:
        return Run(parameters=run.parameters, tokens=run.tokens, unique=2 * run.unique).loss
    return Run(parameters=run.parameters, tokens=run.tokens, unique=min(2 * run.unique, run.tokens)).loss


def next_doubling(
    run: Run, law: LossLaw, *, machines: Machines | None = None, dollars_per_token: float | None = None
) -> Answer:
    """Answer for a planned run.

    Args:
        dollars_per_token: what a new unique token costs; None: the price below which it is the better buy is named.
    """
    rows = doublings(run, law, machines)
    excess = spread(law, lambda c: c.excess_compute(run.parameters, run.tokens))
    numbers: dict[str, Any] = {
        "run": {**vars(run), "flops": run.flops},
        "excess_compute": excess.to_json(),
        "doublings": {name: row.to_json() for name, row in rows.items()},
        "break_even_dollars_per_token": break_even(rows, run),
        "dollars_per_token": dollars_per_token,
    }
    point = (run.parameters, run.tokens)
    blocks = (
        Headline(severity="note", text=_sentence(rows, run, law, dollars_per_token)),
        _table(rows, law),
        isoflop_chart(law, run.flops, point),
        frontier_chart(law, run.flops, point),
    )
    subtitle = f"{spell_quantity(run.parameters)} parameters on {spell_quantity(run.tokens)} tokens, of which "
    subtitle += f"{spell_quantity(run.unique)} unique"
    return Answer(numbers=numbers, page=Page(title="The next doubling", subtitle=subtitle, blocks=blocks))


def break_even(rows: dict[str, Doubling], run: Run) -> float | None:
    """Dollars a new unique token may cost so that a dollar of data buys as much as a dollar of compute."""
    compute, data = rows[COMPUTE], rows[UNIQUE]
    if compute.dollars is None or compute.gain.value <= 0:
        return None
    return max(0.0, compute.dollars.value * data.gain.value / compute.gain.value / run.unique)


def _sentence(rows: dict[str, Doubling], run: Run, law: LossLaw, dollars_per_token: float | None) -> str:
    compute, data, nats = rows[COMPUTE], rows[UNIQUE], law.unit.split("/")[0]
    money = f" for ${compute.dollars.value:,.0f}" if compute.dollars else ""
    text = f"Doubling the compute buys {_gain(compute.gain)} {nats}{money}; "
    text += f"doubling the unique data at the same compute {_gain(data.gain)}"
    even = break_even(rows, run)
    if data.gain.value <= 0:
        return text + ": no token is read twice, so more data alone buys nothing."
    if even is None:
        better = "the data" if data.gain.value > compute.gain.value else "the compute"
        return text + f": {better} buys more for a doubling. Name --gpu to weigh them in money."
    if dollars_per_token is None:
        return text + f": data is the better buy below ${even * 1e9:,.3g} a billion new tokens."
    better = "data" if dollars_per_token < even else "compute"
    return (
        text + f": at ${dollars_per_token * 1e9:,.3g} a billion new tokens the next dollar is better spent on {better}."
    )


def _gain(gain: Spread) -> str:
    return f"{gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f})"


def _table(rows: dict[str, Doubling], law: LossLaw) -> Table:
    columns = (
        Column(name="doubled"),
        Column(name=f"buys, {law.unit}", align="right"),
        Column(name="more FLOP", align="right"),
        Column(name="more dollars", align="right"),
    )
    cells = []
    for row in rows.values():
        over = f"{row.gain.over_laws[0]:+.4f} to {row.gain.over_laws[1]:+.4f} over {row.gain.num_laws} laws"
        own = (
            f"; {row.gain.bootstrap[0]:+.4f} to {row.gain.bootstrap[1]:+.4f} by bootstrap" if row.gain.bootstrap else ""
        )
        money = row.dollars
        cells.append(
            (
                row.name,
                Cell(text=f"{row.gain.value:+.4f}", detail=over + own),
                f"{row.more_flops:.3g}" if row.more_flops else "none",
                Cell(text=f"${money.value:,.0f}", detail=f"${money.low:,.0f} to ${money.high:,.0f}") if money else "",
            )
        )
    return Table(
        title="What a doubling buys",
        columns=columns,
        rows=tuple(cells),
        caption="A negative gain: it makes the loss worse.",
    )

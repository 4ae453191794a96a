"""`weightgate plan inference`: the cheapest model of a quality once it has answered all that it will be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from weightgate.errors import UserError
from weightgate.plan.answer import Answer
from weightgate.plan.downstream import waiting_table
from weightgate.plan.laws.demand import Lifetime, cheapest_size, implied_demand, lifetime
from weightgate.plan.laws.loss import Constants, LossLaw
from weightgate.plan.quantities import spell_quantity, spell_range
from weightgate.plan.spread import Spread, counted_laws, spread
from weightgate.report.page import Axis, Column, Figure, Headline, LineChart, Page, Prose, Series, Table

_DEMANDS = 41
_DEMAND_DECADES = 1.5


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A quality as the training compute with which the optimum reaches it; losses do not compare between laws."""

    flops: float
    said: str

    def loss(self, law: Constants) -> Any:
        """The same quality as this law's loss."""
        return law.best_loss(self.flops)


def quality_of_loss(loss: float, law: LossLaw) -> Quality:
    """A quality stated as a loss. Raises `UserError` where no model reaches it."""
    flops = float(law.constants.flops_for(loss))
    if not np.isfinite(flops) or flops <= 0:
        raise UserError(
            "no model reaches this loss",
            where="--quality",
            expected=f"more than {law.name}'s irreducible loss of {law.constants.E:.4g} {law.unit}",
            found=f"{loss:g}",
        )
    return Quality(flops=flops, said=f"a loss of {loss:g} {law.unit} by {law.name}")


def quality_of_size(parameters: float, law: LossLaw) -> Quality:
    """The quality of a model of this size, trained on as many tokens as is best for training alone."""
    constants = law.constants
    flops = float(6 * (parameters / constants.ratio) ** (1 / constants.parameters_exponent))
    return Quality(flops=flops, said=f"the quality of {spell_quantity(parameters)} parameters, trained as is best")


def inference(quality: Quality, demand: float, law: LossLaw, *, inference_price: float = 1.0) -> Answer:
    """Work back from inference.

    Args:
        demand: tokens read and written over the model's life.
        inference_price: price of an inference FLOP over that of a training FLOP.
    """

    def size(c: Constants) -> tuple[Any, Any]:
        return cheapest_size(c, quality.loss(c), demand, inference_price=inference_price)

    def saving(c: Constants) -> Any:
        return 1 - _dollars(size(c), demand, inference_price) / _dollars(
            c.optimum(quality.flops), demand, inference_price
        )

    parameters, tokens = spread(law, lambda c: size(c)[0]), spread(law, lambda c: size(c)[1])
    saved = spread(law, saving)
    alone = tuple(float(each) for each in law.constants.optimum(quality.flops))
    rows = [
        ("best for training alone", lifetime(alone[0], alone[1], demand)),
        ("best over its life", lifetime(parameters.value, tokens.value, demand)),
    ]
    numbers = {
        "quality_flops": quality.flops,
        "loss": float(quality.loss(law.constants)),
        "demand": demand,
        "inference_price": inference_price,
        "parameters": parameters.to_json(),
        "tokens": tokens.to_json(),
        "saving": saved.to_json(),
        "training_optimum": {"parameters": alone[0], "tokens": alone[1]},
        "implied_demand_of_training_optimum": implied_demand(law.constants, *alone),
        "lifetimes": {name: dict(vars(life)) | {"total": life.total} for name, life in rows},
    }
    blocks = (
        _headline(quality, demand, parameters, tokens, saved, alone[0]),
        _table(rows, law),
        _law_table(quality, demand, law, inference_price),
        _chart(quality, demand, law, inference_price),
        waiting_table(parameters.value),
        Prose(
            text="Smaller models that read more tokens are followed beyond what most laws were fitted on: the range "
            "over laws is the honest answer, and the printed constants of one law are not."
        ),
    )
    return Answer(
        numbers=numbers,
        page=Page(
            title="Cheapest model over its life",
            subtitle=f"{quality.said}, {spell_quantity(demand)} tokens",
            blocks=blocks,
        ),
    )


def _dollars(size: tuple[Any, Any], demand: float, inference_price: float) -> Any:
    parameters, tokens = size
    return 6 * parameters * tokens + 2 * parameters * demand * inference_price


def _headline(
    quality: Quality, demand: float, parameters: Spread, tokens: Spread, saved: Spread, alone: float
) -> Headline:
    text = (
        f"To serve {spell_quantity(demand)} tokens at {quality.said}, train {spell_quantity(parameters.value)} "
        f"parameters ({spell_range(parameters.low, parameters.high)}) on {spell_quantity(tokens.value)} tokens "
        f"({spell_range(tokens.low, tokens.high)}): {saved.value:.0%} less over its life "
        f"({saved.low:.0%} to {saved.high:.0%}) than the {spell_quantity(alone)} that training alone would want."
    )
    figures = (
        Figure(label="parameters", value=spell_quantity(parameters.value), note=parameters.law),
        Figure(label="tokens a parameter", value=f"{tokens.value / parameters.value:,.3g}"),
        Figure(label="saved", value=f"{saved.value:.1%}", note=f"{saved.low:.1%} to {saved.high:.1%}"),
    )
    return Headline(severity="note", text=text, figures=figures)


def _table(rows: list[tuple[str, Lifetime]], law: LossLaw) -> Table:
    names = ("", "parameters", "tokens", "training FLOP", "inference FLOP", "both")
    return Table(
        title=f"Two models of one quality, by {law.name}",
        columns=tuple(Column(name=name, align="right" if name else "left") for name in names),
        rows=tuple(
            (
                name,
                spell_quantity(life.parameters),
                spell_quantity(life.tokens),
                f"{life.training:.3g}",
                f"{life.inference:.3g}",
                f"{life.total:.3g}",
            )
            for name, life in rows
        ),
        caption="Training 6 N D, inference 2 N a token (Sardana et al. 2024).",
    )


def _law_table(quality: Quality, demand: float, law: LossLaw, inference_price: float) -> Table:
    names = ("law", "parameters", "tokens", "size against training alone", "tokens against training alone", "saved")
    rows = []
    for each in counted_laws(law):
        c = each.constants
        best = c.optimum(quality.flops)
        size = cheapest_size(c, quality.loss(c), demand, inference_price=inference_price)
        saved = 1 - _dollars(size, demand, inference_price) / _dollars(best, demand, inference_price)
        rows.append(
            (
                each.name,
                spell_quantity(float(size[0])),
                spell_quantity(float(size[1])),
                f"{float(size[0] / best[0]):.2f}",
                f"{float(size[1] / best[1]):.2f}",
                f"{float(saved):.1%}",
            )
        )
    return Table(
        title="What each law says",
        columns=tuple(Column(name=name, align="left" if name == "law" else "right") for name in names),
        rows=tuple(rows),
        caption="The quality is that of the same training compute, spent well, under each law.",
    )


def _chart(quality: Quality, demand: float, law: LossLaw, inference_price: float) -> LineChart:
    demands = demand * np.geomspace(10**-_DEMAND_DECADES, 10**_DEMAND_DECADES, _DEMANDS)
    laws, points, band = counted_laws(law), [], []
    for each in demands:
        sizes = [
            float(cheapest_size(c, quality.loss(c), float(each), inference_price=inference_price)[0])
            for c in (one.constants for one in laws)
        ]
        points.append((float(each), sizes[0]))
        band.append((float(each), min(sizes), max(sizes)))
    return LineChart(
        title="Cheapest size by demand",
        x=Axis(label="tokens served over its life", log=True),
        y=Axis(label="parameters", log=True),
        series=(
            Series(name=f"{law.name}, range over {len(laws)} laws", points=tuple(points), band=tuple(band)),
            Series(name="this plan", points=(points[len(points) // 2],), style="points"),
        ),
    )

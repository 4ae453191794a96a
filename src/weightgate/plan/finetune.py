"""`weightgate plan finetune`: how much data buys what, and which way to tune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weightgate.plan.answer import Answer
from weightgate.plan.budget import Cost, Machines, cost_of
from weightgate.plan.doubted import Doubted, doubted
from weightgate.plan.laws import finetuning
from weightgate.plan.laws.finetuning import DATA_EXPONENTS, METHODS, TRANSLATION, Method
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.spread import interval
from weightgate.report.finding import Finding
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

_TASK = "English to German"
_DRAWS = 2000
_CURVE_POINTS = 41
_LEAST_EXAMPLES = 1e3
_MULTIPLES = (2.0, 10.0, 100.0)
_FROZEN_FACTOR = 2 / 3
"""Training a model whose own weights stay as they are: forward and the gradient of inputs, two parts of three."""

_SAID: dict[Method, str] = {"full": "full tuning", "lora": "LoRA", "prompt": "prompt tuning"}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A fine-tuning as planned. `tokens_per_sample` is None where nobody said: then no compute is counted."""

    parameters: float
    examples: float
    tokens_per_sample: float | None = None
    epochs: float = 1.0

    def flops(self, method: Method) -> float | None:
        """Training compute; frozen weights take no gradient."""
        if self.tokens_per_sample is None:
            return None
        full = SIX * self.parameters * self.examples * self.tokens_per_sample * self.epochs
        return full if method == "full" else _FROZEN_FACTOR * full


def loss_of(method: Method, parameters: float, examples: float) -> Doubted:
    """Loss on the law's own task."""
    drawn = finetuning.as_printed(method, draws=_DRAWS).loss(parameters, examples)
    return doubted(TRANSLATION[method].loss(parameters, examples), drawn)


def examples_for(method: Method, loss: float, parameters: float) -> Doubted:
    """Examples with which the loss is reached on the law's own task; infinite where none are enough."""
    drawn = finetuning.as_printed(method, draws=_DRAWS).examples_for(loss, parameters)
    return doubted(TRANSLATION[method].examples_for(loss, parameters), drawn)


def overtaking(parameters: float) -> Doubted:
    """Examples beyond which full tuning leaves less above its floor than LoRA does above its own."""
    drawn = finetuning.equal_gap_examples(
        finetuning.as_printed("full", draws=_DRAWS), finetuning.as_printed("lora", draws=_DRAWS, seed=1), parameters
    )
    return doubted(finetuning.equal_gap_examples(TRANSLATION["full"], TRANSLATION["lora"], parameters), drawn)


def taken_off(method: Method, factor: float) -> Doubted:
    """Share of what is left above the floor that `factor` times the examples take off; the range is over tasks."""
    by_task = [1 - factor ** -exponents[method] for exponents in DATA_EXPONENTS.values()]
    return Doubted(value=by_task[0], low=min(by_task), high=max(by_task))


def finetune(
    tuning: Tuning, *, method: Method | None = None, quality: float | None = None, machines: Machines | None = None
) -> Answer:
    """Answer for a fine-tuning.

    Args:
        method: the one that is planned; None: the one that leaves less above its floor.
        quality: a loss on the law's own task for which the examples are worked out.
        machines: what to price it on; None: no time and price.
    """
    crossing = overtaking(tuning.parameters)
    chosen: Method = method or ("full" if tuning.examples > crossing.value else "lora")
    losses = {each: loss_of(each, tuning.parameters, tuning.examples) for each in METHODS}
    costs = {each: _cost(tuning, each, machines) for each in METHODS}
    wanted = {each: examples_for(each, quality, tuning.parameters) for each in METHODS} if quality is not None else {}
    beyond = finetuning.decades_beyond(tuning.parameters, tuning.examples)
    numbers = {
        "parameters": tuning.parameters,
        "examples": tuning.examples,
        "method": chosen,
        "law": finetuning.SOURCE,
        "decades_beyond": beyond,
        "loss": {each: value.to_json() for each, value in losses.items()},
        "flops": {each: tuning.flops(each) for each in METHODS},
        "cost": {each: cost.to_json() if cost else None for each, cost in costs.items()},
        "full_overtakes_lora_at_examples": crossing.to_json(),
        "taken_off_by_twice_the_examples": {each: taken_off(each, 2).to_json() for each in METHODS},
        "examples_for_quality": {each: value.to_json() for each, value in wanted.items()} or None,
    }
    blocks: list[Block] = [
        _headline(tuning, chosen, losses[chosen], crossing),
        Findings(findings=tuple(_findings(tuning, chosen, crossing, beyond))),
        _methods_table(tuning, chosen, losses, costs),
        *([_quality_table(quality, wanted)] if quality is not None else []),
        _worth_table(chosen),
        _examples_chart(tuning, crossing),
        _size_chart(tuning),
        Prose(text=_WARNING),
    ]
    subtitle = f"{spell_quantity(tuning.parameters)} parameters, {spell_quantity(tuning.examples)} examples"
    return Answer(
        numbers=numbers, page=Page(title="What fine-tuning data buys", subtitle=subtitle, blocks=tuple(blocks))
    )


_WARNING = (
    f"The law is that of {finetuning.SOURCE}: models of 1B to 16B parameters, at most 20M examples, translation and "
    "summaries. Losses are those of its task (English to German) and compare with no other; shares and exponents are "
    "what carries over, and they differ between its three tasks by factors. Its constants are printed with two digits: "
    "ranges of losses and of examples are what that rounding leaves open, the least doubt there is. Its ways to tune "
    "were fitted with floors of their own (0.75, 0.62 and 0.62), so which loss is lowest hangs on floors that no run "
    "reached; what is left above the floor is compared instead, as the paper does."
)


def _cost(tuning: Tuning, method: Method, machines: Machines | None) -> Cost | None:
    flops = tuning.flops(method)
    return cost_of(flops, tuning.parameters, machines) if machines and flops else None


def _headline(tuning: Tuning, chosen: Method, loss: Doubted, crossing: Doubted) -> Headline:
    twice = taken_off(chosen, 2)
    base = 1 - 2 ** -float(TRANSLATION[chosen].alpha)
    text = (
        f"With {_SAID[chosen]}, twice the {spell_quantity(tuning.examples)} examples take {twice.value:.1%} "
        f"({twice.low:.1%} to {twice.high:.1%} over tasks) off what is left above the floor, a base model of twice the "
        f"size {base:.0%}; from {spell_quantity(crossing.value)} examples on "
        f"({crossing.ends(spell_quantity)}) full tuning leaves less than LoRA."
    )
    figures = (
        Figure(label=f"loss, {_TASK}", value=f"{loss.value:.3f}", note=f"{loss.low:.3f} to {loss.high:.3f}"),
        Figure(
            label="full tuning overtakes at",
            value=spell_quantity(crossing.value),
            note=crossing.ends(spell_quantity),
        ),
        Figure(
            label="examples that halve what is left",
            value=spell_quantity(2 ** (1 / float(TRANSLATION[chosen].beta))) + " times",
            note=_halving_note(chosen),
        ),
    )
    return Headline(severity="note", text=text, figures=figures)


def _halving_note(method: Method) -> str:
    factors = [2 ** (1 / exponents[method]) for exponents in DATA_EXPONENTS.values()]
    return f"{spell_quantity(min(factors))} to {spell_quantity(max(factors))} over tasks"


def _findings(tuning: Tuning, chosen: Method, crossing: Doubted, beyond: float) -> list[Finding]:
    found = []
    if beyond > 0:
        found.append(
            Finding(
                severity="warn",
                headline=f"this plan lies {beyond:.1f} decades outside the runs behind the law",
                detail="They were models of 1B to 16B parameters on at most 20M examples. Its losses mean nothing this "
                "far out; how methods rank, and what more data is worth, may still.",
            )
        )
    better: Method = "full" if tuning.examples > crossing.value else "lora"
    sure = not crossing.low <= tuning.examples <= crossing.high
    doubt = "" if sure else ", but the constants' rounding alone allows either"
    found.append(
        Finding(
            severity="pass" if better == chosen or not sure or chosen == "prompt" else "warn",
            headline=f"{_SAID[better]} leaves less above its floor at this many examples{doubt}",
            detail="Thousands of examples: an adapter; millions: full tuning (Zhang et al. 2024, section 5). What is "
            "forgotten hangs on the learning rate more than on the method: a gate on the earlier hold-out tells.",
        )
    )
    return found


def _methods_table(
    tuning: Tuning, chosen: Method, losses: dict[Method, Doubted], costs: dict[Method, Cost | None]
) -> Table:
    priced, counted = any(costs.values()), tuning.tokens_per_sample is not None
    names = ["method", f"loss, {_TASK}", "above the floor", "twice the examples take off"]
    names += ["FLOP"] * counted + ["hours", "dollars"] * priced
    rows = []
    for method in METHODS:
        loss, twice = losses[method], taken_off(method, 2)
        row: list[Cell | str] = [
            Cell(text=_SAID[method], severity="pass" if method == chosen else None),
            Cell(text=f"{loss.value:.3f}", detail=f"{loss.low:.3f} to {loss.high:.3f}"),
            f"{loss.value - float(TRANSLATION[method].E):.3f}",
            Cell(text=f"{twice.value:.1%}", detail=f"{twice.low:.1%} to {twice.high:.1%} over tasks"),
        ]
        row += [f"{tuning.flops(method):.3g}"] if counted else []
        rows.append(tuple(row + (_money_cells(costs[method]) if priced else [])))
    return Table(
        title="Ways to tune",
        columns=tuple(Column(name=name, align="left" if name == "method" else "right") for name in names),
        rows=tuple(rows),
        caption=f"{spell_quantity(tuning.parameters)} parameters, {spell_quantity(tuning.examples)} examples.",
    )


def _money_cells(cost: Cost | None) -> list[Cell | str]:
    if cost is None:
        return ["", ""]
    hours, dollars = cost.hours, cost.dollars
    money = (
        Cell(text=f"${dollars.value:,.2f}", detail=f"${dollars.low:,.2f} to ${dollars.high:,.2f}") if dollars else ""
    )
    return [Cell(text=f"{hours.value:,.3g}", detail=f"{hours.low:,.3g} to {hours.high:,.3g}"), money]


def _quality_table(quality: float, wanted: dict[Method, Doubted]) -> Table:
    rows = tuple(
        (
            _SAID[method],
            "no number is enough" if np.isinf(each.value) else spell_quantity(each.value),
            f"{spell_quantity(each.low)} to {'no number' if np.isinf(each.high) else spell_quantity(each.high)}",
            f"{float(TRANSLATION[method].E):.2f}",
        )
        for method, each in wanted.items()
    )
    return Table(
        title=f"Examples for a loss of {quality:g} ({_TASK})",
        columns=(
            Column(name="method"),
            Column(name="examples", align="right"),
            Column(name="range by rounding", align="right"),
            Column(name="floor", align="right"),
        ),
        rows=rows,
    )


def _worth_table(chosen: Method) -> Table:
    """What a doubling, ten and a hundred times of each ingredient take off what is left."""
    law = TRANSLATION[chosen]
    rows: list[tuple[Cell | str, ...]] = [
        (f"examples, {task}", *(_share(factor, exponents[chosen]) for factor in _MULTIPLES))
        for task, exponents in DATA_EXPONENTS.items()
    ]
    others = {"parameters of the base model": float(law.alpha)}
    others["tokens the base model was trained on"] = finetuning.PRETRAINING_EXPONENTS[chosen]
    if chosen in finetuning.ADAPTER_EXPONENTS:
        others["size of the adapter"] = finetuning.ADAPTER_EXPONENTS[chosen]
    rows += [(name, *(_share(factor, exponent) for factor in _MULTIPLES)) for name, exponent in others.items()]
    names = ("more of", *(f"{factor:g} times" for factor in _MULTIPLES))
    return Table(
        title=f"What is taken off what is left above the floor, with {_SAID[chosen]}",
        columns=tuple(Column(name=name, align="left" if name == "more of" else "right") for name in names),
        rows=tuple(rows),
        caption="1 - factor^-exponent (table 4); where no task is named, English to German.",
    )


def _share(factor: float, exponent: float) -> str:
    return f"{1 - factor**-exponent:.1%}"


def _examples_chart(tuning: Tuning, crossing: Doubted) -> LineChart:
    last = max(finetuning.MOST_EXAMPLES, tuning.examples)
    sizes = np.geomspace(min(_LEAST_EXAMPLES, tuning.examples), last, _CURVE_POINTS)
    marks = [Mark(at=crossing.value, label="full overtakes LoRA")] if sizes[0] < crossing.value < sizes[-1] else []
    if last > finetuning.MOST_EXAMPLES:
        marks.append(Mark(at=finetuning.MOST_EXAMPLES, label="end of the law's runs"))
    return LineChart(
        title="Above the floor, by examples",
        x=Axis(label="examples", log=True),
        y=Axis(label="loss above the floor (nats/token)", log=True),
        series=_series(lambda each: (tuning.parameters, each), sizes, tuning.examples),
        x_marks=tuple(marks),
        caption=f"{_TASK}, {spell_quantity(tuning.parameters)} parameters; bands: constants that round to the printed "
        "ones.",
    )


def _size_chart(tuning: Tuning) -> LineChart:
    low, high = finetuning.PARAMETERS
    sizes = np.geomspace(min(low, tuning.parameters), max(high, tuning.parameters), _CURVE_POINTS)
    return LineChart(
        title="Above the floor, by base model",
        x=Axis(label="parameters of the base model", log=True),
        y=Axis(label="loss above the floor (nats/token)", log=True),
        series=_series(lambda each: (each, tuning.examples), sizes, tuning.parameters),
        caption=f"{_TASK}, {spell_quantity(tuning.examples)} examples.",
    )


def _series(point: Callable[[float], tuple[float, float]], sizes: np.ndarray, here: float) -> tuple[Series, ...]:
    """Every method's reducible loss over `sizes` with its band, and this plan's on each."""
    lines, dots = [], []
    for method in METHODS:
        law, drawn = TRANSLATION[method], finetuning.as_printed(method, draws=_DRAWS)
        points = tuple((float(x), float(law.loss(*point(float(x))) - law.E)) for x in sizes)
        band = tuple((float(x), *interval(drawn.loss(*point(float(x))) - drawn.E)) for x in sizes)
        lines.append(Series(name=_SAID[method], points=points, band=band))
        dots.append((here, float(law.loss(*point(here)) - law.E)))
    return (*lines, Series(name="this plan", points=tuple(dots), style="points"))

"""What a build will cost on this machine, and which stages it would rebuild, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from weightgate.build.base import STAGE as BASE
from weightgate.build.base import base_flaws
from weightgate.build.earlier import earlier_runs
from weightgate.build.facts import Facts, Stage, find_facts
from weightgate.build.forecasts import LOSS, remember_forecasts, stage_forecasts
from weightgate.build.pace import as_in_a_build, paced, probe_speed, unprobed
from weightgate.build.run_key import recorded_inputs, stage_inputs
from weightgate.build.workspace import Workspace
from weightgate.data.rows import PairRows
from weightgate.errors import CorruptError
from weightgate.plan import flops
from weightgate.plan.advice import DEFAULT_LAW, data_advice, excess_compute, planned_run, pretraining
from weightgate.plan.laws.saved import find_law
from weightgate.plan.memory import Precision
from weightgate.plan.plots import frontier_chart, isoflop_chart
from weightgate.plan.quantities import spell_quantity
from weightgate.plan.recipe_plan import Machine, StageData, StagePlan, plan_recipe, recipe_shape
from weightgate.plan.resources import Speed, price
from weightgate.recipe import Align
from weightgate.report.finding import Finding
from weightgate.report.page import Block, Cell, Column, Figure, Findings, Headline, Page, Prose, Section, Table
from weightgate.stats import Estimate, Measurement, Unmeasured
from weightgate.store import Store, digest_json
from weightgate.store.lease import in_use
from weightgate.store.records import measured_key
from weightgate.store.states import Recorded, Standing, State, nearest_run, state_of

_GIB = 2**30
_SECONDS_PER_MINUTE = 60
_WELL_SPENT = 1.5
"""Excess compute, at the lower end of its range, above which a plan is warned about."""


def plan_build(workspace: Workspace, *, probe: bool, dollars_per_hour: float | None = None) -> Page:
    """Plan the recipe in this folder, and keep the forecasts for the build.

    Args:
        probe: time a few real training steps first.
        dollars_per_hour: price of this machine; None: no price is given.
    """
    with in_use(workspace.store.root):
        return _planned(workspace, probe=probe, dollars_per_hour=dollars_per_hour)


def _planned(workspace: Workspace, *, probe: bool, dollars_per_hour: float | None) -> Page:
    facts = find_facts(workspace)
    with as_in_a_build(workspace):
        speed = probe_speed(workspace, facts) if probe else unprobed()
        plans = _stage_plans(workspace, facts, speed)
        plans = paced(workspace, facts, plans) if probe else plans
    standings = stage_standings(workspace, facts)
    forecasts = stage_forecasts(workspace, facts, plans)
    remember_forecasts(workspace, facts, forecasts)
    unusable = [BASE] if base_flaws(workspace, facts).digests else []
    unusable += [name for name, standing in standings.items() if standing.is_unusable]
    page = _page(workspace, plans, standings, unusable, speed, dollars_per_hour)
    losses = [f"{name}: {found[LOSS]}" for name, found in forecasts.items() if isinstance(found.get(LOSS), Estimate)]
    told = (
        (Prose(text="Hold-out loss forecast from the store's earlier builds: " + "; ".join(losses)),) if losses else ()
    )
    conventions = _conventions(workspace, facts)
    return replace(page, blocks=(*page.blocks, *told, *_spending(workspace, facts), *conventions))


def _stage_plans(workspace: Workspace, facts: Facts, speed: Speed) -> list[StagePlan]:
    machine = Machine(
        speed=speed,
        precision=cast(Precision, workspace.precision),
        kernel="matmul" if workspace.device.type == "cpu" else "fused",
        processes=workspace.accelerator.num_processes,
    )
    data = {stage.name: _stage_data(facts, stage) for stage in workspace.recipe.stages}
    return plan_recipe(workspace.recipe, data, machine, base_config=facts.config)


def _conventions(workspace: Workspace, facts: Facts) -> tuple[Section, ...]:
    """FLOPs a token of the pre-training as different sources count them."""
    stage = pretraining(workspace.recipe)
    if stage is None:
        return ()
    shape = recipe_shape(workspace.recipe, facts.config)
    rows = tuple(
        (name, f"{each:.4g}") for name, each in flops.training_flops_by_convention(shape, stage.context).items()
    )
    columns = (Column(name="convention"), Column(name="training FLOP a token", align="right"))
    return (
        Section(
            title="How FLOPs are counted",
            summary="the plan counts every matrix product; laws count 6 N D with all parameters",
            blocks=(Table(columns=columns, rows=rows),),
            collapsed=True,
        ),
    )


def _spending(workspace: Workspace, facts: Facts) -> tuple[Findings | Section, ...]:
    """Whether the pre-training's compute is well spent, by every law, and where the plan lies among the best ones."""
    run = planned_run(workspace.recipe, facts.contract["stages"])
    if run is None:
        return ()
    law = find_law(DEFAULT_LAW)
    excess, advice = excess_compute(run, law), data_advice(run, law)
    beyond = law.provenance.decades_beyond(run.flops)
    found = Finding(
        severity="note" if excess.low <= _WELL_SPENT else "warn",
        headline=f"Pre-training takes {excess.described(lambda value: f'{value:.3g}')} times the compute that its loss "
        "needs",
        detail=(
            f"{run.flops:.2g} FLOP lies {beyond:.1f} decades outside the runs of {law.name}: an order of magnitude. "
            if beyond > 1
            else ""
        )
        + f"`weightgate plan optimal --compute {run.flops:.2g}` says how to spend it best.",
    )
    more = (Finding(severity="warn", headline=advice[:1].upper() + advice[1:]),) if advice else ()
    point = (run.parameters, run.tokens)
    charts = (isoflop_chart(law, run.flops, point), frontier_chart(law, run.flops, point))
    return (
        Findings(title="Is the budget well spent", findings=(found, *more)),
        Section(title="Where the plan lies", summary="isoFLOP curves and frontier", blocks=charts, collapsed=True),
    )


def stage_standings(workspace: Workspace, facts: Facts) -> dict[str, Standing]:
    """State of every stage against the store. What stands on a stage that is built anew must be built anew as well.

    A damaged checkpoint is made again with the same bytes, so what stands on it is not touched by that.
    """
    standings: dict[str, Standing] = {}
    for stage in workspace.recipe.stages:
        ancestors = [workspace.recipe.parent_name(stage.name)]
        if isinstance(stage, Align):
            ancestors.append(workspace.recipe.reward_name(stage.name))
        rebuilt = [name for name in ancestors if name and standings[name].is_built_anew]
        if rebuilt:
            standings[stage.name] = _standing_on(rebuilt[0], was_built=bool(_all_runs(workspace.store, stage)))
            continue
        ids = [standings[name].checkpoint if name else None for name in ancestors]
        wanted = stage_inputs(workspace, facts, stage, ids[0], ids[1] if len(ids) > 1 else None)
        standings[stage.name] = _standing(workspace.store, stage, wanted)
    return standings


def _standing_on(parent: str, *, was_built: bool) -> Standing:
    if was_built:
        return Standing(state=State.STALE, reason=f"{parent} will be rebuilt first")
    return Standing(state=State.MISSING, reason="never built")


def _standing(store: Store, stage: Stage, wanted: Mapping[str, Any]) -> Standing:
    """Compare with the runs that had exactly these inputs; only where there are none, with all of the stage."""
    try:
        newest_first = [result.checkpoint for result in reversed(earlier_runs(store, digest_json(wanted)))]
    except CorruptError as error:
        return Standing(state=State.CORRUPT, reason=f"the record of its run cannot be read: {error.where}")
    same = [Recorded(inputs=wanted, checkpoint=each) for each in reversed(list(dict.fromkeys(newest_first)))]
    # A checkpoint with these inputs of which no result tells is of a build that was killed: it counts for nothing.
    runs = same or [run for run in _all_runs(store, stage) if run.inputs != wanted]
    nearest = nearest_run(wanted, runs)
    return state_of(wanted, [_judged(store, run) if run is nearest else run for run in runs])


def _all_runs(store: Store, stage: Stage) -> list[Recorded]:
    return [
        Recorded(inputs=recorded_inputs(manifest), checkpoint=manifest.id)
        for manifest in store.readable_lineage()
        if manifest.stage == stage.name and manifest.stage_kind == stage.kind
    ]


def _judged(store: Store, run: Recorded) -> Recorded:
    """The run with what is wrong with its checkpoint, and what the gates said."""
    results = store.results(measured_key(run.checkpoint))
    verdicts = results[-1].verdicts if results else ()
    failed = tuple(str(v["condition"]) for v in verdicts if v["status"] in ("failed", "not measured"))
    flaws = store.flaws(run.checkpoint)
    return replace(run, failed_gates=failed, missing=flaws.missing, damaged=flaws.damaged)


def _stage_data(facts: Facts, stage: Stage) -> StageData:
    rows = facts.prepared[stage.name].train
    if isinstance(rows, PairRows):
        tokens = 2 * rows.prompt.num_tokens + rows.chosen.num_tokens + rows.rejected.num_tokens
        return StageData(tokens=tokens, samples=len(rows))
    return StageData(tokens=rows.num_tokens, samples=len(rows))


def _page(
    workspace: Workspace,
    plans: list[StagePlan],
    standings: dict[str, Standing],
    unusable: list[str],
    speed: Speed,
    dollars_per_hour: float | None,
) -> Page:
    """The plan itself; `unusable` names the damaged checkpoints."""
    todo = [plan for plan in plans if standings[plan.name].is_built_anew or standings[plan.name].is_unusable]
    seconds = [plan.seconds for plan in todo]
    text = f"{len(todo)} of {len(plans)} stages would be built" if todo else "nothing would be rebuilt"
    blocks: list[Block] = [
        Headline(severity="note", text=text, figures=_figures(todo, dollars_per_hour) if todo else ()),
        _plan_table(plans, standings, dollars_per_hour),
    ]
    if unusable:
        text = (
            f"The checkpoint of {', '.join(unusable)} is damaged or not all there, and `weightgate build` would stop: "
        )
        blocks.append(Prose(text=f"{text}`weightgate build --restart` makes it again, which gives the same bytes."))
    budget = workspace.recipe.budget.minutes
    known = [s.value for s in seconds if isinstance(s, Estimate)]
    if budget is not None and len(known) == len(seconds) and sum(known) > budget * _SECONDS_PER_MINUTE:
        blocks.append(
            Prose(text=f"The plan exceeds the budget of {budget:g} minutes; `weightgate build` would stop at it.")
        )
    if isinstance(speed.training, Estimate):
        blocks.append(Prose(text=f"Measured on this machine: training {speed.training}, sampling {speed.sampling}."))
    return Page(title=f"Plan of {workspace.recipe.name}", blocks=tuple(blocks))


def _figures(todo: list[StagePlan], dollars_per_hour: float | None) -> tuple[Figure, ...]:
    """What the stages that would be built take together."""
    seconds = [plan.seconds for plan in todo]
    dollars = [price(each, dollars_per_hour=dollars_per_hour) for each in seconds] if dollars_per_hour else []
    return (
        Figure(label="time", value=_total(seconds, lambda value: f"{value / _SECONDS_PER_MINUTE:.1f}", " min")),
        *((Figure(label="price", value=_total(dollars, _dollars)),) if dollars_per_hour else ()),
        Figure(label="compute", value=f"{sum(plan.flops for plan in todo):.3g} FLOP"),
        Figure(label="peak memory", value=f"{max(plan.memory.total for plan in todo) / _GIB:.2f} GiB"),
        Figure(label="disk", value=f"{sum(plan.disk.total for plan in todo) / _GIB:.2f} GiB"),
    )


def _dollars(value: float) -> str:
    return f"${value:,.2f}"


def _total(measured: list[Measurement], spelt: Callable[[float], str], unit: str = "") -> str:
    """The sum with its interval, or "not measured" where one of them is not."""
    estimates = [each for each in measured if isinstance(each, Estimate)]
    if len(estimates) < len(measured):
        return "not measured"
    low, value, high = (spelt(sum(getattr(each, side) for each in estimates)) for side in ("low", "value", "high"))
    return f"{value}{unit} [{low}, {high}]"


def _plan_table(plans: list[StagePlan], standings: dict[str, Standing], dollars_per_hour: float | None) -> Table:
    columns = (
        Column(name="stage"),
        Column(name="state"),
        Column(name="parameters", align="right"),
        Column(name="tokens", align="right"),
        Column(name="FLOP", align="right"),
        Column(name="memory", align="right"),
        Column(name="disk", align="right"),
        Column(name="time", align="right"),
        *((Column(name="price", align="right"),) if dollars_per_hour else ()),
    )
    rows = (
        (*_plan_row(plan, standings[plan.name]), *((_price_cell(plan, dollars_per_hour),) if dollars_per_hour else ()))
        for plan in plans
    )
    return Table(columns=columns, rows=tuple(rows))


def _price_cell(plan: StagePlan, dollars_per_hour: float) -> Cell | str:
    dollars = price(plan.seconds, dollars_per_hour=dollars_per_hour)
    if isinstance(dollars, Unmeasured):
        return "not measured"
    return Cell(text=_dollars(dollars.value), detail=f"{_dollars(dollars.low)} to {_dollars(dollars.high)}")


def _plan_row(plan: StagePlan, standing: Standing) -> tuple[Cell | str, ...]:
    fresh = standing.state is State.FRESH
    seconds = f"{plan.seconds.value:,.0f} s" if isinstance(plan.seconds, Estimate) else "not measured"
    return (
        plan.name if plan.name == plan.kind else f"{plan.name} ({plan.kind})",
        Cell(text=str(standing.state), detail=standing.reason, severity="pass" if fresh else "warn"),
        Cell(text=f"{plan.parameters:,}", detail=f"{plan.trained_parameters:,} trained"),
        Cell(text=f"{plan.tokens:,}", detail=f"{spell_quantity(plan.passes)} passes"),
        f"{plan.flops:.3g}",
        f"{plan.memory.total / 2**20:,.0f} MiB",
        f"{plan.disk.total / 2**20:,.0f} MiB",
        seconds,
    )

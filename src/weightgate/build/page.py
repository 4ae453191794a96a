"""The report of a build: one page from what the store remembers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.build.facts import Stage
from weightgate.build.forecasts import LOSS, SECONDS
from weightgate.build.run import Outcome
from weightgate.build.workspace import Workspace
from weightgate.contract import lock
from weightgate.errors import StoreError
from weightgate.lineage import judged_result, verdicts_table
from weightgate.probe.probes import Probe
from weightgate.probe.suites import Suite, load_suite
from weightgate.recipe import Recipe, Reward
from weightgate.report.html import render_html
from weightgate.report.page import (
    Axis,
    Block,
    Cell,
    Column,
    Figure,
    GateVerdict,
    Headline,
    KeyValues,
    LabelledText,
    Lane,
    LaneStage,
    LineChart,
    Page,
    Prose,
    Section,
    Series,
    SideBySide,
    Table,
    measurement_cell,
)
from weightgate.stats import Estimate, measurement_from_json
from weightgate.store import Result, Store

REPORT_NAME = "report.html"
SHOWN_PROBES = 12
"""Prompts shown with their completions before and after; a page holds a sample, the store holds all."""

_CURVES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pretrain": (("loss", "Training loss", "nats per token"), ("gradient_norm", "Gradient norm", "norm")),
    "finetune": (("loss", "Training loss", "nats per supervised token"), ("gradient_norm", "Gradient norm", "norm")),
    "reward": (("loss", "Pair loss", "nats per pair"), ("accuracy", "Pair accuracy in training", "share")),
    "align": (
        ("score", "Reward model score", "score"),
        ("kl", "KL to the reference", "nats per completion"),
        ("completion_tokens", "Completion length", "tokens"),
        ("entropy", "Entropy", "nats per token"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Built:
    """One stage with what the store knows about it."""

    stage: Stage
    checkpoint: str | None
    trained: Result | None
    judged: Result | None

    @property
    def passed(self) -> bool:
        """Whether the stage was judged and every gate let it through."""
        return self.judged is not None and all(v["status"] in ("passed", "waived") for v in self.judged.verdicts)

    @property
    def seconds(self) -> float:
        """Seconds of training; 0 where it was not built."""
        return float(self.trained.cost["seconds"]) if self.trained else 0.0


def write_report(workspace: Workspace, outcome: Outcome, path: Path | None) -> Path:
    """Write the HTML report of a build, by default beside the recipe. Returns its path.

    Raises `StoreError` where the disk refuses.
    """
    target = require_place(workspace, path)
    text = render_html(report_page(workspace, outcome))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def require_place(workspace: Workspace, path: Path | None) -> Path:
    """Return where the report will be written. Raises `StoreError` where it cannot be; ask before hours of training."""
    target = path or workspace.folder / REPORT_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def _unwritable(target: Path, error: OSError) -> StoreError:
    return StoreError(
        "the report cannot be written",
        where=str(target),
        found=error.strerror or str(error),
        mend="weightgate build --report <another file>; what was built is not built again",
    )


def report_page(workspace: Workspace, outcome: Outcome) -> Page:
    """The report: outcome, stage lane, capabilities, curves, completions side by side, gates, contract and cost."""
    recipe, store = workspace.recipe, workspace.store
    built = [_built(store, stage, outcome.checkpoints.get(stage.name)) for stage in recipe.stages]
    sections = [
        Section(title="Capabilities before and after each stage", blocks=(_capability_table(recipe, built),)),
        *_curve_sections(built),
        *_completion_sections(workspace, built),
        Section(title="Gates", blocks=tuple(_gate_tables(built))),
        Section(title="Contract", blocks=_contract(workspace), collapsed=True, summary="what was locked before a step"),
        Section(title="Cost", blocks=(_cost_table(built, outcome), *_forecast_tables(built))),
    ]
    blocks: tuple[Block | Section, ...] = (
        _headline(built, outcome),
        Lane(stages=tuple(_lane_stage(each) for each in built)),
        *sections,
    )
    return Page(title=f"Build of {recipe.name}", subtitle=f"seed {recipe.seed}", blocks=blocks)


def _built(store: Store, stage: Stage, checkpoint: str | None) -> _Built:
    if checkpoint is None:
        return _Built(stage=stage, checkpoint=None, trained=None, judged=None)
    results = store.results(str(store.manifest(checkpoint).inputs.get("key")))
    return _Built(
        stage=stage,
        checkpoint=checkpoint,
        trained=results[-1] if results else None,
        judged=judged_result(store, checkpoint),
    )


def _headline(built: list[_Built], outcome: Outcome) -> Headline:
    verdicts = [verdict for each in built if each.judged for verdict in each.judged.verdicts]
    good = sum(verdict["status"] in ("passed", "waived") for verdict in verdicts)
    done = sum(each.checkpoint is not None for each in built)
    return Headline(
        severity="pass" if outcome.passed else "fail",
        text=outcome.reason[:1].upper() + outcome.reason[1:],
        figures=(
            Figure(label="stages built", value=f"{done} of {len(built)}"),
            Figure(label="gates passed", value=f"{good} of {len(verdicts)}"),
            Figure(label="training", value=f"{sum(each.seconds for each in built):,.0f} s"),
            Figure(label="gates, contract and store", value=f"{sum(outcome.overhead_seconds.values()):,.0f} s"),
        ),
    )


def _lane_stage(each: _Built) -> LaneStage:
    if each.checkpoint is None:
        return LaneStage(
            name=each.stage.name, kind=each.stage.kind, state="not started", severity="note", started=False
        )
    verdicts = each.judged.verdicts if each.judged else ()
    gates = tuple(
        GateVerdict(name=verdict["condition"], verdict=verdict["status"], detail=verdict["reason"])
        for verdict in verdicts
    )
    return LaneStage(
        name=each.stage.name,
        kind=each.stage.kind,
        state="passed its gates" if each.passed else "stopped at its gates",
        severity="pass" if each.passed else "fail",
        short_id=each.checkpoint[3:14],
        cost=f"{each.seconds:,.0f} s",
        gates=gates,
        weight=max(1.0, each.seconds),
    )


def _capability_table(recipe: Recipe, built: list[_Built]) -> Table:
    """Measurements as rows, stages as columns; topics stay in `weightgate show`."""
    judged = [each for each in built if each.judged is not None]
    names = {name for each in judged for name in _measurements(each) if _is_summary(name)}
    thresholds = {(s.name, g.measure): g.min if g.min is not None else g.max for s in recipe.stages for g in s.gates}
    columns = (Column(name="measurement"), *(Column(name=each.stage.name, align="right") for each in judged))
    rows: list[tuple[Cell | str, ...]] = [
        (name, *(_capability_cell(each, name, thresholds.get((each.stage.name, name))) for each in judged))
        for name in sorted(names)
    ]
    return Table(columns=columns, rows=tuple(rows), caption="Each value with its 95 % interval and n.")


def _measurements(each: _Built) -> Mapping[str, Mapping[str, Any]]:
    return each.judged.measurements if each.judged else {}


def _is_summary(name: str) -> bool:
    """`axis.metric` and hold-outs of whole stages; not the topics and domains below them."""
    return name.count(".") == 1 or (name.startswith("holdout.") and name.count(".") == 2)


def _capability_cell(each: _Built, name: str, threshold: float | None) -> Cell:
    data = _measurements(each).get(name)
    if data is None:
        return Cell(text="")
    return measurement_cell(measurement_from_json(dict(data)), threshold=threshold)


def _curve_sections(built: list[_Built]) -> Iterator[Section]:
    for each in built:
        if each.trained is not None:
            charts = [
                _chart(title, unit, each.trained.curves[name])
                for name, title, unit in _CURVES[each.stage.kind]
                if name in each.trained.curves
            ]
            yield Section(title=f"Training: {each.stage.name}", blocks=tuple(charts))


def _chart(title: str, unit: str, curve: list[list[float]]) -> LineChart:
    points = tuple((float(x), float(y)) for x, y in curve)
    return LineChart(title=title, x=Axis(label="step"), y=Axis(label=unit), series=(Series(name=title, points=points),))


def _completion_sections(workspace: Workspace, built: list[_Built]) -> Iterator[Section]:
    """The same prompts after each chat stage, side by side; prompts whose answer changed come first."""
    if workspace.recipe.probes is None:
        return
    suite = load_suite(workspace.folder / workspace.recipe.probes.path)
    answered = {each.stage.name: answers for each in built if (answers := _greedy(each, suite))}
    if len(answered) < 2:
        return
    blocks = tuple(_side_by_side(probe, index, answered) for index, probe in _chosen_probes(suite, answered))
    yield Section(title="Completions side by side", blocks=blocks)


def _greedy(each: _Built, suite: Suite) -> list[str] | None:
    """Greedy answers over the whole suite; None for a stage that was not asked all of it."""
    answers = each.judged.environment.get("answers") if each.judged and not isinstance(each.stage, Reward) else None
    if not answers or len(answers["greedy"]) != len(suite):
        return None
    return list(answers["greedy"])


def _chosen_probes(suite: Suite, answered: Mapping[str, list[str]]) -> list[tuple[int, Probe]]:
    first, *_, last = answered.values()
    chosen: list[tuple[int, Probe]] = []
    topics: dict[str, int] = {}
    changed_first = sorted(range(len(suite)), key=lambda index: first[index] == last[index])
    for index in changed_first:
        probe = suite.probes[index]
        if topics.get(probe.axis, 0) < SHOWN_PROBES // 4:
            topics[probe.axis] = topics.get(probe.axis, 0) + 1
            chosen.append((index, probe))
    return chosen[:SHOWN_PROBES]


def _side_by_side(probe: Probe, index: int, answered: Mapping[str, list[str]]) -> SideBySide:
    texts = tuple(LabelledText(label=stage, text=answers[index]) for stage, answers in answered.items())
    return SideBySide(prompt=probe.text, texts=texts[-3:], title=f"{probe.axis}, {probe.topic}")


def _gate_tables(built: list[_Built]) -> Iterator[Block]:
    for each in built:
        if each.judged is None:
            continue
        if each.judged.verdicts:
            yield verdicts_table(each.judged, title=each.stage.name)
        else:
            yield Prose(text=f"{each.stage.name}: no gate at this boundary.")


def _contract(workspace: Workspace) -> tuple[Block, ...]:
    contract = lock.read_lock(workspace.lock_path)
    head = KeyValues(
        title="Build",
        pairs=(
            *((name, _text(contract[name])) for name in ("name", "code", "precision", "base", "template")),
            ("tokenizer", contract["tokenizer"]["digest"]),
        ),
    )
    return (head, *(_stage_contract(fact) for fact in contract["stages"]))


def _stage_contract(fact: dict[str, Any]) -> KeyValues:
    census, trainable = fact["census"], fact["trainable"]
    share = 100 * census["supervised_tokens"] / max(1, census["tokens"])
    pairs = [
        ("starts from", fact["parent"]),
        *((f"data {source['name']}", source["digest"]) for source in fact["data"]),
        (
            "rows",
            f"{census['rows']:,}, {census['holdout_rows']:,} held out, {census['duplicates_removed']:,} duplicates",
        ),
        ("supervised tokens", f"{census['supervised_tokens']:,} of {census['tokens']:,} ({share:.1f} %)"),
        ("rows cut at the context", f"{census['rows_truncated']:,}"),
        ("trains", f"{trainable['parameters']:,} of {trainable['of']:,} parameters"),
        ("steps", f"{fact['steps']:,}"),
    ]
    pairs += [(name, fact[name]) for name in ("reference", "reward") if name in fact]
    return KeyValues(title=f"{fact['name']} ({fact['kind']})", pairs=tuple(pairs))


def _forecast_tables(built: list[_Built]) -> Iterator[Table]:
    """What the plan forecast, against what came; no table where no plan was made before the build."""
    rows = [row for each in built if each.trained is not None for row in _forecast_rows(each, each.trained)]
    if rows:
        names = ("stage", "what", "forecast", "outcome", "off by", "inside the interval")
        columns = tuple(Column(name=name, align="left" if index < 2 else "right") for index, name in enumerate(names))
        yield Table(title="Forecast and outcome", columns=columns, rows=tuple(rows))


def _forecast_rows(each: _Built, trained: Result) -> Iterator[tuple[Cell | str, ...]]:
    outcomes: dict[str, Any] = {SECONDS: trained.cost.get("seconds")}
    outcomes[LOSS] = _measurements(each).get(LOSS, {}).get("value")
    for name, data in trained.environment.get("forecast", {}).items():
        ahead, outcome = measurement_from_json(dict(data)), outcomes.get(name)
        if outcome is None:
            continue
        if not isinstance(ahead, Estimate):
            yield (each.stage.name, name, measurement_cell(ahead, severity="note"), f"{outcome:,.4g}", "", "")
            continue
        inside = ahead.low <= outcome <= ahead.high
        yield (
            each.stage.name,
            f"{name}, {ahead.unit}" if name != ahead.unit else name,
            measurement_cell(ahead),
            f"{outcome:,.4g}",
            f"{outcome / ahead.value - 1:+.1%}" if ahead.value else "",
            Cell(text="yes" if inside else "no", severity="pass" if inside else "warn"),
        )


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _cost_table(built: list[_Built], outcome: Outcome) -> Table:
    columns = tuple(
        Column(name=name, align="right" if name != "what" else "left") for name in ("what", "seconds", "tokens")
    )
    rows = [
        (f"training: {each.stage.name}", f"{each.seconds:,.1f}", f"{each.trained.cost['positions']:,.0f}")
        for each in built
        if each.trained is not None
    ]
    rows += [(name, f"{seconds:,.2f}", "") for name, seconds in outcome.overhead_seconds.items()]
    return Table(columns=columns, rows=tuple(rows))

"""The report of a comparison, from the sentence that matters to the tests behind it.

Headline; a row for each axis; traits of style that moved; which stage; each side against itself; the deciding prompts
side by side; the weights; everything else, collapsed. Completions are untrusted text; the renderers treat all text so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from weightgate.diff.compare import Comparison, DecidingPrompt
from weightgate.diff.null import Null
from weightgate.diff.rows import Row
from weightgate.diff.triage import CAUSES, STAGE_WORDS, Verdict
from weightgate.diff.weights import TensorChange, WeightEvidence
from weightgate.errors import UserError
from weightgate.report.finding import Finding, Severity
from weightgate.report.page import (
    Bar,
    Block,
    Cell,
    Column,
    Figure,
    Findings,
    Headline,
    Interval,
    KeyValues,
    LabelledText,
    Page,
    Prose,
    Section,
    SideBySide,
    Table,
)

_SHOWN_SLICES = 25
_SHOWN_TRAITS = 6
_SHOWN_TENSORS = 12
_BRIEF_PROMPTS, _BRIEF_CHARACTERS = 3, 400
"""What a terminal shows of the deciding prompts; the HTML page and the JSON hold all of them whole."""

_TRAIT_WORDS = {
    "style.words": "length in words",
    "style.characters_per_word": "length of words",
    "style.words_per_sentence": "length of sentences",
    "style.type_token": "variety of words",
    "style.trigram_repetition": "repetition",
    "style.cut_ending": "endings cut off",
    "style.empty": "empty answers",
    "style.non_ascii": "characters beyond ASCII",
    "style.colon_lines": "lines ending in a colon",
    "style.self_mention": "mentions of being an AI",
}


def comparison_page(comparison: Comparison, *, brief: bool = False) -> Page:
    """Return the report; `brief` shortens the deciding prompts to what a terminal has room for."""
    axes = sorted((row for row in comparison.rows if row.is_headline), key=lambda row: not row.changed)
    blocks: list[Block | Section | None] = [
        _headline(comparison),
        _problems(comparison.problems),
        _table("What moved", axes, len(comparison.rows)) if axes else None,
        _traits(comparison.rows),
        *_verdict_blocks(comparison),
        _null_table(comparison.nulls),
        _deciding_section(comparison, brief),
        _weights_section(comparison.weights),
        _details(comparison),
    ]
    return Page(
        title="What changed",
        subtitle=f"{comparison.before.model} -> {comparison.after.model}",
        blocks=tuple(block for block in blocks if block is not None),
    )


def _headline(comparison: Comparison) -> Headline:
    unsure = comparison.more_prompts is not None or any(null.changed for null in comparison.nulls)
    severity: Severity = "fail" if comparison.changed else "warn" if unsure else "pass"
    badge = "changed" if comparison.changed else "undecided" if unsure else "unchanged"
    axes = [row for row in comparison.rows if row.kind == "axis"]
    figures = [
        Figure(label="prompts", value=f"{comparison.prompts:,}", note=f"{comparison.left_out:,} left out"),
        Figure(label="answered alike", value=f"{comparison.identical:,}", note="to the letter"),
        Figure(label="samples", value=str(comparison.samples), note="of each prompt and side"),
    ]
    if any(row.kind == "style" for row in comparison.rows):
        figures.append(Figure(label="traits of style moved", value=_count_moved(comparison.rows, "style")))
    if axes:
        figures.insert(2, Figure(label="axes moved", value=_count_moved(axes, "axis")))
    return Headline(
        severity=severity,
        badge=badge,
        text=comparison.headline,
        detail=comparison.verdict.why if comparison.verdict else _would_have_seen(comparison),
        figures=tuple(figures),
    )


def _problems(problems: Sequence[UserError]) -> Findings | None:
    return Findings(findings=tuple(map(_problem, problems))) if problems else None


def _problem(problem: UserError) -> Finding:
    stated = (("where", problem.where), ("expected", problem.expected), ("found", problem.found))
    evidence = tuple((name, value) for name, value in stated if value is not None)
    return Finding(severity="warn", headline=problem.what, detail=problem.mend or "", evidence=evidence)


def _count_moved(rows: Sequence[Row], kind: str) -> str:
    own = [row for row in rows if row.kind == kind]
    return f"{sum(row.changed for row in own)} of {len(own)}"


def _would_have_seen(comparison: Comparison) -> str:
    shift = f"a shift of {comparison.smallest_effect:.2f} standard deviations"
    if comparison.more_prompts is not None:
        return f"only {shift} or more would have been seen in 8 of 10 cases"
    return f"{shift} would have been seen in 8 of 10 cases"


def _table(title: str, rows: Sequence[Row], corrected_over: int) -> Table:
    columns = (
        Column(name="axis"),
        Column(name="before", align="right"),
        Column(name="after", align="right"),
        Column(name="difference", align="right"),
        Column(name="corrected p", align="right"),
        Column(name="reading"),
    )
    caption = f"After minus before, 95 % intervals; p corrected over {corrected_over} rows."
    return Table(title=title, columns=columns, rows=tuple(map(_row, rows)), caption=caption, shared_scale="column")


def _row(row: Row) -> tuple[Cell | str, ...]:
    return (
        row.name,
        f"{row.before:.3g}",
        f"{row.after:.3g}",
        Cell(
            text=_signed(row.effect.value),
            detail=f"{_signed(row.effect.low)} to {_signed(row.effect.high)}, n = {row.effect.n:,}",
            graphic=Interval(value=row.effect.value, low=row.effect.low, high=row.effect.high, threshold=0.0),
        ),
        f"{row.adjusted_p:.2g}",
        _reading(row),
    )


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _reading(row: Row) -> Cell:
    if not row.changed:
        return Cell(text="unchanged", severity="pass")
    if row.explained_by == "format":
        return Cell(text="only the wrapping changed", detail="read leniently it did not move", severity="note")
    if row.explained_by == "length":
        return Cell(text="only the length changed", detail="at equal length it did not move", severity="note")
    return Cell(text="changed", severity="fail")


def trait_words(name: str) -> str:
    """What a row of style is called in words; other rows keep their name."""
    return _TRAIT_WORDS.get(name, name.removeprefix("style.").replace("_", " ")) if name.startswith("style.") else name


def _traits(rows: Sequence[Row]) -> Table | None:
    """The traits of style that moved most, in standard deviations, so that counts and shares can be compared."""
    moved = [row for row in rows if row.kind == "style" and row.changed and math.isfinite(row.size)]
    if not moved:
        return None
    ranked = sorted(moved, key=lambda row: -abs(row.size))
    more = f"; {len(ranked) - _SHOWN_TRAITS} more below" if len(ranked) > _SHOWN_TRAITS else ""
    return Table(
        title="How it is written now",
        columns=(Column(name="trait"), Column(name="shift", align="right"), Column(name="corrected p", align="right")),
        rows=tuple(map(_trait, ranked[:_SHOWN_TRAITS])),
        caption=f"In standard deviations over the prompts; above 0: more of it{more}.",
        shared_scale="column",
    )


def _trait(row: Row) -> tuple[Cell | str, ...]:
    scale = row.size / row.effect.value if row.effect.value else 0.0
    low, high = row.effect.low * scale, row.effect.high * scale
    cell = Cell(
        text=f"{row.size:+.2f}",
        detail=f"{low:+.2f} to {high:+.2f}",
        graphic=Interval(value=row.size, low=low, high=high, threshold=0.0),
    )
    return trait_words(row.name), cell, f"{row.adjusted_p:.2g}"


def _verdict_blocks(comparison: Comparison) -> Iterator[Block]:
    verdict = comparison.verdict
    if verdict is None or verdict.declared or set(verdict.fitting) == set(CAUSES):
        return
    rows = tuple(
        (
            STAGE_WORDS[cause],
            Cell(text=f"{verdict.scores[cause]:.2f}", graphic=Bar(share=verdict.scores[cause])),
            f"{verdict.plausibility[cause]:.2f}",
            "fits" if cause in verdict.fitting else "ruled out",
        )
        for cause in CAUSES
    )
    yield Table(
        title="Which stage",
        columns=(
            Column(name="cause"),
            Column(name="score", align="right"),
            Column(name="p", align="right"),
            Column(name="verdict"),
        ),
        rows=rows,
        caption="p: share of known changes of that cause with so low a score. A verdict needs one cause left. "
        f"Judged by {verdict.basis}.",
    )
    yield Prose(text=f"{_runner_up(verdict)} From behaviour alone this is a hypothesis. {_would_separate(comparison)}")


def _runner_up(verdict: Verdict) -> str:
    return f"Runner-up: {STAGE_WORDS[verdict.runner_up]}."


def _would_separate(comparison: Comparison) -> str:
    """Evidence that this comparison lacks and that would tell the causes further apart."""
    axes = {row.name.partition(".")[0] for row in comparison.rows if row.kind == "axis"}
    lacking = []
    if not {"knowledge", "boundary"} <= axes:
        lacking.append("the probes of `--suite core`: knowledge tells pre-training, the boundary tells preferences")
    if comparison.samples < 2:
        lacking.append("several samples of each prompt: preference alignment narrows what is said")
    if not comparison.nulls:
        lacking.append("a second recording of one side, `--a-a FILE`")
    if "checkpoint" in (comparison.before.kind, comparison.after.kind):
        lacking.append("a build from the stage before, `weightgate build --from`")
    return f"What would separate them: {'; '.join(lacking)}." if lacking else ""


def _null_table(nulls: Sequence[Null]) -> Table | None:
    if not nulls:
        return None
    columns = (
        Column(name="side"),
        Column(name="compared with"),
        Column(name="prompts", align="right"),
        Column(name="identical", align="right"),
        Column(name="lowest p", align="right"),
        Column(name="reading"),
    )
    return Table(
        title="Each side against itself (A/A)",
        columns=columns,
        rows=tuple(map(_null_row, nulls)),
        caption="Only what moved further than a side moves against itself counts as a change.",
    )


def _null_row(null: Null) -> tuple[Cell | str, ...]:
    other = (
        "a second recording" if null.source == "recording" else f"its own samples, {null.samples} and {null.samples}"
    )
    moved = ", ".join(trait_words(name) for name in null.shifts)
    reading = (
        Cell(text="differs from itself", detail=moved, severity="warn")
        if null.changed
        else Cell(text="like itself", severity="pass")
    )
    return null.side, other, f"{null.prompts:,}", f"{null.identical:.0%}", f"{null.lowest_p:.2g}", reading


def _deciding_section(comparison: Comparison, brief: bool) -> Section | None:
    deciding: Sequence[DecidingPrompt] = comparison.deciding
    if not deciding:
        return None
    shown = [_shortened(one) for one in deciding[:_BRIEF_PROMPTS]] if brief else deciding
    names = (comparison.before.model, comparison.after.model)
    blocks = tuple(
        SideBySide(
            title=", ".join(map(trait_words, one.shows)),
            prompt=one.prompt,
            texts=(
                LabelledText(label="before", note=names[0], text=one.before),
                LabelledText(label="after", note=names[1], text=one.after),
            ),
        )
        for one in shown
    )
    told = "Of all prompts these show the change most; above each stands what it shows."
    return Section(title="The prompts that decide", summary=told, blocks=blocks)


def _shortened(one: DecidingPrompt) -> DecidingPrompt:
    return replace(one, prompt=_cut(one.prompt), before=_cut(one.before), after=_cut(one.after))


def _cut(text: str) -> str:
    left = len(text) - _BRIEF_CHARACTERS
    return text if left <= 0 else f"{text[:_BRIEF_CHARACTERS]} … {left:,} more characters"


def _weights_section(weights: WeightEvidence | None) -> Section | None:
    if weights is None:
        return None
    touched = sorted((one for one in weights.tensors if one.equal_share < 1.0), key=lambda one: -one.relative_norm)
    summary = "both sides hold the same weights, bit by bit"
    if not weights.equal:
        summary = (
            f"{len(touched)} of {len(weights.tensors)} tensors moved, {weights.equal_share:.1%} of values are equal"
        )
    apart = {"only before": weights.only_before, "only after": weights.only_after, "other shape": weights.reshaped}
    blocks = (
        KeyValues(pairs=tuple((name, ", ".join(names)) for name, names in apart.items() if names)),
        _tensor_table(touched),
    )
    return Section(title="The weights", summary=summary, blocks=_filled(blocks))


def _tensor_table(touched: Sequence[TensorChange]) -> Table:
    columns = (
        Column(name="tensor", code=True),
        Column(name="update", align="right"),
        Column(name="equal values", align="right"),
        Column(name="equal as bf16", align="right"),
        Column(name="rank for 90 %", align="right"),
    )
    rows = tuple(
        (
            one.name,
            f"{one.relative_norm:.2%}",
            f"{one.equal_share:.1%}",
            f"{one.equal_share_bf16:.1%}",
            str(one.energy_rank or ""),
        )
        for one in touched[:_SHOWN_TENSORS]
    )
    caption = "Update: norm of the change over the norm of the tensor before. The largest first; evidence, no verdict."
    return Table(columns=columns, rows=rows, caption=caption)


def _details(comparison: Comparison) -> Section:
    slices = sorted((row for row in comparison.rows if not row.is_headline), key=lambda row: row.adjusted_p)
    sides = (("before", comparison.before), ("after", comparison.after))
    declared = tuple((one.name, f"{one.before} -> {one.after}") for one in comparison.declared)
    general = tuple((one.name, f"p {one.p_value:.2g}, corrected {one.adjusted_p:.2g}") for one in comparison.general)
    blocks: list[Block] = [
        KeyValues(
            title="The two sides", pairs=tuple((name, f"{one.kind} {one.model}, {one.place}") for name, one in sides)
        ),
        KeyValues(title="Stated differently", pairs=declared),
        KeyValues(title="General tests", pairs=general),
        _table("Topics and style", slices[:_SHOWN_SLICES], len(comparison.rows)),
    ]
    return Section(
        title="Details",
        summary=f"the two sides, {_counted(comparison.rows, 'row')}, {_counted(comparison.general, 'general test')}",
        blocks=_filled(blocks),
        collapsed=True,
    )


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _filled(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Leave out tables without rows and lists without pairs."""
    return tuple(
        block
        for block in blocks
        if not ((isinstance(block, Table) and not block.rows) or (isinstance(block, KeyValues) and not block.pairs))
    )

"""The report of a comparison: headline, a row for each axis, the verdict, and the deciding prompts side by side."""

from __future__ import annotations

from collections.abc import Iterator

from weightgate.diff.compare import Comparison, DecidingPrompt
from weightgate.diff.rows import Row
from weightgate.diff.triage import CAUSES, STAGE_WORDS, Verdict
from weightgate.report.finding import Severity
from weightgate.report.page import (
    Bar,
    Block,
    Cell,
    Column,
    Figure,
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


def comparison_page(comparison: Comparison) -> Page:
    """Return the report. Completions are untrusted text; the renderers treat all text so."""
    blocks: list[Block | Section] = [
        _headline(comparison),
        _table(comparison, "What moved", [row for row in comparison.rows if row.is_headline]),
        *_verdict_blocks(comparison.verdict),
        *_deciding_section(comparison.deciding),
        _details(comparison),
    ]
    return Page(
        title="What changed",
        subtitle=f"{comparison.before.model} -> {comparison.after.model}",
        blocks=tuple(block for block in blocks if not isinstance(block, Table) or block.rows),
    )


def _headline(comparison: Comparison) -> Headline:
    hinted = comparison.more_prompts is not None
    severity: Severity = "fail" if comparison.changed else "warn" if hinted else "pass"
    return Headline(
        severity=severity,
        text=comparison.headline,
        detail=comparison.verdict.why if comparison.verdict else _would_have_seen(comparison),
        figures=(
            Figure(label="prompts", value=f"{comparison.prompts:,}", note=f"{comparison.left_out:,} left out"),
            Figure(label="samples", value=str(comparison.samples), note="of each prompt and side"),
            Figure(label="rows", value=str(len(comparison.rows)), note=f"false discovery rate {comparison.alpha:g}"),
        ),
    )


def _would_have_seen(comparison: Comparison) -> str:
    return f"a shift of {comparison.smallest_effect:.2f} standard deviations would have been seen in 8 of 10 cases"


def _table(comparison: Comparison, title: str, rows: list[Row]) -> Table:
    columns = (
        Column(name="axis"),
        Column(name="before", align="right"),
        Column(name="after", align="right"),
        Column(name="difference", align="right"),
        Column(name="corrected p", align="right"),
        Column(name="reading"),
    )
    caption = f"After minus before, 95 % intervals; p corrected over {len(comparison.rows)} rows."
    return Table(
        title=title, columns=columns, rows=tuple(_row(row) for row in rows), caption=caption, shared_scale="column"
    )


def _row(row: Row) -> tuple[Cell | str, ...]:
    return (
        row.name,
        f"{row.before:.3g}",
        f"{row.after:.3g}",
        Cell(
            text=f"{row.effect.value:+.3g}",
            detail=f"{row.effect.low:+.3g} to {row.effect.high:+.3g}, n = {row.effect.n:,}",
            graphic=Interval(value=row.effect.value, low=row.effect.low, high=row.effect.high, threshold=0.0),
        ),
        f"{row.adjusted_p:.2g}",
        _reading(row),
    )


def _reading(row: Row) -> Cell:
    if not row.changed:
        return Cell(text="unchanged", severity="pass")
    if row.explained_by == "format":
        return Cell(text="only the wrapping changed", detail="read leniently it did not move", severity="note")
    if row.explained_by == "length":
        return Cell(text="only the length changed", detail="at equal length it did not move", severity="note")
    return Cell(text="changed", severity="fail")


def _verdict_blocks(verdict: Verdict | None) -> Iterator[Block]:
    if verdict is None or verdict.declared:
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
        caption="p: share of known changes of that cause with so low a score. A verdict needs one cause left.",
    )
    yield Prose(text=f"Runner-up: {STAGE_WORDS[verdict.runner_up]}. From behaviour alone this is a hypothesis.")


def _deciding_section(deciding: tuple[DecidingPrompt, ...]) -> Iterator[Section]:
    if deciding:
        blocks = tuple(
            SideBySide(
                title=", ".join(one.shows),
                prompt=one.prompt,
                texts=(LabelledText(label="before", text=one.before), LabelledText(label="after", text=one.after)),
            )
            for one in deciding
        )
        yield Section(title="The prompts that decide", blocks=blocks)


def _details(comparison: Comparison) -> Section:
    slices = sorted((row for row in comparison.rows if not row.is_headline), key=lambda row: row.adjusted_p)
    declared = tuple((one.name, f"{one.before} -> {one.after}") for one in comparison.declared)
    general = tuple((one.name, f"p {one.p_value:.2g}, corrected {one.adjusted_p:.2g}") for one in comparison.general)
    blocks: list[Block] = [
        KeyValues(title="General tests", pairs=general),
        _table(comparison, "Topics and style", slices[:_SHOWN_SLICES]),
    ]
    if declared:
        blocks.insert(0, KeyValues(title="Stated differently", pairs=declared))
    return Section(title="Details", blocks=tuple(blocks), collapsed=True)

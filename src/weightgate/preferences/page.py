"""An audit as a page: findings, what the votes teach, and the rows behind both, to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weightgate.preferences.audit import Audit
from weightgate.preferences.bias import WORDS, Effect
from weightgate.preferences.cleaning import Cleaned
from weightgate.preferences.drivers import LENGTH
from weightgate.preferences.model_view import ModelView, model_section
from weightgate.preferences.rows_to_read import ROWS_FOR_A_REASON, rows_to_read
from weightgate.preferences.specification import CLEAR, Line
from weightgate.preferences.verdict import findings_of, headline_of, severity_of
from weightgate.report.finding import Severity
from weightgate.report.page import (
    Bar,
    Block,
    Cell,
    Column,
    Figure,
    Findings,
    Headline,
    KeyValues,
    Labels,
    Page,
    Prose,
    Section,
    Table,
    measurement_cell,
)
from weightgate.report.text import one_line
from weightgate.stats import Estimate

MANY_ROWS = 12
"""Rows from which a table is worth searching."""


def audit_page(audit: Audit, *, view: ModelView | None = None, rows: bool = True) -> Page:
    """Make the page. `rows`: show prompts and answers, which may be offensive; collapsed until asked for."""
    findings = findings_of(audit)
    blocks: list[Block | Section] = [
        Headline(severity=severity_of(findings), text=headline_of(audit, findings), figures=tuple(_figures(audit))),
        Section(title="Findings", blocks=(Findings(findings=findings),)),
        Section(title="What the votes teach", blocks=(_specification(audit, clear=True),)),
        Section(title="What predicts the winner without reading", blocks=(*_style(audit),)),
    ]
    if view is not None:
        blocks.append(model_section(view))
    if audit.roster:
        blocks.append(Section(title="Annotators", blocks=(_annotators(audit),)))
    blocks.append(Section(title="Coverage", blocks=(_coverage(audit),)))
    unclear = _specification(audit, clear=False)
    blocks.append(Section(title="What the votes leave open", blocks=(unclear,), collapsed=True))
    blocks.append(Section(title="Numbers", blocks=(_numbers(audit),), collapsed=True))
    if rows and (shown := _rows(audit)) is not None:
        blocks.append(shown)
    return Page(title=f"Audit of {audit.preferences.name}", subtitle=audit.preferences.digest, blocks=tuple(blocks))


def _figures(audit: Audit) -> Iterable[Figure]:
    yield Figure(label="rows", value=f"{audit.preferences.rows:,}")
    yield Figure(label="cannot be used", value=f"{audit.unusable:,}")
    if len(audit.table) < len(audit.every):
        yield Figure(label="texts read", value=f"{len(audit.table):,}", note="the rest is counted only")
    yield Figure(label="prompts", value=f"{len(set(audit.table.prompt.tolist())):,}")
    if audit.every.annotators:
        yield Figure(label="annotators", value=f"{len(audit.every.annotators):,}")
    if isinstance(audit.style.auc, Estimate):
        yield Figure(label="winner foretold by manner", value=f"AUC {audit.style.auc.value:.2f}")
    if isinstance(audit.noise.auc, Estimate):
        yield Figure(label="by manner and words", value=f"AUC {audit.noise.auc.value:.2f}")


def _specification(audit: Audit, *, clear: bool) -> Table | Prose:
    """The lines that say what is preferred, or those that do not."""
    kinds = {"everything": 0, "category": 1, "topic": 2}
    lines = [line for line in audit.specification if (line.verdict in CLEAR) == clear]
    if not lines:
        return Prose(text="No line is sure.")
    lines.sort(key=lambda line: (line.verdict == "no evidence", kinds[line.kind], -line.pairs))
    return Table(
        columns=(
            Column(name="line"),
            Column(name="share of pairs", align="right"),
            Column(name="pairs", align="right"),
            Column(name="lines of the file"),
        ),
        rows=tuple(_line_row(audit, line) for line in lines),
        labels=_line_labels(lines) if len(lines) > MANY_ROWS else (),
        caption="Of the pairs in which exactly one answer has the trait. Intervals let votes of one prompt hang "
        "together, and what is called a preference is sure at 1 % over all lines together.",
    )


def _line_row(audit: Audit, line: Line) -> tuple[Cell | str, ...]:
    """A line with its share: of pairs that went the way the line says or, without a preference, that the trait won."""
    length = f"{line.shift:+.2f} sd in length" if line.driver == LENGTH else ""
    detail = length if line.verdict in CLEAR else f"{WORDS[line.driver]} wins"
    return (
        Cell(text=line.headline, detail=detail, severity="note" if line.verdict in CLEAR else None),
        measurement_cell(line.share_as_said),
        f"{line.pairs:,}",
        Cell(text=_shown_lines(audit, line)),
    )


def _line_labels(lines: Sequence[Line]) -> tuple[Labels, ...]:
    return tuple((("scope", line.kind), ("reading", line.verdict), ("trait", line.driver)) for line in lines)


def _shown_lines(audit: Audit, line: Line) -> str:
    return ", ".join(str(audit.lines[row]) for row in line.rows[:8])


def _style(audit: Audit) -> Iterable[Block]:
    yield KeyValues(
        pairs=(
            ("accuracy on prompts never seen, by manner alone", _text(audit.style.accuracy)),
            ("AUC, by manner alone", _text(audit.style.auc)),
            ("AUC, by manner and words", _text(audit.noise.auc)),
            ("length slope", _text(audit.style.length_slope)),
        )
    )
    yield Table(
        columns=(
            Column(name="the winner is"),
            Column(name="pairs", align="right"),
            Column(name="alone", align="right"),
            Column(name="at equal length and manners", align="right"),
            Column(name="corrected p", align="right"),
        ),
        rows=tuple(_effect_row(effect) for effect in audit.style.effects),
        caption="" if audit.table.shown.any() else "The file does not tell which answer was shown first.",
    )


def _effect_row(effect: Effect) -> tuple[Cell | str, ...]:
    severity: Severity | None = "warn" if effect.reported else None
    return (
        effect.words,
        f"{effect.pairs:,}",
        measurement_cell(effect.alone, threshold=0.5),
        measurement_cell(effect.equal, threshold=0.5, severity=severity),
        p_text(effect.adjusted_p),
    )


def p_text(value: float) -> str:
    """A p-value in two digits; what is too small to be told from 0 is not called 0."""
    return f"{value:.2g}" if value >= 1e-9 else "< 1e-9"


def _annotators(audit: Audit) -> Table:
    return Table(
        columns=(
            Column(name="annotator"),
            Column(name="votes", align="right"),
            Column(name="error rate", align="right"),
            Column(name="agrees with the others", align="right"),
            Column(name="skill", align="right"),
            Column(name="takes the first shown", align="right"),
        ),
        rows=tuple(
            (
                Cell(text=one.name, severity="warn" if one.differs or one.hurried or one.drift <= 0.01 else None),
                f"{one.votes:,}",
                *(measurement_cell(value) for value in (one.error_rate, one.agreement, one.skill, one.first_bias)),
            )
            for one in audit.roster
        ),
        caption="Error rates are those that all votes together imply (Dawid and Skene); ties are left out.",
        shared_scale="column",
    )


def _coverage(audit: Audit) -> Table:
    total = max(len(audit.table), 1)
    return Table(
        columns=(
            Column(name="topic"),
            Column(name="prompts", align="right"),
            Column(name="pairs", align="right"),
            Column(name="refusal won", align="right"),
            Column(name="refusal lost", align="right"),
            Column(name="share", align="right"),
        ),
        rows=tuple(
            (
                Cell(text=region.name, severity="warn" if region.thin else None),
                f"{region.prompts:,}",
                Cell(text=f"{region.pairs:,}", graphic=Bar(share=region.pairs / total)),
                f"{region.refusing:,}",
                f"{region.answering:,}",
                measurement_cell(region.share) if region.refusing + region.answering else "no refusal judged",
            )
            for region in audit.coverage.regions
        ),
    )


def _numbers(audit: Audit) -> KeyValues:
    described, agreement = audit.description, audit.agreement
    return KeyValues(
        pairs=(
            ("rows with two readable answers", f"{described.rows:,}"),
            ("ties", f"{described.ties:,}"),
            ("the longer answer wins, in characters", _text(described.longer_wins)),
            ("equally long", f"{described.equal_lengths:,}"),
            ("mean characters, chosen and rejected", f"{described.mean_chosen:.1f} and {described.mean_rejected:.1f}"),
            ("length slope", _text(described.length_slope)),
            ("rows whose prompt stood before", f"{described.repeated_prompts:,}"),
            ("user turns, mean and most", f"{described.turns_mean:.2f} and {described.turns_most}"),
            ("Krippendorff's alpha", _text(agreement.alpha)),
            ("raw agreement", _text(agreement.raw)),
            ("Fleiss' kappa", _text(agreement.fleiss)),
            ("noise implied by agreement", _text(agreement.noise)),
            ("share mislabelled", _text(audit.noise.share)),
        )
    )


def _text(measured: object) -> str:
    return str(measured) if isinstance(measured, Estimate) else f"not measured: {getattr(measured, 'reason', '')}"


def _rows(audit: Audit) -> Section | None:
    """The rows that anything above speaks of, to be read and searched."""
    found = rows_to_read(audit)
    if found is None:
        return None
    summary = (
        f"{len(found.entries):,} of {audit.preferences.rows:,} rows: those that something above speaks of, at most "
        f"{ROWS_FOR_A_REASON} for each. They may be offensive."
    )
    return Section(title="Rows to read", summary=summary, blocks=(found,), collapsed=True)


def cleaned_text(cleaned: Cleaned) -> str:
    """What `--fix` did, in a few lines: whose votes went is said, because minority views go first."""
    lines = [f"wrote {cleaned.path}, {cleaned.kept:,} rows, and {cleaned.log}"]
    lines += [f"  left out: {count:,} {reason}" for reason, count in sorted(cleaned.reasons.items())]
    most = sorted(cleaned.annotators.items(), key=lambda one: (-one[1], one[0]))[:10]
    lines += [f"  of {one_line(name)}: {count:,}" for name, count in most]
    return "\n".join(lines)

"""A comparison of two sets of votes as a page: the forecast, every preference in both sets, and the rows behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from weightgate.preferences.compare import Comparison, Shift
from weightgate.preferences.page import MANY_ROWS, p_text
from weightgate.preferences.rows_to_read import entry
from weightgate.report.finding import Finding
from weightgate.report.page import (
    Block,
    Cell,
    Collection,
    Column,
    Figure,
    Findings,
    Headline,
    Interval,
    KeyValues,
    Page,
    Section,
    Table,
)

_ROWS_SHOWN = 8


def comparison_page(found: Comparison, *, rows: bool = True) -> Page:
    """Make the page. `rows`: show prompts and answers, collapsed until asked for."""
    blocks: list[Block | Section] = [
        Headline(severity="warn" if found.forecasts else "pass", text=found.headline, figures=tuple(_figures(found)))
    ]
    if found.forecasts:
        findings = tuple(_finding(shift) for shift in found.forecasts)
        blocks.append(Section(title="What will change", blocks=(Findings(findings=findings),)))
    blocks += _tables(found)
    blocks.append(Section(title="Rows", blocks=(_changes(found),)))
    if rows and (shown := _rows(found)) is not None:
        blocks.append(shown)
    return Page(
        title=f"{found.old.name} -> {found.new.name}",
        subtitle=f"{found.old.digest} -> {found.new.digest}",
        blocks=tuple(blocks),
    )


def _figures(found: Comparison) -> Iterable[Figure]:
    yield Figure(label="rows", value=f"{found.old.rows:,} -> {found.new.rows:,}")
    yield Figure(label="added", value=f"{len(found.rows.added):,}")
    yield Figure(label="removed", value=f"{len(found.rows.removed):,}")
    yield Figure(label="relabelled", value=f"{len(found.rows.relabelled):,}")


def _finding(shift: Shift) -> Finding:
    said = [f"Corrected p {p_text(shift.adjusted_p)}, {shift.pairs[0]:,} and {shift.pairs[1]:,} pairs."]
    if shift.common is not None:
        said.append(f"On the rows of both sets alone: {100 * shift.common:+.0f} points.")
    if shift.annotator is not None:
        said.append(f"{shift.annotator[0]} carries {shift.annotator[1]:.0%} of it.")
    shown = [f"{name}:{line}" for name, line in shift.rows[:_ROWS_SHOWN]]
    return Finding(
        severity="warn", headline=shift.words, detail=" ".join(said), evidence=((", ".join(shown),),) if shown else ()
    )


def _tables(found: Comparison) -> Iterator[Section]:
    """The preferences that shift, and all others, closed until asked for."""
    ordered = sorted(found.shifts, key=lambda shift: (shift.kind != "everything", shift.adjusted_p))
    for title, forecast in (("Preferences that shift", True), ("Preferences without a sure shift", False)):
        shifts = [shift for shift in ordered if shift.forecast == forecast]
        if shifts:
            yield Section(title=title, blocks=(_table(shifts, found.fading),), collapsed=not forecast)


def _table(shifts: Sequence[Shift], fading: float) -> Table:
    return Table(
        columns=(
            Column(name="preference"),
            Column(name="old", align="right"),
            Column(name="new", align="right"),
            Column(name="change beyond the common fading", align="right"),
            Column(name="corrected p", align="right"),
        ),
        rows=tuple(_row(shift) for shift in shifts),
        caption=f"All preferences together changed by the factor {fading:.2f}; below 1, votes became noisier.",
        shared_scale="column",
        labels=tuple((("scope", shift.kind), ("trait", shift.driver)) for shift in shifts)
        if len(shifts) > MANY_ROWS
        else (),
    )


def _row(shift: Shift) -> tuple[Cell | str, ...]:
    change = shift.change
    return (
        Cell(text=_named(shift), severity="warn" if shift.forecast else None),
        f"{shift.before:.1%}",
        f"{shift.after:.1%}",
        Cell(
            text=f"{100 * change.value:+.1f} points",
            detail=f"{100 * change.low:+.1f} to {100 * change.high:+.1f}",
            graphic=Interval(value=change.value, low=change.low, high=change.high, threshold=0.0),
        ),
        p_text(shift.adjusted_p),
    )


def _named(shift: Shift) -> str:
    where = {"everything": "", "topic": f" on {shift.scope}", "word": f" with {shift.scope!r}"}[shift.kind]
    return f"{shift.driver}{where}"


def _changes(found: Comparison) -> KeyValues:
    rows = found.rows
    return KeyValues(
        pairs=(
            ("the same", f"{rows.same:,}"),
            ("added", _first(rows.added)),
            ("removed", _first(rows.removed)),
            ("relabelled", _first([new for _, new in rows.relabelled])),
        )
    )


def _first(lines: Iterable[int]) -> str:
    every = list(lines)
    shown = ", ".join(map(str, every[:10]))
    return f"{len(every):,}" + (f": lines {shown}" if shown else "") + (" ..." if len(every) > 10 else "")


def _rows(found: Comparison) -> Section | None:
    """The rows that carry the forecasts, filed under forecast, set, and what became of the row."""
    sides = {"old": found.old, "new": found.new}
    votes = {name: {vote.line: vote for vote in side.votes} for name, side in sides.items()}
    reasons: dict[tuple[str, int], list[str]] = {}
    fates = _fates(found)
    for shift in found.forecasts:
        for place in shift.rows:
            reasons.setdefault(place, []).append(shift.headline)
    entries = tuple(
        entry(
            votes[name][line],
            [*(("forecast", why) for why in whys), ("set", name), ("row", fates.get((name, line), "in both sets"))],
        )
        for (name, line), whys in reasons.items()
    )
    if not entries:
        return None
    summary = f"{len(entries):,} rows that carry what is forecast. They may be offensive."
    return Section(title="Rows to read", summary=summary, blocks=(Collection(entries=entries),), collapsed=True)


def _fates(found: Comparison) -> dict[tuple[str, int], str]:
    """What became of the rows that are not the same in both sets, by set and line."""
    return {
        **{("old", line): "removed" for line in found.rows.removed},
        **{("new", line): "added" for line in found.rows.added},
        **{place: "relabelled" for old, new in found.rows.relabelled for place in (("old", old), ("new", new))},
    }

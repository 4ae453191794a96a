"""A page in a terminal: the same facts in fewer lines, and no text that could steer the terminal.

Every text is a rich `Text`, never console markup, after `visible` or `one_line` has taken its controls out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from weightgate.report.finding import Finding, Severity
from weightgate.report.page import (
    Block,
    Cell,
    Collection,
    Entry,
    Findings,
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
    as_cell,
)
from weightgate.report.text import one_line, visible
from weightgate.report.ticks import spell
from weightgate.report.widths import column_widths

_STYLES: dict[Severity, str] = {"pass": "green", "note": "blue", "warn": "yellow", "fail": "bold red"}
_WORDS: dict[Severity, str] = {"pass": "ok", "note": "note", "warn": "warning", "fail": "FAILED"}
_VERDICT_STYLES = {"passed": "green", "failed": "bold red", "waived": "yellow", "not measured": "yellow"}
_LEVELS, _ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_SPARK_WIDTH = 32
_PANEL_WIDTH, _LANE_WIDTH = 36, 110
_WORD_WIDTH, _NUMBER_WIDTH, _GAP = 14, 9, 2
"""Terminal columns: of a sparkline, of the narrowest readable completion, of a stage on one line; of the longest word
and of the longest number with its unit that no table breaks, and between columns."""


def render_terminal(page: Page, console: Console) -> None:
    """Print the page. Collapsed sections are printed as their title and summary only."""
    console.print(Text(one_line(page.title), style="bold"))
    if page.subtitle:
        console.print(Text(one_line(page.subtitle), style="dim"))
    for block in page.blocks:
        console.print()
        if isinstance(block, Section):
            _print_section(block, console)
        else:
            console.print(_render(block, console))


def sparkline(values: Sequence[float], *, width: int = _SPARK_WIDTH, levels: str = _LEVELS) -> str:
    """Draw values as at most `width` characters, each the mean of its share; a share without finite values is a "!"."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "!" * min(width, len(values))
    low, high = min(finite), max(finite)
    num_shares = min(width, len(values))
    line = ""
    for index in range(num_shares):
        share = values[index * len(values) // num_shares : (index + 1) * len(values) // num_shares]
        kept = [value for value in share if math.isfinite(value)]
        height = (sum(kept) / len(kept) - low) / (high - low) if kept and high > low else 0.0
        line += levels[min(len(levels) - 1, int(height * len(levels)))] if kept else "!"
    return line


def _print_section(section: Section, console: Console) -> None:
    """Print a section's heading and, unless it is collapsed, its blocks."""
    console.print(Text(one_line(section.title), style="bold underline"))
    if section.summary:
        console.print(Text(one_line(section.summary), style="dim"))
    if not section.collapsed:
        for block in section.blocks:
            console.print(_render(block, console))


def _render(block: Block, console: Console) -> RenderableType:
    """Return what to print for a block."""
    match block:
        case Headline():
            return _headline(block)
        case Lane():
            return _lane(block, console.width)
        case LineChart():
            return _chart(block, _ASCII_LEVELS if console.options.ascii_only else _LEVELS)
        case Table():
            return _table(block, console.width)
        case KeyValues():
            return _key_values(block)
        case Findings():
            return Group(*_titled(block.title), *(_finding(finding) for finding in block.findings))
        case SideBySide():
            return _side_by_side(block, console.width)
        case Collection():
            return Group(*_titled(block.title), *(_entry(entry, console.width) for entry in block.entries))
        case Prose():
            return Text(visible(block.text))


def _badge(severity: Severity, words: str = "") -> Text:
    return Text(one_line(words) or _WORDS[severity], style=_STYLES[severity])


def _titled(title: str) -> list[Text]:
    """Return the title as a line, or no line."""
    return [Text(one_line(title), style="bold")] if title else []


def _headline(block: Headline) -> RenderableType:
    """Show severity and sentence, then the figures on one line."""
    lines = [Text.assemble(_badge(block.severity, block.badge), "  ", Text(one_line(block.text), style="bold"))]
    if block.detail:
        lines.append(Text(visible(block.detail)))
    if block.figures:
        figures = (
            f"{figure.label} {figure.value}" + f" ({figure.note})" * bool(figure.note) for figure in block.figures
        )
        lines.append(Text("  ·  ".join(map(one_line, figures)), style="dim"))
    return Group(*lines)


def _lane(block: Lane, width: int) -> RenderableType:
    """Show one line a stage, or two in a narrow terminal, then what is not in order."""
    grid = Grid.grid(padding=(0, 2))
    for stage in block.stages:
        line = (Text(one_line(stage.name), style="bold"), _badge(stage.severity, stage.state), _gates(stage.gates))
        rest = (
            Text(one_line(stage.short_id), style="dim"),
            Text(one_line(stage.cost)),
            Text(one_line(stage.kind), "dim"),
        )
        if width >= _LANE_WIDTH:
            grid.add_row(*line, *rest)
        else:
            grid.add_row(*line)
            grid.add_row("", rest[0], Text("  ").join(part for part in rest[1:] if part))
    return Group(grid, *(line for stage in block.stages for line in _troubles(stage)))


def _gates(gates: Sequence[GateVerdict]) -> Text:
    """Count the gates by verdict."""
    counts = {verdict: sum(gate.verdict == verdict for gate in gates) for verdict in _VERDICT_STYLES}
    parts = [Text(f"{count} {verdict}", style=_VERDICT_STYLES[verdict]) for verdict, count in counts.items() if count]
    return Text(", ").join(parts) if parts else Text("no gates", style="dim")


def _troubles(stage: LaneStage) -> Iterator[Text]:
    """Name the gates that did not pass, and the reason a stage gives for its state."""
    for gate in stage.gates:
        if gate.verdict != "passed":
            words = one_line(f"{stage.name}: {gate.name} {gate.detail}")
            yield Text.assemble("  ", Text(gate.verdict, style=_VERDICT_STYLES[gate.verdict]), "  ", words)
    if stage.reason:
        yield Text(f"  {one_line(f'{stage.name}: {stage.reason}')}")


def _chart(block: LineChart, levels: str) -> RenderableType:
    """Show each series as a sparkline with its first, last, lowest and highest value."""
    grid = Grid.grid(padding=(0, 2))
    for series in block.series:
        grid.add_row(Text(one_line(series.name)), *_spark_row(series, block.y.log, levels))
    heading = one_line(f"{block.title}: {block.y.label} over {block.x.label}")
    marks = [f"{mark.label} at {spell(mark.at)}" for mark in (*block.x_marks, *block.y_marks)]
    lines = [Text(one_line(line), style="dim") for line in ("; ".join(marks), block.caption) if line]
    return Group(Text(heading, style="bold"), grid, *lines)


def _spark_row(series: Series, log: bool, levels: str) -> tuple[Text, ...]:
    """Return the drawing and the numbers of a series, its points taken in the order of x."""
    values = [y for _, y in sorted(series.points, key=lambda point: point[0])]
    drawn = [math.log(y) if y > 0 else math.nan for y in values] if log else values
    finite = [y for y in values if math.isfinite(y)]
    if not finite:
        return Text(sparkline(drawn, levels=levels), style="red"), Text("no finite value")
    numbers = f"{spell(values[0])} to {spell(values[-1])}, between {spell(min(finite))} and {spell(max(finite))}"
    lost = len(values) - len(finite)
    return Text(sparkline(drawn, levels=levels), style="cyan"), Text(numbers + f", {lost} not finite" * bool(lost))


def _table(block: Table, width: int) -> RenderableType:
    """Show a table; a cell's remark stands under its text. Where numbers or names would be broken, row by row."""
    heads = [Text(one_line(column.name)) for column in block.columns]
    rows = [[_cell(cell, "\n") for cell in row] for row in block.rows]
    columns = list(zip(heads, *rows, strict=True))
    widths = column_widths(
        [max(map(_line_width, texts)) for texts in columns],
        [_least_width(texts, column.align) for texts, column in zip(columns, block.columns, strict=True)],
        width - _GAP * (len(columns) - 1),
        is_text=[column.align == "left" for column in block.columns],
    )
    caption = [Text(visible(block.caption), style="dim")] if block.caption else []
    if widths is None:
        return Group(*_titled(block.title), _row_by_row(block, heads), *caption)
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="dim")
    for head, column, each in zip(heads, block.columns, widths, strict=True):
        grid.add_column(head, justify=column.align, overflow="fold", width=each)
    for row in rows:
        grid.add_row(*row)
    return Group(*_titled(block.title), grid, *caption)


def _cell(cell: Cell | str, between: str) -> Text:
    """Return a cell's text and its remark."""
    cell = as_cell(cell)
    text = Text(visible(cell.text), style=_STYLES[cell.severity] if cell.severity else "")
    return Text.assemble(text, between, Text(one_line(cell.detail), style="dim")) if cell.detail else text


def _line_width(text: Text) -> int:
    return max([1, *(line.cell_len for line in text.split())])


def _least_width(texts: Sequence[Text], align: str) -> int:
    """Width at which no word is broken, nor a short number from its unit; in a column of text a long word may be."""
    longest = max([1, *(cell_len(word) for text in texts for word in text.plain.split())])
    if align == "left":
        return min(longest, max(_WORD_WIDTH, _line_width(texts[0])))
    first_lines = (cell_len(text.plain.partition("\n")[0]) for text in texts)
    return max([longest, *(width for width in first_lines if width <= _NUMBER_WIDTH)])


def _row_by_row(block: Table, heads: Sequence[Text]) -> RenderableType:
    """Show each row as lines, a column a line."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for number, row in enumerate(block.rows):
        if number:
            grid.add_row("", "")
        for head, cell in zip(heads, row, strict=True):
            grid.add_row(head, _cell(cell, "  "))
    return grid


def _key_values(block: KeyValues) -> RenderableType:
    """Show pairs in two columns."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for key, value in block.pairs:
        grid.add_row(Text(one_line(key)), Text(visible(value)))
    return Group(*_titled(block.title), grid)


def _finding(finding: Finding) -> RenderableType:
    """Show a finding with its detail and evidence indented."""
    lines = [Text(visible(finding.detail))] if finding.detail else []
    lines += [Text(" | ".join(map(one_line, row)), style="dim") for row in finding.evidence]
    headline = Text.assemble(_badge(finding.severity), "  ", one_line(finding.headline))
    return Group(headline, Padding(Group(*lines), (0, 0, 0, 4))) if lines else headline


def _side_by_side(block: SideBySide, width: int) -> RenderableType:
    """Show the prompt, then the completions in panels next to each other where each gets room to read."""
    prompt = Text.assemble(Text("prompt  ", style="dim"), visible(block.prompt))
    panels = [_panel(text) for text in block.texts]
    if width < _PANEL_WIDTH * len(panels):
        return Group(*_titled(block.title), prompt, *panels)
    grid = Grid.grid(expand=True)
    for _ in panels:
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return Group(*_titled(block.title), prompt, grid)


def _entry(entry: Entry, width: int) -> RenderableType:
    """Show one of many things to read, under what it is filed under."""
    filed = "; ".join(one_line(label) for _, label in entry.labels)
    return Group(*[Text(filed, style="dim")] * bool(filed), _side_by_side(entry.body, width))


def _panel(text: LabelledText) -> Panel:
    """Frame one completion."""
    title = Text(one_line(f"{text.label}  {text.note}"))
    border = _STYLES[text.severity] if text.severity else "dim"
    return Panel(Text(visible(text.text)), title=title, title_align="left", border_style=border)

"""A page as one HTML file: nothing fetched, readable offline, on paper, on a phone and without script.

The content security policy allows the page's own style sheet and, where rows can be searched, the page's own script,
each by its hash, and nothing else. Every value goes through the environment's `finalize` and autoescape, so a template
line cannot forget either.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from weightgate.report import charts, lanes
from weightgate.report.filters import can_be_narrowed, filing_of, has_filters, labels_of
from weightgate.report.page import Bar, Block, Cell, Interval, LineChart, Page, Section, kind_name
from weightgate.report.tables import scaled_rows
from weightgate.report.text import one_line, visible

_WORDS = {"pass": "passed", "note": "note", "warn": "warning", "fail": "failed"}
"""What a severity is called where colour alone would carry it."""


def render_html(page: Page) -> str:
    """Return the page as one self-contained HTML document, UTF-8 when written to a file."""
    css, script = _file("page.css"), _file("page.js") if has_filters(page) else ""
    sections = [block for block in page.blocks if isinstance(block, Section)]
    return _template().render(
        page=page,
        title=one_line(page.title),
        css=Markup(css),
        script=Markup(script),
        policy=Markup(_policy(css, script)),
        sections=sections,
        anchors=_anchors(sections),
    )


@cache
def _file(name: str) -> str:
    """Read a file that stands beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(css: str, script: str) -> str:
    """The content security policy under which this style sheet and this script, if there is one, are all there is."""
    allowed = [f"style-src {_source(css)}", *[f"script-src {_source(script)}"] * bool(script)]
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])


def _source(text: str) -> str:
    """Name a text by its hash; the quotes are the policy's own."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template() -> Template:
    """Compile the page template."""
    environment = Environment(
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "kind": _kind,
        "graphic": _graphic,
        "line_chart": charts.line_chart,
        "swatch": charts.swatch,
        "scaled_rows": scaled_rows,
        "filing": lambda block: filing_of(labels_of(block)) if can_be_narrowed(block) else None,
        "tracks": lanes.tracks,
        "track": lanes.track,
        "severity_words": _WORDS,
    }
    environment.filters |= {"paragraphs": _paragraphs, "commands": _commands, "groups": _groups}
    environment.tests["digest"] = lambda text: re.fullmatch(r"(b3:)?[0-9a-f]{6,64}…?", text) is not None
    return environment.from_string(_file("page.html.jinja"))


def _shown(value: object) -> object:
    """Make text visible before it is escaped; markup made here has been through it already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kind(block: Block | Section) -> str:
    return kind_name(block)


def _graphic(cell: Cell) -> Markup:
    """Draw what a cell carries."""
    if isinstance(cell.graphic, Interval):
        return charts.interval(cell.graphic)
    return charts.bar(cell.graphic) if isinstance(cell.graphic, Bar) else Markup()


def _groups(blocks: Sequence[Block]) -> list[list[Block]]:
    """Put charts that follow each other in one group, to stand side by side; every other block is its own."""
    groups: list[list[Block]] = []
    for block in blocks:
        if groups and isinstance(block, LineChart) and isinstance(groups[-1][-1], LineChart):
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def _paragraphs(text: str) -> list[str]:
    """Split text at empty lines."""
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part]


def _commands(text: str) -> Markup:
    """Set what stands between a pair of backticks in a fixed-width face."""
    parts = [escape(visible(part)) for part in re.split(r"`([^`\n]+)`", text)]
    wrapped = [Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)]
    return Markup().join(wrapped)


def _anchors(sections: Sequence[Section]) -> dict[int, str]:
    """Give every section, by its position, an anchor of letters, digits and hyphens that no other section has."""
    taken: set[str] = set()
    anchors = {}
    for index, section in enumerate(sections):
        base = re.sub(r"[^a-z0-9]+", "-", (section.id or section.title).lower()).strip("-") or "section"
        anchor = base if base not in taken else f"{base}-{index + 1}"
        taken.add(anchor)
        anchors[index] = anchor
    return anchors

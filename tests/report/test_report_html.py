"""The HTML file: self-contained, and deaf to what its texts say."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from report_payloads import FORBIDDEN, HOSTILE

from weightgate.report.filters import filing_of
from weightgate.report.html import render_html
from weightgate.report.page import Page, Prose, Section


class _Elements(HTMLParser):
    """Collects every start and end tag with the names of its attributes, and the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_data(self, data):
        self.texts.append(data)


def _elements(html: str) -> _Elements:
    parser = _Elements()
    parser.feed(html)
    parser.close()
    return parser


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_payload_in_every_field_changes_no_element(page, poison, payload):
    clean, hostile = render_html(page), render_html(poison(payload))
    assert _elements(hostile).tags == _elements(clean).tags
    assert not set(hostile) & set(FORBIDDEN)
    hostile.encode()


def test_hostile_text_is_still_there_to_be_read(poison):
    texts = "".join(_elements(render_html(poison(HOSTILE["script"]))).texts)
    assert texts.count(HOSTILE["script"]) > 50


def test_nothing_is_fetched_and_nothing_runs(page):
    html = render_html(page)
    assert not re.search(r"https?://", html)
    assert not re.search(r"\b(src|srcset|style|action)=", html)
    assert html.count("<script") == 1, "the page's own"
    assert "url(" not in html
    assert "@import" not in html


def _source(name: str, html: str) -> str:
    """The only element of this name, as the policy names its text."""
    (text,) = re.findall(f"<{name}>(.*?)</{name}>", html, flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_exactly_the_style_sheet_and_the_script_that_are_there(page):
    html = render_html(page)
    allowed = f"default-src 'none'; style-src {_source('style', html)}; script-src {_source('script', html)};"
    assert allowed in html


def test_a_page_without_rows_to_search_has_no_script():
    html = render_html(Page(title="t", blocks=(Section(title="s", blocks=(Prose(text="One."),)),)))
    assert "script" not in html
    assert 'class="filter' not in html


def test_choices_count_the_rows_that_carry_them():
    labels = ((("axis", "a"), ("axis", "b")), (("axis", "b"),), (("kind", "a"), ("kind", "a")), ())
    filing = filing_of(labels)
    assert [(facet.name, facet.choices) for facet in filing.facets] == [
        ("axis", ((1, "b", 2), (0, "a", 1))),
        ("kind", ((2, "a", 1),)),
    ]
    assert filing.marks == ("0 1", "1", "2", "")


def test_a_page_of_long_curves_stays_small(page):
    assert len(render_html(page).encode()) < 300_000


def test_equal_pages_make_equal_bytes(page):
    assert render_html(page) == render_html(page)


def test_anchors_are_unique_and_linked():
    sections = tuple(Section(title=title, blocks=()) for title in ("Same", "Same", "§ !", "</a>"))
    html = render_html(Page(title="t", blocks=sections))
    anchors = re.findall(r' id="([^"]*)"', html)
    assert anchors == ["same", "same-2", "section", "a"]
    assert re.findall(r'href="#([^"]*)"', html) == anchors


def test_commands_between_backticks_are_set_apart_and_escaped():
    html = render_html(Page(title="t", blocks=(Prose(text="Run `a <b>` now.\n\nA lone ` stays."),)))
    assert '<p class="prose">Run <code>a &lt;b&gt;</code> now.</p>' in html
    assert '<p class="prose">A lone ` stays.</p>' in html


def test_collapsed_sections_need_no_script(page):
    html = render_html(page)
    assert re.search(r'<details class="section" id="contract">\s*<summary><h2>Contract</h2>', html)


def test_verdicts_are_words_not_only_colours(page):
    texts = " ".join(_elements(render_html(page)).texts)
    for word in ("passed", "failed", "waived", "not measured", "warning"):
        assert word in texts

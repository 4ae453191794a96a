"""A real browser opens the page: it is all there, its policy holds, rows can be searched, and nothing else is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_page import Tab, open_browser
from report_payloads import HOSTILE

from browser import BROWSER, opened
from weightgate.report.html import render_html
from weightgate.report.page import Collection, Column, Entry, LabelledText, Page, Section, SideBySide, Table

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

_SHOWN = """Array.from(document.querySelectorAll("[data-labels]")).filter((row) => row.checkVisibility())
.map((row) => row.querySelector("h3, td").textContent)"""
_COUNT = 'document.querySelector("output").value'


def _dumped(html: str, folder: Path) -> tuple[str, list[str]]:
    """Return the document after loading, and what the browser's console was told."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    return opened(file, folder / "profile")


def test_a_hostile_page_loads_whole_and_in_silence(poison, tmp_path):
    document, complaints = _dumped(render_html(poison("".join(HOSTILE.values()))), tmp_path)
    assert complaints == []
    assert "<title>Build" in document, "a script would have renamed the page"
    for heading in ("Stages", "Training", "Results", "Completions", "Contract"):
        assert f"<h2>{heading}" in document
    assert document.count('<svg class="area"') == 2
    assert document.count('<svg class="track') == 3
    assert document.count("<script") == 1


def test_the_policy_is_enforced_and_the_console_would_say_so(page, tmp_path):
    html = render_html(page).replace("<main>", "<main><p style='color:red'></p><script>document.title='owned'</script>")
    document, complaints = _dumped(html, tmp_path)
    assert "<title>Build</title>" in document
    assert len(complaints) >= 2


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests that type."""
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def _entry(title: str, text: str, *findings: str) -> Entry:
    texts = (LabelledText(label="chosen", text=text), LabelledText(label="rejected", text="No."))
    body = SideBySide(prompt="What does it eat?", texts=texts, title=title)
    return Entry(body=body, labels=tuple(("finding", finding) for finding in findings))


def _birds(extra: str = "") -> Page:
    """Three rows to read in a section that is closed, and a table of two."""
    rows = (
        _entry("owl", f"The owl eats Mice.{extra}", "likely mislabelled", "prefers mice"),
        _entry("heron", f"The heron eats fish.{extra}", "likely mislabelled"),
        _entry("swift", f"Flies, <b>mice</b> never.{extra}", "prefers flies"),
    )
    table = Table(columns=(Column(name="bird"),), rows=(("crane",), ("rook",)), labels=((), ()))
    sections = (
        Section(title="Rows", blocks=(Collection(entries=rows),), collapsed=True),
        Section(title="Table", blocks=(table,)),
    )
    return Page(title="Birds", blocks=sections)


def _open_rows(tab: Tab) -> None:
    tab.ask('document.querySelector("details").open = true; document.querySelector(".filter input").focus()')


def test_typing_hides_the_rows_without_the_words(tab):
    tab.show(render_html(_birds()))
    _open_rows(tab)
    assert tab.ask(_SHOWN) == ["owl", "heron", "swift", "crane", "rook"]
    assert tab.ask(_COUNT) == "3 of 3 rows shown"
    tab.type("MICE eats")
    assert tab.ask(_SHOWN) == ["owl", "crane", "rook"], "both words, wherever they stand; the table is its own"
    assert tab.ask(_COUNT) == "1 of 3 rows shown"
    tab.press("Escape", 27)
    assert tab.ask(_SHOWN) == ["owl", "heron", "swift", "crane", "rook"]
    tab.type("<b>mice")
    assert tab.ask(_SHOWN) == ["swift", "crane", "rook"], "markup in a row is text"


def test_rows_are_narrowed_by_finding_with_the_keyboard_alone(tab):
    tab.show(render_html(_birds()))
    _open_rows(tab)
    tab.press("Tab", 9)
    assert tab.ask("document.activeElement.tagName") == "SELECT"
    assert tab.ask("Array.from(document.activeElement.options, (one) => one.textContent)") == [
        *("any", "likely mislabelled (2)", "prefers mice (1)", "prefers flies (1)")
    ]
    tab.press("ArrowDown", 40)
    assert tab.ask(_SHOWN)[:2] == ["owl", "heron"]
    assert tab.ask(_COUNT) == "2 of 3 rows shown"
    tab.press("Tab", 9)
    tab.press("Enter", 13, "\r")
    assert tab.ask(_COUNT) == "3 of 3 rows shown", "Clear can be reached and pressed"


def test_a_slash_opens_the_rows_and_goes_to_the_search(tab):
    tab.show(render_html(Page(title="t", blocks=_birds().blocks[:1])))
    tab.press("/", 191, "/")
    assert tab.ask('document.querySelector("details").open')
    assert tab.ask('document.activeElement.matches(".filter input") && document.activeElement.value === ""')


def test_without_script_every_row_is_there_and_no_control_that_does_nothing(tab):
    tab.show(render_html(_birds()), scripts=False)
    tab.ask('document.querySelector("details").open = true')
    assert tab.ask(_SHOWN) == ["owl", "heron", "swift", "crane", "rook"]
    assert not tab.ask('document.querySelector(".filter").checkVisibility()')


def test_searching_hostile_rows_runs_none_of_them(tab):
    tab.show(render_html(_birds("".join(HOSTILE.values()))))
    _open_rows(tab)
    tab.type("<img src=x onerror=")
    assert tab.ask("document.title") == "Birds"
    assert tab.ask('document.querySelectorAll("img, iframe, script").length') == 1
    assert len(tab.ask(_SHOWN)) == 5

"""A real browser opens the page: it is all there, its policy holds, and nothing is refused or run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from report_payloads import HOSTILE

from weightgate.report.html import render_html

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-quic"
_TIME_LIMIT_SECONDS = 120

pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no chromium on this machine")


def _opened(html: str, folder: Path) -> tuple[str, list[str]]:
    """Return the document after loading, and what the browser's console was told."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    command = [_BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *_QUIET.split(), "--enable-logging=stderr"]
    command += ["--v=0", f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT_SECONDS, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_hostile_page_loads_whole_and_in_silence(poison, tmp_path):
    document, complaints = _opened(render_html(poison("".join(HOSTILE.values()))), tmp_path)
    assert complaints == []
    assert "<title>Build" in document, "a script would have renamed the page"
    for heading in ("Stages", "Training", "Results", "Completions", "Contract"):
        assert f"<h2>{heading}" in document
    assert document.count('<svg class="area"') == 2
    assert document.count('<svg class="track') == 3
    assert "<script" not in document


def test_the_policy_is_enforced_and_the_console_would_say_so(page, tmp_path):
    html = render_html(page).replace("<main>", "<main><p style='color:red'></p><script>document.title='owned'</script>")
    document, complaints = _opened(html, tmp_path)
    assert "<title>Build</title>" in document
    assert len(complaints) >= 2

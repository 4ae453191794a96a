"""`make evaluate`: the summary reads what is committed, and a run that was stopped goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.evaluate import Part, run_parts, summary
from benchmarks.triage_detector import RESULTS

ROOT = Path(__file__).parents[2]


def part(name: str, code: str) -> Part:
    return Part(name=name, arguments=("-c", code))


def test_the_summary_that_is_committed_is_that_of_the_results() -> None:
    """Every file that it reads is there, and nobody edited one without the other."""
    written = (ROOT / RESULTS / "evaluation.md").read_text("utf-8")
    assert written == "\n".join(summary(ROOT / RESULTS)) + "\n"


def test_a_stopped_run_goes_on_and_a_finished_one_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = part("first", "open('log', 'a').write('first ')")
    fails = part("second", "open('log', 'a').write('second '); assert False")
    mended = part("second", "open('log', 'a').write('mended ')")
    with pytest.raises(SystemExit, match="second failed"):
        run_parts((counts, fails), tmp_path / "scratch")
    run_parts((counts, mended), tmp_path / "scratch")
    assert "1/2 first: done before the stop" in capfd.readouterr().out
    run_parts((counts, mended), tmp_path / "scratch")
    assert (tmp_path / "log").read_text() == "first second mended first mended "
    assert not (tmp_path / "scratch").exists()


def test_what_was_done_by_other_code_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = (
        part("first", "open('log', 'a').write('first ')"),
        part("second", "assert __import__('os').path.exists('src/weightgate/diff/x.py')"),
    )
    with pytest.raises(SystemExit):
        run_parts(parts, tmp_path / "scratch")
    (tmp_path / "src/weightgate/diff").mkdir(parents=True)
    (tmp_path / "src/weightgate/diff/x.py").write_text("")
    run_parts(parts, tmp_path / "scratch")
    assert (tmp_path / "log").read_text() == "first first "

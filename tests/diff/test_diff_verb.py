"""`weightgate diff` as a user runs it: recordings, live endpoints, the A/A, exit codes, reports, hostile texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from tests.diff.planted import Speaker, probes, recorded
from tests.probe.scripted_endpoint import scripted_endpoint
from tests.report.report_payloads import FORBIDDEN, HOSTILE

from weightgate.cli import main
from weightgate.probe.recording import Snapshot, TargetDescription
from weightgate.probe.snapshot_file import load_snapshot, write_snapshot
from weightgate.probe.suites import load_suite

ASKED = probes(40)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["diff", *arguments], catch_exceptions=False)


def of_endpoint(snapshot: Snapshot) -> Snapshot:
    """The same recording, taken of an endpoint."""
    target = TargetDescription(kind="endpoint", place="https://host.example/v1", model="m")
    return replace(snapshot, header=replace(snapshot.header, target=target))


def write_sides(folder: Path, **sides: Snapshot) -> None:
    for name, snapshot in sides.items():
        write_snapshot(folder / f"{name}.jsonl", snapshot)


def test_nothing_changed_is_exit_code_0(folder: Path) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED), b=recorded(Speaker(1), ASKED))
    done = run("a.jsonl", "b.jsonl")
    assert done.exit_code == 0
    assert "nothing changed" in done.output
    assert "would have been seen" in done.output


def test_a_change_is_exit_code_1_and_every_report_tells_it(folder: Path) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED), b=recorded(Speaker(2, knows=0.2), ASKED))
    done = run("a.jsonl", "b.jsonl", "--html", "r.html", "--junit", "r.xml", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    knowledge = next(row for row in told["rows"] if row["name"] == "knowledge.accuracy")
    assert (told["changed"], knowledge["changed"], knowledge["effect"]["value"] < -0.4) == (True, True, True)
    assert knowledge["adjusted_p"] < 0.001
    assert all(one["before"] != one["after"] for one in told["deciding"])
    page = (folder / "r.html").read_text("utf-8")
    assert "knowledge.accuracy" in page
    assert told["headline"] in page
    suite = ElementTree.parse(folder / "r.xml").getroot()
    failed = {case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None}
    assert "knowledge.accuracy" in failed
    assert "boundary.answers" not in failed


def test_equal_recordings_give_equal_bytes_in_every_process(folder: Path) -> None:
    """Sets of words are walked in the order of their hashes, which each process salts anew."""
    write_sides(folder, a=recorded(Speaker(1), ASKED), b=recorded(Speaker(2, knows=0.2, sentences=(4, 8)), ASKED))
    told = []
    for salt in ("1", "2"):
        command = [sys.executable, "-m", "weightgate", "diff", "a.jsonl", "b.jsonl", "--json", "--html", "r.html"]
        done = subprocess.run(
            [*command, "--junit", "r.xml"], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True
        )
        assert done.returncode == 1, done.stderr
        told.append((done.stdout, (folder / "r.html").read_bytes(), (folder / "r.xml").read_bytes()))
    assert told[0] == told[1]
    assert json.loads(told[0][0])["evidence"]


def test_a_tolerance_turns_a_small_change_into_none(folder: Path) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED), b=recorded(Speaker(2, knows=0.3), ASKED))
    assert run("a.jsonl", "b.jsonl").exit_code == 1
    assert run("a.jsonl", "b.jsonl", "--tolerance", "5").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["a.jsonl", "none.jsonl"], "is no target"),
        (["a.jsonl", "b.jsonl"], "no answered prompt in common"),
        (["a.jsonl", "a.jsonl", "--again"], "both sides are recordings"),
        (["a.jsonl", "a.jsonl", "--html", "no/such/folder.html"], "mkdir -p no/such"),
        (["a.jsonl", "a.jsonl", "--junit", "."], "this is a folder"),
        (["a.jsonl", "a.jsonl", "--more", "./a.jsonl"], "it holds what is read here"),
        (["a.jsonl", "a.jsonl", "--a-a", "b.jsonl", "--html", "b.jsonl"], "it holds what is read here"),
        (["a.jsonl", "a.jsonl", "--html", "r.x", "--junit", "./r.x"], "it is written by --html"),
        (["a.jsonl", "silent.jsonl"], "not one question was answered"),
        (["a.jsonl", "http://127.0.0.1:9/v1", "--model", "m", "--keep", "a.jsonl"], "mend: --keep FOLDER"),
        (["a.jsonl", "torn.jsonl"], "torn.jsonl:1"),
        (["a.jsonl", "prompts.jsonl"], "a prompt without an answer"),
        (["a.jsonl", "https://host.example/v1"], "none is named"),
    ],
)
def test_mistakes_are_exit_code_2(folder: Path, arguments: list[str], what: str) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED[:9]), b=recorded(Speaker(1), ASKED[50:60]))
    write_sides(folder, silent=replace(recorded(Speaker(1), ASKED[:9]), answers=(), complete=False))
    before = (folder / "a.jsonl").read_bytes()
    (folder / "torn.jsonl").write_text('{"kind": "heade\n')
    (folder / "prompts.jsonl").write_text('{"prompt": "How do I dry herbs?"}\n')
    done = run(*arguments)
    assert (done.exit_code, what in done.output) == (2, True), done.output
    assert (folder / "a.jsonl").read_bytes() == before


def test_a_snapshot_with_gaps_is_no_silent_pass(folder: Path) -> None:
    whole = recorded(Speaker(1), ASKED)
    write_sides(folder, a=whole, b=replace(whole, answers=whole.answers[:-3], complete=False))
    done = run("a.jsonl", "b.jsonl", "--json")
    assert f"warning: 3 of {len(whole.answers):,} questions" in done.stderr
    assert json.loads(done.stdout)["changed"] is False
    assert run("a.jsonl", "a.jsonl", "--json").stderr == ""


def test_a_report_that_cannot_be_written_is_told_before_anything_is_asked(folder: Path) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(3)))
    with scripted_endpoint() as endpoint:
        sides = [endpoint.url, endpoint.url, "--model", "m", "--prompts", "mine.jsonl"]
        assert run(*sides, "--html", "none/report.html").exit_code == 2
        assert endpoint.requests == []
        streams = run(*sides, "--html", "/dev/null", "--junit", "/dev/null")
        assert streams.exit_code == 0, streams.output


def test_an_endpoint_that_was_asked_with_its_own_temperature_is_asked_so_again(folder: Path) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(3)))
    with scripted_endpoint() as endpoint:
        taken = ["snapshot", endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--temperature", "default"]
        assert CliRunner().invoke(main, [*taken, "-o", "a.jsonl"]).exit_code == 0
        assert run("a.jsonl", endpoint.url, "--model", "m").exit_code == 0
        assert ["temperature" in sent for sent in endpoint.requests] == [False] * 12


def test_a_live_side_is_asked_what_the_recording_was_asked_and_its_answers_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "wg-secret-0123456789")
    with scripted_endpoint() as endpoint:
        named = [endpoint.url, "--model", "m", "--key-variable", "A_KEY", "--concurrency", "32"]
        (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(12)))
        taken = ["snapshot", *named, "--prompts", "mine.jsonl", "--temperature", "0.3", "--max-tokens", "7"]
        assert CliRunner().invoke(main, [*taken, "-o", "a.jsonl"]).exit_code == 0
        first = len(endpoint.requests)
        done = run("a.jsonl", *named, "--again", "--json")
        assert (done.exit_code, len(endpoint.requests)) == (0, 3 * first)
        assert {(sent["temperature"], sent["max_tokens"]) for sent in endpoint.requests} == {(0.3, 7)}
        assert [null["source"] for null in json.loads(done.stdout)["nulls"]] == ["recording"]
        run("a.jsonl", *named)
        assert len(endpoint.requests) == 4 * first  # what is kept says how it was, so it is asked anew
    kept = sorted(path.name.partition("-")[0] for path in (folder / "snapshots").iterdir())
    assert kept == ["after", "after", "again"]
    assert all(load_snapshot(path).complete for path in (folder / "snapshots").iterdir())


def test_two_endpoints_are_compared_and_a_dry_run_says_what_that_costs(folder: Path) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(12)))
    with scripted_endpoint() as one, scripted_endpoint() as other:
        sides = [one.url, other.url, "--model", "first", "--model", "second", "--prompts", "mine.jsonl"]
        told = json.loads(run(*sides, "--dry-run", "--json").stdout)
        assert [told[url]["open_questions"] for url in (one.url, other.url)] == [24, 24]
        assert (one.requests, other.requests) == ([], [])
        assert run(*sides).exit_code == 0
        assert {sent["model"] for sent in one.requests} == {"first"}
        assert {sent["model"] for sent in other.requests} == {"second"}


def test_of_two_live_sides_the_second_is_asked_again_for_the_a_a(folder: Path) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(12)))
    with scripted_endpoint() as one, scripted_endpoint() as other:
        sides = [one.url, other.url, "--model", "m", "--prompts", "mine.jsonl", "--samples", "1"]
        done = run(*sides, "--again", "--json")
        assert (done.exit_code, len(one.requests), len(other.requests)) == (0, 12, 24)
    nulls = json.loads(done.stdout)["nulls"]
    assert [(null["side"], null["source"], null["prompts"]) for null in nulls] == [("after", "recording", 12)]


def test_mistakes_are_json_where_json_is_asked_for(folder: Path) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED[:9]))
    done = run("a.jsonl", "none.jsonl", "--json")
    assert (done.exit_code, done.stderr) == (2, "")
    assert "is no target" in json.loads(done.stdout)["error"]["what"]
    plain = run("a.jsonl", "none.jsonl")
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: ")


def test_a_live_side_that_fails_midway_keeps_its_answers_and_the_same_command_goes_on(folder: Path) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"say {at}"}) + "\n" for at in range(12)))
    with scripted_endpoint() as endpoint:
        common = ["--model", "m", "--prompts", "mine.jsonl", "--samples", "1"]
        assert CliRunner().invoke(main, ["snapshot", endpoint.url, *common, "-o", "a.jsonl"]).exit_code == 0
        assert run("a.jsonl", endpoint.url, *common, "--budget", "calls=5").exit_code == 2
        assert run("a.jsonl", endpoint.url, *common).exit_code == 0
        assert len(endpoint.requests) == 12 + 12


def test_an_endpoint_that_was_not_compared_with_itself_gets_no_stage(folder: Path) -> None:
    asked = probes(40)
    write_sides(folder, a=of_endpoint(recorded(Speaker(1), asked)), b=of_endpoint(recorded(Speaker(2, knows=0), asked)))
    told = json.loads(run("a.jsonl", "b.jsonl", "--json").stdout)
    assert told["verdict"]["cause"] == "undetermined"
    assert "--a-a FILE" in told["verdict"]["why"]
    write_sides(folder, again=of_endpoint(recorded(Speaker(3), asked)))
    told = json.loads(run("a.jsonl", "b.jsonl", "--a-a", "again.jsonl", "--json").stdout)
    assert [(null["side"], null["source"], null["changed"]) for null in told["nulls"]] == [
        ("before", "recording", False)
    ]
    assert "--a-a" not in told["verdict"]["why"]


def test_several_samples_are_an_a_a_of_their_own(folder: Path) -> None:
    write_sides(
        folder,
        a=of_endpoint(recorded(Speaker(1), ASKED, samples=4)),
        b=of_endpoint(recorded(Speaker(2, knows=0.1), ASKED, samples=4)),
    )
    done = run("a.jsonl", "b.jsonl", "--json")
    nulls = json.loads(done.stdout)["nulls"]
    assert [(null["side"], null["source"], null["samples"]) for null in nulls] == [
        *(("before", "samples", 2), ("after", "samples", 2))
    ]
    assert done.exit_code == 1


def test_what_an_endpoint_does_against_itself_is_no_change(folder: Path) -> None:
    """The A/A loses as much knowledge as the other side: nothing is left to call a change."""
    write_sides(
        folder,
        a=of_endpoint(recorded(Speaker(1, knows=1.0), ASKED)),
        again=of_endpoint(recorded(Speaker(5, knows=0.1), ASKED)),
        b=of_endpoint(recorded(Speaker(6, knows=0.2), ASKED)),
    )
    done = run("a.jsonl", "b.jsonl", "--a-a", "again.jsonl")
    assert done.exit_code == 0, done.output
    assert "cannot tell; the endpoint differs as much from itself" in done.output
    assert "Each side against itself" in done.output


class _Elements(HTMLParser):
    """Collects the elements of a page and the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attributes)))


def _elements(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Elements()
    parser.feed(path.read_text("utf-8"))
    return parser.found


def _write_said(path: Path, hostile: str, suffix: str) -> None:
    """Write a recording in which every prompt, id, topic, metric and completion holds a hostile text."""
    check = {"metric": hostile, "type": "max_words", "value": 40}
    rows = (
        {
            "id": f"{at}{hostile}",
            "prompt": f"{at} {hostile}",
            "axis": "task",
            "topic": hostile,
            "checks": [check],
            "completion": hostile + suffix,
        }
        for at in range(12)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.mark.parametrize("payload", sorted(HOSTILE))
def test_hostile_recordings_change_no_element_and_steer_no_terminal(folder: Path, payload: str) -> None:
    pages = {}
    for name, hostile in (("tame", "harmless"), ("wild", HOSTILE[payload].replace("\ud800", "\ufffd"))):
        _write_said(folder / f"{name}-a.jsonl", hostile, "")
        _write_said(folder / f"{name}-b.jsonl", hostile, " and many more words" * 20)
        done = run(f"{name}-a.jsonl", f"{name}-b.jsonl", "--html", f"{name}.html", "--junit", f"{name}.xml")
        assert done.exit_code == 1, done.output
        assert not [letter for letter in FORBIDDEN if letter in done.output]
        ElementTree.parse(folder / f"{name}.xml")
        pages[name] = _elements(folder / f"{name}.html")
        page = (folder / f"{name}.html").read_text("utf-8")
        assert not [letter for letter in FORBIDDEN if letter in page]
    assert {tag for tag, _ in pages["wild"]} == {tag for tag, _ in pages["tame"]}
    assert {names for _, names in pages["wild"]} <= {names for _, names in pages["tame"]}


def test_recordings_need_no_torch(folder: Path) -> None:
    write_sides(folder, a=recorded(Speaker(1), ASKED), b=recorded(Speaker(1), ASKED))
    script = "import sys\nfrom weightgate.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "diff", "a.jsonl", "b.jsonl", "--html", "r.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.splitlines()[-1] == "False"


def test_what_cannot_be_told_comes_with_the_prompts_that_would_decide(folder: Path) -> None:
    """Five of 20 facts lost and none gained: exact p 0.0625, a hint and no more."""
    before = recorded(Speaker(1, knows=1.0), probes(20))
    lost = {f"knowledge-{at}" for at in range(5)}
    after = replace(
        before,
        answers=tuple(
            replace(answer, reply=replace(answer.reply, completion="Nowhere")) if answer.probe.id in lost else answer
            for answer in before.answers
        ),
    )
    write_sides(folder, a=before, b=after)
    done = run("a.jsonl", "b.jsonl", "--more", "more.jsonl")
    assert done.exit_code == 0
    assert "more prompts like these would decide" in done.output
    suite = load_suite(folder / "more.jsonl").probes
    assert suite[: len(before.probes)] == before.probes
    assert {probe.axis for probe in suite[len(before.probes) :]} == {"knowledge"}
    assert (
        f"{len(suite) - len(before.probes)} further prompts: ask both sides anew with --suite more.jsonl" in done.stderr
    )
    with scripted_endpoint() as endpoint:
        anew = run(endpoint.url, endpoint.url, "--model", "m", "--suite", "more.jsonl", "--samples", "1", "--json")
    assert (anew.exit_code, json.loads(anew.stdout)["prompts"]) == (0, len(suite))
    assert "nothing hints" in run("a.jsonl", "a.jsonl", "--more", "none.jsonl").output
    assert not (folder / "none.jsonl").exists()

"""A watch from the command line, against a real endpoint in a process of its own.

Where a test waits for an alarm, the endpoint declines 19 of 20 instead of 1 of 20 requests: with 16 prompts the chance
that two looks do not show that is below 1e-6. Where it waits for none, alpha is 0.001.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from scene import CALM, MOVED, PROMPTS, Scene, calm, write_suite
from servers import PASSWORD, PASSWORD_VARIABLE, Postgres

from eventually import LIMIT_SECONDS, wait_until
from weightgate.errors import WatchError
from weightgate.probe import patterns
from weightgate.watch import History, outbox, run
from weightgate.watch.look import replay
from weightgate.watch.outbox import letters

QUESTIONS = 2 * PROMPTS


def _until_alarm(scene: Scene, *, at_most: int = 4) -> dict[str, object]:
    for _ in range(at_most):
        outcome = scene.once()
        if outcome["state"] == "alarm":
            return outcome
    raise AssertionError(f"no alarm within {at_most} looks")


def test_one_change_is_one_alarm_until_a_new_baseline(any_scene: Scene) -> None:
    scene = any_scene
    hook = {"url": f"{scene.address}/hook"}
    scene.configure(alarm={"file": "alarm.json", "report": "alarm.html", "webhooks": [hook]}, report="status.html")
    calm(scene, looks=2)
    scene.behave(**MOVED)
    first = _until_alarm(scene)
    again = scene.once()
    assert (first["exit_code"], again["exit_code"]) == (1, 1)
    assert again["alarm"]["alarm"] == first["alarm"]["alarm"] == 1  # type: ignore[index]
    told = json.loads((scene.folder / "alarm.json").read_text())
    assert "boundary.should_answer fell from" in told["headline"]
    assert {axis["axis"] for axis in told["axes"]} >= {"boundary.should_answer", "style.refusal"}
    assert told["deciding"]
    assert "I&#39;m sorry" in (scene.folder / "alarm.html").read_text()
    assert "boundary.should_answer fell" in (scene.folder / "status.html").read_text()
    assert [hook["body"]["alarm"] for hook in scene.hooks()] == [1]
    assert scene.hooks()[0]["body"]["text"] == told["headline"]
    renewed = scene.run("--baseline", "--reason", "the provider told us")
    assert renewed.exit_code == 0
    assert not (scene.folder / "alarm.json").exists()
    assert scene.once()["state"] == "quiet"
    with scene.history() as history:
        assert [row.reason for row in history.baselines()] == ["the provider told us", "first run"]
        assert history.alarms()[0].ended_why == "the baseline was renewed"


def test_an_acknowledged_change_alarms_no_more_and_the_next_one_does(scene: Scene) -> None:
    calm(scene, looks=2)
    scene.behave(**MOVED)
    _until_alarm(scene)
    assert scene.run("--acknowledge", "--reason", "known").exit_code == 0
    assert [scene.once()["state"] for _ in range(2)] == ["quiet", "quiet"]
    scene.behave(**MOVED, knows=0.0)
    second = _until_alarm(scene)
    assert second["alarm"]["alarm"] == 2  # type: ignore[index]
    assert "knowledge.accuracy fell" in str(second["message"])


def test_an_answer_that_a_pattern_does_not_judge_in_time_is_told_and_ends_no_look(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "LIMIT_SECONDS", 0.2)
    suite = scene.folder / "suite.jsonl"
    first, *others = suite.read_text(encoding="utf-8").splitlines()
    check = {"metric": "expected", "type": "regex", "value": "(a|aa)+$"}
    suite.write_text("\n".join([json.dumps(json.loads(first) | {"checks": [check]}), *others]), encoding="utf-8")
    calm(scene, looks=1)
    scene.behave(text="a" * 60 + "b")
    told = scene.once()
    [problem] = told["problems"]
    assert problem["what"].startswith("1 completion could not be judged in time")
    assert told["look"]["state"] == "done"
    assert told["look"]["note"].startswith("1 completion could not be judged in time")


def test_an_outage_is_no_change(any_scene: Scene) -> None:
    scene = any_scene
    calm(scene, looks=2)
    scene.behave(status=500)
    outcome = scene.once()
    assert (outcome["state"], outcome["exit_code"]) == ("outage", 3)
    assert "10 questions in a row failed; status 500" in outcome["message"]
    scene.behave(**CALM)
    assert scene.once()["state"] == "quiet"
    with scene.history() as history:
        assert [row.state for row in history.looks(kind="look")] == ["done", "outage", "done", "done"]
        baseline = history.baseline()
        assert history.state(baseline.number).looks == 3
        assert replay(history, baseline).to_json() == history.state(baseline.number).to_json()


def test_what_a_look_says_can_be_computed_again(any_scene: Scene) -> None:
    calm(any_scene, looks=3)
    with any_scene.history() as history:
        baseline = history.baseline()
        before = history.state(baseline.number).to_json()
        assert replay(history, baseline).to_json() == before
        history.database.run("DELETE FROM watch_states")
    assert any_scene.once()["state"] == "quiet"
    with any_scene.history() as history:
        assert history.state(baseline.number).looks == 4


def test_killed_at_any_moment_nothing_is_lost_and_nothing_counts_twice(any_scene: Scene) -> None:
    """SIGKILL in the middle of looks, at moments all over them."""
    scene = any_scene
    calm(scene, looks=1)
    scene.configure(alarm={"alpha": 1e-6})  # which answers are drawn depends on where the kills fall
    for _ in range(5):
        scene.behave(**CALM, answers=6)  # the other questions are held, so that the look cannot end before the kill
        with scene.history() as history:
            _kill_in_a_look(scene, history, answers=4)
    scene.behave(**CALM)
    assert scene.once()["state"] == "quiet"
    with scene.history() as history:
        done = history.looks(state="done")
        assert all(row.answered == QUESTIONS for row in done)
        assert not history.looks(state="open")
        baseline = history.baseline()
        assert history.state(baseline.number).looks == sum(row.kind == "look" for row in done)
        assert replay(history, baseline).to_json() == history.state(baseline.number).to_json()


def _kill_in_a_look(scene: Scene, history: History, *, answers: int) -> None:
    """Start a process and kill it at least so many answers later. What was seen of them before is there after."""

    def kept() -> set[tuple[str, int]]:
        newest = history.looks(limit=1)[0]
        return set(history.answers(newest.look)) if newest.state == "open" else set()

    wanted = len(kept()) + answers
    process = scene.process("--once")
    wait_until(lambda: len(kept()) >= wanted or process.poll() is not None, "answers of a look")
    seen = kept()
    process.kill()
    out, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, out + err
    assert seen <= kept()
    wait_until(lambda: _is_free(history), "a lock that is taken from the dead")


def _is_free(history: History) -> bool:
    try:
        with history.database.lock("moving"):
            return True
    except WatchError:
        return False


def test_two_processes_cannot_be_at_one_watch(any_scene: Scene) -> None:
    scene = any_scene
    calm(scene, looks=0)
    scene.behave(**CALM, answers=8)
    process = scene.process("--once")
    with scene.history() as history:
        wait_until(lambda: history.looks(state="open") or process.poll() is not None, "a look that has begun")
    second = scene.run("--once")
    assert second.exit_code == 2
    assert "another process is at the watch 'moving'" in second.output
    scene.behave(**CALM)
    out, err = process.communicate()
    assert process.returncode == 0, out + err


@pytest.mark.parametrize("started_at", ["2031-03-30T02:30:00.000+00:00", "1999-10-31T02:30:00.000+00:00"])
def test_a_clock_that_was_set_stops_nothing(scene: Scene, started_at: str) -> None:
    """The last look seems to lie in the future or in another century, and one that is open too."""
    calm(scene, looks=1)
    with scene.history() as history:
        history.begin_look(history.baseline(), "look")
        history.database.run("UPDATE watch_looks SET started_at = ? WHERE kind = 'look'", started_at)
    scene.configure(every="1h")
    process = scene.process("--json")
    assert json.loads(process.stdout.readline())["state"] == "quiet"  # type: ignore[union-attr]
    process.terminate()
    process.communicate(timeout=LIMIT_SECONDS)
    with scene.history() as history:
        assert [row.state for row in history.looks(kind="look")] == ["done", "abandoned", "done"]


def test_a_receiver_that_is_down_gets_its_alarm_later_and_can_tell_repeats(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", f"{scene.address}/hook")
    monkeypatch.setenv("HOOK_TOKEN", "quite-secret")
    scene.configure(alarm={"webhooks": [{"url_variable": "HOOK", "token_variable": "HOOK_TOKEN"}]})
    calm(scene, looks=2)
    scene.behave(**MOVED, hook_status=500)
    outcome = _until_alarm(scene)
    assert outcome["undelivered"] == 1
    scene.behave(**MOVED)
    with scene.history() as history:
        assert letters(history)[0].last_error == "status 500"
        assert "quite-secret" not in json.dumps(history.database.rows("SELECT body FROM watch_alarms"))
        history.database.run("UPDATE watch_outbox SET next_at = 0")
    assert scene.once()["undelivered"] == 0
    assert scene.once()["undelivered"] == 0
    first, second = scene.hooks()
    assert first["key"] == second["key"] == second["body"]["idempotency_key"]
    assert second["token"] == "Bearer quite-secret"


def test_a_receiver_that_hangs_costs_a_look_one_short_attempt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ATTEMPT_SECONDS", 0.2)
    scene.configure(alarm={"webhooks": [{"url": f"{scene.address}/hook"}]})
    calm(scene, looks=2)
    scene.behave(**MOVED, hook_seconds=3600)
    assert _until_alarm(scene)["undelivered"] == 1
    with scene.history() as history:
        assert letters(history)[0].last_error == "no answer within 0.2 s"


def test_a_file_that_cannot_be_written_keeps_no_letter_and_no_other_file_back(scene: Scene) -> None:
    files = {"file": "missing/alarm.json", "report": "alarm.html"}
    scene.configure(alarm={**files, "webhooks": [{"url": f"{scene.address}/hook"}]}, report="missing/status.html")
    scene.configure(alarm={"alpha": 0.001})
    scene.behave(**CALM)
    quiet = [scene.once() for _ in range(3)][-1]
    assert (quiet["state"], quiet["exit_code"]) == ("quiet", 2)
    scene.behave(**MOVED)
    outcome = _until_alarm(scene)
    assert (outcome["exit_code"], outcome["undelivered"], len(scene.hooks())) == (1, 0, 1)
    assert [problem["what"] for problem in outcome["problems"]] == 2 * ["the file cannot be written"]  # type: ignore[attr-defined]
    assert (scene.folder / "alarm.html").exists()
    assert scene.run("--once").stderr.count("error: the file cannot be written") == 2
    (scene.folder / "missing").mkdir()
    assert scene.once()["problems"] == []
    assert (scene.folder / "missing" / "alarm.json").exists()


def test_a_history_that_somebody_edited_is_a_mistake_and_a_new_baseline_mends_it(scene: Scene) -> None:
    calm(scene, looks=1)
    for edit, said in (
        ("UPDATE watch_answers SET reply = substr(reply, 1, 9)", "an answer that cannot be read"),
        ("DELETE FROM watch_suites", "does not hold what the baseline was asked"),
    ):
        with scene.history() as history:
            history.database.run(edit)
            history.database.run("DELETE FROM watch_states")
        result = scene.run("--once")
        assert (result.exit_code, said in result.output) == (2, True)
        assert scene.run("--baseline").exit_code == 0
        assert scene.once()["state"] == "quiet"


def test_a_baseline_that_was_deleted_is_taken_anew_from_fresh_answers(scene: Scene) -> None:
    calm(scene, looks=1)
    with scene.history() as history:
        for table in ("watch_baselines", "watch_states"):
            history.database.run(f"DELETE FROM {table}")
    assert scene.once()["state"] == "baseline"
    with scene.history() as history:
        assert history.baseline().number == 2
        assert len(history.looks(baseline=2, state="done", kind="baseline")) == 3


_WITH_LITTLE_ROOM = """
import resource, signal
from weightgate.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
main()
"""


def test_a_full_disk_is_said_and_nothing_that_was_kept_is_lost(scene: Scene) -> None:
    """The limit on the size of a file stands in for a full disk: both make a write fail half way."""
    calm(scene, looks=1)
    with scene.history() as history:
        before = history.database.rows("SELECT COUNT(*) FROM watch_answers")[0][0]
    command = [sys.executable, "-c", _WITH_LITTLE_ROOM, "watch", str(scene.path), "--once"]
    assert subprocess.run(command, capture_output=True).returncode == 2
    assert scene.once()["state"] == "quiet"
    with scene.history() as history:
        assert history.database.rows("PRAGMA integrity_check") == [("ok",)]
        assert history.database.rows("SELECT COUNT(*) FROM watch_answers")[0][0] >= before + QUESTIONS


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"no database at all, but long enough to look like one" * 20), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
)
def test_a_history_that_is_none_is_said(scene: Scene, spoil: object, said: str) -> None:
    spoil(scene.folder / "watch.db")  # type: ignore[operator]
    result = scene.run("--once")
    assert result.exit_code == 2
    assert "the history cannot be used" in result.output
    assert said in result.output


def test_a_server_that_is_not_there_is_said_without_the_password(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD_OF_NOBODY", "hush-hush")
    scene.configure(history={"url": "postgresql://nobody@127.0.0.1:1/none", "password_variable": "PASSWORD_OF_NOBODY"})
    result = scene.run("--once")
    assert result.exit_code == 2
    assert "the history cannot be used" in result.output
    assert "hush-hush" not in result.output


def test_half_written_files_are_written_again(scene: Scene) -> None:
    scene.configure(alarm={"file": "alarm.json", "report": "alarm.html"})
    calm(scene, looks=2)
    scene.behave(**MOVED)
    _until_alarm(scene)
    whole = (scene.folder / "alarm.json").read_bytes()
    (scene.folder / "alarm.json").write_bytes(whole[:40])
    (scene.folder / "alarm.html").write_text("<html>half")
    scene.once()
    assert (scene.folder / "alarm.json").read_bytes() == whole
    assert (scene.folder / "alarm.html").read_text().rstrip().endswith("<!-- alarm 1 of moving -->")
    assert not [path for path in scene.folder.iterdir() if path.name.startswith(".alarm")]


def test_other_questions_need_a_new_baseline(scene: Scene) -> None:
    calm(scene, looks=0)
    scene.configure(ask={"temperature": 0.2})
    result = scene.run("--once")
    assert result.exit_code == 2
    assert "another target or other decoding" in result.output
    assert scene.run("--baseline").exit_code == 0
    assert scene.once()["state"] == "quiet"


def test_a_budget_of_the_day_leaves_a_look_out(scene: Scene) -> None:
    calm(scene, looks=1)
    scene.configure(budget={"calls_per_day": 5 * QUESTIONS - 1})
    outcome = scene.once()
    assert (outcome["state"], outcome["exit_code"]) == ("budget", 3)
    assert "calls_per_day" in outcome["message"]


def test_a_key_that_is_not_set_is_a_mistake(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    scene.configure(target={"api_key_variable": "NO_SUCH_KEY"})
    result = scene.run("--once")
    assert result.exit_code == 2
    assert "NO_SUCH_KEY" in result.output


def test_untrusted_text_is_harmless_everywhere(scene: Scene) -> None:
    nasty = "<script>alert(1)</script>\x1b[31m\u202e [link](javascript:x)"
    scene.configure(alarm={"file": "alarm.json", "report": "alarm.html"}, report="status.html")
    calm(scene, looks=2)
    scene.behave(text=nasty)
    scene.once()
    result = scene.run("--once")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    for name in ("alarm.html", "status.html", "alarm.json"):
        text = (scene.folder / name).read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert name.endswith("json") or "<script" not in text


def test_the_page_needs_no_endpoint_and_says_so_before_the_first_look(scene: Scene, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    scene.behave(status=500)
    assert scene.run("--report", str(page)).exit_code == 0
    assert "nothing was asked yet" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["watch.yaml", "watch.db", "suite.jsonl"])
def test_a_status_page_replaces_nothing_that_the_watch_needs(scene: Scene, name: str) -> None:
    kept = scene.folder / name
    kept.touch()
    before = kept.read_bytes()
    done = scene.run("--report", str(kept))
    assert (done.exit_code, "it holds what is read here" in done.stderr) == (2, True)
    assert kept.read_bytes() == before


def test_a_watch_that_could_never_alarm_is_refused(scene: Scene) -> None:
    (scene.folder / "few.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n', "utf-8")
    scene.configure(ask={"prompts": "few.jsonl", "suite": None})
    for option in ("--once", "--dry-run"):
        done = scene.run(option)
        assert (done.exit_code, "so few prompts can show no change" in done.stderr) == (2, True)


def test_a_page_without_axes_to_follow_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a history has it that was begun when so few prompts were still taken."""
    monkeypatch.setattr(run, "LEAST_PROMPTS", 1)
    write_suite(scene.folder / "suite.jsonl", prompts=1)
    scene.configure(report="status.html")
    assert [scene.once()["state"] for _ in range(2)] == ["baseline", "quiet"]
    assert "no change can show" in (scene.folder / "status.html").read_text(encoding="utf-8")


def test_a_new_baseline_that_gets_no_answer_leaves_the_old_one_and_its_alarm(any_scene: Scene) -> None:
    scene = any_scene
    calm(scene, looks=2)
    scene.behave(**MOVED)
    _until_alarm(scene)
    scene.behave(status=401)
    failed = scene.run("--baseline", "--json")
    told = json.loads(failed.stdout)
    assert (told["state"], failed.exit_code, "baseline 1 stays" in told["message"]) == ("outage", 3, True)
    assert told["alarm"]["alarm"] == 1
    scene.behave(**MOVED)
    assert scene.once()["state"] == "alarm"
    taken = scene.run("--baseline", "--json")
    assert json.loads(taken.stdout)["state"] == "baseline"
    with scene.history() as history:
        assert not history.alarms(open_only=True)
        assert [row.number for row in history.baselines()] == [2, 1]
        assert [row.state for row in history.looks(baseline=1, kind="baseline")] == ["outage", "done", "done", "done"]


def test_an_outage_says_what_the_questions_met_and_what_mends_it(scene: Scene) -> None:
    write_suite(scene.folder / "suite.jsonl", prompts=3)
    scene.behave(status=502)
    assert "6 of 6 questions failed: status 502" in scene.once()["message"]
    scene.behave(status=401)
    assert "does not accept the key; status 401: not now; name the environment variable" in scene.once()["message"]


def test_a_server_that_ends_the_connection_in_a_look_costs_that_look_only(
    postgres_server: Postgres, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    url = postgres_server.create(f"watch-{uuid.uuid4().hex}")
    scene.configure(history={"url": url, "password_variable": PASSWORD_VARIABLE})
    calm(scene, looks=1)
    scene.behave(**CALM, answers=6)  # the other questions are held, so that the look is open when its server is gone
    process = scene.process("--once")
    with scene.history() as history:
        wait_until(lambda: history.looks(limit=1)[0].state == "open", "a look that is begun")
        looking = history.looks(limit=1)[0].look
        wait_until(lambda: len(history.answers(looking)) >= 4, "answers of a look")
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        history.database.rows(ended + "pg_backend_pid()")
    scene.behave(**CALM)
    _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, "the history cannot be used" in err, "Traceback" in err) == (2, True, False)
    assert scene.once()["state"] == "quiet"
    with scene.history() as history:
        assert history.looks(limit=1)[0].look == looking  # it went on with what was answered

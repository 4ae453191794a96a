"""`weightgate snapshot` as a user runs it: against endpoints that behave, that fail, and that are hostile."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_endpoint import HUGE_BYTES, ScriptedEndpoint, scripted_endpoint

from eventually import wait_until
from weightgate.cli import main
from weightgate.probe.endpoint import GIVE_UP_AFTER
from weightgate.probe.snapshot_file import load_snapshot

KEY, VARIABLE = "wg-secret-0123456789", "WEIGHTGATE_TEST_KEY"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEndpoint]:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint() as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_prompts(folder: Path, *scripts: str | dict[str, Any]) -> None:
    rows = ({"prompt": one} if isinstance(one, str) else one for one in scripts)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_target(folder: Path, url: str, **settings: Any) -> None:
    """Describe an endpoint that is given up on at once; JSON is YAML."""
    quick = {"retries": 0, "timeout_seconds": 240.0, "max_reply_bytes": 10_000, "api_key_variable": VARIABLE}
    (folder / "target.yaml").write_text(json.dumps({"target": {"url": url, "model": "m", **quick, **settings}}))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["snapshot", *arguments], catch_exceptions=False)


def test_the_core_suite_is_asked_by_default(endpoint: ScriptedEndpoint, folder: Path) -> None:
    done = run(endpoint.url, "--model", "m", "--key-variable", VARIABLE, "--concurrency", "32", "-o", "s.jsonl")
    assert done.exit_code == 0, done.output
    taken = load_snapshot(folder / "s.jsonl")
    assert (taken.complete, len(taken.probes) >= 240, len(taken.answers)) == (True, True, 2 * len(taken.probes))
    assert (taken.header.suite_name, taken.decoding.temperature, taken.decoding.max_tokens) == ("core", 0.7, 512)
    assert f"{len(taken.answers)} completions of {len(taken.probes)} prompts" in done.output
    assert endpoint.most_open <= 32


def test_own_prompts_are_asked_with_what_is_known_of_their_answers(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "hello", {"prompt": "{}", "schema": {"type": "object"}}, {"prompt": "x", "regex": "x"})
    options = ["--samples", "3", "--temperature", "0.2", "--max-tokens", "9", "--seed", "5"]
    done = run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", *options, "--json", "-o", "s.jsonl")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["complete"], told["answered"], told["wanted"]) == (0, True, 9, 9)
    stated = {name: value for name, value in told["decoding"].items() if value is not None}
    assert stated == {"samples": 3, "temperature": 0.2, "max_tokens": 9, "seed": 5}
    assert [probe.axis for probe in load_snapshot(folder / "s.jsonl").probes] == ["open", "task", "task"]
    assert {(sent["temperature"], sent["max_tokens"]) for sent in endpoint.requests} == {(0.2, 9)}
    assert {sent["seed"] for sent in endpoint.requests} == {5, 6, 7}


def test_a_dry_run_asks_nothing_and_knows_what_is_left(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, *"abcd")
    common = [endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--max-tokens", "10", "-o", "s.jsonl"]
    price = ["--price", "1", "2", "--dry-run", "--json"]
    told = json.loads(run(*common, *price).stdout)[endpoint.url]
    assert (told["prompts"], told["samples"], told["open_questions"]) == (4, 2, 8)
    assert told["cost"]["completion_tokens"] == 80
    assert told["cost"]["money"] == pytest.approx((told["cost"]["prompt_tokens"] + 160) / 1e6)
    assert endpoint.requests == []
    assert run(*common, "--budget", "calls=3").exit_code == 2
    assert json.loads(run(*common, *price).stdout)[endpoint.url]["open_questions"] == 5


def test_a_spent_budget_keeps_what_was_paid_for_and_the_same_command_goes_on(
    endpoint: ScriptedEndpoint, folder: Path
) -> None:
    write_prompts(folder, *"abcdef")
    common = [endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl"]
    stopped = run(*common, "--budget", "calls=2")
    assert (stopped.exit_code, "budget" in stopped.output, len(endpoint.requests)) == (2, True, 2)
    assert len(load_snapshot(folder / "s.jsonl").answers) == 2
    assert run(*common).exit_code == 0
    assert sorted(sent["messages"][0]["content"] for sent in endpoint.requests) == list("abcdef")
    assert "the budget cannot be read" in run(*common, "--budget", "cals=2").output
    assert "needs the price" in run(*common, "--budget", "money=2").output


def test_a_hostile_endpoint_costs_only_the_answers_it_withholds(endpoint: ScriptedEndpoint, folder: Path) -> None:
    bad = ["html", "truncated", "utf8", "zip", "huge", "chunks", "heads", "reset"]
    bad += ["status 500", "busy 9", "until 9", 'raw {"choices": []}', "raw [[["]
    write_prompts(folder, *[script for one in bad for script in (one, f"fine {one}")])
    write_target(folder, endpoint.url, max_wait_seconds=0.1, max_concurrency=4)
    done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "--json", "-o", "s.jsonl")
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    assert (told["complete"], told["answered"], sum(told["errors"].values())) == (False, len(bad), len(bad))
    completions = load_snapshot(folder / "s.jsonl").completions
    assert sorted(text for texts in completions.values() for text in texts) == sorted(f"fine {one}" for one in bad)
    assert endpoint.bytes_sent < HUGE_BYTES
    before = len(endpoint.requests)
    run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
    again = [sent["messages"][0]["content"] for sent in endpoint.requests[before:]]
    # Only what has no answer is asked again; ten failures in a row may end that before the last of it.
    assert set(again) <= set(bad)
    assert len(set(again)) == len(again) >= GIVE_UP_AFTER


def test_an_endpoint_that_takes_for_ever_costs_only_time(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "slow", "silent")
    write_target(folder, endpoint.url, timeout_seconds=0.2)
    done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "--json", "-o", "s.jsonl")
    assert (done.exit_code, json.loads(done.stdout)["errors"]) == (1, {"no answer within 0.2 s": 2})


def test_a_redirect_ends_it_and_the_key_stays_here(endpoint: ScriptedEndpoint, folder: Path) -> None:
    with scripted_endpoint() as thief:
        write_prompts(folder, "first", f"redirect {thief.url}/chat/completions", "last")
        write_target(folder, endpoint.url, max_concurrency=1)
        done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
        assert (done.exit_code, "redirects" in done.output, thief.requests) == (2, True, [])
    assert list(load_snapshot(folder / "s.jsonl").completions.values()) == [("first",)]


def test_the_key_reaches_no_file_no_message_and_no_log(endpoint: ScriptedEndpoint, folder: Path) -> None:
    """The endpoint sends the key back as a completion, in an error, as its model's name and as its fingerprint."""
    stolen = {"choices": [{"text": KEY}], "model": KEY, "system_fingerprint": KEY}
    write_prompts(folder, "echo", f"raw {json.dumps(stolen)}".replace(KEY, "KEY"), "status 400", "fail 1")
    write_target(folder, endpoint.url, retries=1)
    command = [sys.executable, "-m", "weightgate", "snapshot", "target.yaml", "--prompts", "mine.jsonl"]
    environment = os.environ | {"PYTHONASYNCIODEBUG": "1", "HTTPX_LOG_LEVEL": "trace", "PYTHONWARNINGS": "default"}
    done = subprocess.run([*command, "-o", "s.jsonl"], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 1
    assert endpoint.authorizations == {f"Bearer {KEY}"}
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY.encode() not in written + done.stdout + done.stderr
    assert b"Bearer [key]" in written


def test_what_an_endpoint_says_cannot_steer_the_terminal(endpoint: ScriptedEndpoint, folder: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
    reply = {"choices": [{"text": hostile}], "model": hostile, "system_fingerprint": hostile}
    write_prompts(folder, "raw " + json.dumps(reply))
    done = run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert done.exit_code == 0
    assert not set(hostile) & set("\x1b\x07\u202e") & set(done.output)
    assert "\\x1b" in done.output


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["https://host.example/v1"], "none is named"),
        (["http://host.example/v1", "--model", "m"], "use https"),
        (["https://host.example/v1", "--model", "m", "--key-variable", "sk-not-a-name"], "api_key_variable"),
        (["https://host.example/v1", "--model", "m", "--key-variable", "UNSET_VARIABLE"], "UNSET_VARIABLE"),
        (["nothing-here"], "is no target"),
        (["mine.jsonl"], "a recording cannot be asked"),
        (["target.yaml", "--suite", "none.jsonl"], "no probe suite here"),
        (["target.yaml", "--suite", "core", "--prompts", "mine.jsonl"], "not both"),
    ],
)
def test_mistakes_are_told_without_a_traceback(folder: Path, arguments: list[str], what: str) -> None:
    write_prompts(folder, "hello")
    write_target(folder, "http://127.0.0.1:9/v1")
    done = run(*arguments, "-o", "s.jsonl")
    assert done.exit_code == 2
    assert what in done.output
    assert "sk-not-a-name" not in done.output
    assert not (folder / "s.jsonl").exists()


def test_a_wrong_key_and_an_outage_end_it_and_lose_nothing(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "hello", "status 401")
    write_target(folder, endpoint.url, max_concurrency=1)
    done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
    assert (done.exit_code, "does not accept the key" in done.output) == (2, True)
    assert len(load_snapshot(folder / "s.jsonl").answers) == 1
    (folder / "s.jsonl").unlink()
    write_prompts(folder, "hello", *(f"fail {at}" for at in range(1, 20)))
    done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
    assert (done.exit_code, "10 questions in a row failed" in done.output) == (2, True)
    assert load_snapshot(folder / "s.jsonl").completions == {"line-1": ("hello",)}


def test_an_endpoint_needs_no_torch(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "hello")
    script = "import sys\nfrom weightgate.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "snapshot", endpoint.url, "--model", "m", "--prompts", "mine.jsonl"]
    done = subprocess.run([*command, "-o", "s.jsonl"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_mistakes_are_json_where_json_is_asked_for(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "hello", "status 401")
    asked = (endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
    done = run(*asked, "--json")
    assert done.exit_code == 2
    assert {"code", "what", "where"} <= json.loads(done.stdout)["error"].keys()
    assert run(*asked).stdout == ""


def test_a_file_that_is_no_snapshot_is_never_removed(endpoint: ScriptedEndpoint, folder: Path) -> None:
    """Not even one without an end of line, such as other tools write."""
    write_prompts(folder, "hello")
    for content in (b'{"results": "the only copy"}', b"\x00\x01", b'[{"instruction": "a", "output": "b"}]'):
        (folder / "results.json").write_bytes(content)
        done = run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "results.json")
        assert (done.exit_code, (folder / "results.json").read_bytes()) == (2, content), done.output
    assert endpoint.requests == []


def test_two_processes_cannot_write_one_snapshot(folder: Path) -> None:
    write_prompts(folder, *map(str, range(20)))
    with scripted_endpoint(holds_after=4) as endpoint:
        arguments = [endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--concurrency", "2", "-o", "s.jsonl"]
        process = subprocess.Popen([sys.executable, "-m", "weightgate", "snapshot", *arguments], cwd=folder)
        wait_until(lambda: len(endpoint.requests) == 6 or process.poll() is not None, "two questions that are held")
        second = run(*arguments)
        assert (second.exit_code, "another process is writing" in second.output) == (2, True)
        wait_until(lambda: len(load_snapshot(folder / "s.jsonl").answers) == 4, "four answers on the disk")
        process.kill()
        process.wait()
    with scripted_endpoint() as endpoint:
        moved = [endpoint.url, *arguments[1:]]
        assert "something else" in run(*moved).output


def _with_little_room() -> None:
    """The limit on the size of a file stands in for a full disk: both make a write fail half way."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_is_said_and_the_snapshot_goes_on_later(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, *map(str, range(40)))
    arguments = [endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl"]
    command = [sys.executable, "-m", "weightgate", "snapshot", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, preexec_fn=_with_little_room)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the snapshot cannot be written" in done.stderr
    assert (folder / "s.jsonl").stat().st_size == 4_000
    assert run(*arguments).exit_code == 0
    assert load_snapshot(folder / "s.jsonl").complete


@pytest.fixture
def untrusted(folder: Path) -> Iterator[str]:
    """Address of an endpoint that shows a certificate of its own making."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 1 -subj /CN=localhost"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate", folder / "key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_refuse_handshakes, args=(listening, context), daemon=True)
        thread.start()
        yield f"https://localhost:{listening.getsockname()[1]}/v1"


def _refuse_handshakes(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            with context.wrap_socket(listening.accept()[0], server_side=True):
                pass
        except ssl.SSLError:
            continue
        except OSError:
            return


def test_a_certificate_that_nobody_vouches_for_ends_it_at_once(untrusted: str, folder: Path) -> None:
    write_prompts(folder, "hello")
    done = run(untrusted, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert done.exit_code == 2
    assert "the certificate of the endpoint is not trusted" in done.output
    assert "SSL_CERT_FILE" in done.output


def test_a_host_that_nobody_knows_ends_it_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unknown(host: bytes, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    write_prompts(folder, "hello")
    done = run("https://endpoint.invalid/v1", "--model", "m", "--prompts", "mine.jsonl", "--samples", "1", "-o", "s")
    assert (done.exit_code, asked) == (2, [b"endpoint.invalid"])
    assert "the host of the endpoint is not known" in done.output


@pytest.mark.parametrize(
    "environment",
    [
        {"SSL_CERT_FILE": "/nowhere/certificate"},
        {"HTTPS_PROXY": "socks5://me:hush-hush@proxy.example:1"},
        {"ALL_PROXY": "gopher://me:hush-hush@proxy.example"},
    ],
)
def test_an_environment_that_no_client_can_use_is_said(
    environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    write_prompts(folder, "hello")
    done = run("https://endpoint.invalid/v1", "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert done.exit_code == 2
    assert "no connection can be set up" in done.output
    assert "hush-hush" not in done.output


def test_log_probabilities_are_asked_for_and_kept_where_they_are_offered(
    endpoint: ScriptedEndpoint, folder: Path
) -> None:
    top = [{"token": "a", "logprob": -0.5}]
    scored = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": top}]}
    write_prompts(folder, f"raw {json.dumps({'choices': [{'text': 'a', 'logprobs': scored}]})}", "hello")
    common = [endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "--samples", "1", "--json", "-o", "s.jsonl"]
    done = run(*common, "--logprobs", "3")
    assert done.exit_code == 0, done.output
    assert {sent["top_logprobs"] for sent in endpoint.requests} == {3}
    first, second = load_snapshot(folder / "s.jsonl").answers
    assert (first.reply.first_top, second.reply.first_top) == ((("a", -0.5),), None)


def test_a_url_with_a_password_is_refused_without_showing_it(folder: Path) -> None:
    write_prompts(folder, "hello")
    for url in ("https://me:hush-hush@host.example/v1", "https://host.example/v1?key=hush-hush"):
        done = run(url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
        assert (done.exit_code, "hush-hush" in done.output) == (2, False)
        (folder / "target.yaml").write_text(json.dumps({"target": {"url": url, "model": "m"}}))
        done = run("target.yaml", "--prompts", "mine.jsonl", "-o", "s.jsonl")
        assert (done.exit_code, "hush-hush" in done.output) == (2, False)
    pasted = {"url": "https://host.example/v1", "model": "m", "api_key_variable": "sk-hush-hush"}
    (folder / "target.yaml").write_text(json.dumps({"target": pasted}))
    done = run("target.yaml", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert (done.exit_code, "hush-hush" in done.output) == (2, False)


def test_other_settings_are_named_one_by_one(endpoint: ScriptedEndpoint, folder: Path) -> None:
    write_prompts(folder, "hello")
    write_target(folder, endpoint.url)
    arguments = ("target.yaml", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert run(*arguments).exit_code == 0
    done = run(*arguments, "--max-tokens", "13")
    assert done.exit_code == 2
    assert "expected: max tokens 13\n  found: max tokens 512\n" in done.stderr
    other = run(endpoint.url, "--model", "other", *arguments[1:])
    assert f"expected: target other at {endpoint.url}\n  found: target m at {endpoint.url}\n" in other.stderr


def test_a_mistaken_address_leaves_no_file_that_keeps_the_right_one_out(
    endpoint: ScriptedEndpoint, folder: Path
) -> None:
    write_prompts(folder, "hello")
    common = ("--prompts", "mine.jsonl", "--samples", "1", "-o", "s.jsonl")
    assert run(endpoint.url.replace("/v1", ""), "--model", "m", "--key-variable", "NOT_SET", *common).exit_code == 2
    write_prompts(folder, "status 404")
    assert run(endpoint.url, "--model", "wrong", *common).exit_code == 2
    write_prompts(folder, "hello")
    done = run(endpoint.url, "--model", "m", *common)
    assert done.exit_code == 0, done.output


def test_an_endpoint_can_be_asked_with_its_own_temperature(folder: Path) -> None:
    write_prompts(folder, "hello")
    common = ("--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    with scripted_endpoint(refuses={"temperature": "'temperature' is not supported with this model"}) as endpoint:
        refused = run(endpoint.url, *common)
        assert (refused.exit_code, "--temperature default" in refused.stderr) == (2, True)
        done = run(endpoint.url, *common, "--temperature", "default")
        assert done.exit_code == 0, done.output
    assert load_snapshot(folder / "s.jsonl").decoding.temperature is None
    assert run(endpoint.url, *common, "--temperature", "warm").exit_code == 2
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    model = run("model", "--prompts", "mine.jsonl", "-o", "m.jsonl", "--temperature", "default")
    assert (model.exit_code, "no temperature of its own" in model.stderr) == (2, True)


def test_completions_that_say_nothing_are_no_success_to_be_proud_of(endpoint: ScriptedEndpoint, folder: Path) -> None:
    silent = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    write_prompts(folder, f"raw {silent}")
    common = (endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert "needs a larger" in run(*common).output
    told = json.loads(run(*common, "--json").stdout)
    assert (told["complete"], told["empty"], told["cut"]) == (True, 2, 2)


def test_prompts_saved_by_other_editors_are_read(endpoint: ScriptedEndpoint, folder: Path) -> None:
    rows = ['{"prompt": "one \\u2028 two"}', "", '{"prompt": "Grüße 你好"}']
    (folder / "mine.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl").exit_code == 0
    assert [probe.id for probe in load_snapshot(folder / "s.jsonl").probes] == ["line-1", "line-3"]


def test_prompts_out_of_a_log_are_read_as_they_are(endpoint: ScriptedEndpoint, folder: Path) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    write_prompts(folder, {"messages": messages, "id": 17})
    assert run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl").exit_code == 0
    [probe] = load_snapshot(folder / "s.jsonl").probes
    assert (probe.id, probe.messages) == ("17", (("system", "Be brief."), ("user", "hello")))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "leave out the answer",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "wrong value for 'content'",
        ),
        ({"messages": [{"content": "a"}]}, "the key 'role' is missing"),
        ({"prompt": "a", "schema": {"properties": {"x": {"$ref": "https://host.example/x.json"}}}}, "#/$defs/NAME"),
        ({"prompt": "a", "id": True}, "wrong value for 'id'"),
        ([{"prompt": "a"}], "one prompt a line"),
        (b"\xfc", "save the file as UTF-8"),
        (None, "where: mine.jsonl"),
    ],
)
def test_prompts_that_are_none_are_told_with_their_mend(folder: Path, row: Any, said: str) -> None:
    content = row if isinstance(row, bytes) else b"" if row is None else json.dumps(row).encode()
    (folder / "mine.jsonl").write_bytes(content)
    done = run("http://127.0.0.1:9/v1", "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl")
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_a_schema_may_refer_to_itself(endpoint: ScriptedEndpoint, folder: Path) -> None:
    inner = {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    write_prompts(
        folder, {"prompt": "a", "schema": inner}, {"prompt": "b", "schema": {"$id": "https://x.example/s", **inner}}
    )
    assert run(endpoint.url, "--model", "m", "--prompts", "mine.jsonl", "-o", "s.jsonl").exit_code == 0


def test_a_proxy_that_is_not_there_is_named_without_its_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_endpoint() as gone:
        place = gone.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hush-hush@{place}")
    write_prompts(folder, "hello")
    write_target(folder, "https://host.example/v1", api_key_variable=None)
    done = run("target.yaml", "--prompts", "mine.jsonl", "--samples", "1", "--json", "-o", "s.jsonl")
    [error] = json.loads(done.stdout)["errors"]
    assert error.endswith("(by the proxy that HTTPS_PROXY or ALL_PROXY names)")
    assert "hush" not in done.output

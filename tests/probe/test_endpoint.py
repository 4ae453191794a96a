"""The client against a real socket: well-behaved endpoints, failing ones, hostile ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_endpoint import HUGE_BYTES, UNTIL_SECONDS, ScriptedEndpoint, scripted_endpoint

from weightgate.errors import EndpointError
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import (
    BudgetReached,
    EndpointConfig,
    Spending,
    endpoint_config,
    estimate_cost,
    load_endpoint,
)
from weightgate.probe.probes import Check, Probe
from weightgate.probe.recording import Answered, Decoding, Reply
from weightgate.probe.request_form import refused_parameter
from weightgate.probe.wire import UnreadableReply, error_message, parse_reply

KEY = "wg-secret-0123456789"
VARIABLE = "WEIGHTGATE_TEST_KEY"
DECODING = Decoding(samples=1, temperature=0.0, max_tokens=16)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEndpoint]:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint() as served:
        yield served


def probes(*scripts: str) -> list[Probe]:
    checks = (Check(metric="m", type="answers"),)
    return [
        Probe(id=str(at), axis="open", topic="t", form="chat", messages=(("user", script),), checks=checks)
        for at, script in enumerate(scripts)
    ]


class Run:
    """Asks scripts of an endpoint; time does not pass in its waits, they are only noted down."""

    def __init__(self, url: str, **settings: Any) -> None:
        settings = {"timeout_seconds": 240.0, "retries": 3, "api_key_variable": VARIABLE} | settings
        self.config = EndpointConfig(url=url, model="m", **settings)
        self.waits: list[float] = []
        self.seconds = 0.0
        self.answers: list[Answered] = []
        self.spending = Spending(self.config)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds
        if len(self.waits) > 1000:
            raise AssertionError("it waits without end")

    def ask(self, *scripts: str, decoding: Decoding = DECODING) -> list[Reply]:
        asker = EndpointAsker(config=self.config, spending=self.spending, clock=lambda: self.seconds, sleep=self._sleep)
        asker.answer([(probe, 0) for probe in probes(*scripts)], asker.decoding(decoding), self._take)
        return [answer.reply for answer in sorted(self.answers, key=lambda each: int(each.probe.id))]

    def _take(self, answers: Sequence[Answered]) -> None:
        self.answers.extend(answers)


def test_a_completion_comes_with_everything_it_states(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url)
    [reply] = run.ask("hello")
    assert (reply.completion, reply.finish_reason, reply.fingerprint) == ("hello", "stop", "fp")
    assert (reply.served_model, reply.prompt_tokens, reply.completion_tokens) == ("m-dated", 3, 2)
    assert reply.headers == (("server", "scripted"),)
    assert reply.latency_ms is not None
    assert reply.asked_at is not None
    assert endpoint.authorizations == {f"Bearer {KEY}"}
    assert endpoint.requests[0] == {
        "path": "/v1/chat/completions",
        "model": "m",
        "max_tokens": 16,
        "stream": False,
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.0,
    }
    assert (run.spending.calls, run.spending.prompt_tokens, run.spending.completion_tokens) == (1, 3, 2)


def test_raw_text_goes_to_the_completions_route(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url, top_logprobs=3)
    probe = Probe(id="0", axis="open", topic="t", form="text", prompt="Once", checks=(), max_tokens=4)
    asker = EndpointAsker.of(run.config)
    asker.answer([(probe, 2)], asker.decoding(Decoding(samples=3, temperature=1.0, max_tokens=9, seed=5)), run._take)
    assert run.answers[0].completion == "Once"
    sent = {name: endpoint.requests[0][name] for name in ("path", "prompt", "logprobs", "max_tokens", "seed")}
    assert sent == {"path": "/v1/completions", "prompt": "Once", "logprobs": 3, "max_tokens": 4, "seed": 7}


def test_failures_are_tried_again_with_growing_waits(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url)
    [reply] = run.ask("fail 2")
    assert reply.completion == "fail 2"
    assert run.spending.calls == 3
    assert len(run.waits) == 2
    assert run.waits[0] <= 0.5
    assert run.waits[1] <= 1.0


def test_a_wait_that_the_endpoint_asks_for_is_kept_by_everybody(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url, max_concurrency=1)
    assert [reply.completion for reply in run.ask("busy 1", "next")] == ["busy 1", "next"]
    assert max(run.waits) == pytest.approx(7, abs=1)
    dated = Run(endpoint.url, max_wait_seconds=2.0 * UNTIL_SECONDS)
    assert [reply.completion for reply in dated.ask("until 1")] == ["until 1"]
    # The date is in whole seconds, and some may pass before it is read.
    assert UNTIL_SECONDS - 300 < max(dated.waits) <= UNTIL_SECONDS
    impatient = Run(endpoint.url, max_wait_seconds=3)
    [reply] = impatient.ask("busy 2")
    assert reply.error is not None
    assert "asks to wait 7 s" in reply.error
    assert endpoint.attempts["busy 2"] == 1


@pytest.mark.parametrize(
    ("script", "settings", "problem"),
    [
        ("html", {}, "not JSON"),
        ("truncated", {}, "not JSON"),
        ("utf8", {}, "not JSON"),
        ("zip", {"retries": 0}, "compressed, which was not asked for"),
        ("reset", {"retries": 0}, "ReadError"),
        ("heads", {"retries": 0}, "RemoteProtocolError"),
        ("chunks", {"retries": 0}, "longer than 4,194,304 bytes"),
        ("status 500", {}, "status 500"),
        ("status 400", {}, "status 400: no, Bearer"),
        ('raw {"choices": []}', {}, "no choices"),
        ('raw {"choices": [{"message": {"content": 3}}]}', {}, "without text"),
        ("raw " + "[" * 50_000, {"max_reply_bytes": 100_000}, "not JSON"),
    ],
)
def test_what_is_no_answer_is_an_error_and_the_next_question_is_asked(
    endpoint: ScriptedEndpoint, script: str, settings: dict[str, Any], problem: str
) -> None:
    failed, answered = Run(endpoint.url, **settings).ask(script, "hello")
    assert failed.completion == ""
    assert failed.error is not None
    assert problem in failed.error
    assert answered.completion == "hello"


@pytest.mark.parametrize("script", ["silent", "slow"])
def test_an_answer_that_never_ends_is_given_up_on_and_the_next_question_is_asked(
    endpoint: ScriptedEndpoint, script: str
) -> None:
    failed, answered = Run(endpoint.url, timeout_seconds=0.2, retries=0, max_concurrency=1).ask(script, "hello")
    assert (failed.completion, failed.error) == ("", "no answer within 0.2 s")
    # On a busy machine a good answer may take that long too.
    assert answered.completion == "hello" or answered.error == failed.error


def test_a_flood_is_cut_off(endpoint: ScriptedEndpoint) -> None:
    [reply] = Run(endpoint.url, retries=0, max_reply_bytes=10_000).ask("huge")
    assert reply.error == "the reply is longer than 10,000 bytes"
    assert endpoint.bytes_sent < HUGE_BYTES


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("status 401", "does not accept the key"),
        ("status 403", "does not allow this"),
        ("status 404", "does not know this model"),
        ("redirect http://127.0.0.1:9/steal", "redirects"),
    ],
)
def test_what_no_other_question_would_mend_stops_the_run(endpoint: ScriptedEndpoint, script: str, what: str) -> None:
    run = Run(endpoint.url, max_concurrency=1)
    with pytest.raises(EndpointError, match=what) as caught:
        run.ask("hello", script, "never asked")
    assert [answer.completion for answer in run.answers] == ["hello"]
    assert KEY not in str(caught.value)
    assert endpoint.attempts["never asked"] == 0


def test_an_empty_account_is_not_waited_for(endpoint: ScriptedEndpoint) -> None:
    empty = json.dumps({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    with pytest.raises(EndpointError, match="wants to be paid first") as caught:
        Run(endpoint.url).ask(f"status 429 {empty}")
    assert "your current quota" in str(caught.value.found)
    assert len(endpoint.requests) == 1


def test_the_key_follows_no_redirect(endpoint: ScriptedEndpoint) -> None:
    with scripted_endpoint() as thief:
        with pytest.raises(EndpointError):
            Run(endpoint.url).ask(f"redirect {thief.url}/chat/completions")
        assert thief.requests == []


def test_an_outage_ends_the_run_and_keeps_what_came_before(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url, retries=0, max_concurrency=1)
    with pytest.raises(EndpointError, match="10 questions in a row"):
        run.ask("hello", *[f"status 5{at:02}" for at in (0, 2, 3, 4, 20, 22, 24, 29)] * 2)
    assert len(run.answers) == 11


def test_an_endpoint_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint() as gone:
        url = gone.url
    with pytest.raises(EndpointError, match="ConnectError"):
        Run(url, retries=0).ask(*["hello"] * 12)


def test_log_probabilities_are_left_out_where_they_are_not_offered(endpoint: ScriptedEndpoint) -> None:
    bare, answered = Run(endpoint.url, top_logprobs=2, max_concurrency=1, retries=0).ask("bare", "hello")
    assert (bare.completion, answered.completion) == ("bare", "hello")
    asked = [request.get("top_logprobs") for request in endpoint.requests]
    assert asked == [2, None, None]


def test_a_question_that_is_refused_anyway_costs_the_others_no_log_probabilities(endpoint: ScriptedEndpoint) -> None:
    run = Run(endpoint.url, top_logprobs=2, max_concurrency=1)
    refused, answered = run.ask("status 422", "hello")
    assert refused.error is not None
    assert answered.completion == "hello"
    asked = [request.get("top_logprobs") for request in endpoint.requests]
    assert asked == [2, None, 2]
    assert run.spending.calls == 3


@pytest.mark.parametrize(("asked", "sent"), [(None, 5), (3, 3), (20, 5), (0, 0)])
def test_raw_text_is_asked_with_as_many_alternatives_as_its_interface_gives(
    endpoint: ScriptedEndpoint, asked: int | None, sent: int
) -> None:
    run = Run(endpoint.url, top_logprobs=asked)
    probe = Probe(id="0", axis="open", topic="t", form="text", prompt="Once", checks=())
    asker = EndpointAsker.of(run.config)
    asker.answer([(probe, 0)], asker.decoding(DECODING), run._take)
    assert endpoint.requests[0]["logprobs"] == sent


def test_a_filtered_prompt_is_an_answer() -> None:
    reply = parse_reply(b'{"choices": [{"text": "x", "finish_reason": "content_filter"}]}', {}, str)
    assert reply.finish_reason == "content_filter"


def test_concurrency_stays_within_its_limit_and_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint(gathers=4) as endpoint:
        replies = Run(endpoint.url, max_concurrency=4).ask(*(str(at) for at in range(40)))
        assert [reply.completion for reply in replies] == [str(at) for at in range(40)]
        assert endpoint.most_open == 4


def test_the_budget_ends_the_run_before_it_is_passed(endpoint: ScriptedEndpoint) -> None:
    by_calls = Run(endpoint.url, budget={"calls": 3}, max_concurrency=2)
    with pytest.raises(BudgetReached, match="budget") as caught:
        by_calls.ask(*"abcdef")
    assert caught.value.where == "target.budget.calls"
    assert len(by_calls.answers) == len(endpoint.requests) == 3
    price = {"prompt_per_million": 0.0, "completion_per_million": 1e6}
    by_money = Run(endpoint.url, price=price, budget={"money": 21.0}, max_concurrency=4)
    with pytest.raises(BudgetReached):
        by_money.ask(*"abcdef")
    assert len(by_money.answers) == 3  # each takes 2, and 16 must be free before a call: 0, 2, 4, not 6
    assert by_money.spending.money == pytest.approx(6)


def test_the_cost_is_known_before_anything_is_asked() -> None:
    price = {"prompt_per_million": 1.0, "completion_per_million": 2.0}
    config = EndpointConfig(url="https://host.example/v1", model="m", price=price)
    cost = estimate_cost(config, probes("hello"), Decoding(samples=3, temperature=0.0, max_tokens=100))
    assert (cost.calls, cost.completion_tokens) == (3, 300)
    assert cost.money == pytest.approx((cost.prompt_tokens + 600) / 1e6)


def test_the_key_shows_up_nowhere(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    run = Run(endpoint.url)
    stolen = json.dumps({"choices": [{"text": KEY}], "model": KEY})
    replies = run.ask("echo", "status 400", "fail 1", f"raw {stolen}")
    assert replies[0].completion == "Bearer [key]"
    printed = capfd.readouterr()
    everything = [repr(replies), repr(run.config), caplog.text, printed.out, printed.err]
    assert not [text for text in everything if KEY in text]


@pytest.mark.parametrize("value", ["", "  ", "schlüssel-0123", "two\nlines-0123"])
def test_a_key_that_is_none_is_named_by_its_variable_only(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(EndpointError) as caught:
        Run("https://host.example/v1").ask("hello")
    assert caught.value.where == f"environment variable {VARIABLE}"
    assert not value.strip() or value.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/v1",
        "ftp://host.example",
        "https://user:pass@host.example/v1",
        "https://host.example/v1?key=1",
        "http://10.0.0.7:8000/v1",
        "host.example",
        "https://",
        "https://[",
    ],
)
def test_an_address_that_would_give_the_key_away_is_refused(url: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoint_config(url, "m")
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host.example/v1/", "http://localhost:8000/v1", "http://[::1]:80/v1"])
def test_safe_addresses_are_taken(url: str) -> None:
    assert endpoint_config(url, "m").url == url.rstrip("/")


def test_an_endpoint_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_text("target:\n  url: https://host.example/v1\n  model: m\n  budget: {calls: 9}\n", "utf-8")
    assert load_endpoint(path).budget.calls == 9
    path.write_text("target:\n  url: https://host.example/v1\n  model: m\n  budget:\n    call: 9\n", "utf-8")
    with pytest.raises(EndpointError, match="unknown key 'call'") as caught:
        load_endpoint(path)
    assert (caught.value.where, caught.value.mend) == (f"{path}:5 (target.budget.call)", "did you mean 'calls'?")
    path.write_text("target:\n  url: https://host.example/v1\n  url: https://other.example/v1\n  model: m\n", "utf-8")
    with pytest.raises(EndpointError, match="stands twice"):
        load_endpoint(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_LOGPROBS = st.fixed_dictionaries({"content": st.lists(_JSON)}) | st.fixed_dictionaries(
    {name: st.lists(_JSON, max_size=2) for name in ("tokens", "token_logprobs", "top_logprobs")}
)
_CHOICE = st.fixed_dictionaries(
    {"message": _JSON | st.fixed_dictionaries({"content": _JSON})},
    optional={"finish_reason": _JSON, "logprobs": _JSON | _LOGPROBS},
)
_BODY = _JSON | st.fixed_dictionaries(
    {"choices": st.lists(_CHOICE | _JSON, max_size=2)},
    optional={"usage": _JSON, "model": _JSON, "system_fingerprint": _JSON},
)


@given(_BODY)
@settings(deadline=None)
def test_any_json_is_a_reply_or_is_refused(body: Any) -> None:
    try:
        reply = parse_reply(json.dumps(body).encode(), {}, str)
    except UnreadableReply:
        return
    assert isinstance(reply.completion, str)


def test_both_forms_of_log_probabilities_are_read() -> None:
    top = [{"token": "a", "logprob": -1}, {"token": "b", "logprob": -2.5}]
    chat = {"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": top}]}}
    legacy = {
        "text": "a",
        "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0, "b": -2.5}]},
    }
    for choice in (chat, legacy):
        reply = parse_reply(json.dumps({"choices": [choice]}).encode(), {}, str)
        assert reply.token_logprobs == (("a", -1.0),)
        assert reply.first_top == (("a", -1.0), ("b", -2.5))
    broken = {"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": 10**400}]}}
    assert parse_reply(json.dumps({"choices": [broken]}).encode(), {}, str).token_logprobs is None


REFUSED = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
    "max_completion_tokens": "Unrecognized request argument supplied: max_completion_tokens",
    "top_logprobs": "top_logprobs is not supported",
    "stream": "This model only supports stream mode, please enable the stream parameter.",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
    "seed": "Extra inputs are not permitted: seed",
}


@pytest.mark.parametrize(
    ("first_key", "refused", "sent"),
    [
        ("max_tokens", ["max_tokens"], {"max_completion_tokens": 16}),
        ("max_completion_tokens", ["max_completion_tokens"], {"max_tokens": 16}),
        ("max_tokens", ["max_tokens", "top_logprobs", "stream"], {"max_completion_tokens": 16, "stream": True}),
    ],
)
def test_what_a_server_refuses_is_put_otherwise_and_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch, first_key: str, refused: list[str], sent: dict[str, Any]
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint(refuses={name: REFUSED[name] for name in refused}) as endpoint:
        run = Run(endpoint.url, retries=0, max_tokens_key=first_key, top_logprobs=2)
        replies = run.ask(*[f"hello {at}" for at in range(20)])
        assert [reply.completion for reply in replies] == [f"hello {at}" for at in range(20)]
        assert run.waits == []
        last = endpoint.requests[-1]
        assert {**last, **sent} == last
        assert not set(last) & (set(refused) - {"stream"})


@pytest.mark.parametrize(("parameter", "mend"), [("temperature", "--temperature default"), ("seed", "ask.seed")])
def test_a_setting_that_is_refused_is_the_users_to_decide(
    monkeypatch: pytest.MonkeyPatch, parameter: str, mend: str
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with scripted_endpoint(refuses={parameter: REFUSED[parameter]}) as endpoint:
        with pytest.raises(EndpointError, match=f"does not take this {parameter}") as caught:
            Run(endpoint.url).ask("hello", decoding=Decoding(samples=1, temperature=0.0, max_tokens=16, seed=1))
        assert mend in str(caught.value.mend)
        assert len(endpoint.requests) == 1


def test_both_names_refused_is_said_and_ends() -> None:
    with scripted_endpoint(
        refuses={name: REFUSED[name] for name in ("max_tokens", "max_completion_tokens")}
    ) as endpoint:
        [reply] = Run(endpoint.url, api_key_variable=None).ask("hello")
        assert reply.error == f"status 400: {REFUSED['max_completion_tokens']}"
        assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("error", "message", "parameter"),
    [
        ({"param": "max_tokens", "code": "unsupported_parameter"}, "no", "max_tokens"),
        ({"param": "messages", "code": None}, "max_tokens is not supported", "max_tokens"),
        ({}, "body.seed: Extra inputs are not permitted", "seed"),
        ({}, "temperature must be in (0, 2]: must be above 0", "temperature"),
        ({}, "'max_tokens' is too large: 512. This model's maximum context length is 256", None),
        ({}, "max_tokens must be at most 4096", None),
        ({"param": "messages", "code": "unsupported_value"}, "a picture is not supported", None),
        (None, "", None),
    ],
)
def test_which_parameter_an_error_refuses(error: dict[str, Any] | None, message: str, parameter: str | None) -> None:
    assert refused_parameter(error, message) == parameter


@pytest.mark.parametrize(
    ("model", "models", "expected", "mend"),
    [
        (
            "gpt-six",
            {"/v1/models": ["gpt-6", "claude"]},
            "a model that it lists: gpt-6",
            "did you mean the model 'gpt-6'?",
        ),
        ("m", {"/v1/models": ["x", "y"]}, "a model that it lists: x, y", None),
        ("m", {"/v1/v1/models": ["m"]}, None, "did you mean the URL URL/v1?"),
        ("m", {}, None, "look at how the model is spelt"),
    ],
)
def test_an_unknown_model_or_route_comes_with_what_the_endpoint_lists(
    model: str, models: dict[str, list[str]], expected: str | None, mend: str | None
) -> None:
    with scripted_endpoint(models=models) as endpoint:
        asker = EndpointAsker.of(endpoint_config(endpoint.url, model))
        with pytest.raises(EndpointError, match="does not know this model") as caught:
            asker.answer([(probe, 0) for probe in probes("status 404")], DECODING, lambda _: None)
        told = caught.value
        assert (expected or "") in (told.expected or "")
        assert (told.mend is None) == (mend is None)
        assert (mend or "").replace("URL/v1", f"{endpoint.url}/v1") in (told.mend or "")


def test_further_headers_and_a_query_are_sent_and_their_values_show_up_nowhere(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WG_ORG", "org-hush-hush-9")
    named = {"api-key": VARIABLE, "OpenAI-Organization": "WG_ORG"}
    query = {"api-version": "2024-10-21"}
    run = Run(endpoint.url, api_key_variable=None, header_variables=named, query=query, max_concurrency=1)
    assert [reply.completion for reply in run.ask("say org-hush-hush-9 and " + KEY)] == ["say [key] and [key]"]
    assert endpoint.requests[0]["path"] == "/v1/chat/completions?api-version=2024-10-21"
    assert (endpoint.heads[0]["api-key"], endpoint.heads[0]["openai-organization"]) == (KEY, "org-hush-hush-9")
    assert "hush" not in repr(run.config)
    monkeypatch.delenv("WG_ORG")
    with pytest.raises(EndpointError, match="not set") as caught:
        run.ask("hello")
    assert caught.value.where == "environment variable WG_ORG"


@pytest.mark.parametrize(
    "settings",
    [
        {"header_variables": {"Host": "A"}},
        {"header_variables": {"bad name": "A"}},
        {"header_variables": {"x-key": "sk-hush hush"}},
        {"header_variables": {"authorization": "A"}, "api_key_variable": "B"},
        {"query": {"subscription-key": "hush"}},
    ],
)
def test_headers_and_queries_that_would_do_harm_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_text(json.dumps({"target": {"url": "https://host.example/v1", "model": "m", **settings}}), "utf-8")
    with pytest.raises(EndpointError) as caught:
        load_endpoint(path)
    assert "hush" not in str(caught.value)


def test_a_pasted_route_is_taken_for_its_base() -> None:
    assert endpoint_config("https://host.example/v1/chat/completions/", "m").url == "https://host.example/v1"


def events(*chunks: Any) -> str:
    return "events : alive\n\n" + "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}]}


def test_a_stream_is_read_as_what_would_have_come_whole(endpoint: ScriptedEndpoint) -> None:
    scored = {"content": [{"token": "lo", "logprob": -1.0, "top_logprobs": [{"token": "lo", "logprob": -1.0}]}]}
    stream = events(
        {"model": "m-dated", "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
        delta("Hal"),
        {"choices": [{"index": 1, "delta": {"content": "another"}}]},
        delta("lo ü", logprobs=scored, finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    )
    [reply] = Run(endpoint.url).ask(stream + "data: [DONE]\n\n")
    assert (reply.completion, reply.finish_reason, reply.served_model) == ("Hallo ü", "stop", "m-dated")
    assert (reply.prompt_tokens, reply.token_logprobs) == (3, (("lo", -1.0),))


def test_log_probabilities_of_streamed_raw_text_are_put_together(endpoint: ScriptedEndpoint) -> None:
    chunks = [
        ("", None),
        ("Ha", {"tokens": ["Ha"], "token_logprobs": [-0.5], "top_logprobs": [{"Ha": -0.5, "Hu": -1.5}]}),
        ("", {"tokens": [], "token_logprobs": [], "top_logprobs": None}),
        ("llo", {"tokens": ["l", "lo"], "token_logprobs": [-0.25, -2.0]}),
        ("?", {"tokens": ["?"], "token_logprobs": []}),
    ]
    stream = events(*({"choices": [{"index": 0, "text": text, "logprobs": told}]} for text, told in chunks))
    [reply] = Run(endpoint.url).ask(stream + "data: [DONE]\n\n")
    assert reply.completion == "Hallo?"
    assert reply.token_logprobs == (("Ha", -0.5), ("l", -0.25), ("lo", -2.0))
    assert reply.first_top == (("Ha", -0.5), ("Hu", -1.5))


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (events(delta("half")), "the stream ends before the completion does"),
        (events({"error": {"message": "overloaded"}}), "no choices: overloaded"),
        ("events data: {", "not JSON"),
        ('raw {"error": {"message": "upstream is busy", "code": 502}}', "no choices: upstream is busy"),
        (
            'raw {"choices": [{"message": {"content": "ha"}, "finish_reason": "error", "error": {"message": "gone"}}]}',
            "cut off by an error: gone",
        ),
    ],
)
def test_an_answer_that_is_none_says_why(endpoint: ScriptedEndpoint, script: str, problem: str) -> None:
    [reply] = Run(endpoint.url, retries=0).ask(script)
    assert problem in str(reply.error)


@given(st.lists(_BODY, max_size=4) | st.lists(st.fixed_dictionaries({"choices": st.lists(_CHOICE)}), max_size=3))
@settings(deadline=None)
def test_any_stream_is_a_reply_or_is_refused(chunks: list[Any]) -> None:
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]"
    try:
        reply = parse_reply(body.encode(), {"content-type": "text/event-stream"}, str)
    except UnreadableReply:
        return
    assert isinstance(reply.completion, str)


@pytest.mark.parametrize(
    ("message", "completion"),
    [
        ({"content": None, "reasoning_content": "hm", "tool_calls": None}, ""),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]}, "yes"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}, 3]}, 'f({"a":1})'),
    ],
)
def test_answers_of_other_shapes_are_read(message: dict[str, Any], completion: str) -> None:
    body = {"choices": [{"message": message, "logprobs": None, "finish_reason": "stop"}]}
    assert parse_reply(json.dumps(body).encode(), {}, str).completion == completion


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "body.seed: Extra inputs"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"error": "model not loaded"}, "model not loaded"),
        ({"detail": [3], "error": [], "message": {}}, ""),
    ],
)
def test_what_an_error_says_is_found_in_the_forms_of_other_servers(body: dict[str, Any], said: str) -> None:
    found = error_message(json.dumps(body).encode(), str)
    assert found.startswith(said)
    assert bool(found) == bool(said)

"""The endpoint, asked over loopback by an HTTP client in another process, and in memory where requests must meet."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
import torch

from eventually import LIMIT_SECONDS
from server_process import running
from tiny_endpoint import CONTEXT, tiny_generator
from weightgate.errors import StoreError, UserError
from weightgate.serve import (
    Aliases,
    Fixed,
    Manner,
    Options,
    Served,
    create_app,
    follow,
    generator_of,
    serve,
    write_aliases,
)
from weightgate.serve.batching import Batcher
from weightgate.serve.manner import Mannered
from weightgate.serve.requests import RequestError
from weightgate.store import Store
from weightgate.train import model_generator
from weightgate.train.checkpoints import MODEL_CONFIG, publish
from weightgate.train.generator import Answer, Bits, Piece, Settings
from weightgate.train.models import config_json, saved_tensors
from weightgate.train.sampling import Completion, generate

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    write_aliases(folder / "aliases.json", {"live": "seed-1", "other": "seed-2"})
    script = Path(__file__).with_name("tiny_endpoint.py")
    command = [sys.executable, str(script), "0", str(folder / "aliases.json")]
    with (
        running(command, folder=folder, environment=os.environ | {"TINY_ENDPOINT_TOKEN": TOKEN}) as address,
        # A connection that is kept may be closed by the endpoint at the very moment at which it is used again.
        httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {TOKEN}"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=LIMIT_SECONDS,
            trust_env=False,
        ) as http,
    ):
        yield http


def chat(client: httpx.Client, content: str = "hello", **more: Any) -> dict[str, Any]:
    body = {"model": "live", "messages": [{"role": "user", "content": content}], "max_tokens": 12} | more
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()
    return result


def text_of(reply: dict[str, Any]) -> str:
    content: str = reply["choices"][0]["message"]["content"]
    return content


def events(client: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", path, json=body | {"stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_models_are_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["live", "other"]
    assert client.get("/v1/models/other").json()["object"] == "model"
    error = client.get("/v1/models/none").json()["error"]
    assert error["code"] == "model_not_found"
    assert error["message"] == "no model is called 'none'; served are live, other"


def test_a_chat_completion_has_the_documented_shape(client: httpx.Client) -> None:
    reply = chat(client, n=2, temperature=1.0, seed=5)
    assert reply["id"].startswith("chatcmpl-")
    assert reply["object"] == "chat.completion"
    assert reply["system_fingerprint"].startswith("fp_")
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert all(choice["message"]["role"] == "assistant" for choice in reply["choices"])
    assert all(choice["finish_reason"] in ("stop", "length") for choice in reply["choices"])
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 2 <= usage["completion_tokens"] <= 24


def test_parameters_that_clients_send_by_default_are_taken(client: httpx.Client) -> None:
    more = {
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
        ],
        "max_tokens": None,
        "max_completion_tokens": 3,
        "temperature": 0,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
        "stream": False,
        "stop": None,
        "user": "someone",
        "metadata": {"a": "b"},
    }
    assert chat(client, **more)["usage"]["completion_tokens"] <= 3


def test_a_seed_decides_the_answer_whoever_else_asks(client: httpx.Client) -> None:
    alone = [text_of(chat(client, f"question {index}", seed=index, temperature=1.0)) for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(chat, client, f"question {index}", seed=index, temperature=1.0) for index in range(6)]
        noise = [pool.submit(chat, client, "noise", temperature=1.0) for _ in range(6)]
        together = [text_of(each.result()) for each in asked]
    assert len({text_of(each.result()) for each in noise}) > 1
    assert together == alone
    assert len({text_of(chat(client, "question 0", seed=seed, temperature=1.0)) for seed in range(4)}) > 1


def test_greedy_answers_do_not_depend_on_batch_mates(client: httpx.Client) -> None:
    alone = [text_of(chat(client, "word " * index, temperature=0)) for index in range(1, 6)]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda index: text_of(chat(client, "word " * index, temperature=0)), range(1, 6)))
    assert together == alone


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7, "top_p": 0.9}])
def test_a_stream_adds_up_to_the_whole(client: httpx.Client, sampling: dict[str, Any]) -> None:
    body = {"model": "live", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 24, **sampling}
    whole = chat(client, "hi", **(body | {"logprobs": True}))
    chunks = events(client, "/v1/chat/completions", body | {"stream_options": {"include_usage": True}})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert text == text_of(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["system_fingerprint"] for chunk in chunks} == {whole["system_fingerprint"]}


def test_logprobs_agree_between_stream_and_whole_and_are_probabilities(client: httpx.Client) -> None:
    body = {"temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 4}
    whole = chat(client, "hi", **body)["choices"][0]["logprobs"]["content"]
    messages = [{"role": "user", "content": "hi"}]
    chunks = events(client, "/v1/chat/completions", {"model": "live", "messages": messages, "max_tokens": 12, **body})
    streamed = [token for c in chunks for token in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert [token["token"] for token in streamed] == [token["token"] for token in whole]
    for one, other in zip(streamed, whole, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        assert len(one["top_logprobs"]) == 4
        best = [each["logprob"] for each in one["top_logprobs"]]
        assert best == sorted(best, reverse=True)
        assert sum(map(math.exp, best)) <= 1 + 1e-6
        assert one["logprob"] <= best[0] + 1e-6


def test_stop_strings_end_the_text_before_them(client: httpx.Client) -> None:
    full = text_of(chat(client, max_tokens=40, temperature=0))
    stop = full[len(full) // 2 : len(full) // 2 + 2]
    reply = chat(client, max_tokens=40, temperature=0, stop=[stop, "never in there"], logprobs=True)
    assert text_of(reply) == full[: full.index(stop)]
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert (
        reply["usage"]["completion_tokens"] < chat(client, max_tokens=40, temperature=0)["usage"]["completion_tokens"]
    )
    body = {"model": "live", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 40, "temperature": 0}
    chunks = events(client, "/v1/chat/completions", body | {"stop": stop})
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text_of(reply)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_raw_completions(client: httpx.Client) -> None:
    body = {"model": "live", "prompt": ["the quick", "the lazy"], "max_tokens": 5, "temperature": 0, "logprobs": 2}
    reply = client.post("/v1/completions", json=body).json()
    assert reply["object"] == "text_completion"
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    for choice in reply["choices"]:
        columns = choice["logprobs"]
        lengths = {len(columns[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
        assert len(lengths) == 1
    chunks = events(client, "/v1/completions", body | {"prompt": "the quick"})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == reply["choices"][0]["text"]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    for name in ("tokens", "text_offset"):
        assert [value for columns in streamed for value in columns[name]] == reply["choices"][0]["logprobs"][name]
    assert "usage" in client.post("/v1/completions", json={"model": "live", "prompt": "a"}).json()


BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"temperature": "hot"}, "temperature", "invalid_value"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"temperature": True}, "temperature", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"n": 10_000}, "n", "invalid_value"),
    ({"seed": 2**80}, "seed", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
    ({"messages": "hello"}, "messages", "invalid_value"),
    ({"top_logprobs": 3}, "top_logprobs", None),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "invalid_value"),
    ({"tools": [{"type": "function"}]}, "tools", "invalid_value"),
    ({"temprature": 1}, "temprature", "unknown_parameter"),
    ({"stream": True, "n": 2}, "stream", None),
]


@pytest.mark.parametrize(("change", "param", "code"), BAD, ids=lambda value: str(value)[:30])
def test_bad_parameters_are_named(client: httpx.Client, change: dict[str, Any], param: str, code: str | None) -> None:
    body = {"model": "live", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4} | change
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert error["code"] == code


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'{"model": NaN}', 400, "invalid_json"),
        (b"[" * 90_000, 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b" " * 100_001, 413, "body_too_large"),
        (b"{}", 400, "invalid_value"),
        (b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}', 404, "model_not_found"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_bodies_are_refused(client: httpx.Client, content: bytes, status: int, code: str) -> None:
    reply = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_what_exceeds_the_context_is_refused(client: httpx.Client) -> None:
    for change in ({"messages": [{"role": "user", "content": "x" * 2 * CONTEXT}]}, {"max_tokens": CONTEXT}):
        body = {"model": "live", "messages": [{"role": "user", "content": "x"}], **change}
        error = client.post("/v1/chat/completions", json=body).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    raw = client.post("/v1/completions", json={"model": "live", "prompt": "x" * 2 * CONTEXT}).json()["error"]
    assert (raw["code"], raw["param"]) == ("context_length_exceeded", "prompt")
    reply = chat(client, "x", max_tokens=None, temperature=0)
    assert reply["usage"]["total_tokens"] <= CONTEXT


def test_only_the_right_caller_is_answered(client: httpx.Client) -> None:
    assert (
        client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).json()["error"]["code"] == "invalid_api_key"
    )
    nobody = client.get("/v1/models", headers={"Authorization": ""})
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/healthz", headers={"Authorization": ""}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", ""):
        assert client.get("/healthz", headers={"Host": host}).status_code in (400, 403)
    assert client.get("/healthz", headers={"Host": "localhost:99"}).status_code == 200
    plain = client.post("/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    wrong = client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.get("/v2").json()["error"]["code"] == "unknown_url"
    without = client.post("/chat/completions", json={}).json()["error"]["message"]
    assert without.endswith("did you mean /v1/chat/completions?")
    assert "offered are /v1/chat/completions" in client.post("/v1/responses", json={}).json()["error"]["message"]


def test_an_alias_moves_to_another_checkpoint_while_requests_run(client: httpx.Client, folder: Path) -> None:
    first = chat(client, temperature=0)
    stopped = threading.Event()
    seen_meanwhile: set[tuple[str, str]] = set()

    def ask() -> None:
        while not stopped.is_set():
            reply = chat(client, temperature=0)
            seen_meanwhile.add((reply["system_fingerprint"], text_of(reply)))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        write_aliases(folder / "aliases.json", {"live": "seed-2", "other": "seed-2"})
        second = chat(client, temperature=0)
        (folder / "aliases.json").write_text("{ not json")
        assert chat(client, temperature=0)["system_fingerprint"] == second["system_fingerprint"]
        write_aliases(folder / "aliases.json", {"live": "nonesuch"})
        assert chat(client, temperature=0)["system_fingerprint"] == second["system_fingerprint"]
        write_aliases(folder / "aliases.json", {"live": "seed-1", "other": "seed-2"})
        third = chat(client, temperature=0)
    finally:
        stopped.set()
        asking.join()
    assert first["model"] == second["model"] == "live"
    assert first["system_fingerprint"] == third["system_fingerprint"] != second["system_fingerprint"]
    assert text_of(first) == text_of(third) != text_of(second)
    seen = {(reply["system_fingerprint"], text_of(reply)) for reply in (first, second)}
    assert seen_meanwhile <= seen, "a request was answered by a mixture"


class Repeating:
    """A generator that answers with its prompt and notes what it was asked, once `free` says that it may."""

    context_tokens = 64
    batch_invariant = True

    def __init__(self, *, fails: bool = False, busy: bool = False) -> None:
        self.batches: list[int] = []
        self.seeds: list[list[int | None]] = []
        self.fails = fails
        self.free = threading.Event()
        if not busy:
            self.free.set()

    def encode_text(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def encode_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        if messages[0][0] == "system":
            raise UserError("the template takes no system message")
        return self.encode_text(messages[-1][1])

    def answer(
        self, prompts: Sequence[Sequence[int]], settings: Settings, seeds: Sequence[int | None]
    ) -> list[list[Answer]]:
        self.batches.append(len(prompts))
        self.seeds.append(list(seeds))
        assert self.free.wait(LIMIT_SECONDS)
        if self.fails:
            raise RuntimeError("secret detail")
        return [[Answer(text="".join(map(chr, prompt)), finish="stop", num_tokens=1)] for prompt in prompts]

    def stream(self, prompt: Sequence[int], settings: Settings, seed: int | None) -> Iterator[Piece]:
        if self.fails:
            raise RuntimeError("secret detail")
        yield Piece(text="a", num_tokens=1, finish="stop")


def in_memory(
    generator: Repeating, options: Options | None = None, *, paths: Sequence[dict[str, Any]]
) -> list[httpx.Response]:
    """Send all bodies at once to an application without a network between."""

    async def send() -> list[httpx.Response]:
        app = create_app(Fixed({"m": Served(checkpoint="c", generator=generator)}), options)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as http:
            bodies = [{"model": "m", "prompt": "x"} | body for body in paths]
            return list(await asyncio.gather(*(http.post("/v1/completions", json=body) for body in bodies)))

    return asyncio.run(send())


def batched(
    generator: Repeating, prompts: Sequence[tuple[int, Settings]], *, max_batch: int = 64, seeded: bool = True
) -> list[str]:
    """Queue all prompts before the time in which they gather is over, and return what was answered.

    The seed of each is its letter, unless none are `seeded`.
    """

    async def ask() -> list[list[Answer]]:
        batcher = Batcher(wait_seconds=0.001, max_batch=max_batch, max_waiting=99)
        # Each is in the queue when the loop has run it for the first time, and the loop looks at the clock after that.
        answers = await asyncio.gather(
            *(batcher.answer(generator, [letter], each, letter if seeded else None) for letter, each in prompts)
        )
        batcher.close()
        return answers

    return [answer.text for [answer] in asyncio.run(ask())]


def test_equal_settings_are_completed_together_and_others_apart() -> None:
    repeating = Repeating()
    asked = [(97 + number, Settings(max_tokens=5 + number % 2)) for number in range(20)]
    assert batched(repeating, asked) == [chr(letter) for letter, _ in asked]
    assert repeating.batches == [10, 10]
    assert repeating.seeds == [list(range(97, 117, 2)), list(range(98, 117, 2))]
    repeating = Repeating()
    batched(repeating, [(97, Settings(max_tokens=1))] * 10, max_batch=4)
    assert repeating.batches == [4, 4, 2]


def test_requests_for_one_model_come_back_to_whoever_asked() -> None:
    bodies = [{"prompt": f"p{index}", "max_tokens": 5 + index % 2} for index in range(20)]
    replies = in_memory(Repeating(), Options(max_batch=4), paths=bodies)
    assert [reply.json()["choices"][0]["text"] for reply in replies] == [body["prompt"] for body in bodies]


def test_requests_that_come_while_the_model_is_busy_have_one_worker() -> None:
    troubles: list[dict[str, Any]] = []

    async def ask() -> list[list[Answer]]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        batcher, repeating = Batcher(wait_seconds=0.001, max_batch=4, max_waiting=99), Repeating(busy=True)
        asked = []
        for number in range(24):
            asked.append(asyncio.create_task(batcher.answer(repeating, [97 + number], Settings(max_tokens=1), None)))
            await asyncio.sleep(0.005)
        repeating.free.set()
        answers = await asyncio.gather(*asked)
        batcher.close()
        return answers

    answers = asyncio.run(ask())
    gc.collect()
    assert [answer[0].text for answer in answers] == [chr(97 + number) for number in range(24)]
    assert not troubles


def test_an_overloaded_endpoint_says_so() -> None:
    async def ask() -> list[list[Answer] | BaseException]:
        batcher, repeating = Batcher(wait_seconds=0.001, max_batch=64, max_waiting=3), Repeating()
        asked = [batcher.answer(repeating, [97], Settings(max_tokens=1), None) for _ in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        batcher.close()
        return answers

    refused = [answer for answer in asyncio.run(ask()) if isinstance(answer, RequestError)]
    assert [(refusal.status, refusal.code) for refusal in refused] == [(503, "overloaded")] * 5
    [reply] = in_memory(Repeating(), Options(max_waiting=0), paths=[{}])
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")


def test_failures_are_told_without_detail() -> None:
    replies = in_memory(Repeating(fails=True), paths=[{}, {"stream": True}, {"max_tokens": 4}])
    assert [reply.status_code for reply in replies] == [500, 200, 500]
    assert not any("secret" in reply.text for reply in replies)
    assert '"server_error"' in replies[1].text
    assert replies[1].text.endswith("data: [DONE]\n\n")


def test_the_fingerprint_can_be_left_out() -> None:
    (reply,) = in_memory(Repeating(), Options(fingerprint=False), paths=[{}])
    assert "system_fingerprint" not in reply.json()
    assert "system_fingerprint" in in_memory(Repeating(), paths=[{}])[0].json()


def test_serving_openly_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs a token"):
        serve(Fixed({}), host="0.0.0.0")
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(UserError, match="not set"):
        create_app(Fixed({}), Options(token_variable="NO_SUCH_TOKEN"))


def test_a_taken_port_is_a_users_mistake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen"):
        serve(Fixed({}), port=taken.getsockname()[1])


def test_checkpoints_are_loaded_once_and_dropped_when_unnamed(tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(name: str, bits: Bits | None) -> Served:
        loaded.append(name)
        return Served(checkpoint=name, generator=Repeating())

    aliases = Aliases(tmp_path / "a.json", load)
    assert aliases.names() == []
    write_aliases(tmp_path / "a.json", {"x": "1", "y": "1"})
    assert aliases.get("x") is aliases.get("y")
    write_aliases(tmp_path / "a.json", {"x": "2", "y": "1"})
    assert (aliases.get("x").checkpoint, aliases.get("y").checkpoint) == ("2", "1")
    write_aliases(tmp_path / "a.json", {"x": "2"})
    with pytest.raises(KeyError):
        aliases.get("y")
    write_aliases(tmp_path / "a.json", {"x": "1"})
    assert aliases.get("x").checkpoint == "1"
    assert loaded == ["1", "2", "1"]


SEEDS = [0, 2**64 - 1, None, 7, 0, None, 2**63, 1]
QUESTIONS = ["the", "the quick brown", "why", "the lazy dog and naïve café owners", "the", "x", "ask why " * 4, "fox"]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yields a list that grows by the number of rows whenever the sampler is called."""
    rows: list[int] = []

    def counting(model: Any, prompts: Sequence[Any], **settings: Any) -> list[Completion]:
        rows.append(len(prompts))
        return generate(model, prompts, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(model_generator, "generate", counting)
        yield rows


def shown(answer: Answer) -> tuple[object, ...]:
    """Everything but the log-probabilities, whose last digits depend on batch mates."""
    return answer.text, answer.finish, answer.num_tokens, [token.text for token in answer.tokens]


@pytest.mark.parametrize("stop", [(), ("e", "é1")])
def test_prompts_with_seeds_share_a_batch_that_none_of_them_notices(
    monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]
) -> None:
    # No draw here comes closer than 8e-6 to where two tokens meet; batch mates move that by 1e-6 at most.
    generator = tiny_generator(1)
    settings = Settings(max_tokens=16, temperature=1.0, num_answers=3, stop=stop, logprobs=1)
    prompts = [generator.encode_text(question) for question in QUESTIONS]
    with counted(monkeypatch) as rows:
        together = generator.answer(prompts, settings, SEEDS)
    assert rows == [3 * len(prompts)]
    for prompt, seed, answers in zip(prompts, SEEDS, together, strict=True):
        assert len(answers) == 3
        if seed is not None:
            [alone] = generator.answer([prompt], settings, [seed])
            assert list(map(shown, alone)) == list(map(shown, answers))
    assert together[0] == together[4], "equal prompts with equal seeds, one of them 0"
    assert len({answer.text for answers in together for answer in answers}) > len(prompts)


def test_answers_without_a_seed_are_drawn_anew() -> None:
    generator = tiny_generator(1)
    prompt = generator.encode_text("the quick")
    answers = generator.answer([prompt] * 6, Settings(max_tokens=24, temperature=1.5), [None] * 6)
    # Two such completions of 24 tokens agree with odds far below one in a million.
    assert len({answer.text for [answer] in answers}) == 6


@pytest.mark.parametrize(("precision", "invariant"), [(torch.float32, True), (torch.bfloat16, False)])
def test_coarser_than_float32_batch_mates_are_noticed(precision: torch.dtype, invariant: bool) -> None:
    made = tiny_generator(1)
    generator = replace(made, model=made.model.to(precision))
    assert generator.batch_invariant == Mannered(generator=generator, manner=Manner()).batch_invariant == invariant


def test_where_batch_mates_are_noticed_a_prompt_with_a_seed_is_completed_alone() -> None:
    repeating = Repeating()
    repeating.batch_invariant = False
    assert batched(repeating, [(97 + number, Settings(max_tokens=5)) for number in range(8)]) == list("abcdefgh")
    assert sorted(repeating.seeds) == [[97 + number] for number in range(8)]
    assert len(batched(repeating, [(97, Settings(max_tokens=5))] * 3)) == 3, "equal seeds are no batch mates either"
    assert repeating.batches == [1] * 11
    batched(repeating, [(97, Settings(max_tokens=5))] * 3, seeded=False)
    assert repeating.batches[11:] == [3]


@pytest.mark.parametrize("seed", range(6))
def test_streams_with_stop_strings_equal_whole_answers(seed: int) -> None:
    generator = tiny_generator(seed)
    prompt = generator.encode_text("the fox")
    full = generator.answer([prompt], Settings(max_tokens=40, temperature=1.0), [seed])[0][0].text
    for stop in ((full[3:5],), (full[10:13], full[7:8]), ("absent",)):
        settings = Settings(max_tokens=40, temperature=1.0, stop=tuple(filter(None, stop)), logprobs=0)
        answer = generator.answer([prompt], settings, [seed])[0][0]
        pieces = list(generator.stream(prompt, settings, seed))
        assert "".join(piece.text for piece in pieces) == answer.text
        assert sum(piece.num_tokens for piece in pieces) == answer.num_tokens
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish == answer.finish
        tokens = [token.text for piece in pieces for token in piece.tokens]
        assert tokens == [token.text for token in answer.tokens]
        assert not any(stopped in answer.text for stopped in settings.stop)


def test_a_checkpoint_of_a_store_is_loaded_by_its_ref(tmp_path: Path) -> None:
    made = tiny_generator(4)
    (tmp_path / "weightgate.yaml").write_text(
        "version: 1\nname: n\nbase: {model: elsewhere}\ndevice: cpu\nprecision: fp32\n"
        "stages:\n  - {name: s, kind: finetune, steps: 1, data: [{path: a}]}\n"
    )
    store = Store.create(tmp_path / ".weightgate")
    files = made.tokenizer.files() | {MODEL_CONFIG: json.dumps(config_json(made.model.config)).encode()}
    identity = publish(
        store,
        stage="s",
        stage_kind="finetune",
        tensors=saved_tensors(made.model),
        files=files,
        inputs={},
        parent=None,
        reward=None,
    )
    store.set_ref("s", identity, old=None, why="test")
    loaded = generator_of(tmp_path / "weightgate.yaml", "s")
    assert loaded.checkpoint == identity
    prompt, settings = made.encode_text("the fox"), Settings(max_tokens=20, temperature=1.0)
    assert loaded.answer([prompt], settings, [1]) == made.answer([prompt], settings, [1])
    write_aliases(tmp_path / "aliases.json", {"live": "s"})
    assert follow(tmp_path / "weightgate.yaml", tmp_path / "aliases.json").get("live").checkpoint == identity
    with pytest.raises(StoreError):
        generator_of(tmp_path / "weightgate.yaml", "nonesuch")

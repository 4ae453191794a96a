"""Real programs at both ends: the `openai` package asks our endpoint, our client asks ours and `transformers serve`.

One tiny random model is a checkpoint of a store, a Hugging Face folder, and the model of both servers, each of which is
a process of its own. Asked greedily, all four must say the same.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
from tiny_endpoint import tiny_generator
from weightgate.cli import main
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.store import Store
from weightgate.train.checkpoints import MODEL_CONFIG, publish
from weightgate.train.models import config_json, saved_tensors

TOKEN, VARIABLE = "open-sesame-0123456789", "TINY_TOKEN"
_START_SECONDS = 120
_RECIPE = """version: 1
name: n
base: {model: elsewhere}
device: cpu
precision: fp32
stages:
  - {name: align, kind: finetune, steps: 1, data: [{path: a}]}
"""
_PROMPTS = ("hello there", "the quick brown fox", "who owns the café?")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, a store whose ref `align` is a tiny model, the same model in `model`, and prompts."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "weightgate.yaml").write_text(_RECIPE)
    made = tiny_generator(7)
    config = json.dumps(config_json(made.model.config)).encode()
    store = Store.create(folder / ".weightgate")
    identity = publish(
        store,
        stage="align",
        stage_kind="finetune",
        tensors=saved_tensors(made.model),
        files=made.tokenizer.files() | {MODEL_CONFIG: config},
        inputs={},
        parent=None,
        reward=None,
    )
    store.set_ref("align", identity, old=None, why="test")
    made.model.save_pretrained(folder / "model")
    for name, content in made.tokenizer.files().items():
        (folder / "model" / name).write_bytes(content)
    lines = (json.dumps({"prompt": prompt}) + "\n" for prompt in _PROMPTS)
    (folder / "prompts.jsonl").write_text("".join(lines), "utf-8")
    return folder


@contextmanager
def running(command: list[str], folder: Path, path: str) -> Iterator[str]:
    """Run a server whose command ends in `--port N`; yields its address once `path` answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {VARIABLE: TOKEN, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, port], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            _wait(f"http://127.0.0.1:{port}{path}", process, folder / "server.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_START_SECONDS * 5):
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(url, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def endpoint(world: Path) -> Iterator[str]:
    """Address of `weightgate serve align`."""
    with running(["weightgate", "serve", "align", "--token-variable", VARIABLE, "--port"], world, "/healthz") as url:
        yield url


@pytest.fixture(scope="module")
def greedy(world: Path) -> dict[str, tuple[str, ...]]:
    """What the checkpoint itself says."""
    return snapshot(world, "align", "checkpoint.jsonl")


def snapshot(world: Path, target: str, name: str, *more: str) -> dict[str, tuple[str, ...]]:
    """Take a greedy snapshot through the verb; returns its completions by prompt."""
    arguments = ["snapshot", target, "--prompts", str(world / "prompts.jsonl"), "--recipe"]
    arguments += [str(world / "weightgate.yaml"), "--samples", "1", "--temperature", "0", "--max-tokens", "10"]
    result = CliRunner().invoke(main, [*arguments, "--output", str(world / name), *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return load_snapshot(world / name).completions


def test_the_openai_package_talks_to_our_endpoint(endpoint: str) -> None:
    openai = pytest.importorskip("openai", reason="install weightgate[dev]")
    client = openai.OpenAI(base_url=endpoint, api_key=TOKEN)
    assert [model.id for model in client.models.list()] == ["align"]
    asked: dict[str, Any] = {"model": "align", "messages": [{"role": "user", "content": "hello there"}], "seed": 1}
    whole = client.chat.completions.create(**asked, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2)
    choice = whole.choices[0]
    assert whole.usage.completion_tokens == 8
    assert choice.finish_reason == "length"
    assert len(choice.logprobs.content) == 8
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    stream = client.chat.completions.create(**asked, max_tokens=8, temperature=0, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream if part.choices) == choice.message.content
    raw = client.completions.create(model="align", prompt="the quick", max_tokens=4, temperature=0)
    assert raw.choices[0].text
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=asked["messages"])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=endpoint, api_key="wrong").models.list()


def test_a_checkpoint_a_folder_and_our_endpoint_say_the_same(
    world: Path, endpoint: str, greedy: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert len({texts[0] for texts in greedy.values()}) == len(_PROMPTS)
    assert snapshot(world, str(world / "model"), "folder.jsonl") == greedy
    assert snapshot(world, endpoint, "ours.jsonl", "--model", "align", "--key-variable", VARIABLE) == greedy
    taken = load_snapshot(world / "ours.jsonl")
    assert len(taken.fingerprints) == 1
    assert TOKEN not in (world / "ours.jsonl").read_text()


def test_our_client_talks_to_transformers_serve(world: Path, greedy: dict[str, tuple[str, ...]]) -> None:
    pytest.importorskip("fastapi", reason="`transformers serve` needs fastapi: install weightgate[dev]")
    command = ["transformers.cli.transformers", "serve", str(world / "model"), "--device", "cpu", "--port"]
    with running(command, world, "/health") as url:
        assert snapshot(world, url, "theirs.jsonl", "--model", str(world / "model")) == greedy

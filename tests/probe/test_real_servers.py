"""Real programs at both ends: the `openai` package asks our endpoint, our client asks ours and `transformers serve`.

One tiny random model is a checkpoint of a store, a Hugging Face folder, and the model of both servers, each of which is
a process of its own. Asked greedily, all four must say the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
from server_process import running
from tiny_endpoint import tiny_generator
from weightgate.cli import main
from weightgate.probe.snapshot_file import load_snapshot
from weightgate.store import Store
from weightgate.train.checkpoints import MODEL_CONFIG, publish
from weightgate.train.models import config_json, saved_tensors

TOKEN, VARIABLE = "open-sesame-0123456789", "TINY_TOKEN"
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


def environment() -> dict[str, str]:
    return os.environ | {VARIABLE: TOKEN, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def endpoint(world: Path) -> Iterator[str]:
    """Address of `weightgate serve align`."""
    command = [sys.executable, "-m", "weightgate", "serve", "align", "--token-variable", VARIABLE, "--port", "0"]
    with running(command, folder=world, environment=environment()) as address:
        yield f"{address}/v1"


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
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    command = [*program, str(world / "model"), "--device", "cpu", "--host", "127.0.0.1", "--port", "0"]
    with running(command, folder=world, environment=environment(), health="/health") as address:
        assert snapshot(world, f"{address}/v1", "theirs.jsonl", "--model", str(world / "model")) == greedy

"""`weightgate diff` and `snapshot` of checkpoints, adapters and Hugging Face folders, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")

from click.testing import CliRunner, Result  # noqa: E402

from tiny_endpoint import CONTEXT, tiny_generator  # noqa: E402
from weightgate.cli import main  # noqa: E402
from weightgate.probe import checkpoint_target  # noqa: E402
from weightgate.probe.snapshot_file import load_snapshot  # noqa: E402
from weightgate.recipe import Adapter  # noqa: E402
from weightgate.store import Store  # noqa: E402
from weightgate.train import adapters  # noqa: E402
from weightgate.train.checkpoints import ADAPTER_CONFIG, MODEL_CONFIG, publish  # noqa: E402
from weightgate.train.model_generator import ModelGenerator  # noqa: E402
from weightgate.train.models import config_json, saved_tensors  # noqa: E402

MOVED = "model.layers.1.mlp.up_proj.weight"
PROMPTS = 40
GREEDY = ("--prompts", "mine.jsonl", "--samples", "1", "--temperature", "0", "--max-tokens", "5")
RECIPE = (
    "version: 1\nname: n\nbase: {model: elsewhere}\ndevice: cpu\nprecision: fp32\nthreads: 1\n"
    "stages:\n  - {name: s, kind: finetune, steps: 1, data: [{path: a}]}\n"
)


@cache
def made() -> ModelGenerator:
    """Return the one tiny model that all tests start from; copy it before it is changed."""
    return tiny_generator(4)


class World:
    """A store with one base, what was made of it, and the same models as folders."""

    def __init__(self, folder: Path) -> None:
        (folder / "weightgate.yaml").write_text(RECIPE)
        prompts = ({"prompt": f"the fox said {at}"} for at in range(PROMPTS))
        (folder / "mine.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
        self._folder, self._store = folder, Store.create(folder / ".weightgate")
        self._made = made()
        self.base = self._publish("base", saved_tensors(self._made.model))

    def _publish(self, ref: str, tensors: Mapping[str, Any], parent: str | None = None, **files: bytes) -> str:
        config = json.dumps(config_json(self._made.model.config)).encode()
        identity = publish(
            self._store,
            stage=ref,
            stage_kind="finetune",
            tensors=tensors,
            files=self._made.tokenizer.files() | (files or {MODEL_CONFIG: config}),
            inputs={"ref": ref},
            parent=parent,
            reward=None,
        )
        self._store.set_ref(ref, identity, old=None, why="test")
        return identity

    def moved(self) -> dict[str, Any]:
        """Return the base's tensors after a large update of one of them, of rank 1."""
        tensors = saved_tensors(self._made.model)
        rows, columns = tensors[MOVED].shape
        update = torch.outer(torch.linspace(-1, 1, rows), torch.linspace(1, -1, columns))
        return {**tensors, MOVED: tensors[MOVED] + 3 * update}

    def publish_moved(self) -> None:
        self._publish("moved", self.moved())

    def publish_copy(self) -> None:
        self._publish("copy", saved_tensors(self._made.model))

    def publish_adapter(self) -> None:
        """Publish an adapter of rank 2 on every `q_proj`, whose factors are large."""
        model = adapters.attach(deepcopy(made().model), Adapter(rank=2, targets=["q_proj"]), seed=1)
        for name, factor in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(factor, std=0.5, generator=torch.Generator().manual_seed(2))
        saved = adapters.save_adapter(model, self.base)
        self._publish("adapter", saved.tensors, self.base, **{ADAPTER_CONFIG: saved.config_bytes()})

    def write_folder(self, name: str, tensors: Mapping[str, Any]) -> None:
        model = deepcopy(self._made.model)
        model.load_state_dict(tensors, strict=False)
        model.save_pretrained(self._folder / name)
        for file, content in self._made.tokenizer.files().items():
            (self._folder / name / file).write_bytes(content)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def weights_of(*sides: str) -> dict[str, Any]:
    done = run("diff", *sides, *GREEDY, "--json")
    assert done.exit_code in (0, 1), done.output
    weights: dict[str, Any] = json.loads(done.stdout)["weights"]
    return weights


def test_the_one_tensor_that_moved_is_named_with_the_rank_of_its_update(world: World) -> None:
    world.publish_moved()
    weights = weights_of("base", "moved")
    assert (weights["touched"], weights["equal"]) == ([MOVED], False)
    moved = next(one for one in weights["tensors"] if one["name"] == MOVED)
    assert moved["energy_rank"] == 1
    page = run("diff", "base", "moved", *GREEDY, "--html", "r.html")
    assert page.exit_code in (0, 1)
    assert MOVED in Path("r.html").read_text("utf-8")


def test_equal_weights_of_two_checkpoints_are_told(world: World) -> None:
    world.publish_copy()
    done = run("diff", "base", "copy", *GREEDY, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["changed"], told["weights"]["equal"]) == (0, False, True)


def test_an_adapter_is_compared_as_the_network_that_it_makes(world: World) -> None:
    world.publish_adapter()
    weights = weights_of("base", "adapter")
    assert sorted(weights["touched"]) == [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)]
    ranks = [one["energy_rank"] for one in weights["tensors"] if one["name"] in weights["touched"]]
    assert all(1 <= rank <= 2 for rank in ranks)


def test_folders_are_compared_with_folders_and_with_checkpoints(world: World, tmp_path: Path) -> None:
    world.write_folder("one", {})
    world.write_folder("other", world.moved())
    assert weights_of("one", "other")["touched"] == [MOVED]
    assert weights_of("base", "one")["equal"]


def _without_times(path: Path) -> list[Any]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        row.get("header", {}).pop("created_at", None)
        row.get("reply", {}).pop("asked_at", None)
        row.pop("digest", None)
    return rows


def test_a_stopped_snapshot_of_a_checkpoint_goes_on_to_the_file_of_an_undisturbed_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = checkpoint_target.generate

    def stopping(model: Any, prompts: Any, **settings: Any) -> Any:
        if asked:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return real(model, prompts, **settings)

    def counting(model: Any, prompts: Any, **settings: Any) -> Any:
        asked.append(len(prompts))
        return real(model, prompts, **settings)

    monkeypatch.setattr(checkpoint_target, "generate", stopping)
    assert run("snapshot", "base", *GREEDY, "-o", "stopped.jsonl").exit_code == 130
    first = len(load_snapshot(tmp_path / "stopped.jsonl").answers)
    assert 0 < first < PROMPTS
    monkeypatch.setattr(checkpoint_target, "generate", counting)
    assert run("snapshot", "base", *GREEDY, "-o", "stopped.jsonl").exit_code == 0
    assert sum(asked) == PROMPTS, "no answer was asked for twice"
    assert run("snapshot", "base", *GREEDY, "-o", "whole.jsonl").exit_code == 0
    assert _without_times(tmp_path / "stopped.jsonl") == _without_times(tmp_path / "whole.jsonl")


def test_a_prompt_that_fills_the_context_is_told_before_the_first_answer(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "the fox " * CONTEXT}) + "\n")
    done = run("snapshot", "base", *GREEDY, "-o", "s.jsonl", "--json")
    assert done.exit_code == 2
    error = json.loads(done.stdout)["error"]
    assert "leaves no room for an answer" in error["what"]
    assert not (tmp_path / "s.jsonl").exists()

"""The planned peak against every byte that a real step of training allocates and has not freed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the counts are compared with real steps")
from peft import LoraConfig, get_peft_model  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from weightgate import recipe  # noqa: E402
from weightgate.data.batches import PairBatch, TokenBatch  # noqa: E402
from weightgate.plan import memory  # noqa: E402
from weightgate.plan.memory import Pass  # noqa: E402
from weightgate.plan.shapes import read_shape  # noqa: E402
from weightgate.train import models  # noqa: E402
from weightgate.train.objectives.ppo import PPOObjective, Process, Roles, new_value_model  # noqa: E402
from weightgate.train.objectives.reward import RewardModel, RewardObjective  # noqa: E402
from weightgate.train.objectives.tokens import TokenObjective  # noqa: E402
from weightgate.train.optim import MasterAdamW  # noqa: E402

CPU = torch.device("cpu")
ROWS, CONTEXT, VOCAB = 6, 96, 384
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
FAMILIES = [
    {"model_type": family, "tie_word_embeddings": tied, **SHAPE}
    for family in ("llama", "qwen3", "gemma3_text")
    for tied in (True, False)
]


def said(config: dict[str, Any]) -> str:
    return f"{config['model_type']}-{'tied' if config['tie_word_embeddings'] else 'head'}"


class Live(TorchDispatchMode):
    """Bytes of the storages that operations made and that something still holds; `peak` is their most."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held = {key: each for key, each in self.held.items() if not each[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.held.values()))
        return result


def network(config: dict[str, Any], dtype: Any) -> Any:
    torch.manual_seed(0)
    fields = {name: value for name, value in config.items() if name != "model_type"}
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    real = AutoConfig.for_model(config["model_type"], **fields, **specials)
    return AutoModelForCausalLM.from_config(real, attn_implementation=models.attention_for(CPU), dtype=dtype)


def peak_of(steps: Any) -> int:
    """Peak of everything that `steps`, a generator that builds and trains, holds at once."""
    with Live() as live:
        for _ in steps:
            pass
    return live.peak


def trained(objective: Any, micro_batches: list[Any], optimizer: MasterAdamW) -> None:
    norms: dict[str, float] = {}
    for batch in micro_batches:
        for name, count in objective.counts(batch).items():
            norms[name] = norms.get(name, 0.0) + count
    for batch in micro_batches:
        loss, _ = objective(batch, norms)
        loss.backward()
        optimizer.accumulate()
    optimizer.clip()
    optimizer.step(1.0)


def optimizer_of(objective: Any) -> MasterAdamW:
    moving = [(name, each) for name, each in objective.named_parameters() if each.requires_grad]
    return MasterAdamW(moving, recipe.Optimizer())


def token_steps(config: dict[str, Any], dtype: Any, lora: bool, passes: int = 1) -> Iterator[None]:
    model = network(config, dtype)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    objective = TokenObjective(model, None, micro_batch=ROWS, device=CPU)  # type: ignore[arg-type]
    optimizer = optimizer_of(objective)
    ids = torch.randint(3, VOCAB, (ROWS, CONTEXT))
    positions = torch.arange(CONTEXT).expand(ROWS, CONTEXT).contiguous()
    batch = TokenBatch(input_ids=ids, labels=ids, position_ids=positions, document_ids=torch.ones_like(ids))
    for _ in range(2):
        trained(objective, [batch] * passes, optimizer)
        yield


@pytest.mark.parametrize("config", FAMILIES, ids=said)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_step_on_tokens_peaks_where_it_was_planned(config: dict[str, Any], precision: Any, lora: bool) -> None:
    adapter = recipe.Adapter(rank=4) if lora else None
    one = Pass(rows=ROWS, context=CONTEXT, precision=precision, adapter=adapter, accumulating=False)
    planned = memory.training_memory(read_shape(config), one)
    assert planned.total == pytest.approx(peak_of(token_steps(config, DTYPES[precision], lora)), rel=0.1)


@pytest.mark.parametrize("config", FAMILIES[::2], ids=said)
def test_gradients_wait_while_passes_are_added_up(config: dict[str, Any]) -> None:
    planned = memory.training_memory(read_shape(config), Pass(rows=ROWS, context=CONTEXT, precision="fp32"))
    assert planned.total == pytest.approx(peak_of(token_steps(config, torch.float32, False, passes=2)), rel=0.1)


def reward_steps(config: dict[str, Any], dtype: Any) -> Iterator[None]:
    model = RewardModel.from_causal(network(config, dtype), seed=0)
    objective = RewardObjective(model, None, center=0.0, micro_batch=ROWS, device=CPU)  # type: ignore[arg-type]
    optimizer = optimizer_of(objective)
    ids, mask = torch.randint(3, VOCAB, (2, ROWS, CONTEXT)), torch.ones((ROWS, CONTEXT), dtype=torch.bool)
    batch = PairBatch(
        chosen_ids=ids[0],
        rejected_ids=ids[1],
        chosen_mask=mask,
        rejected_mask=mask,
        prompt_lengths=torch.full((ROWS,), 10),
        pair_ids=torch.arange(ROWS),
    )
    for _ in range(2):
        trained(objective, [batch], optimizer)
        yield


@pytest.mark.parametrize("config", FAMILIES[::2], ids=said)
def test_a_step_on_pairs_peaks_where_it_was_planned(config: dict[str, Any]) -> None:
    one = Pass(rows=2 * ROWS, context=CONTEXT, precision="fp32", accumulating=False)
    planned = memory.training_memory(read_shape(config), one, reward=True)
    assert planned.total == pytest.approx(peak_of(reward_steps(config, torch.float32)), rel=0.1)


class Prompts:
    """As many prompts at every step."""

    def batch(self, step: int) -> Prompts:
        return self

    def token_lists(self) -> list[list[int]]:
        return [[3 + (row + column) % 300 for column in range(CONTEXT // 2)] for row in range(ROWS)]


def ppo_steps(config: dict[str, Any], dtype: Any) -> Iterator[None]:
    policy, reference = network(config, dtype), network(config, dtype)
    reward = RewardModel.from_causal(network(config, dtype), seed=0)
    objective = PPOObjective(
        Roles(policy=policy, value=new_value_model("reward", policy, reward), reference=reference, reward=reward),
        Prompts(),  # type: ignore[arg-type]
        recipe.PPO(completion_tokens=CONTEXT // 2, epochs=2),
        stop_ids=(),
        pad_id=0,
        micro_batch=ROWS,
        seed=0,
        process=Process(device=CPU),
    )
    optimizer = optimizer_of(objective)
    for step in range(2):
        for micro_batches in objective.updates(step):
            trained(objective, micro_batches, optimizer)
            yield


@pytest.mark.parametrize("config", FAMILIES[::2], ids=said)
def test_ppo_peaks_where_it_was_planned(config: dict[str, Any]) -> None:
    one = Pass(rows=ROWS, context=CONTEXT, precision="fp32", accumulating=False)
    planned = memory.ppo_memory(read_shape(config), one, rollout_rows=ROWS)
    assert planned.total == pytest.approx(peak_of(ppo_steps(config, torch.float32)), rel=0.1)

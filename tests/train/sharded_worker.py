"""Runs under torchrun: trains a tiny network with weights sharded by FSDP2 over gloo, and resumes it half-way.

Prints one JSON line from the main process: the losses, and a digest of the gathered weights.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig

from weightgate import recipe
from weightgate.data.batches import TokenBatch
from weightgate.train.checkpoints import weights_digest
from weightgate.train.loop import ResumeState, Settings, run
from weightgate.train.models import config_json, new_model, saved_tensors
from weightgate.train.objectives.tokens import TokenObjective

STEPS = 6
VOCABULARY, ROWS, CONTEXT = 128, 8, 16


class Sharded(Accelerator):
    """accelerate knows FSDP on accelerators only; on a CPU the same torch call is made here."""

    def prepare(self, objective: Any) -> Any:
        mesh = init_device_mesh("cpu", (self.num_processes,))
        for layer in objective.model.model.layers:
            fully_shard(layer, mesh=mesh)
        return fully_shard(objective, mesh=mesh)


class Batches:
    """Random rows by step; each process takes its share."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def batch(self, step: int) -> TokenBatch:
        ids = torch.randint(0, VOCABULARY, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(step))
        batch = TokenBatch(
            input_ids=ids,
            labels=ids.roll(-1, 1),
            position_ids=torch.arange(CONTEXT).expand(ROWS, CONTEXT).contiguous(),
            document_ids=torch.ones_like(ids),
        )
        return TokenBatch(**{name: rows[self.rank :: self.world].contiguous() for name, rows in vars(batch).items()})


def copied(state: ResumeState) -> ResumeState:
    """The state as a file would hold it: the loop goes on changing its tensors."""
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    return ResumeState(step=state.step, tensors=tensors, plain=json.loads(json.dumps(state.plain)))


def train(accelerator: Accelerator, resume: ResumeState | None, keep: list[ResumeState]) -> tuple[list[float], str]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(num_hidden_layers=2, vocab_size=VOCABULARY, tie_word_embeddings=True, **sizes)
    model = new_model(config_json(config), seed=0, device=torch.device("cpu"), precision="fp32")
    batches = Batches(accelerator.process_index, accelerator.num_processes)
    objective = TokenObjective(model, batches, micro_batch=ROWS, device=torch.device("cpu"))
    settings = Settings(
        steps=STEPS,
        optimizer=recipe.Optimizer(),
        schedule=recipe.Schedule(),
        precision="fp32",
        resume_seconds=0.0,
    )
    trained = run(objective, settings, accelerator, resume=resume, save=lambda state: keep.append(copied(state)))
    return [loss for _, loss in trained.curves["loss"]], weights_digest(saved_tensors(objective.model))


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    sharded = len(sys.argv) > 1 and sys.argv[1] == "sharded"
    accelerator = Sharded(cpu=True) if sharded else Accelerator(cpu=True)
    states: list[ResumeState] = []
    losses, digest = train(accelerator, None, states)
    halfway = next(state for state in states if state.step == STEPS // 2)
    _, resumed = train(accelerator, halfway, [])
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"losses": losses, "digest": digest, "resumed": resumed}))
    # Gloo's threads can abort a process that ends while another is still talking to it, or that Python tears down.
    accelerator.wait_for_everyone()
    accelerator.end_training()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""One of several processes that train a stage together over gloo; prints the loss of every step.

python loop_worker.py RECIPE     with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK set
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from weightgate.build import build_model, lock_contract, open_workspace
from weightgate.build.events import Observer, Progressed


class Losses(Observer):
    """Keeps the metrics of every step."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, float]]] = {}

    def stage_progress(self, name: str, progress: Progressed) -> None:
        self.found.setdefault(name, []).append(progress.metrics)


def main() -> None:
    torch.set_num_threads(1)
    workspace, losses = open_workspace(Path(sys.argv[1])), Losses()
    main_process = workspace.accelerator.is_main_process
    if main_process:
        lock_contract(workspace)
    workspace.accelerator.wait_for_everyone()
    build_model(workspace, until=None, start=None, restart=False, observer=losses)
    if main_process:
        print(json.dumps(losses.found))
    workspace.accelerator.end_training()


if __name__ == "__main__":
    main()

"""Sharded weights (FSDP2 over two gloo processes) train, save and resume like whole ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

WORKER = Path(__file__).with_name("sharded_worker.py")


def _run(*command: str) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


def test_sharded_weights_train_and_resume_like_whole_ones() -> None:
    whole = _run(sys.executable, str(WORKER))
    two = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d")
    sharded = _run(sys.executable, *two, "--rdzv_endpoint=localhost:0", str(WORKER), "sharded")
    assert sharded["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert whole["resumed"] == whole["digest"]
    assert sharded["resumed"] == sharded["digest"]

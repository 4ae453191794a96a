"""What decides the last bits of a result, and the switches that hold it still.

Two runs are compared bit for bit only inside one reproducibility class: the same builds of the libraries, thread
count, instruction set, dtype, device and number of processes. Another thread count alone changes the digest of the
weights while the loss agrees to six decimals.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
from typing import Any

import numpy as np
import torch
import transformers

from weightgate.errors import ModelError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of the C library's `mallopt`."""

CODE_VERSION = 5
"""Raised whenever a change to this room changes the weights that the same inputs give."""


def reproducibility_class(*, device: torch.device, precision: str, world_size: int, compiled: bool) -> dict[str, Any]:
    """Describe the machine and libraries as integers and strings, ready for a manifest."""
    described = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "mkl": os.environ.get("MKL_CBWR", "default"),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "device": device.type,
        "processes": world_size,
        "compiled": int(compiled),
    }
    if device.type == "cuda":
        described |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return described


def choose_device(wanted: str) -> torch.device:
    """Turn the recipe's `device` into a torch device. Raises `ModelError` when it is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            "the device cannot be used", where="device", found=f"{wanted}: {error}".splitlines()[0], mend="device: auto"
        ) from None
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve `auto`: bf16 where the hardware multiplies it natively, fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu":
        return "bf16" if _cpu_multiplies_bf16() else "fp32"
    return "fp32"


def _cpu_multiplies_bf16() -> bool:
    """True where the CPU multiplies bf16 matrices faster than fp32 ones: AMX on x86, the bf16 extension of Arm.

    With avx512_bf16 alone the products run at half the speed of fp32 (165 against 300 GFLOP/s on two cores).
    """
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "bf16"))


def keep_freed_memory() -> None:
    """Let the allocator keep up to 1 GiB that tensors gave back, where it is glibc's.

    Otherwise every step returns its activations to the system and faults them in again, page by page: 4 % of a step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def hold_still(seed: int, threads: int | None) -> None:
    """Seed every generator and ask for deterministic kernels."""
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it has not written, so filling it first is a pass for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Every global generator's state: tensors for torch, plain data for Python and numpy."""
    tensors = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"rng.cuda.{index}"] = state
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    plain = {
        "python": [version, list(internal), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }
    return tensors, plain


def restore_generator_states(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    """Restore what `generator_states` returned. Nothing may reseed afterwards."""
    torch.set_rng_state(tensors["rng.torch"])
    for name, state in tensors.items():
        if name.startswith("rng.cuda."):
            torch.cuda.set_rng_state(state, int(name.rsplit(".", 1)[1]))
    version, internal, gauss = plain["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))

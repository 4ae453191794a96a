"""Weights sharded over processes (FSDP2), seen whole: gathered to be saved, cut to be restored.

On one process, and under plain data parallelism, a tensor is its own whole.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor with every process's part in it. Every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's view of a whole tensor, cut as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def storage_of(tensor: Tensor) -> int:
    """Where the tensor's own part lies in memory; tied tensors share it."""
    return tensor.to_local().data_ptr() if isinstance(tensor, DTensor) else tensor.data_ptr()

"""Rotary positions (Su et al. 2021) as one complex product over queries and keys together.

A head's numbers i and i + D / 2 are turned as one complex number, by an angle that grows with the position. The rows of
the weights are put in pairs first, so that the two numbers lie side by side; attention multiplies queries with keys,
which are both in that order. A gradient turns back: slope * conj(turn).

Shapes: B rows (1 where all have the same positions), T positions, D width of a head, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Complex factors (B, T, (heads + groups) * D / 2) of queries, then keys: `forward`, and `back` for gradients.

    `width` is D. The scale of attention is in those of queries.
    """

    width: int
    forward: Tensor
    back: Tensor


class Places(tuple[Tensor, Tensor]):
    """Cosines and sines (B, T, D) as decoders hand them to every layer, and the turns that the first one made."""

    turns: Turns | None = None


def quicken_places(rotary: Any) -> None:
    """Let a decoder's rotary module give `Places`, so that turns are made once and not in every layer."""
    rotary.forward = MethodType(_places_forward, rotary)


def _places_forward(module: Any, *inputs: Any, **named: Any) -> tuple[Tensor, Tensor]:
    places: tuple[Tensor, Tensor] = type(module).forward(module, *inputs, **named)
    return places if torch.compiler.is_compiling() else Places(places)


def turns_of(cosines: Tensor, sines: Tensor, *, heads: int, groups: int, scale: float) -> Turns:
    """The turns of so many heads of queries and groups of keys, from cosines and sines (B, T, D)."""
    width = cosines.shape[-1]
    once = torch.complex(*(part[..., None, : width // 2].float().contiguous() for part in (cosines, sines)))
    forward = once.repeat(1, 1, heads + groups, 1)
    forward[:, :, :heads] *= scale
    return Turns(width=width, forward=forward.flatten(2), back=forward.conj_physical().flatten(2))


def turn(states: Tensor, turns: Tensor) -> None:
    """Turn states (B, T, heads * D), pairs side by side, in place."""
    if states.dtype == torch.float32:
        _as_complex(states).mul_(turns)
    else:
        states.copy_(torch.view_as_real(_as_complex(states.float()).mul_(turns)).flatten(2))


def _as_complex(states: Tensor) -> Tensor:
    """(..., heads * D) seen as (..., heads * D / 2) complex numbers."""
    return torch.view_as_complex(states.unflatten(-1, (-1, 2)))


def paired(weight: Tensor, width: int) -> Tensor:
    """Rows (heads * D, H) with i and i + D / 2 of each head side by side."""
    return weight.view(-1, 2, width // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def unpaired(weight: Tensor, width: int) -> Tensor:
    """Inverse of `paired`."""
    return weight.reshape(-1, width // 2, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)

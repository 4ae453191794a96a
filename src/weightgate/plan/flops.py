"""Parameters and floating-point operations of a decoder, counted from its shape.

Conventions, the same everywhere here:

- One multiply-add is two FLOPs; only matrix products count (norms, softmax, rotary embedding and the optimizer are
  below one percent for any width that is trained in earnest).
- A matrix of P parameters costs 2 P FLOPs a token forward and twice that backward (Kaplan et al. 2020, section 2.1), so
  training is three times forward. Looking up an embedding costs nothing; the output head costs 2 h V whether or not it
  shares its weights with the embedding.
- Attention over s positions costs 4 s q a token and layer, q being the width of all query heads: scores and weighted
  sum. `full` counts the whole s x s square, which is what plain attention executes; `causal` counts the positions that
  are looked at, which is what a fused kernel executes and what model FLOPs utilisation is best measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weightgate.plan.shapes import Shape
from weightgate.recipe import Adapter

Attention = Literal["full", "causal"]

TRAINING_FACTOR = 3
"""Forward, gradient of the inputs, gradient of the weights: each as many FLOPs as the other."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters by part. `head` is 0 where the head shares its weights with the embedding."""

    embedding: int
    positions: int
    attention: int
    mlp: int
    norms: int
    head: int

    @property
    def body(self) -> int:
        """Everything between embedding and head: the N of Kaplan et al. 2020, which leaves embeddings out."""
        return self.attention + self.mlp + self.norms

    @property
    def total(self) -> int:
        """Every parameter, shared ones once: the N of Hoffmann et al. 2022."""
        return self.embedding + self.positions + self.body + self.head


def parameters(shape: Shape) -> Parameters:
    """Count the parameters of a causal language model of this shape; exact for every type in `shapes.FAMILIES`."""
    embedding = shape.vocab_size * shape.hidden_size
    norm = shape.hidden_size * (2 if shape.family.norm_bias else 1)
    norms = shape.num_layers * shape.family.norms_per_layer * norm + norm
    if shape.family.head_norms:
        norms += shape.num_layers * 2 * shape.head_dim
    return Parameters(
        embedding=embedding,
        positions=shape.num_positions * shape.hidden_size,
        attention=shape.num_layers * (attention_matrices(shape) + _attention_biases(shape)),
        mlp=shape.num_layers * (mlp_matrices(shape) + _mlp_biases(shape)),
        norms=norms,
        head=0 if shape.tied_head else embedding,
    )


def reward_parameters(shape: Shape) -> int:
    """Count the parameters of a reward (or value) model: no language head, one score row without bias."""
    counted = parameters(shape)
    return counted.total - counted.head + shape.hidden_size


def attention_matrices(shape: Shape) -> int:
    """Weights of query, key, value and output projection of one layer, without biases."""
    return 2 * shape.hidden_size * (shape.query_size + shape.key_value_size)


def mlp_matrices(shape: Shape) -> int:
    """Weights of the two (gated: three) matrices of one layer's MLP, without biases."""
    return (3 if shape.family.gated_mlp else 2) * shape.hidden_size * shape.intermediate_size


def _attention_biases(shape: Shape) -> int:
    inputs = shape.query_size + 2 * shape.key_value_size if shape.qkv_bias else 0
    return inputs + (shape.hidden_size if shape.output_bias else 0)


def _mlp_biases(shape: Shape) -> int:
    if not shape.mlp_bias:
        return 0
    return (2 if shape.family.gated_mlp else 1) * shape.intermediate_size + shape.hidden_size


@dataclass(frozen=True, kw_only=True)
class TokenFlops:
    """Forward FLOPs a token, by part; the context is averaged over."""

    matrices: float
    attention: float
    head: float

    @property
    def forward(self) -> float:
        """All three parts."""
        return self.matrices + self.attention + self.head

    @property
    def training(self) -> float:
        """Forward and backward, every parameter trained."""
        return TRAINING_FACTOR * self.forward


def token_flops(shape: Shape, context: int, *, attention: Attention = "full", head: bool = True) -> TokenFlops:
    """FLOPs a token of one forward pass over rows of `context` tokens.

    Args:
        context: tokens a row; under `full` every token meets all of them.
        attention: see the module's conventions. Sliding windows only count under `causal`.
        head: False for a reward or value model, whose score row counts 2 h.
    """
    per_layer = attention_matrices(shape) + mlp_matrices(shape)
    seen = sum(_positions_seen(context, window, attention) for window in shape.windows)
    return TokenFlops(
        matrices=2.0 * shape.num_layers * per_layer,
        attention=4.0 * shape.query_size * seen,
        head=2.0 * shape.hidden_size * (shape.vocab_size if head else 1),
    )


def training_flops_by_convention(shape: Shape, context: int) -> dict[str, float]:
    """Training FLOPs a token as different sources count them; every law and report must say which it means.

    At the size of a toy the largest is several times the smallest; from a billion parameters on they agree within a
    few percent.
    """
    counted, full = parameters(shape), token_flops(shape, context)
    causal = token_flops(shape, context, attention="causal")
    matrices = TRAINING_FACTOR * full.matrices
    return {
        "6 N, N without embeddings and head (Kaplan et al. 2020)": 2.0 * TRAINING_FACTOR * counted.body,
        "6 N, N all parameters (Hoffmann et al. 2022)": 2.0 * TRAINING_FACTOR * counted.total,
        "matrices and head (Porian et al. 2024)": matrices + TRAINING_FACTOR * full.head,
        "matrices, head and causal attention": causal.training,
        "matrices, head and full attention: what is computed here": full.training,
    }


def _positions_seen(context: int, window: int | None, attention: Attention) -> float:
    """Mean number of positions a token's query meets in a row of `context` tokens."""
    if attention == "full":
        return float(context)
    reach = min(context, window or context)
    return (reach * (reach + 1) / 2 + (context - reach) * reach) / context


def adapter_parameters(shape: Shape, adapter: Adapter) -> int:
    """Trainable parameters of a LoRA adapter: rank x (inputs + outputs) a target matrix (Hu et al. 2021, section 4)."""
    return shape.num_layers * sum(
        adapter.rank * (rows + columns) for rows, columns in _targets(shape, adapter).values()
    )


def _targets(shape: Shape, adapter: Adapter) -> dict[str, tuple[int, int]]:
    """Name, inputs and outputs of every matrix of one layer that the adapter sits on; a target is the end of a name."""
    matrices = _layer_matrices(shape)
    if adapter.targets == "all-linear":
        return matrices
    ends = tuple(f".{target}" for target in adapter.targets)
    return {name: size for name, size in matrices.items() if f".{name}".endswith(ends)}


def _layer_matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    hidden, wide = shape.hidden_size, shape.intermediate_size
    query, key_value = shape.query_size, shape.key_value_size
    if not shape.family.gated_mlp:
        return {
            "attn.c_attn": (hidden, query + 2 * key_value),
            "attn.c_proj": (query, hidden),
            "mlp.c_fc": (hidden, wide),
            "mlp.c_proj": (wide, hidden),
        }
    return {
        "self_attn.q_proj": (hidden, query),
        "self_attn.k_proj": (hidden, key_value),
        "self_attn.v_proj": (hidden, key_value),
        "self_attn.o_proj": (query, hidden),
        "mlp.gate_proj": (hidden, wide),
        "mlp.up_proj": (hidden, wide),
        "mlp.down_proj": (wide, hidden),
    }


def adapter_inputs(shape: Shape, adapter: Adapter) -> tuple[int, int]:
    """Widths of what one layer's adapters read: of the distinct inputs together, and of every adapter's own."""
    shared, each = {}, 0
    for name, (rows, _) in _targets(shape, adapter).items():
        shared[_INPUTS.get(name.rpartition(".")[2], name)] = rows
        each += rows
    return sum(shared.values()), each


_INPUTS = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "gate_proj": "mlp", "up_proj": "mlp"}
"""Matrices that read one and the same input."""


def adapter_training_flops(shape: Shape, context: int, adapter: Adapter, *, attention: Attention = "full") -> float:
    """FLOPs a token of training a LoRA adapter.

    The frozen matrices need no gradient of their weights, so they cost two thirds of full training; attention and the
    adapter's own matrices cost the whole three. The first layer's input needs no gradient either, which saves the
    backward pass of its query, key and value projections (and of its attention as well where no adapter sits on them,
    which is not counted off: less than one layer's share). QLoRA costs the same and de-quantisation on top, which is
    no matrix product.
    """
    base = token_flops(shape, context, attention=attention)
    small = 2.0 * adapter_parameters(shape, adapter)
    first = 2.0 * shape.hidden_size * (shape.query_size + 2 * shape.key_value_size)
    first += 2.0 * adapter.rank * _first_inputs(shape, adapter)
    return 2 * (base.matrices + base.head) + TRAINING_FACTOR * (base.attention + small) - first


def _first_inputs(shape: Shape, adapter: Adapter) -> int:
    """Rows of the first layer's A matrices whose input is the embedding itself."""
    at_input = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "attn.c_attn"}
    return shape.hidden_size * len(at_input.intersection(_targets(shape, adapter)))


def reward_training_flops(shape: Shape, context: int, *, attention: Attention = "full") -> float:
    """FLOPs a token of training a Bradley-Terry reward model; a pair is two rows."""
    return token_flops(shape, context, attention=attention, head=False).training


@dataclass(frozen=True, kw_only=True)
class PPOFlops:
    """FLOPs of one episode of PPO by pass: what is spent before the update, and the update itself."""

    rollout: float
    reference: float
    reward: float
    value: float
    update: float

    @property
    def total(self) -> float:
        """All passes of one episode."""
        return self.rollout + self.reference + self.reward + self.value + self.update


def ppo_episode_flops(
    shape: Shape, *, prompt_tokens: int, completion_tokens: int, epochs: int, attention: Attention = "causal"
) -> PPOFlops:
    """FLOPs of one episode: one prompt, one completion, `epochs` passes over it.

    The rollout is one forward pass over prompt and completion, since a key-value cache computes each token once, but
    for the last one, which is never read; it always counts causally, and the head only where a token is drawn.
    Reference, reward model and value model each read the whole row once before the update. The update trains policy and
    value model on it `epochs` times.
    """
    length = prompt_tokens + completion_tokens
    read = max(1, length - 1)
    rollout = token_flops(shape, read, attention="causal")
    policy = token_flops(shape, length, attention=attention)
    scored = token_flops(shape, length, attention=attention, head=False)
    return PPOFlops(
        rollout=read * (rollout.matrices + rollout.attention) + completion_tokens * rollout.head,
        reference=length * policy.forward,
        reward=length * scored.forward,
        value=length * scored.forward,
        update=epochs * length * (policy.training + scored.training),
    )

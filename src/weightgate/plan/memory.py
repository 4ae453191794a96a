"""Peak memory of one process of a stage, by part, from the shape of the model.

What is kept for the backward pass is counted tensor by tensor for the networks of `transformers`, in fp32 and bf16;
a test holds the count against what torch really keeps. Not counted: the allocator's own loss, kernels' workspaces and
the interpreter, which together take several hundred MiB whatever the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from weightgate.plan.flops import adapter_inputs, adapter_parameters, parameters, reward_parameters
from weightgate.plan.shapes import Shape
from weightgate.recipe import Adapter
from weightgate.train.limits import LOGIT_ROWS, LOGITS_AT_ONCE

Precision = Literal["fp32", "bf16", "bf16-autocast"]
Kernel = Literal["matmul", "fused"]

ATTENTION_BLOCK = 64
"""Query positions of a block of the `matmul` kernel; a test holds it to `train.attention.BLOCK`."""

_MASTER_BYTES = 4
"""Master weights, the gradients added up on them, and each of the two moments of AdamW: fp32, always."""
_PACKED_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A 4-bit weight, its block's 8-bit scale (blocks of 64) and the scale of 256 scales (Dettmers et al. 2023)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes by part. `activations` are those kept for the backward pass, `logits` the largest chunk of them.

    `accumulating`: an optimizer step takes several passes, so that gradients wait while the next one fills activations.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    key_value_cache: int = 0
    accumulating: bool = True

    @property
    def total(self) -> int:
        """The peak: all parts at once, but a cache and activations never are, since rollouts end before updates.

        In the only pass of a step, gradients come as activations go: the larger of both counts.
        """
        kept = max(self.activations + self.logits, self.key_value_cache)
        passing = self.gradients + kept if self.accumulating else max(self.gradients, kept)
        return self.weights + self.optimizer + passing


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward and backward pass of one process.

    Fields:
        rows, context: rows of a pass and tokens of a row, padding included.
        checkpointing: every layer keeps its input only and is computed again (Chen et al. 2016).
        adapter: what is trained on frozen weights; None: the weights themselves.
        accumulating: whether an optimizer step takes several such passes.
    """

    rows: int
    context: int
    precision: Precision
    kernel: Kernel = "matmul"
    checkpointing: bool = False
    adapter: Adapter | None = None
    accumulating: bool = True


def weight_bytes(precision: Precision) -> int:
    """Bytes of one weight as the network holds it."""
    return 2 if precision == "bf16" else 4


def compute_bytes(precision: Precision) -> int:
    """Bytes of one activation."""
    return 4 if precision == "fp32" else 2


def layer_activation_bytes(shape: Shape, one: Pass) -> int:
    """Bytes a token that one layer keeps for the backward pass, in a row of `one.context` tokens.

    With b bytes an activation, h the hidden size, q and k the widths of query and key heads, a heads, f the MLP's inner
    width: inputs of the matrices 2 b h + b q + b f; the gated MLP's gate, its activation and up projection 3 b f, or
    the four steps of GELU 4 b f; each norm its fp32 input and (b or 4) normalised values; queries, keys and values; and
    under `matmul` the attention weights up to the diagonal's blocks, which `fused` kernels compute again. Korthikanti
    et al. 2022, section 4.1, count the same for one network in fp16.

    Frozen weights need no gradient, so with an adapter neither their inputs nor the norms' results are kept; the
    adapters keep theirs, in the format of their own weights.
    """
    width = compute_bytes(one.precision)
    if one.adapter is None:
        inputs = width * (2 * shape.hidden_size + shape.query_size + shape.intermediate_size)
    else:
        inputs = _adapter_input_bytes(shape, one.precision, one.adapter)
    inner = width * (3 if shape.family.gated_mlp else 4) * shape.intermediate_size
    attention = _attention_bytes(shape, one.context, width, one.kernel)
    return inputs + inner + attention + _norm_bytes(shape, width, frozen=one.adapter is not None)


def _adapter_input_bytes(shape: Shape, precision: Precision, adapter: Adapter) -> int:
    """What adapters on one layer keep a token: what they read, one copy each where it is cast for them."""
    distinct, each = adapter_inputs(shape, adapter)
    if precision == "fp32":
        return _MASTER_BYTES * distinct
    return (_MASTER_BYTES if precision == "bf16" else compute_bytes(precision)) * each


def _attention_bytes(shape: Shape, context: int, width: int, kernel: Kernel) -> int:
    grouped = shape.num_key_value_heads < shape.num_heads
    if kernel == "fused":
        return width * (shape.query_size + 2 * shape.key_value_size) + 4 * shape.num_heads
    repeated = shape.query_size if grouped else shape.key_value_size
    return width * (shape.query_size + 2 * repeated) + round(width * shape.num_heads * _keys_kept(context))


def _keys_kept(context: int) -> float:
    """Attention weights kept for each query and head: a block of queries looks at the keys up to its own end."""
    ends = [min(start + ATTENTION_BLOCK, context) for start in range(0, context, ATTENTION_BLOCK)]
    return sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False)) / context


def _norm_bytes(shape: Shape, width: int, *, frozen: bool) -> int:
    """Norms over the hidden size and over the heads. RMS norms compute in fp32; Gemma's keep fp32 results as well."""
    if shape.family.norm_bias:
        return shape.family.norms_per_layer * width * (shape.hidden_size + 2)
    result = 0 if frozen else 4 if shape.model_type.startswith("gemma") else width
    hidden = shape.family.norms_per_layer * ((4 + result) * shape.hidden_size + 4)
    if not shape.family.head_norms:
        return hidden
    heads = shape.num_heads + shape.num_key_value_heads
    return hidden + (4 + result) * heads * shape.head_dim + 4 * heads


def activation_bytes(shape: Shape, one: Pass) -> int:
    """Bytes kept for the backward pass, the loss apart.

    With activation checkpointing one layer at a time is computed again, beside every layer's input.
    """
    layer = layer_activation_bytes(shape, one)
    width = compute_bytes(one.precision)
    final_norm = (4 + (2 if one.adapter is None else 1) * width) * shape.hidden_size + 4
    every_layer = shape.num_layers * (width * shape.hidden_size if one.checkpointing else layer)
    per_token = every_layer + (layer if one.checkpointing else 0)
    return one.rows * one.context * (per_token + final_norm)


def logit_bytes(shape: Shape, *, rows: int, context: int, precision: Precision) -> int:
    """Bytes of the largest chunk of logits, whose softmax and gradient are taken in place.

    In fp32 that is one array; else there is a copy in the format of the activations, before and after.
    """
    elements = min(rows * context * shape.vocab_size, max(LOGITS_AT_ONCE, LOGIT_ROWS * shape.vocab_size))
    return elements * (4 if precision == "fp32" else 4 + compute_bytes(precision))


def key_value_cache_bytes(shape: Shape, *, rows: int, context: int, precision: Precision) -> int:
    """Bytes of the keys and values of every token of `rows` rows; whole rows even where a window is shorter."""
    return 2 * shape.num_layers * shape.key_value_size * rows * context * compute_bytes(precision)


def training_memory(shape: Shape, one: Pass, *, reward: bool = False) -> Memory:
    """Memory of one process that trains a language model (or reward model).

    Trained weights take their own bytes, an fp32 master copy where they are not fp32 themselves, fp32 gradients on the
    masters, the gradients of the pass itself, and two fp32 moments.
    """
    precision, adapter = one.precision, one.adapter
    total = reward_parameters(shape) if reward else parameters(shape).total
    trained = total if adapter is None else adapter_parameters(shape, adapter)
    own = weight_bytes(precision) if adapter is None else _MASTER_BYTES
    masters = 0 if own == _MASTER_BYTES else _MASTER_BYTES
    return Memory(
        weights=_held_weights(shape, total, precision, adapter) + trained * masters,
        gradients=trained * (own + masters),
        optimizer=trained * 2 * _MASTER_BYTES,
        activations=activation_bytes(shape, one),
        logits=0 if reward else logit_bytes(shape, rows=one.rows, context=one.context, precision=precision),
        accumulating=one.accumulating,
    )


def _held_weights(shape: Shape, total: int, precision: Precision, adapter: Adapter | None) -> int:
    """Bytes of the network's weights. Adapters are fp32; a 4-bit base keeps embedding, head and norms unpacked."""
    width = weight_bytes(precision)
    if adapter is None:
        return total * width
    added = adapter_parameters(shape, adapter) * _MASTER_BYTES
    if adapter.bits != 4:
        return total * width + added
    counted = parameters(shape)
    packed = counted.attention + counted.mlp
    return int(packed * _PACKED_BYTES) + (total - packed) * width + added


def ppo_memory(shape: Shape, one: Pass, *, rollout_rows: int) -> Memory:
    """Memory of one process of PPO: policy and value model trained, reward model and reference held.

    With an adapter the reference is the policy without it, so it takes nothing. `rollout_rows` completions are
    generated at once, `one.rows` of them trained on a pass.
    """
    policy = training_memory(shape, one)
    value = training_memory(shape, replace(one, adapter=None), reward=True)
    width = weight_bytes(one.precision)
    held = reward_parameters(shape) * width + (parameters(shape).total * width if one.adapter is None else 0)
    cache = key_value_cache_bytes(shape, rows=rollout_rows, context=one.context, precision=one.precision)
    return Memory(
        weights=policy.weights + value.weights + held,
        gradients=policy.gradients + value.gradients,
        optimizer=policy.optimizer + value.optimizer,
        activations=policy.activations + value.activations,
        logits=policy.logits,
        key_value_cache=cache,
        accumulating=one.accumulating,
    )

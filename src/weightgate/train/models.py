"""Networks: made from a configuration, loaded from tensors or a Hugging Face folder, and called the same way.

Shapes: B rows, T positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import ModelError
from weightgate.recipe import Architecture, Base
from weightgate.store import TensorData
from weightgate.train.attention import attention_for
from weightgate.train.last_layer import quicken_last_layer, states_read
from weightgate.train.layers import quicken_layers
from weightgate.train.norms import quicken_norms
from weightgate.train.sharding import storage_of, whole

_TO_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_FROM_TORCH = {dtype: name for name, dtype in _TO_TORCH.items()}

DTYPE_OF_PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16-autocast": torch.float32}

_BASE_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"]
"""What a base model is downloaded for: weights, configuration and tokenizer, never code or pickles."""


def new_config(architecture: Architecture, tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    """Make a transformers configuration as plain data.

    Raises `ModelError` for a type or key that transformers does not know: it would keep an unknown key silently.
    """
    try:
        known = AutoConfig.for_model(architecture.type)
    except (ValueError, KeyError) as error:
        raise ModelError(
            "unknown architecture", where="architecture.type", found=architecture.type, expected=str(error)[:200]
        ) from None
    allowed = set(known.to_dict()) | {"tie_word_embeddings", "attention_bias", "rope_theta"}
    for key in architecture.config:
        if key not in allowed:
            raise ModelError(
                f"{architecture.type} has no setting {key!r}",
                where=f"architecture.config.{key}",
                expected="one of " + ", ".join(sorted(allowed)),
            )
    sizes: dict[str, Any] = {"max_position_embeddings": context, "tie_word_embeddings": True} | architecture.config
    config = AutoConfig.for_model(
        architecture.type,
        **sizes,
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    return config_json(config)


def config_json(config: Any) -> dict[str, Any]:
    """Plain data of a transformers configuration, without what differs between equal models."""
    described: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for volatile in ("transformers_version", "_name_or_path", "_attn_implementation", "dtype", "torch_dtype"):
        described.pop(volatile, None)
    return described


def new_model(config: Mapping[str, Any], *, seed: int, device: torch.device, precision: str) -> PreTrainedModel:
    """Build a network with seeded random weights, drawn in fp32 whatever the precision."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        _config_object(config), attn_implementation=attention_for(device), dtype=torch.float32
    )
    return quickened(cast_weights(model.to(device), DTYPE_OF_PRECISION[precision])).eval()


def load_model(
    config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]], *, device: torch.device, precision: str
) -> PreTrainedModel:
    """Build the network that `config` describes and fill it. Raises `ModelError` unless names and shapes match."""
    model = AutoModelForCausalLM.from_config(
        _config_object(config), attn_implementation=attention_for(device), dtype=torch.float32
    )
    model = cast_weights(model.to(device), DTYPE_OF_PRECISION[precision])
    fill(model, tensors)
    return quickened(model).eval()


def quickened(model: PreTrainedModel) -> PreTrainedModel:
    """The model with our quicker forms of what it computes, on the devices where they are quicker."""
    if model.device.type == "cpu":
        quicken_norms(model)
        quicken_layers(model.get_decoder())
        quicken_last_layer(model.get_decoder())
    return model


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast parameters but not buffers: rotary frequencies in bf16 would move every position."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model


def skeleton(config: Mapping[str, Any]) -> Any:
    """The network that `config` describes without memory behind it, for counting."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_config_object(config))


def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy named tensors into a model's parameters. Raises `ModelError` on a missing, extra or misshapen one."""
    wanted = dict(saved_tensors(model))
    with torch.no_grad():
        for name, tensor in tensors:
            target = wanted.pop(name, None)
            if target is None:
                raise ModelError(f"the checkpoint has a tensor the model does not: {name}", where=name)
            if target.shape != tensor.shape:
                raise ModelError(
                    "a tensor has another shape",
                    where=name,
                    expected=str(tuple(target.shape)),
                    found=str(tuple(tensor.shape)),
                )
            target.copy_(tensor)
    if wanted:
        raise ModelError(f"the checkpoint lacks {len(wanted)} tensors", where=next(iter(wanted)))


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that make a checkpoint: the state dict with every tied tensor once, sorted by name."""
    seen: set[tuple[int, torch.Size]] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in sorted(model.state_dict().items(), key=lambda item: (_is_output(item[0]), item[0])):
        identity = (storage_of(tensor), tensor.shape)
        if tensor.numel() and identity in seen:
            continue
        seen.add(identity)
        kept[name] = whole(tensor.detach())
    return dict(sorted(kept.items()))


def _is_output(name: str) -> bool:
    """Tied weights are kept under the embedding's name, the one transformers looks for."""
    return name.split(".")[0] in {"lm_head", "embed_out"}


def load_base(base: Base, root: Path, *, device: torch.device, precision: str | None) -> Any:
    """Load a causal language model from a Hugging Face folder or hub id; without a precision, in its own dtypes.

    Code that comes with a model is never run. Raises `ModelError` when it cannot be loaded as a causal model.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base_folder(base, root),
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=attention_for(device),
            dtype="auto" if precision is None else DTYPE_OF_PRECISION[precision],
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            "the base model cannot be loaded",
            where=f"base.model: {base.model}",
            expected="a folder or hub id with config.json and safetensors weights of a causal language model",
            found=str(error).splitlines()[0][:300],
        ) from None
    return quickened(model.to(device)).eval()


def base_folder(base: Base, root: Path) -> Path:
    """The folder of a base model: itself, relative to `root`, or the snapshot of a hub id.

    Raises `ModelError` when it is neither.
    """
    folder = root / base.model
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(base.model, revision=base.revision, allow_patterns=_BASE_FILES))
    except (OSError, ValueError) as error:
        raise ModelError(
            "the base model is neither a folder nor to be had from the hub",
            where=f"base.model: {base.model}",
            found=str(error).splitlines()[0][:300],
        ) from None


def base_weight_files(base: Base, root: Path) -> list[Path]:
    """The weight files of a base model."""
    return sorted(base_folder(base, root).glob("*.safetensors"))


def base_config(base: Base, root: Path) -> dict[str, Any]:
    """The configuration of a base model. Raises `ModelError` when transformers does not know its type."""
    folder = base_folder(base, root)
    try:
        return config_json(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            "the base model's config.json cannot be read", where=str(folder), found=str(error).splitlines()[0][:300]
        ) from None


def _config_object(config: Mapping[str, Any]) -> Any:
    plain = {key: value for key, value in config.items() if key != "model_type"}
    return AutoConfig.for_model(config["model_type"], **plain)


def to_store(tensors: Mapping[str, Tensor]) -> dict[str, TensorData]:
    """Turn tensors into the store's form: dtype name, shape and raw little-endian bytes."""
    return {name: _tensor_data(tensor) for name, tensor in tensors.items()}


def _tensor_data(tensor: Tensor) -> TensorData:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return TensorData(dtype=_FROM_TORCH[tensor.dtype], shape=tuple(tensor.shape), data=memoryview(raw))


def from_store(data: TensorData) -> Tensor:
    """Inverse of `to_store` for one tensor; the bytes are copied."""
    flat = torch.frombuffer(bytearray(data.data), dtype=_TO_TORCH[data.dtype]) if data.shape.count(0) == 0 else None
    if flat is None:
        return torch.empty(data.shape, dtype=_TO_TORCH[data.dtype])
    return flat.reshape(data.shape)


def block_mask(document_ids: Tensor, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """Additive mask (B, 1, T, T) from document ids (B, T): causal, and blind to every other document in the row.

    Padding (id 0) attends to itself only in effect: its output is never supervised.
    """
    positions = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    causal = torch.ones(positions, positions, dtype=torch.bool, device=document_ids.device).tril()
    if window is not None:
        causal &= ~causal.tril(-window)
    allowed = same & causal
    mask = torch.zeros(allowed.shape, dtype=dtype, device=document_ids.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def core_of(model: Any) -> Any:
    """The causal language model itself, without the wrapper of its adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_of(model: Any) -> Any:
    """The network below the output layer, adapters included."""
    return core_of(model).get_decoder()


def hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, document_ids: Tensor, read: Tensor | None = None
) -> Tensor:
    """Last hidden states of a causal language model's decoder for packed rows; see `decoder_states`."""
    return decoder_states(decoder_of(model), input_ids, position_ids, document_ids, read)


def decoder_states(
    decoder: Any, input_ids: Tensor, position_ids: Tensor, document_ids: Tensor, read: Tensor | None = None
) -> Tensor:
    """Last hidden states (B, T, H) of a decoder for packed rows, or (M, H) at `read` (M), places among the B * T."""
    dtype = torch.get_autocast_dtype(input_ids.device.type) if torch.is_autocast_enabled() else decoder.dtype
    mask: Any = block_mask(document_ids, dtype)
    layer_types = set(getattr(decoder.config, "layer_types", None) or [])
    if "sliding_attention" in layer_types:
        sliding = block_mask(document_ids, dtype, window=decoder.config.sliding_window)
        mask = {"full_attention": mask, "sliding_attention": sliding}
    inputs = {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": mask}
    if read is not None:
        return states_read(decoder, read, **inputs)
    hidden: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
    return hidden


def head_weight(model: Any) -> Tensor | None:
    """The weight (V, H) when logits are exactly `hidden @ weight.T`; None when the head does more than that."""
    core = core_of(model)
    head: Any = core.get_output_embeddings()
    extras = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None:
        return None
    if any(getattr(core.config, extra, None) not in (None, 1, 1.0) for extra in extras):
        return None
    weight: Tensor = head.weight
    return weight


def logits_of(model: Any, hidden_nh: Tensor) -> Tensor:
    """Logits (N, V) for hidden states, in the dtype of the output layer, with whatever the model does to them after."""
    core = core_of(model)
    logits: Tensor = core.get_output_embeddings()(hidden_nh)
    softcap = getattr(core.config, "final_logit_softcapping", None)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    scale = getattr(core.config, "logits_scaling", None)
    if scale:
        logits = logits / scale
    scale = getattr(core.config, "logit_scale", None)
    return logits * scale if scale else logits

"""LoRA, rsLoRA and QLoRA through PEFT: attach, count, check, save, load and merge.

`y = W x + s B (A x)` with `s = alpha / rank` (Hu et al. 2021, section 4.1) or, rank-stabilised,
`s = alpha / sqrt(rank)` (Kalajdzievski 2023, theorem 3.2). B starts at zero, so a fresh adapter changes nothing: see
`check_starts_at_base`.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weightgate.errors import ModelError, TrainingStopped
from weightgate.recipe import Adapter
from weightgate.train.sampling import evaluating

try:
    import bitsandbytes
except ImportError:
    bitsandbytes = None

_ADAPTER = "default"
"""The name PEFT gives an adapter that was not named."""
_SCORE_HEAD = "score"
"""The head of a reward model is never a target: it is new, so it is trained whole and saved with the adapter."""
_LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True, kw_only=True)
class TrainableCensus:
    """What a stage trains: parameter names in the model's order, how many numbers they hold, of how many, and share.

    A 4-bit weight counts as the numbers it stands for, not as the bytes it is packed in.
    """

    names: tuple[str, ...]
    count: int
    total: int

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all."""
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """An adapter without its base: tensors by PEFT's names, PEFT's configuration, and the digest of the base.

    PEFT records the base by name only, and a name can stand for other weights tomorrow.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    base_digest: str

    def config_bytes(self) -> bytes:
        """Return the content of `adapter_config.json`."""
        return json.dumps(dict(self.config), indent=2, sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class MergeError:
    """Largest absolute difference of a logit between the adapter in fp32 and the merged model, in two dtypes.

    `fp32` shows whether the merge is right; `stored` is what rounding the merged weights to `stored_dtype` costs.
    """

    fp32: float
    stored: float
    stored_dtype: str


def attach(model: Any, adapter: Adapter, seed: int) -> PeftModel:
    """Put a fresh adapter on a model and freeze everything else. A is drawn from `seed`, B is zero.

    The global generator is left as it was. With `bits: 4` the model's matrices are packed to NF4 first.

    Raises `ModelError` for unknown targets (naming the nearest modules there are), a rank that a target's matrix cannot
    have, an adapter that trains nothing or everything, and 4 bits where they cannot be had.
    """
    targets = _targets(model, adapter)
    _check_rank(model, adapter, targets)
    saved_whole = _modules_to_save(model, adapter)
    if adapter.bits == 4:
        pack_4bit(model, skip=saved_whole)
    causal = callable(getattr(model, "get_output_embeddings", None)) and model.get_output_embeddings() is not None
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        use_rslora=adapter.rslora,
        target_modules=targets,
        modules_to_save=saved_whole or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        lora_dropout=0.0,
        task_type="CAUSAL_LM" if causal else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    check_trainable(trainable_census(adapted))
    return adapted


def trainable_census(model: nn.Module) -> TrainableCensus:
    """Count what would be trained; shared parameters count once."""
    named = [(name, parameter, _numbers(parameter)) for name, parameter in model.named_parameters()]
    trained = [(name, count) for name, parameter, count in named if parameter.requires_grad]
    return TrainableCensus(
        names=tuple(name for name, _ in trained),
        count=sum(count for _, count in trained),
        total=sum(count for _, _, count in named),
    )


def check_trainable(census: TrainableCensus) -> None:
    """Raise `ModelError` unless an adapter trains something, and not everything."""
    if 0 < census.count < census.total:
        return
    raise ModelError(
        "the adapter trains nothing" if census.count == 0 else "the adapter trains every parameter of the model",
        where="adapter",
        expected="some of the parameters, the base model frozen",
        found=f"{census.count:,} of {census.total:,} parameters trainable",
        mend="set adapter.targets" if census.count == 0 else "shorten adapter.modules_to_save, or leave adapter out",
    )


def _numbers(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _linear_names(model: Any) -> list[str]:
    """Names of the matrices an adapter may sit on: every linear layer but the language head and the score head."""
    head = model.get_output_embeddings() if callable(getattr(model, "get_output_embeddings", None)) else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _LINEAR) and module is not head and name.rpartition(".")[2] != _SCORE_HEAD
    ]


def _targets(model: Any, adapter: Adapter) -> list[str]:
    """The targets as names PEFT matches; a name matches every module whose path ends in it."""
    names = _linear_names(model)
    if not adapter.targets:
        check_trainable(TrainableCensus(names=(), count=0, total=sum(map(_numbers, model.parameters()))))
    if adapter.targets == "all-linear":
        return sorted({_last_two(name) for name in names})
    for target in adapter.targets:
        if not any(_matches(name, target) for name in names):
            raise _unknown_module(target, names, "adapter.targets")
    return sorted(adapter.targets)


def _check_rank(model: Any, adapter: Adapter, targets: list[str]) -> None:
    """B A cannot have a higher rank than the matrix it is added to: more would be memory without effect."""
    adapted = (name for name in _linear_names(model) if any(_matches(name, target) for target in targets))
    sides = {name: min(model.get_submodule(name).weight.shape) for name in adapted}
    smallest = min(sides, key=lambda name: sides[name])
    if adapter.rank > sides[smallest]:
        raise ModelError(
            "the adapter's rank is higher than one of its matrices can have",
            where="adapter.rank",
            expected=f"at most {sides[smallest]}, the smaller side of {smallest}",
            found=str(adapter.rank),
            mend=f"lower adapter.rank to {sides[smallest]}, or leave {_last_two(smallest)} out of adapter.targets",
        )


def _modules_to_save(model: nn.Module, adapter: Adapter) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    for module in adapter.modules_to_save:
        if not any(_matches(name, module) for name in names):
            raise _unknown_module(module, names, "adapter.modules_to_save")
    head = [_SCORE_HEAD] if isinstance(getattr(model, _SCORE_HEAD, None), nn.Module) else []
    return sorted({*adapter.modules_to_save, *head})


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _last_two(name: str) -> str:
    """`self_attn.q_proj` of `model.layers.0.self_attn.q_proj`: enough to tell every matrix of a layer apart."""
    return ".".join(name.split(".")[-2:])


def _unknown_module(target: str, names: list[str], where: str) -> ModelError:
    last = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
    near = difflib.get_close_matches(target.rpartition(".")[2], last, n=3, cutoff=0.4) or last[:8]
    return ModelError(
        f"the model has no module {target!r}",
        where=where,
        expected="all-linear, or names such as " + ", ".join(near),
        found=target,
        mend=f"write {near[0]}" if near else None,
    )


def require_4bit(device: torch.device) -> None:
    """Raise `ModelError` unless 4-bit weights can be had on a device: asked for before anything is trained."""
    if bitsandbytes is None:
        raise ModelError(
            "4-bit weights need bitsandbytes, which is not installed",
            where="adapter.bits",
            mend="pip install 'weightgate[qlora]', or set adapter.bits to 16",
        )
    _check_packs_on(device)


def pack_4bit(model: Any, *, skip: list[str]) -> None:
    """Replace the model's linear layers, heads apart, by NF4 ones in place (Dettmers et al. 2023, section 3).

    `skip` names modules that stay as well, because they are trained whole. Raises `ModelError` when bitsandbytes is not
    installed or has no kernel for the model's device.
    """
    device = next(model.parameters()).device
    require_4bit(device)
    for name in _linear_names(model):
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and not any(_matches(name, kept) for kept in skip):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _packed(module, device))
    model.is_loaded_in_4bit = True


def _check_packs_on(device: torch.device) -> None:
    try:
        _packed(nn.Linear(64, 64, bias=False), device)(torch.zeros(1, 64, device=device))
    except Exception as error:  # whatever a kernel that is not there raises, the user needs the same answer
        raise ModelError(
            "4-bit weights do not run on this device",
            where="adapter.bits",
            found=f"{device}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            mend="set adapter.bits to 16, or use another device",
        ) from None


def _packed(linear: nn.Linear, device: torch.device) -> nn.Module:
    packed = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        linear.weight.detach().clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if linear.bias is not None:
        packed.bias = linear.bias
    # Off, because on CPUs it repacks the stored weight in place at the first evaluation, in a form nothing else reads.
    packed.support_avx512bf16_for_cpu = False
    result: nn.Module = packed.to(device)
    return result


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and _ADAPTER in module.lora_B:
            yield name, module


def unmoved_targets(model: nn.Module) -> list[str]:
    """Names of the target modules whose B is still all zero: training has not moved them.

    Raises `ModelError` for a model without an adapter.
    """
    layers = list(_layers(model))
    if not layers:
        raise ModelError("the model has no adapter", where="adapter")
    return [name for name, layer in layers if not bool(layer.lora_B[_ADAPTER].weight.any())]


def check_starts_at_base(model: PeftModel, input_ids: Tensor) -> None:
    """Check that a fresh adapter leaves every logit for `input_ids` (B, T) exactly as the base model gives it.

    Raises `TrainingStopped` with the largest difference.
    """
    with evaluating(model):
        adapted = model(input_ids=input_ids).logits
        with model.disable_adapter():
            base = model(input_ids=input_ids).logits
    difference = float((adapted - base).abs().max())
    if difference != 0.0:
        raise TrainingStopped(f"a fresh adapter changes the logits by up to {difference:.3g}; it must change nothing")


def merge(model: PeftModel, *, dtype: torch.dtype | None = None) -> Any:
    """Return a copy of the base model with the adapter folded in; the model itself stays as it is.

    The sum is taken in fp32 and cast to `dtype` (default: the base model's) once, since bf16 drops an update below
    1/256 of its weight. A 4-bit base is unpacked first: the result is the merge into the unpacked weights, which is
    what training saw, not into the weights from before they were packed.
    """
    stored = dtype or _dtype_of(model)
    copied = copy.deepcopy(model).float()
    with torch.no_grad():
        for _, layer in _layers(copied):
            layer.base_layer = _unpacked(layer.base_layer)
            weight = layer.base_layer.weight
            weight.add_(layer.get_delta_weight(_ADAPTER).reshape(weight.shape))
    merged = copied.unload()
    if hasattr(merged, "is_loaded_in_4bit"):
        _unpack_rest(merged)
    # Not `merged.to(stored)`, which would round the rotary frequencies too: those are buffers, and stay fp32.
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(stored)
    return merged.eval()


def _dtype_of(model: PeftModel) -> torch.dtype:
    """The dtype the base computes in: that of its embedding, which is never packed."""
    dtype: torch.dtype = model.get_base_model().get_input_embeddings().weight.dtype
    return dtype


def _unpacked(linear: Any) -> Any:
    """A plain fp32 layer for a 4-bit one; any other layer as it is."""
    state = getattr(linear.weight, "quant_state", None)
    if state is None:
        return linear
    plain = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    plain.weight = nn.Parameter(bitsandbytes.functional.dequantize_4bit(linear.weight.data, state).float())
    if linear.bias is not None:
        plain.bias = nn.Parameter(linear.bias.detach().float())
    return plain.to(linear.weight.device)


def _unpack_rest(model: Any) -> None:
    """Unpack the 4-bit layers that no adapter sat on, so that the merged model is an ordinary one."""
    for name in [name for name, module in model.named_modules() if hasattr(module, "weight")]:
        module = model.get_submodule(name)
        if getattr(module.weight, "quant_state", None) is not None:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _unpacked(module))
    del model.is_loaded_in_4bit


def merge_error(model: PeftModel, input_ids: Tensor) -> MergeError:
    """Compare the logits for `input_ids` (B, T) with the adapter beside the base in fp32 and with it merged."""
    stored = _dtype_of(model)
    precise = _logits(copy.deepcopy(model).float(), input_ids)
    return MergeError(
        fp32=_largest(precise, _logits(merge(model, dtype=torch.float32), input_ids)),
        stored=_largest(precise, _logits(merge(model), input_ids)),
        stored_dtype=str(stored).removeprefix("torch."),
    )


def _logits(model: Any, input_ids: Tensor) -> Tensor:
    with evaluating(model):
        logits: Tensor = model(input_ids=input_ids).logits
    return logits.float()


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def save_adapter(model: PeftModel, base_digest: str) -> SavedAdapter:
    """Take the adapter off as plain data; `base_digest` names the weights it was trained on."""
    tensors = {name: tensor.detach().cpu() for name, tensor in get_peft_model_state_dict(model).items()}
    return SavedAdapter(tensors=dict(sorted(tensors.items())), config=_config_json(model), base_digest=base_digest)


def _config_json(model: PeftModel) -> dict[str, Any]:
    described = model.peft_config[_ADAPTER].to_dict()
    described.pop("runtime_config", None)
    sorted_sets = {name: sorted(value) for name, value in described.items() if isinstance(value, set | frozenset)}
    plain: dict[str, Any] = json.loads(json.dumps(described | sorted_sets | {"inference_mode": True}, default=str))
    return plain


def load_adapter(model: Any, saved: SavedAdapter, *, base_digest: str, trainable: bool = False) -> PeftModel:
    """Put a saved adapter onto its base model.

    Args:
        base_digest: digest of the weights in `model`, compared with the one the adapter was trained on.
        trainable: whether training goes on; else everything is frozen.

    Raises `ModelError` for another base, and where the tensors are not the ones the configuration calls for.
    """
    if base_digest != saved.base_digest:
        raise ModelError(
            "the adapter belongs to another base model",
            where="adapter",
            expected=saved.base_digest,
            found=base_digest,
            mend="load the base model that the adapter was trained on, or train the adapter again",
        )
    config = LoraConfig.from_peft_type(**dict(saved.config))
    config.inference_mode = not trainable
    with torch.random.fork_rng():
        adapted = get_peft_model(model, config)
    expected = get_peft_model_state_dict(adapted)
    _check_same_tensors(expected, saved.tensors)
    set_peft_model_state_dict(adapted, dict(saved.tensors))
    return adapted if trainable else adapted.eval()


def _check_same_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        wanted = tuple(expected[name].shape) if name in expected else "no such tensor"
        given = tuple(found[name].shape) if name in found else "no such tensor"
        if wanted != given:
            raise ModelError(
                "the adapter's tensors do not fit the model", where=name, expected=str(wanted), found=str(given)
            )

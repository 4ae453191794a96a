"""What is compared with what: sizes, contenders, numbers of steps, and the bars of the project.

Plain data without heavy imports; the workers of both environments read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Precision = Literal["bf16", "fp32"]

THREADS = 2
VOCAB_SIZE = 1024
SEED = 0
SAMPLES = 5
"""Measured windows of every contender; the median counts."""
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
"""Every case is measured in both: which is faster depends on whether the CPU multiplies bf16 matrices in hardware."""
LEARNING_RATE = 1e-3
PPO_LEARNING_RATE = 1e-5
TEMPERATURE = 0.7
PROMPT_TOKENS, RESPONSE_TOKENS, PPO_EPOCHS = 24, 32, 4

MODEL_FOLDER, REWARD_FOLDER, PEER_FILE = "model", "reward-model", "peer.npz"
"""Where the inputs of the peers lie."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A decoder of Llama blocks with tied embeddings."""

    label: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    context: int

    def architecture(self) -> dict[str, Any]:
        """The configuration's sizes, as a recipe has them."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": True,
        }


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One setting of one side. `options` are read by the worker of that side."""

    name: str
    side: Literal["ours", "theirs"]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The smallest factor by which `ours` must be faster than the fastest of `theirs`; None: report it only."""

    ours: str
    theirs: tuple[str, ...]
    at_least: float | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """Contenders that do the same work.

    Fields:
        stage: kind of the recipe's stage that is trained.
        batch: rows (pairs, prompts) of an update; rows hold `size.context` tokens at most.
        warmup, steps: updates before the first window, and in each window.
        unit: tokens per second, more being better, or seconds per update, less being better.
        precision: of weights and products, on both sides.
        threads: of each contender.
        first: which metric must start at the same value on both sides.
        tolerance: largest relative difference of that first value.
        twin: one of theirs that computes the same to the last detail; its whole curve must agree, on average over the
            updates, within `tolerance`.
    """

    name: str
    stage: str
    size: Size
    batch: int
    warmup: int
    steps: int
    unit: Literal["tokens/s", "s/update"]
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...]
    precision: Precision
    threads: int = THREADS
    first: str = "loss"
    tolerance: float = 0.01
    twin: str | None = None

    @property
    def updates(self) -> int:
        """Updates of every contender."""
        return self.warmup + SAMPLES * self.steps

    def quick(self) -> Case:
        """The same with one thread and windows too short to say anything, to try whether everything runs."""
        return replace(self, warmup=1, steps=1, threads=1)


ONE_MILLION = Size(label="1 M", hidden=128, intermediate=384, layers=4, heads=4, context=128)
ELEVEN_MILLION = Size(label="11 M", hidden=384, intermediate=1024, layers=6, heads=6, context=256)

OURS = Contender(name="weightgate", side="ours", options={"compile": False})
OURS_COMPILED = Contender(name="weightgate, compile", side="ours", options={"compile": True})


def _theirs(name: str, **options: Any) -> Contender:
    return Contender(
        name=name, side="theirs", options={"attention": "sdpa", "compile": False, "apart": False} | options
    )


_TRAINER = _theirs("Trainer as it comes")
_TRAINER_TWIN = _theirs("Trainer, plain attention, documents kept apart", attention="eager", apart=True)
_TRAINER_BEST = _theirs("Trainer, plain attention, compile", attention="eager", compile=True)


def _pretrain(size: Size, precision: Precision, *, steps: int, as_it_comes: float, best: float) -> Case:
    return Case(
        name=f"pretrain, {size.label} parameters, context {size.context}, {precision}",
        stage="pretrain",
        size=size,
        batch=32,
        warmup=max(3, steps // 3),
        steps=steps,
        unit="tokens/s",
        precision=precision,
        contenders=(OURS, _TRAINER, _TRAINER_TWIN, OURS_COMPILED, _TRAINER_BEST),
        bars=(
            Bar(ours=OURS.name, theirs=(_TRAINER.name,), at_least=None),
            Bar(ours=OURS.name, theirs=(_TRAINER_TWIN.name,), at_least=None),
            Bar(ours=OURS_COMPILED.name, theirs=(_TRAINER.name,), at_least=as_it_comes),
            Bar(ours=OURS_COMPILED.name, theirs=(_TRAINER_BEST.name,), at_least=best),
        ),
        twin=_TRAINER_TWIN.name,
    )


_SFT_WHOLE = (
    _theirs("SFTTrainer as it comes", packing=None),
    _theirs("SFTTrainer, plain attention", packing=None, attention="eager"),
    _theirs("SFTTrainer, packing", packing="bfd"),
)
_SFT_CUT = _theirs("SFTTrainer, packing that cuts samples, plain attention", packing="wrapped", attention="eager")
_SFT = (*_SFT_WHOLE, _SFT_CUT)
_SFT_COMPILED = _theirs(
    "SFTTrainer, packing that cuts samples, plain attention, compile",
    packing="wrapped",
    attention="eager",
    compile=True,
)
_REWARD = (_theirs("RewardTrainer as it comes"), _theirs("RewardTrainer, plain attention", attention="eager"))
_PPO = (_theirs("PPOTrainer as it comes"), _theirs("PPOTrainer, plain attention", attention="eager"))


def _finetune(precision: Precision) -> Case:
    return Case(
        name=f"finetune, 1 M parameters, short samples, {precision}",
        stage="finetune",
        size=ONE_MILLION,
        batch=32,
        warmup=4,
        steps=8,
        unit="tokens/s",
        precision=precision,
        contenders=(OURS, *_SFT, OURS_COMPILED, _SFT_COMPILED),
        bars=(
            Bar(ours=OURS.name, theirs=tuple(c.name for c in _SFT_WHOLE), at_least=1.5),
            Bar(ours=OURS.name, theirs=tuple(c.name for c in _SFT), at_least=1.5),
            Bar(ours=OURS_COMPILED.name, theirs=(*(c.name for c in _SFT), _SFT_COMPILED.name), at_least=1.5),
        ),
    )


def _reward(precision: Precision) -> Case:
    return Case(
        name=f"reward model, 1 M parameters, 32 pairs, {precision}",
        stage="reward",
        size=ONE_MILLION,
        batch=32,
        warmup=4,
        steps=8,
        unit="s/update",
        precision=precision,
        contenders=(OURS, *_REWARD),
        bars=(Bar(ours=OURS.name, theirs=tuple(c.name for c in _REWARD), at_least=None),),
    )


def _ppo(precision: Precision) -> Case:
    sizes = f"64 episodes, {PROMPT_TOKENS} + {RESPONSE_TOKENS} tokens, {PPO_EPOCHS} epochs"
    return Case(
        name=f"PPO, 1 M parameters, {sizes}, {precision}",
        stage="align",
        size=ONE_MILLION,
        batch=64,
        warmup=2,
        steps=3,
        unit="s/update",
        precision=precision,
        contenders=(OURS, *_PPO),
        bars=(Bar(ours=OURS.name, theirs=tuple(c.name for c in _PPO), at_least=2.0),),
        first="value_loss",
        tolerance=0.25,
    )


BENCHMARKS: dict[str, tuple[Case, ...]] = {
    "pretrain": (
        *(_pretrain(ONE_MILLION, precision, steps=10, as_it_comes=2.0, best=1.15) for precision in PRECISIONS),
        *(_pretrain(ELEVEN_MILLION, precision, steps=2, as_it_comes=1.5, best=1.25) for precision in PRECISIONS),
    ),
    "finetune": tuple(map(_finetune, PRECISIONS)),
    "reward": tuple(map(_reward, PRECISIONS)),
    "ppo": tuple(map(_ppo, PRECISIONS)),
}


def find(benchmark: str, name: str) -> Case:
    """The case called `name`."""
    return next(case for case in BENCHMARKS[benchmark] if case.name == name)

"""`weightgate.yaml` -> `Recipe`: frozen, strict, and with a line number for every mistake.

The recipe is the only file the user writes. Everything in it is consumed by some stage; an unknown key is an
error that names the nearest known one, because a key that is read by nothing trains the wrong model silently.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from weightgate.errors import RecipeError
from weightgate.strict_yaml import StrictPart, load_strict, parse_strict

FILE_NAME = "weightgate.yaml"

MAX_EPOCHS = 10_000
"""More passes over the same data are a slip of the keyboard: steps are counted epoch by epoch before training."""


class Source(StrictPart):
    """One source of records: a local file (JSONL, JSON.gz, Parquet, plain text) or a hub data set."""

    path: str | None = Field(None, description="file, relative to the recipe")
    hub: str | None = Field(
        None,
        description="data set id on the Hugging Face hub; beside `path`, it stands in for a file that is not there",
    )
    config: str | None = Field(None, description="configuration of the hub data set, such as `main` of openai/gsm8k")
    split: str = Field("train", description="split of the hub data set")
    revision: str | None = Field(None, description="commit of the hub data set")
    format: Literal["auto", "jsonl", "parquet", "text"] = "auto"
    documents: Literal["file", "paragraph", "line"] = Field(
        "paragraph", description="plain text: what one document is; a paragraph ends at an empty line"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name -> name in the file: text, messages, prompt, completion, input, chosen, rejected, "
        "annotator, timestamp, source",
    )
    domain: str | None = Field(None, description="name under which its hold-out loss is reported; default: file stem")
    limit: int | None = Field(None, gt=0, description="read at most this many records")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if self.path is None and self.hub is None:
            raise ValueError("a source needs `path` or `hub`")
        return self


class Optimizer(StrictPart):
    """AdamW (Loshchilov & Hutter 2019). Matrices decay; vectors, such as norms and biases, do not."""

    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field([0.9, 0.95], min_length=2, max_length=2)
    eps: float = Field(1e-8, gt=0)
    clip_norm: float = Field(1.0, gt=0, description="global gradient norm is clipped to this")


class Schedule(StrictPart):
    """Learning rate over the stage: warm up, hold or anneal, end at `floor` times the peak."""

    kind: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps")
    decay: float = Field(0.2, ge=0, le=1, description="wsd only: share of the steps at the end")
    floor: float = Field(0.1, ge=0, le=1, description="last learning rate as a share of the peak")

    @model_validator(mode="after")
    def _one_after_the_other(self) -> Schedule:
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError("warmup and decay together are longer than the stage")
        return self


class Adapter(StrictPart):
    """A LoRA adapter (Hu et al. 2021) through PEFT; `bits: 4` makes it QLoRA (Dettmers et al. 2023)."""

    rank: int = Field(8, gt=0)
    alpha: float = Field(16.0, gt=0)
    rslora: bool = False
    targets: list[str] | Literal["all-linear"] = "all-linear"
    modules_to_save: list[str] = Field(default_factory=list)
    bits: Literal[4, 16] = 16


class Gate(StrictPart):
    """One condition at a stage boundary. Unmeasured means not passed."""

    measure: str = Field(description="name of a measurement, such as knowledge.accuracy or holdout.bits_per_byte")
    min: float | None = None
    max: float | None = None
    max_drop: float | None = Field(None, ge=0, description="largest fall below the same measurement of the parent")
    max_rise: float | None = Field(None, ge=0, description="largest rise above the same measurement of the parent")
    judge: Literal["value", "interval"] = Field(
        "value", description="interval: the worse end of the 95 % interval must satisfy the condition"
    )

    @model_validator(mode="after")
    def _some_condition(self) -> Gate:
        if all(bound is None for bound in (self.min, self.max, self.max_drop, self.max_rise)):
            raise ValueError("a gate needs min, max, max_drop or max_rise")
        return self


class Audit(StrictPart):
    """A verdict of `weightgate audit --json` that must be there, of this very data, before the stage may start."""

    path: str = Field(description="the verdict's file, relative to the recipe")
    worst: Literal["pass", "note", "warn"] = Field("note", description="the worst verdict that still lets it start")


class _Stage(StrictPart):
    """What every stage has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    data: list[Source] = Field(min_length=1)
    holdout: float = Field(0.02, ge=0, lt=1, description="share of the records kept out, by content hash")
    context: int = Field(128, ge=8, description="tokens per row")
    batch: int = Field(32, gt=0, description="rows per optimizer step, over all processes")
    micro_batch: int | None = Field(None, gt=0, description="rows per forward pass; default: batch / processes")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    activation_checkpointing: bool = False
    gates: list[Gate] = Field(default_factory=list)


class _TokenStage(_Stage):
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0, le=MAX_EPOCHS)
    tokens: int | None = Field(None, gt=0, description="train on about this many tokens, rounded up to whole steps")
    packing: bool = Field(True, description="several documents a row, with block-diagonal attention")

    @model_validator(mode="after")
    def _one_length(self) -> _TokenStage:
        if sum(length is not None for length in (self.steps, self.epochs, self.tokens)) != 1:
            raise ValueError("say exactly one of steps, epochs and tokens")
        return self


class Pretrain(_TokenStage):
    """Next-token prediction on every token of raw text."""

    kind: Literal["pretrain"]


class Finetune(_TokenStage):
    """Supervised fine-tuning on messages or prompt/completion: only assistant tokens carry loss."""

    kind: Literal["finetune"]
    adapter: Adapter | None = None


class Reward(_Stage):
    """A Bradley-Terry reward model on chosen/rejected pairs, started from the stage before it."""

    kind: Literal["reward"]
    epochs: float = Field(1.0, gt=0, le=MAX_EPOCHS)
    center: float = Field(0.0, ge=0, description="weight of mean((r_chosen + r_rejected)^2)")
    adapter: Adapter | None = None
    audits: list[Audit] = Field(default_factory=list, description="audits of the stage's data, one for each source")


class KLController(StrictPart):
    """Adaptive KL coefficient (Ziegler et al. 2019, section 2.2)."""

    target: float = Field(6.0, gt=0, description="nats per completion")
    horizon: int = Field(10_000, gt=0, description="episodes")


class PPO(StrictPart):
    """Proximal policy optimisation (Schulman et al. 2017) as used for language models (arXiv 2403.17031)."""

    epochs: int = Field(4, gt=0, description="passes over each batch of rollouts")
    minibatches: int = Field(1, gt=0, description="optimizer steps per pass")
    completion_tokens: int = Field(53, gt=0)
    temperature: float = Field(0.7, gt=0)
    kl_coefficient: float = Field(0.05, ge=0)
    kl_estimator: Literal["k1", "k3"] = "k1"
    adaptive_kl: KLController | None = None
    clip_range: float = Field(0.2, gt=0)
    clip_range_value: float = Field(0.2, gt=0)
    value_coefficient: float = Field(0.1, ge=0)
    value_start: Literal["reward", "zero"] = "reward"
    gamma: float = Field(1.0, gt=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    missing_eos: Literal["subtract", "replace"] = "subtract"
    missing_eos_penalty: float | None = Field(1.0, description="null: none")
    normaliser: Literal["global", "trl"] = Field(
        "global", description="trl: mean per micro-batch, which depends on the split; for parity runs only"
    )


class Align(_Stage):
    """PPO against the reward model; the reference model is the parent, by digest."""

    kind: Literal["align"]
    updates: int = Field(gt=0, description="batches of rollouts")
    reward: str | None = Field(None, description="name of the reward stage; default: the last one before this stage")
    ppo: PPO = PPO()
    adapter: Adapter | None = None
    audits: list[Audit] = Field(
        default_factory=list, description="audits of the reward stage's data, one for each source"
    )


Stage = Annotated[Pretrain | Finetune | Reward | Align, Field(discriminator="kind")]


class Base(StrictPart):
    """An existing Hugging Face causal language model to start from."""

    model: str = Field(description="folder, relative to the recipe, or hub id")
    revision: str | None = None


class Tokenizer(StrictPart):
    """A byte-level BPE tokenizer trained on the recipe's own data."""

    vocab_size: int = Field(1024, ge=300, le=2**20)


class Architecture(StrictPart):
    """A network from scratch: a `transformers` configuration by type and by size."""

    type: str = Field("llama", description="model_type of transformers, such as llama, qwen3, gemma3_text, gpt2")
    config: dict[str, Any] = Field(
        default_factory=dict, description="hidden_size, num_hidden_layers and whatever else the type takes"
    )


class Probes(StrictPart):
    """The probe suite that every gate measures with."""

    path: str
    batch: int = Field(256, gt=0, description="prompts generated at once")
    max_tokens: int = Field(64, gt=0)
    samples: int = Field(4, ge=2, description="completions per open-ended prompt, for diversity")


class Budget(StrictPart):
    """What a build may cost; part of the contract."""

    minutes: float | None = Field(None, gt=0)
    disk_gib: float | None = Field(None, gt=0)


class Recipe(StrictPart):
    """Everything a build depends on."""

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    store: str = Field(".weightgate", min_length=1, description="folder, relative to the recipe")
    base: Base | None = None
    tokenizer: Tokenizer | None = None
    architecture: Architecture | None = None
    template: str | None = Field(
        None, description="weightgate (built-in), base (the base model's own), or a Jinja file; default: what there is"
    )
    precision: Literal["auto", "fp32", "bf16", "bf16-autocast"] = Field(
        "auto", description="auto: bf16 where the hardware multiplies it faster than fp32; bf16 keeps fp32 masters"
    )
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    threads: int | None = Field(None, gt=0, le=1024, description="CPU threads; part of the reproducibility class")
    compile: bool = Field(False, description="torch.compile the training step")
    resume_seconds: float = Field(20.0, ge=0, description="a resume point at least this often; 0: after every step")
    probes: Probes | None = None
    budget: Budget = Budget()
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two stages are called {sorted(twice)[0]!r}")
        if self.base is None:
            if self.tokenizer is None or self.architecture is None:
                raise ValueError("without `base`, the recipe needs `tokenizer` and `architecture`")
            if self.stages[0].kind != "pretrain":
                raise ValueError("without `base`, the first stage must be a pretrain stage")
        elif self.tokenizer is not None or self.architecture is not None:
            raise ValueError("`base` brings its own tokenizer and architecture; leave those keys out")
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Align):
                self._reward_before(index, stage)
        return self

    def _reward_before(self, index: int, stage: Align) -> str:
        rewards = [s.name for s in self.stages[:index] if isinstance(s, Reward)]
        if not rewards:
            raise ValueError(f"stage {stage.name!r} needs a reward stage before it")
        if stage.reward is not None and stage.reward not in rewards:
            raise ValueError(f"stage {stage.name!r}: no reward stage called {stage.reward!r} before it")
        return stage.reward or rewards[-1]

    @property
    def template_choice(self) -> str:
        """The chat template to use: what the recipe says, else the base model's own, else the built-in one."""
        return self.template or ("weightgate" if self.base is None else "base")

    def stage(self, name: str) -> Pretrain | Finetune | Reward | Align:
        """Return the stage called `name`. Raises `RecipeError` naming the stages there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = [stage.name for stage in self.stages]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        mend = f"did you mean {near[0]!r}?" if near else "give one of these, or add such a stage to the recipe"
        raise RecipeError(f"no stage is called {name!r}", expected=f"one of {', '.join(known)}", found=name, mend=mend)

    def parent_name(self, name: str) -> str | None:
        """Name of the stage that `name` starts from; None: the base model or a fresh network.

        A reward model branches off the policy line, so no other stage ever starts from one.
        """
        line: str | None = None
        for stage in self.stages:
            if stage.name == name:
                return line
            if not isinstance(stage, Reward):
                line = stage.name
        self.stage(name)
        return None

    def reward_name(self, name: str) -> str:
        """Name of the reward stage that align stage `name` is scored by."""
        stage = self.stage(name)
        if not isinstance(stage, Align):
            raise RecipeError(f"stage {name!r} is no align stage")
        return self._reward_before(self.stages.index(stage), stage)


def load(path: Path) -> Recipe:
    """Read a recipe file.

    Raises `RecipeError` with file, line, dotted path and, for an unknown key, the nearest known one.
    """
    if path.is_dir():
        raise RecipeError("a recipe is a file, and this is a folder", where=str(path), mend=f"name {path / FILE_NAME}")
    return load_strict(path, Recipe, noun="recipe", error=RecipeError, mend_missing="weightgate init")


def parse(text: str, *, origin: str = FILE_NAME) -> Recipe:
    """Read a recipe from a string; see `load`."""
    return parse_strict(text, Recipe, origin=origin, noun="recipe", error=RecipeError)

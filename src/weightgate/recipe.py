"""`weightgate.yaml` -> `Recipe`: frozen, strict, and with a line number for every mistake.

The recipe is the only file the user writes. Everything in it is consumed by some stage; an unknown key is an
error that names the nearest known one, because a key that is read by nothing trains the wrong model silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weightgate.errors import RecipeError

FILE_NAME = "weightgate.yaml"


class _Part(BaseModel):
    """Base of every part of a recipe: immutable, keyword-only, no unknown keys, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Source(_Part):
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


class Optimizer(_Part):
    """AdamW (Loshchilov & Hutter 2019). Matrices decay; vectors, such as norms and biases, do not."""

    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    eps: float = Field(1e-8, gt=0)
    clip_norm: float = Field(1.0, gt=0, description="global gradient norm is clipped to this")


class Schedule(_Part):
    """Learning rate over the stage: warm up, hold or anneal, end at `floor` times the peak."""

    kind: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps")
    decay: float = Field(0.2, ge=0, le=1, description="wsd only: share of the steps at the end")
    floor: float = Field(0.1, ge=0, le=1, description="last learning rate as a share of the peak")


class Adapter(_Part):
    """A LoRA adapter (Hu et al. 2021) through PEFT; `bits: 4` makes it QLoRA (Dettmers et al. 2023)."""

    rank: int = Field(8, gt=0)
    alpha: float = Field(16.0, gt=0)
    rslora: bool = False
    targets: list[str] | Literal["all-linear"] = "all-linear"
    modules_to_save: list[str] = Field(default_factory=list)
    bits: Literal[4, 16] = 16


class Gate(_Part):
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


class _Stage(_Part):
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
    epochs: float | None = Field(None, gt=0)
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
    epochs: float = Field(1.0, gt=0)
    center: float = Field(0.0, ge=0, description="weight of mean((r_chosen + r_rejected)^2)")
    adapter: Adapter | None = None


class KLController(_Part):
    """Adaptive KL coefficient (Ziegler et al. 2019, section 2.2)."""

    target: float = Field(6.0, gt=0, description="nats per completion")
    horizon: int = Field(10_000, gt=0, description="episodes")


class PPO(_Part):
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


Stage = Annotated[Pretrain | Finetune | Reward | Align, Field(discriminator="kind")]


class Base(_Part):
    """An existing Hugging Face causal language model to start from."""

    model: str = Field(description="folder or hub id")
    revision: str | None = None


class Tokenizer(_Part):
    """A byte-level BPE tokenizer trained on the recipe's own data."""

    vocab_size: int = Field(1024, ge=300)


class Architecture(_Part):
    """A network from scratch: a `transformers` configuration by type and by size."""

    type: str = Field("llama", description="model_type of transformers, such as llama, qwen3, gemma3_text, gpt2")
    config: dict[str, Any] = Field(
        default_factory=dict, description="hidden_size, num_hidden_layers and whatever else the type takes"
    )


class Probes(_Part):
    """The probe suite that every gate measures with."""

    path: str
    batch: int = Field(256, gt=0, description="prompts generated at once")
    max_tokens: int = Field(64, gt=0)
    samples: int = Field(4, ge=2, description="completions per open-ended prompt, for diversity")


class Budget(_Part):
    """What a build may cost; part of the contract."""

    minutes: float | None = Field(None, gt=0)
    disk_gib: float | None = Field(None, gt=0)


class Recipe(_Part):
    """Everything a build depends on."""

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 0
    store: str = Field(".weightgate", description="folder, relative to the recipe")
    base: Base | None = None
    tokenizer: Tokenizer | None = None
    architecture: Architecture | None = None
    template: str | None = Field(
        None, description="weightgate (built-in), base (the base model's own), or a Jinja file; default: what there is"
    )
    precision: Literal["auto", "fp32", "bf16", "bf16-autocast"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    threads: int | None = Field(None, gt=0, description="CPU threads; part of the reproducibility class")
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
        known = ", ".join(stage.name for stage in self.stages)
        raise RecipeError(f"no stage is called {name!r}", expected=f"one of {known}", found=name)

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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError("there is no recipe here", where=str(path), mend="weightgate init") from None
    except (UnicodeDecodeError, OSError) as error:
        raise RecipeError("the recipe cannot be read", where=str(path), found=str(error)) from None
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str = FILE_NAME) -> Recipe:
    """Read a recipe from a string; see `load`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise RecipeError("the recipe is not valid YAML", where=where, found=str(error).splitlines()[0]) from None
    if not isinstance(data, dict) or not isinstance(root, yaml.MappingNode):
        raise RecipeError("the recipe is not a mapping", where=origin, expected="keys such as version, name, stages")
    _refuse_duplicate_keys(root, origin, set())
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _explain(error, root, origin) from None


def _refuse_duplicate_keys(node: yaml.Node, origin: str, visited: set[int]) -> None:
    """YAML keeps the last of two equal keys; a recipe refuses them. An alias may lead back to where it stands."""
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise RecipeError(f"the key {key.value!r} stands twice", where=f"{origin}:{key.start_mark.line + 1}")
            seen.add(key.value)
            _refuse_duplicate_keys(value, origin, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, origin, visited)


def _explain(error: ValidationError, root: yaml.Node, origin: str) -> RecipeError:
    """Turn the first validation error into one that a user can act on."""
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    line, path = _locate(root, first["loc"])
    where = f"{origin}:{line} ({path})" if path else f"{origin}:{line}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        near = difflib.get_close_matches(key, _known_keys(first["loc"]), n=1, cutoff=0.4)
        known = ", ".join(sorted(_known_keys(first["loc"])))
        return RecipeError(
            f"unknown key {key!r}{more}",
            where=where,
            expected=f"one of {known}",
            found=key,
            mend=f"did you mean {near[0]!r}?" if near else f"remove {key!r}",
        )
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    shown = None if isinstance(found, dict | list) or first["type"] == "missing" else repr(found)[:200]
    return RecipeError(f"{message}{more}", where=where, found=shown)


def _locate(root: yaml.Node, loc: Sequence[int | str]) -> tuple[int, str]:
    """Line number (from 1) and dotted path of the deepest node that `loc` reaches."""
    node, line, path = root, root.start_mark.line + 1, []
    for step in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
            path.append(str(step))
        elif isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == step), None)
            if pair is not None:
                line, node = pair[0].start_mark.line + 1, pair[1]
                path.append(str(step))
            elif step == loc[-1]:
                path.append(str(step))
    return line, ".".join(path)


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """Keys allowed at the level that holds the last element of `loc`."""
    part: Any = Recipe
    for step in loc[:-1]:
        part = _descend(part, step)
    return [key for kind in _parts_in(part) for key in kind.model_fields]


def _descend(part: Any, step: int | str) -> Any:
    kinds = {"pretrain": Pretrain, "finetune": Finetune, "reward": Reward, "align": Align}
    if isinstance(step, int):
        return part
    for kind in _parts_in(part):
        if step in kind.model_fields:
            return kind.model_fields[step].annotation
    return kinds.get(step, part)


def _parts_in(annotation: Any) -> list[type[_Part]]:
    """Every recipe part named anywhere inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, _Part):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in _parts_in(inner)]

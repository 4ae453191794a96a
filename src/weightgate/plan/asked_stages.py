"""What a user typed about fine-tuning and alignment, or what the recipe and its lock say where nothing was typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from weightgate.contract.lock import FILE_NAME as LOCK_NAME
from weightgate.contract.lock import read_lock
from weightgate.errors import LockError, UserError
from weightgate.plan.align import Alignment, Measured, align
from weightgate.plan.answer import Answer
from weightgate.plan.budget import Machines
from weightgate.plan.finetune import Tuning, examples_for, finetune
from weightgate.plan.fit.reward_curve import LEAST_POINTS, FittedCurve, fit_reward_curves
from weightgate.plan.laws.finetuning import Method
from weightgate.plan.laws.overoptimisation import Search
from weightgate.plan.own_alignments import alignments_of_store, alignments_of_table
from weightgate.plan.quantities import read_quantity
from weightgate.recipe import Align, Finetune, Recipe, load

_KL = "align.kl"


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A recipe beside its lock; `facts` are the contract's stages by name, empty where there is no lock yet."""

    recipe: Recipe
    folder: Path
    facts: Mapping[str, Mapping[str, Any]]

    def rows(self, stage: str) -> float:
        """Samples that the stage learns from."""
        return float(self.facts[stage]["census"]["rows"])

    def parameters(self, stage: str) -> float:
        """Parameters of the network that the stage trains, or trains an adapter on."""
        return float(self.facts[stage]["trainable"]["of"])


def finetune_from(
    *,
    base_parameters: str | None,
    samples: str | None,
    tokens: str | None,
    tokens_per_sample: str | None,
    epochs: str | None,
    quality: str | None,
    method: str | None,
    machines: Machines | None,
    recipe_path: Path,
) -> Answer:
    """Answer `weightgate plan finetune`; what was not typed is taken from the recipe's lock, where it says it."""
    enough = base_parameters is not None and any(text is not None for text in (samples, tokens, quality))
    locked = None if enough else _locked(recipe_path, "--base-parameters and --samples")
    tuning, chosen = _locked_tuning(locked) if locked else (None, None)
    per_sample = _quantity(tokens_per_sample, "--tokens-per-sample", least=1)
    size = _quantity(base_parameters, "--base-parameters", least=1) or cast(Tuning, tuning).parameters
    loss = _quantity(quality, "--quality")
    way = cast(Method | None, method or chosen)
    asked = Tuning(
        parameters=size,
        examples=_examples(samples, tokens, per_sample, loss, way, size, tuning),
        tokens_per_sample=per_sample or (tuning.tokens_per_sample if tuning else None),
        epochs=_quantity(epochs, "--epochs") or (tuning.epochs if tuning else 1.0),
    )
    if machines is not None and asked.tokens_per_sample is None:
        raise UserError("a price needs the length of a sample", where="--tokens-per-sample")
    return finetune(asked, method=way, quality=loss, machines=machines)


def _examples(
    samples: str | None,
    tokens: str | None,
    per_sample: float | None,
    quality: float | None,
    method: Method | None,
    size: float,
    tuning: Tuning | None,
) -> float:
    """Examples as typed, of the tokens typed, those that a quality asks for, or the recipe's."""
    if samples is not None and tokens is not None:
        raise UserError("say the amount of data in one way", expected="one of --samples, --tokens")
    if samples is not None:
        return read_quantity(samples, name="--samples", least=1)
    if tokens is not None:
        if per_sample is None:
            raise UserError("the law counts examples, not tokens", where="--tokens", mend="add --tokens-per-sample")
        return max(1.0, read_quantity(tokens, name="--tokens", least=1) / per_sample)
    if tuning is not None:
        return tuning.examples
    needed = examples_for(method or "full", cast(float, quality), size).value
    if not np.isfinite(needed) or needed > 1e15:
        raise UserError(
            "no number of examples reaches this loss",
            where="--quality",
            expected="a loss well above the floor (0.75 with full tuning, 0.62 with an adapter), or a larger model",
            found=f"{quality:g} by {method or 'full'}",
        )
    return max(1.0, needed)


def _locked_tuning(locked: Locked) -> tuple[Tuning, Method]:
    """The recipe's first fine-tuning. Raises `UserError` where it has none."""
    stage = next((stage for stage in locked.recipe.stages if isinstance(stage, Finetune)), None)
    if stage is None:
        raise UserError(
            "the recipe does no fine-tuning", where="weightgate.yaml", mend="give --base-parameters and --samples"
        )
    fact, rows = locked.facts[stage.name], locked.rows(stage.name)
    per_sample = fact["census"]["tokens"] / rows
    seen = fact["steps"] * stage.batch * (stage.context if stage.packing else per_sample)
    tuning = Tuning(
        parameters=locked.parameters(stage.name),
        examples=rows,
        tokens_per_sample=per_sample,
        epochs=seen / fact["census"]["tokens"],
    )
    return tuning, "lora" if stage.adapter else "full"


def align_from(
    *,
    reward_parameters: str | None,
    comparisons: str | None,
    kl: str | None,
    search: Search,
    runs: Path | None,
    recipe_path: Path,
) -> Answer:
    """Answer `weightgate plan align`; what was not typed is taken from the recipe, its lock and its store."""
    size = _quantity(reward_parameters, "--reward-model-parameters", least=1)
    pairs, limit = _quantity(comparisons, "--comparisons", least=1), _quantity(kl, "--kl")
    locked = None
    if size is None or recipe_path.exists():
        locked = _locked(recipe_path, "--reward-model-parameters", lock_needed=size is None)
    stage = next((stage for stage in locked.recipe.stages if isinstance(stage, Align)), None) if locked else None
    source = "your limit"
    if locked is not None and stage is not None:
        reward = locked.recipe.reward_name(stage.name)
        size = size or locked.parameters(reward)
        pairs = pairs or (locked.rows(reward) if locked.facts else None)
        if limit is None:
            limit, source = _gate(stage), "the recipe's gate"
    if size is None:
        raise UserError("the recipe does no alignment", where=str(recipe_path), mend="give --reward-model-parameters")
    measured = alignments_of_table(runs) if runs else _store_alignments(locked)
    return align(
        Alignment(
            reward_parameters=size,
            comparisons=pairs,
            kl=limit,
            kl_source=source,
            search=search,
            own=_own(measured, runs, search),
            measured=measured,
        )
    )


def _own(measured: tuple[Measured, ...], runs: Path | None, search: Search) -> tuple[FittedCurve, ...]:
    """One's own curve; of a store's alignments only where there are enough of them."""
    if runs is None and len({each.kl for each in measured if each.kl > 0}) < LEAST_POINTS:
        if search == "best-of-n":
            raise UserError(
                "no coefficients are published for best-of-n",
                where="--search",
                mend="fit them to your own runs: --runs CURVE.csv, with columns kl and gold",
            )
        return ()
    kls, golds = (np.array([getattr(each, name) for each in measured]) for name in ("kl", "gold"))
    return fit_reward_curves(kls, golds, origin=str(runs) if runs else "the store's alignments")


def _store_alignments(locked: Locked | None) -> tuple[Measured, ...]:
    return alignments_of_store(locked.folder / locked.recipe.store) if locked else ()


def _gate(stage: Align) -> float | None:
    """The highest KL that the recipe's gates let pass."""
    limits = [gate.max for gate in stage.gates if gate.measure == _KL and gate.max is not None]
    return min(limits, default=None)


def _locked(recipe_path: Path, instead: str, *, lock_needed: bool = True) -> Locked:
    """Read the recipe and its lock. Raises `UserError` that names what can be typed instead."""
    if not recipe_path.exists():
        raise UserError("there is no recipe here to plan", where=str(recipe_path), mend=f"give {instead}")
    recipe, lock = load(recipe_path), recipe_path.parent / LOCK_NAME
    facts = {fact["name"]: fact for fact in read_lock(lock)["stages"]} if lock_needed or lock.exists() else {}
    lacking = [stage.name for stage in recipe.stages if stage.name not in facts]
    if lacking and (facts or lock_needed):
        raise LockError(
            "the lock is of another recipe", where=str(lock), found=f"no stage {lacking[0]}", mend="weightgate lock"
        )
    return Locked(recipe=recipe, folder=recipe_path.parent, facts=facts)


def _quantity(text: str | None, name: str, *, least: float = 0.0) -> float | None:
    return None if text is None else read_quantity(text, name=name, least=least)

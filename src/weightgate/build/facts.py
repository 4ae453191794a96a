"""The facts a contract is made of, found anew each time: digests, census, what trains, who refers to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.build.audits import audit_facts
from weightgate.build.network import base_digest, network_config, trainable_fact
from weightgate.build.workspace import CODE, Workspace
from weightgate.contract.census import census_problems
from weightgate.data.cached import TOKENIZERS, TOKENS, read_tokenizer, write_tokenizer
from weightgate.data.prepare import (
    Prepared,
    Request,
    prepare_conversations,
    prepare_documents,
    prepare_preferences,
    prepare_prompts,
    training_texts,
)
from weightgate.data.sources import Skipped, read_conversations, read_preferences, read_prompts, source_digest
from weightgate.data.split import contamination, user_texts
from weightgate.data.template import read_template
from weightgate.data.template_check import check_template
from weightgate.data.tokenizer import Tokenizer, train_tokenizer
from weightgate.errors import CorruptError, LockError, RecipeError
from weightgate.probe.suites import Suite, load_suite
from weightgate.recipe import Align, Finetune, Pretrain, Reward
from weightgate.store import digest_file, digest_json
from weightgate.store.fs import LocalFs, disk_errors
from weightgate.train.models import base_folder
from weightgate.train.stages import num_steps

Stage = Pretrain | Finetune | Reward | Align

_PREPARE: dict[str, Callable[[Request], Prepared[Any]]] = {
    "pretrain": prepare_documents,
    "finetune": prepare_conversations,
    "reward": prepare_preferences,
    "align": prepare_prompts,
}
_READ_CHAT: dict[str, Callable[..., Iterator[Any]]] = {
    "finetune": read_conversations,
    "reward": read_preferences,
    "align": read_prompts,
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything known before a step is taken, and the contract that states it."""

    tokenizer: Tokenizer
    config: dict[str, Any]
    prepared: dict[str, Prepared[Any]]
    steps: dict[str, int]
    suite: Suite | None
    base_digest: str | None
    contract: dict[str, Any]


def find_facts(workspace: Workspace) -> Facts:
    """Read, tokenise (or take from the cache) and count everything the recipe names.

    Raises `DataError`, `RecipeError` or `ModelError` for what cannot be read.
    """
    recipe = workspace.recipe
    _require_even_shares(workspace)
    suite = load_suite(workspace.folder / recipe.probes.path) if recipe.probes else None
    tokenizer = _tokenizer(workspace)
    config = network_config(recipe, workspace.folder, tokenizer)
    prepared = {stage.name: _prepare(workspace, tokenizer, stage) for stage in recipe.stages}
    for stage in recipe.stages:
        problems = census_problems(prepared[stage.name].census)
        if problems:
            raise LockError(problems[0], where=f"stages.{stage.name}.data", found="; ".join(problems[1:]) or None)
    steps = {
        stage.name: num_steps(stage, prepared[stage.name].train, recipe, tokenizer.pad_id) for stage in recipe.stages
    }
    base = base_digest(workspace)
    contract = {
        "code": CODE,
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "precision": workspace.precision,
        "base": base,
        "tokenizer": {"digest": tokenizer.digest, "vocab_size": tokenizer.vocab_size},
        "template": tokenizer.template_digest,
        "probes": _probes_fact(workspace, suite),
        "stages": [
            _stage_fact(workspace, stage, prepared[stage.name], steps[stage.name], config) for stage in recipe.stages
        ],
    }
    return Facts(
        tokenizer=tokenizer,
        config=config,
        prepared=prepared,
        steps=steps,
        suite=suite,
        base_digest=base,
        contract=contract,
    )


def _require_even_shares(workspace: Workspace) -> None:
    """Processes wait for each other at every micro-batch, so all must have equally many."""
    processes = workspace.accelerator.num_processes
    for stage in workspace.recipe.stages:
        if stage.batch % processes:
            raise RecipeError(
                "the batch cannot be divided among the processes",
                where=f"stages.{stage.name}.batch",
                expected=f"a multiple of {processes}",
                found=str(stage.batch),
            )
        if isinstance(stage, Align) and stage.ppo.minibatches > stage.batch // processes:
            raise RecipeError(
                "there are more mini-batches than completions on a process",
                where=f"stages.{stage.name}.ppo.minibatches",
                expected=f"at most {stage.batch // processes}",
                found=str(stage.ppo.minibatches),
            )


def refuse_contamination(workspace: Workspace, suite: Suite | None) -> None:
    """Raise `LockError` when a gate's chat prompt is a user prompt of the training data, or stands inside one.

    Probes marked `recall` are exempt: they ask for what the training text says.
    """
    if suite is None:
        return
    prompts = [probe.text for probe in suite if probe.form == "chat" and not probe.recall]
    for stage in workspace.recipe.stages:
        if stage.kind not in _READ_CHAT:
            continue
        records = _READ_CHAT[stage.kind](stage.data, workspace.folder, Skipped())
        hits = [hit for hit in contamination(prompts, user_texts(records)) if hit.kind in ("exact", "contained")]
        if hits:
            raise LockError(
                f"{len({hit.prompt for hit in hits})} gate prompts stand in the training data of stage {stage.name!r}",
                where=hits[0].where,
                found=hits[0].prompt,
                mend="remove those rows from the data, or those probes from the suite",
            )


def _tokenizer(workspace: Workspace) -> Tokenizer:
    recipe = workspace.recipe
    if recipe.base is not None:
        tokenizer = Tokenizer.from_folder(base_folder(recipe.base, workspace.folder))
    else:
        tokenizer = _trained_tokenizer(workspace)
    if all(isinstance(stage, Pretrain) for stage in recipe.stages) and recipe.template is None:
        return tokenizer
    template = read_template(recipe.template_choice, tokenizer.template, workspace.folder)
    tokenizer = tokenizer.with_template(template)
    check_template(tokenizer)
    return tokenizer


def _trained_tokenizer(workspace: Workspace) -> Tokenizer:
    """Train the recipe's tokenizer, or take it from the cache under the digest of what it is trained on."""
    recipe = workspace.recipe
    assert recipe.tokenizer is not None
    sources = [
        [stage.kind, repr(stage.holdout), source_digest(source, workspace.folder), source.model_dump(mode="json")]
        for stage in recipe.stages
        if isinstance(stage, Pretrain)
        for source in stage.data
    ]
    key = digest_json([CODE, recipe.tokenizer.vocab_size, sources])
    cached = _cache_folder(workspace, TOKENIZERS) / f"{key[3:]}.json"
    with suppress(CorruptError):
        return Tokenizer.from_files(read_tokenizer(cached))
    tokenizer = train_tokenizer(_texts(workspace), recipe.tokenizer.vocab_size)
    write_tokenizer(cached, tokenizer.files())
    return tokenizer


def _cache_folder(workspace: Workspace, name: str) -> Path:
    """A folder of the cache, made where it is missing. Raises `StoreError` where the disk refuses."""
    folder = workspace.cache / name
    with disk_errors(LocalFs(), workspace.store.root):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _texts(workspace: Workspace) -> Iterator[str]:
    """Training text of the pre-training stages, hold-outs left out.

    Later stages have no say in the tokenizer: other fine-tuning data must not make pre-training stale.
    """
    for stage in workspace.recipe.stages:
        if isinstance(stage, Pretrain):
            yield from training_texts(stage.data, workspace.folder, stage.holdout)


def _prepare(workspace: Workspace, tokenizer: Tokenizer, stage: Stage) -> Prepared[Any]:
    request = Request(
        sources=stage.data,
        root=workspace.folder,
        tokenizer=tokenizer,
        context=stage.context,
        holdout=stage.holdout,
        cache=_cache_folder(workspace, TOKENS),
    )
    return _PREPARE[stage.kind](request)


def _probes_fact(workspace: Workspace, suite: Suite | None) -> dict[str, Any] | None:
    if suite is None or workspace.recipe.probes is None:
        return None
    path = workspace.folder / workspace.recipe.probes.path
    return {"digest": digest_file(path), "count": len(suite)}


def _stage_fact(
    workspace: Workspace, stage: Stage, prepared: Prepared[Any], steps: int, config: dict[str, Any]
) -> dict[str, Any]:
    parent = workspace.recipe.parent_name(stage.name)
    fact: dict[str, Any] = {
        "name": stage.name,
        "kind": stage.kind,
        "parent": parent or ("base" if workspace.recipe.base else "none"),
        "data": [
            {"name": source.path or source.hub, "digest": source_digest(source, workspace.folder)}
            for source in stage.data
        ],
        "prepared": prepared.digest,
        "census": prepared.census.to_json(),
        "steps": steps,
        "trainable": trainable_fact(stage, config, workspace.recipe.seed),
        "gates": [gate.model_dump(mode="json", exclude_none=True) for gate in stage.gates],
    }
    if isinstance(stage, Reward | Align) and stage.audits:
        fact["audits"] = _audits_fact(workspace, stage)
    if isinstance(stage, Align):
        fact["reference"] = fact["parent"]
        fact["reward"] = workspace.recipe.reward_name(stage.name)
    return fact


def _audits_fact(workspace: Workspace, stage: Reward | Align) -> list[dict[str, Any]]:
    """The audits that the stage asks for, of the votes that it, or its reward model, learns from."""
    recipe = workspace.recipe
    voted = stage if isinstance(stage, Reward) else recipe.stage(recipe.reward_name(stage.name))
    data = {str(source.path or source.hub): source_digest(source, workspace.folder) for source in voted.data}
    return audit_facts(stage.audits, workspace.folder, data, f"stages.{stage.name}.audits")


def suite_path(workspace: Workspace) -> Path | None:
    """Where the probe suite lies, if the recipe names one."""
    return workspace.folder / workspace.recipe.probes.path if workspace.recipe.probes else None

"""The main job: for each stage train, store, measure and judge; stop with the reason when a gate does not pass."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from weightgate.build.base import STAGE as BASE
from weightgate.build.base import base_checkpoint
from weightgate.build.earlier import reusable
from weightgate.build.events import Observer, Progressed
from weightgate.build.facts import Facts, Stage, find_facts, refuse_contamination
from weightgate.build.forecasts import recall_forecast
from weightgate.build.judging import Judging
from weightgate.build.measurable import refuse_unmeasurable
from weightgate.build.run_key import stage_inputs
from weightgate.build.signals import stop_on_signals
from weightgate.build.starting import Entry
from weightgate.build.stopwatch import Stopwatch
from weightgate.build.workspace import Workspace
from weightgate.contract import lock
from weightgate.errors import RecipeError, StoreError
from weightgate.lineage import training_cost
from weightgate.recipe import Align, Pretrain, Recipe
from weightgate.store import Result, digest_json, require_free_space
from weightgate.store.lease import exclusive, in_use
from weightgate.store.records import recording_time
from weightgate.store.resume import clear
from weightgate.train.adapters import require_4bit
from weightgate.train.checkpoints import (
    load_policy,
    load_reward,
    newest_resume_state,
    publish,
    save_resume_point,
)
from weightgate.train.environment import hold_still
from weightgate.train.loop import Progress, ResumeState, Trained
from weightgate.train.models import new_model
from weightgate.train.stages import Job, Kept, train

DISK_MARGIN = 1.1
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a build came to.

    `checkpoints` maps each finished stage to its checkpoint; `overhead_seconds` says what this run spent besides
    training: checking the contract, writing resume points and checkpoints, measuring and judging.
    """

    passed: bool
    reason: str
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    overhead_seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def build_model(
    workspace: Workspace, *, until: str | None, start: str | None, restart: bool, observer: Observer
) -> Outcome:
    """Run every stage that is not already there, up to `until`.

    Args:
        start: a checkpoint to start from instead of the stages before it; optimizers are fresh.
        restart: forget the resume points of unfinished stages.

    Raises `LockError` when the contract does not hold, `StoreError` when the disk is too small, `TrainingStopped`
    when the loop refuses to go on. A failed gate is no exception: the outcome says so.
    """
    with in_use(workspace.store.root):
        return _build(workspace, until, start, restart, observer)


def _build(workspace: Workspace, until: str | None, start: str | None, restart: bool, observer: Observer) -> Outcome:
    locked = lock.read_lock(workspace.lock_path)
    if until is not None:
        workspace.recipe.stage(until)
    observer.note("checking the contract")
    watch = Stopwatch()
    with watch("contract"):
        facts = find_facts(workspace)
        lock.require_agreement(locked, facts.contract, workspace.lock_path)
        refuse_contamination(workspace, facts.suite)
        refuse_unmeasurable(workspace.recipe, facts)
    _require_what_is_installed(workspace)
    _require_disk_budget(workspace, facts)
    if workspace.accelerator.is_main_process:
        _tidy(workspace, observer, restart)
    workspace.accelerator.wait_for_everyone()
    run = _Build(workspace, facts, observer, restart, watch)
    if start is not None:
        run.start_from(start, until)
    return run.through(until)


def _require_what_is_installed(workspace: Workspace) -> None:
    """Refuse now what a later stage could not load. Locking and planning are fine on a machine that lacks it."""
    for stage in workspace.recipe.stages:
        if not isinstance(stage, Pretrain) and stage.adapter is not None and stage.adapter.bits == 4:
            require_4bit(workspace.device)


def _tidy(workspace: Workspace, observer: Observer, restart: bool) -> None:
    """Remove what killed processes left half-written; with `restart` also records that can no longer be read."""
    workspace.store.sweep_temporaries()
    for digest in workspace.store.discard_damaged_results() if restart else ():
        observer.note(f"result {digest[3:15]} is damaged; what it told is found again")


def _disk_needed(facts: Facts, num_checkpoints: int) -> int:
    """Bytes of so many checkpoints, and of two resume points of weights with two moments in fp32."""
    largest = max(fact["trainable"]["of"] for fact in facts.contract["stages"])
    return int(DISK_MARGIN * largest * 4 * (num_checkpoints + 2 * 3))


def _require_disk_budget(workspace: Workspace, facts: Facts) -> None:
    """Raise `StoreError` where the recipe does not allow itself the disk that all its checkpoints take."""
    needed = _disk_needed(facts, len(workspace.recipe.stages) + (workspace.recipe.base is not None))
    budget = workspace.recipe.budget.disk_gib
    if budget is not None and needed > budget * _GIB:
        raise StoreError(
            "the plan does not fit the disk budget",
            where="budget.disk_gib",
            expected=f"at least {needed / _GIB:.2f} GiB",
            found=f"{budget:g} GiB",
            mend="raise budget.disk_gib, or train a smaller model",
        )


class _Build:
    """One run of the main job; holds what the stages pass on to each other."""

    def __init__(self, workspace: Workspace, facts: Facts, observer: Observer, restart: bool, watch: Stopwatch) -> None:
        self.watch = watch
        self.workspace = workspace
        self.recipe: Recipe = workspace.recipe
        self.store = workspace.store
        self.facts = facts
        self.observer = observer
        self.restart = restart
        self.judging = Judging(workspace=workspace, facts=facts, observer=observer, watch=watch)
        self.entry = Entry(workspace=workspace, facts=facts)
        self.checkpoints: dict[str, str] = {}
        self.start: str | None = None
        self.skipped: set[str] = set()

    @cached_property
    def base(self) -> str | None:
        """The base model's checkpoint; None when the recipe starts from scratch."""
        with self.watch("store"):
            checkpoint = base_checkpoint(self.workspace, self.facts, restart=self.restart, note=self.observer.note)
        if checkpoint is not None:
            self._claim(checkpoints={BASE: checkpoint})
        return checkpoint

    def start_from(self, ref: str, until: str | None) -> None:
        """Take a checkpoint in place of the stage that made it and every policy stage before that.

        Raises `LockError` when it is unknown to the recipe or its own gates did not pass, `RecipeError` when nothing
        would be left to build up to `until`.
        """
        checkpoint = self.store.resolve(ref)
        manifest = self.entry.require_policy(ref, checkpoint)
        names = [stage.name for stage in self.recipe.stages]
        self.skipped |= set(names[: names.index(manifest.stage) + 1])
        if until in self.skipped:
            raise RecipeError(
                f"stage {until!r} does not come after the checkpoint to start from",
                where=ref,
                expected=f"one of {', '.join(name for name in names if name not in self.skipped) or 'no stage'}",
                mend="leave out --until, or --from",
            )
        self.start = checkpoint
        self._take(manifest.stage, checkpoint)

    def through(self, until: str | None) -> Outcome:
        for stage in self.recipe.stages:
            if stage.name not in self.skipped:
                verdicts = self._stage(stage)
                if not verdicts:
                    reason = f"stage {stage.name!r} did not pass its gates; nothing after it was built"
                    return self._outcome(False, reason)
            if stage.name == until:
                break
        return self._outcome(True, "every gate passed")

    def _outcome(self, ok: bool, reason: str) -> Outcome:
        return Outcome(
            passed=ok, reason=reason, checkpoints=dict(self.checkpoints), overhead_seconds=dict(self.watch.seconds)
        )

    def _stage(self, stage: Stage) -> bool:
        parent, reward = self._parent_of(stage), self._reward_of(stage)
        inputs = stage_inputs(self.workspace, self.facts, stage, parent, reward)
        key = digest_json(inputs)
        checkpoint = reusable(self.store, key, f"stage {stage.name!r}", restart=self.restart, note=self.observer.note)
        if checkpoint is not None:
            self.observer.stage_finished(stage.name, checkpoint, 0.0, True)
        else:
            checkpoint = self._train(stage, parent, reward, inputs, key)
        self._take(stage.name, checkpoint)
        return self.judging.judge(stage, checkpoint, parent, reward)

    def _take(self, name: str, checkpoint: str) -> None:
        """Let later stages stand on this checkpoint, and collection let it be."""
        self.checkpoints[name] = checkpoint
        self._claim(checkpoints={name: checkpoint})

    def _claim(self, **what: Mapping[str, str]) -> None:
        """Say in the store what this recipe stands on; stages that it no longer has are given up."""
        if self._is_main:
            stages = {BASE, *(stage.name for stage in self.recipe.stages)}
            self.store.claims.renew(self.workspace.recipe_path, stages, **what)

    def _parent_of(self, stage: Stage) -> str | None:
        name = self.recipe.parent_name(stage.name)
        if name is None:
            return self.base
        if name not in self.checkpoints:
            raise RecipeError(
                f"stage {stage.name!r} has no parent to start from", mend=f"weightgate build --from {name}"
            )
        return self.checkpoints[name]

    def _reward_of(self, stage: Stage) -> str | None:
        if not isinstance(stage, Align):
            return None
        name = self.recipe.reward_name(stage.name)
        if name not in self.checkpoints and self.start is not None:
            # A build that starts from a policy still needs the reward model that belongs to it.
            self._take(name, self.entry.reward_model(name, policy=self.start))
        return self.checkpoints[name]

    # Training

    def _train(self, stage: Stage, parent: str | None, reward: str | None, inputs: dict[str, Any], key: str) -> str:
        hold_still(self.recipe.seed, self.recipe.threads)
        self._require_free_disk(stage)
        job = self._job(stage, parent, reward)
        folder = self.store.root / "resume" / key[3:]
        self._claim(runs={stage.name: key})
        began = time.monotonic()
        with exclusive(folder, f"stage {stage.name!r}") if self._is_main else nullcontext():
            kept, trained = self._run_loop(stage, job, folder)
            with self.watch("store"):
                checkpoint = self._publish(stage, kept, parent, reward, inputs, key, trained)
                if self._is_main:
                    clear(folder)
        self.observer.stage_finished(stage.name, checkpoint, time.monotonic() - began, False)
        self.workspace.accelerator.wait_for_everyone()
        return checkpoint

    def _run_loop(self, stage: Stage, job: Job, folder: Path) -> tuple[Kept, Trained]:
        """Train from the newest resume point in `folder`, or from the beginning, until done or told to stop."""
        if self.restart and self._is_main:
            clear(folder)
        self.workspace.accelerator.wait_for_everyone()
        resume = newest_resume_state(folder)
        steps = self.facts.steps[stage.name]
        self.observer.stage_started(stage.name, stage.kind, steps, resume.step if resume else 0)
        with stop_on_signals() as stop:
            return train(
                job,
                steps,
                resume=resume,
                save=lambda state: self._save(folder, state),
                observe=lambda progress: self._progress(stage.name, progress),
                stop_requested=stop.is_set,
            )

    @property
    def _is_main(self) -> bool:
        """The main process alone writes to the store."""
        return bool(self.workspace.accelerator.is_main_process)

    def _require_free_disk(self, stage: Stage) -> None:
        """Raise `StoreError` unless this stage and all after it fit on the disk."""
        stages = self.recipe.stages
        require_free_space(self.store.root, _disk_needed(self.facts, len(stages) - stages.index(stage)))

    def _save(self, folder: Path, state: ResumeState) -> None:
        with self.watch("store"):
            if self._is_main:
                save_resume_point(folder, state)

    def _progress(self, name: str, progress: Progress) -> None:
        if self._is_main:
            self.observer.stage_progress(
                name,
                Progressed(
                    step=progress.step,
                    steps=progress.steps,
                    metrics=progress.metrics,
                    tokens_per_second=progress.positions_per_second,
                    seconds_left=progress.seconds_left,
                ),
            )

    def _job(self, stage: Stage, parent: str | None, reward: str | None) -> Job:
        workspace, facts = self.workspace, self.facts
        device = workspace.accelerator.device
        where: dict[str, Any] = {"device": device, "precision": workspace.precision}
        if parent is not None:
            policy = load_policy(self.store, parent, **where)
        else:
            policy = new_model(facts.config, seed=self.recipe.seed, **where)
        needs_reference = isinstance(stage, Align) and stage.adapter is None and parent is not None
        return Job(
            recipe=self.recipe,
            stage=stage,
            tokenizer=facts.tokenizer,
            rows=facts.prepared[stage.name].train,
            policy=policy,
            parent_id=parent,
            reference=load_policy(self.store, str(parent), **where) if needs_reference else None,
            reward_model=load_reward(self.store, reward, **where) if reward else None,
            accelerator=workspace.accelerator,
            precision=workspace.precision,
            budget_seconds=self._seconds_left(),
        )

    def _seconds_left(self) -> float:
        """What the time budget leaves for the next stage, after what the stages before it took to train."""
        minutes = self.recipe.budget.minutes
        if minutes is None:
            return math.inf
        spent = sum(training_cost(self.store, each).get("seconds", 0.0) for each in self.checkpoints.values())
        return minutes * 60 - spent

    def _publish(
        self,
        stage: Stage,
        kept: Kept,
        parent: str | None,
        reward: str | None,
        inputs: dict[str, Any],
        key: str,
        trained: Trained,
    ) -> str:
        checkpoint = publish(
            self.store,
            stage=stage.name,
            stage_kind=stage.kind,
            tensors=kept.tensors,
            files=kept.files,
            inputs=inputs | {"key": key},
            parent=parent,
            reward=reward,
        )
        result = Result(
            key=key,
            checkpoint=checkpoint,
            cost={"seconds": trained.seconds, "positions": trained.positions, "updates": float(trained.updates)},
            curves=trained.curves,
            environment=self.workspace.reproducibility()
            | {"forecast": recall_forecast(self.workspace, self.facts, stage)},
            recorded_at=recording_time(self.store.results(key)),
        )
        if self._is_main:
            self.store.add_result(key, result)
        return checkpoint

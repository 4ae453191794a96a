"""The main job: for each stage train, store, measure and judge; stop with the reason when a gate does not pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from weightgate.build.base import base_checkpoint
from weightgate.build.events import Observer, Progressed
from weightgate.build.facts import Facts, Stage, find_facts, refuse_contamination
from weightgate.build.forecasts import recall_forecast
from weightgate.build.measure import (
    AlignmentSubjects,
    Measured,
    Suites,
    alignment_measurements,
    policy_measurements,
    reward_measurements,
)
from weightgate.build.run_key import stage_inputs
from weightgate.build.signals import stop_on_signals
from weightgate.build.stopwatch import Stopwatch
from weightgate.build.workspace import CODE, Workspace
from weightgate.contract import lock
from weightgate.contract.gate import judge, passed
from weightgate.errors import CorruptError, LockError, RecipeError, StoreError
from weightgate.lineage import training_cost
from weightgate.plan.advice import EXCESS_COMPUTE, excess_measurement, planned_run, pretraining
from weightgate.recipe import Align, Pretrain, Recipe, Reward
from weightgate.store import Manifest, Result, digest_json, require_free_space
from weightgate.store.resume import clear
from weightgate.train.checkpoints import (
    damaged_objects,
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
_MEND_DAMAGE = (
    "weightgate verify names all damage; weightgate build --restart trains damaged stages again, "
    "which gives the same bytes"
)


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
    locked = lock.read_lock(workspace.lock_path)
    if until is not None:
        workspace.recipe.stage(until)
    observer.note("checking the contract")
    watch = Stopwatch()
    with watch("contract"):
        facts = find_facts(workspace)
        lock.require_agreement(locked, facts.contract, workspace.lock_path)
        refuse_contamination(workspace, facts.suite)
    _require_disk(workspace, facts)
    run = _Build(workspace, facts, observer, restart, watch)
    if start is not None:
        run.start_from(start)
    return run.through(until)


def _require_disk(workspace: Workspace, facts: Facts) -> None:
    """A checkpoint per stage and of the base, and two resume points of weights with two moments in fp32."""
    num_checkpoints = len(workspace.recipe.stages) + (workspace.recipe.base is not None)
    largest = max(fact["trainable"]["of"] for fact in facts.contract["stages"])
    needed = int(DISK_MARGIN * largest * 4 * (num_checkpoints + 2 * 3))
    budget = workspace.recipe.budget.disk_gib
    if budget is not None and needed > budget * _GIB:
        raise StoreError(
            "the plan does not fit the disk budget",
            where="budget.disk_gib",
            expected=f"at least {needed / _GIB:.2f} GiB",
            found=f"{budget:g} GiB",
            mend="raise budget.disk_gib, or train a smaller model",
        )
    require_free_space(workspace.store.root, needed)


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
        self.checkpoints: dict[str, str] = {}
        self.skipped: set[str] = set()

    @cached_property
    def base(self) -> str | None:
        """The base model's checkpoint; None when the recipe starts from scratch."""
        with self.watch("store"):
            return base_checkpoint(self.workspace, self.facts)

    def start_from(self, ref: str) -> None:
        """Take a checkpoint in place of the stage that made it and every policy stage before that.

        Raises `LockError` when it is unknown to the recipe or its own gates did not pass.
        """
        checkpoint = self.store.resolve(ref)
        manifest = self.store.manifest(checkpoint)
        names = [stage.name for stage in self.recipe.stages]
        if manifest.stage not in names:
            raise RecipeError(
                "the checkpoint was made by a stage that this recipe does not have",
                where=ref,
                expected=f"one of {', '.join(names)}",
                found=manifest.stage,
            )
        if manifest.inputs.get("tokenizer") != self.facts.tokenizer.digest:
            raise LockError(
                "the checkpoint was trained with another tokenizer",
                where=ref,
                expected=self.facts.tokenizer.digest,
                found=str(manifest.inputs.get("tokenizer")),
            )
        self._require_same_base(ref, manifest)
        self._require_gates_passed(manifest.stage, checkpoint)
        self.checkpoints[manifest.stage] = checkpoint
        self.skipped |= set(names[: names.index(manifest.stage) + 1])

    def _require_same_base(self, ref: str, manifest: Manifest) -> None:
        while manifest.parent is not None:
            manifest = self.store.manifest(manifest.parent)
        found = manifest.inputs.get("base")
        if found != self.facts.base_digest:
            raise LockError(
                "the checkpoint descends from another base model",
                where=ref,
                expected=self.facts.base_digest or "a model trained from scratch",
                found=str(found or "a model trained from scratch"),
                mend="name the base it was trained on under base.model, or build without --from",
            )

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
        try:
            checkpoint = self._reusable(stage.name, key)
            if checkpoint is not None:
                self.observer.stage_finished(stage.name, checkpoint, 0.0, True)
            else:
                checkpoint = self._train(stage, parent, reward, inputs, key)
            self.checkpoints[stage.name] = checkpoint
            return self._judge(stage, checkpoint, parent, reward)
        except CorruptError as error:
            error.mend = _MEND_DAMAGE
            raise

    def _reusable(self, name: str, key: str) -> str | None:
        """The checkpoint of an earlier run with these inputs; with `restart`, only if every byte is right.

        Raises `CorruptError` for a damaged one: whoever owns a failing disk wants to know before money is spent.
        """
        results = self.store.results(key)
        if not results:
            return None
        checkpoint = results[-1].checkpoint
        damaged = damaged_objects(self.store, checkpoint, contents=self.restart)
        if not damaged:
            return checkpoint
        if not self.restart:
            raise CorruptError(
                f"the checkpoint of stage {name!r} is damaged: {len(damaged)} objects are gone or cut short",
                where=checkpoint,
                found=damaged[0],
            )
        self.observer.note(f"{name}: {len(damaged)} objects are damaged; training it again")
        return None

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
        if name not in self.checkpoints:
            # A build that starts from a policy still needs the reward model that belongs to it.
            checkpoint = self.store.refs().get(name)
            if checkpoint is None:
                raise RecipeError(f"stage {stage.name!r} has no reward model", mend="weightgate build")
            self._require_gates_passed(name, checkpoint)
            self.checkpoints[name] = checkpoint
        return self.checkpoints[name]

    def _require_gates_passed(self, stage: str, checkpoint: str) -> None:
        results = self.store.results(f"measured:{checkpoint}")
        if not results or any(v["status"] in ("failed", "not measured") for v in results[-1].verdicts):
            raise LockError(
                "no stage may start from a checkpoint whose gates did not pass",
                where=stage,
                found=f"{checkpoint[3:15]} " + ("was never judged" if not results else "did not pass"),
                mend=f"weightgate show {checkpoint[3:15]}",
            )

    # Training

    def _train(self, stage: Stage, parent: str | None, reward: str | None, inputs: dict[str, Any], key: str) -> str:
        workspace = self.workspace
        hold_still(self.recipe.seed, self.recipe.threads)
        job = self._job(stage, parent, reward)
        folder = self.store.root / "resume" / key[3:]
        if self.restart:
            self._main(lambda: clear(folder))
            workspace.accelerator.wait_for_everyone()
        resume = newest_resume_state(folder)
        steps = self.facts.steps[stage.name]
        self.observer.stage_started(stage.name, stage.kind, steps, resume.step if resume else 0)
        began = time.monotonic()
        with stop_on_signals() as stop:
            kept, trained = train(
                job,
                steps,
                resume=resume,
                save=lambda state: self._save(folder, state),
                observe=lambda progress: self._progress(stage.name, progress),
                stop_requested=stop.is_set,
            )
        with self.watch("store"):
            checkpoint = self._publish(stage, kept, parent, reward, inputs, key, trained)
            self._main(lambda: clear(folder))
        self.observer.stage_finished(stage.name, checkpoint, time.monotonic() - began, False)
        workspace.accelerator.wait_for_everyone()
        return checkpoint

    def _save(self, folder: Path, state: ResumeState) -> None:
        with self.watch("store"):
            self._main(lambda: save_resume_point(folder, state))

    def _main(self, action: Any) -> None:
        """Let the main process alone write to the store."""
        if self.workspace.accelerator.is_main_process:
            action()

    def _progress(self, name: str, progress: Progress) -> None:
        if self.workspace.accelerator.is_main_process:
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
            recorded_at=_now(),
        )
        self._main(lambda: self.store.add_result(key, result))
        return checkpoint

    # Gates

    def _judge(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> bool:
        before = self._measured(parent)
        earlier = [s.name for s in self.recipe.stages[: self.recipe.stages.index(stage) + 1]]
        basis = self._basis(earlier)
        measured, newest = self._remembered(
            stage.name, checkpoint, basis, lambda: self._measure(stage, checkpoint, parent, reward)
        )
        verdicts = judge(stage.gates, measured.measurements, before.measurements)
        described = tuple(verdict.to_json() for verdict in verdicts)
        if newest is None or tuple(dict(verdict) for verdict in newest.verdicts) != described:
            self._remember(checkpoint, measured, basis, described)
        ok = passed(verdicts)
        self._main(lambda: self._move_refs(stage.name, checkpoint, ok))
        self.observer.stage_judged(stage.name, list(described), ok)
        return ok

    def _remembered(
        self, name: str, checkpoint: str, basis: str, measure: Callable[[], Measured]
    ) -> tuple[Measured, Result | None]:
        """What was measured on the same basis before, with its record; else what is measured now, without one."""
        newest = next(reversed(self.store.results(f"measured:{checkpoint}")), None)
        if newest is not None and newest.environment.get("basis") == basis:
            return Measured.of(newest), newest
        self.observer.note(f"measuring {name}")
        with self.watch("gates"):
            return measure(), None

    def _remember(
        self, checkpoint: str, measured: Measured, basis: str, verdicts: tuple[dict[str, Any], ...] = ()
    ) -> None:
        key = f"measured:{checkpoint}"
        result = Result(
            key=key,
            checkpoint=checkpoint,
            measurements={name: value.to_json() for name, value in measured.measurements.items()},
            verdicts=verdicts,
            environment={"basis": basis, "answers": measured.answers_json()},
            recorded_at=_now(),
        )
        self._main(lambda: self.store.add_result(key, result))

    def _move_refs(self, name: str, checkpoint: str, ok: bool) -> None:
        """`<stage>` points at the newest checkpoint whose gates passed, `failed/<stage>` at the newest that did not."""
        ref, why = (name, "every gate passed") if ok else (f"failed/{name}", "a gate did not pass")
        old = self.store.refs().get(ref)
        if old != checkpoint:
            self.store.set_ref(ref, checkpoint, old=old, why=why)

    def _basis(self, stages: list[str]) -> str:
        """Digest of what measurements rest on besides the weights: suite and held-out data of some stages."""
        probes = self.recipe.probes.model_dump(mode="json") if self.recipe.probes else None
        return digest_json(
            {
                "probes": self.facts.contract["probes"],
                "settings": probes,
                "holdouts": {name: self.facts.prepared[name].digest for name in stages},
                "code": CODE,
            }
        )

    def _measured(self, checkpoint: str | None) -> Measured:
        if checkpoint is not None and checkpoint == self.base:
            return self._base_measured(checkpoint)
        results = self.store.results(f"measured:{checkpoint}") if checkpoint else []
        return Measured.of(results[-1]) if results else Measured(measurements={})

    def _base_measured(self, checkpoint: str) -> Measured:
        """What the base model can do before the first stage, for gates on what may be lost."""
        workspace, facts = self.workspace, self.facts
        device = workspace.accelerator.device
        basis = self._basis([stage.name for stage in self.recipe.stages])

        def measure() -> Measured:
            policy = load_policy(self.store, checkpoint, device=device, precision=workspace.precision)
            holdouts, probes = self._holdouts(self.recipe.stages), self._suites(self.recipe.stages)
            return policy_measurements(policy, facts.tokenizer, device, own="base", holdouts=holdouts, probes=probes)

        measured, newest = self._remembered("base", checkpoint, basis, measure)
        if newest is None:
            self._remember(checkpoint, measured, basis)
        return measured

    def _measure(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> Measured:
        workspace, facts = self.workspace, self.facts
        device = workspace.accelerator.device
        where: dict[str, Any] = {"device": device, "precision": workspace.precision}
        if isinstance(stage, Reward):
            model = load_reward(self.store, checkpoint, **where)
            return reward_measurements(model, facts.tokenizer, device, facts.prepared[stage.name].holdout)
        policy = load_policy(self.store, checkpoint, **where)
        line = self.recipe.stages[: self.recipe.stages.index(stage) + 1]
        probes = self._suites(line)
        measured = policy_measurements(
            policy, facts.tokenizer, device, own=stage.name, holdouts=self._holdouts(line), probes=probes
        )
        if stage is pretraining(self.recipe):
            spent = {EXCESS_COMPUTE: excess_measurement(planned_run(self.recipe, facts.contract["stages"]))}
            return Measured(measurements=measured.measurements | spent, answers=measured.answers)
        if not isinstance(stage, Align):
            return measured
        assert reward is not None
        assert parent is not None
        subjects = AlignmentSubjects(
            reference=load_policy(self.store, parent, **where),
            reward=load_reward(self.store, reward, **where),
            prompts=facts.prepared[stage.name].holdout,
            ppo=stage.ppo,
            seed=self.recipe.seed,
            parent_answers=self._measured(parent).answers,
        )
        aligned = alignment_measurements(
            policy, measured.answers, facts.tokenizer, device, subjects, probes.asked if probes else None
        )
        return Measured(measurements=measured.measurements | aligned, answers=measured.answers)

    def _suites(self, line: Sequence[Stage]) -> Suites | None:
        """The probe suite as it can be asked after these stages."""
        if self.facts.suite is None or self.recipe.probes is None:
            return None
        has_chat = self.recipe.base is not None or any(not isinstance(s, Pretrain | Reward) for s in line)
        return Suites(suite=self.facts.suite, settings=self.recipe.probes, chat=has_chat)

    def _holdouts(self, line: Sequence[Stage]) -> dict[str, tuple[Any, int]]:
        return {
            s.name: (self.facts.prepared[s.name].holdout, s.context) for s in line if s.kind in ("pretrain", "finetune")
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

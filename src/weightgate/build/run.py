"""The main job: for each stage train, store, measure and judge; stop with the reason when a gate does not pass."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weightgate.build.events import Observer, Progressed
from weightgate.build.facts import Facts, Stage, find_facts, refuse_contamination
from weightgate.build.measure import (
    AlignmentSubjects,
    Measured,
    Suites,
    alignment_measurements,
    policy_measurements,
    reward_measurements,
)
from weightgate.build.workspace import CODE, Workspace
from weightgate.contract import lock
from weightgate.contract.gate import judge, passed
from weightgate.errors import LockError, RecipeError, StoreError
from weightgate.probe.targets import Answers
from weightgate.recipe import Align, Pretrain, Recipe, Reward
from weightgate.stats import Measurement, measurement_from_json
from weightgate.store import Result, digest_json, require_free_space
from weightgate.store.resume import clear
from weightgate.train.checkpoints import load_policy, load_reward, newest_resume_state, publish, save_resume_point
from weightgate.train.environment import hold_still
from weightgate.train.loop import Progress, ResumeState, Trained
from weightgate.train.models import load_base, new_model
from weightgate.train.stages import Job, Kept, train

DISK_MARGIN = 1.1
_GIB = 2**30
_TRAINING_KEYS = ("context", "batch", "micro_batch", "optimizer", "schedule", "activation_checkpointing")


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


def lock_contract(workspace: Workspace) -> dict[str, Any]:
    """Find the facts, refuse what must not be agreed to, and write `weightgate.lock`."""
    facts = find_facts(workspace)
    refuse_contamination(workspace, facts.suite)
    lock.write_lock(workspace.lock_path, facts.contract)
    return facts.contract


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


class Stopwatch:
    """Adds up wall-clock seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time spent inside under `name`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def _require_disk(workspace: Workspace, facts: Facts) -> None:
    """A checkpoint per stage, and two resume points of weights with two moments in fp32 for the largest stage."""
    largest = max(fact["trainable"]["of"] for fact in facts.contract["stages"])
    needed = int(DISK_MARGIN * largest * 4 * (len(workspace.recipe.stages) + 2 * 3))
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


def stage_inputs(
    workspace: Workspace, facts: Facts, stage: Stage, parent: str | None, reward: str | None
) -> dict[str, Any]:
    """Everything that decides a stage's weights, as strings and integers; its digest is the key of the run.

    Gates and probes are left out: they judge weights, they do not make them.
    """
    fact = next(fact for fact in facts.contract["stages"] if fact["name"] == stage.name)
    settings = stage.model_dump(mode="json", exclude={"name", "kind", "data", "gates", "holdout"})
    inputs: dict[str, Any] = {
        "stage_kind": stage.kind,
        "recipe": _plain(settings),
        "parent": parent or facts.base_digest or "none",
        "reward": reward or "none",
        "data": facts.prepared[stage.name].digest,
        "tokenizer": facts.tokenizer.digest,
        "template": facts.tokenizer.template_digest,
        "parameters": fact["trainable"],
        "steps": facts.steps[stage.name],
        "seed": workspace.recipe.seed,
        "code": CODE,
        "class": workspace.reproducibility(),
    }
    if parent is None:
        inputs["architecture"] = _plain(facts.config)
    return inputs


def _plain(value: Any) -> Any:
    """Floats as their shortest text: manifests hold none, because their JSON form is not unique."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


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
        self._require_gates_passed(manifest.stage, checkpoint)
        self.checkpoints[manifest.stage] = checkpoint
        self.skipped |= set(names[: names.index(manifest.stage) + 1])

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
        results = self.store.results(key)
        if results:
            checkpoint = results[-1].checkpoint
            self.observer.stage_finished(stage.name, checkpoint, 0.0, True)
        else:
            checkpoint = self._train(stage, parent, reward, inputs, key)
        self.checkpoints[stage.name] = checkpoint
        return self._judge(stage, checkpoint, parent, reward)

    def _parent_of(self, stage: Stage) -> str | None:
        name = self.recipe.parent_name(stage.name)
        if name is None:
            return None
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
            clear(folder)
        resume = newest_resume_state(folder)
        steps = self.facts.steps[stage.name]
        self.observer.stage_started(stage.name, stage.kind, steps, resume.step if resume else 0)
        began = time.monotonic()
        with _stop_on_signals() as stop:
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
        elif self.recipe.base is not None:
            policy = load_base(self.recipe.base, **where)
        else:
            policy = new_model(facts.config, seed=self.recipe.seed, **where)
        return Job(
            recipe=self.recipe,
            stage=stage,
            tokenizer=facts.tokenizer,
            rows=facts.prepared[stage.name].train,
            policy=policy,
            parent_id=parent or facts.base_digest or "none",
            fresh=parent is None and self.recipe.base is None,
            reward_model=load_reward(self.store, reward, **where) if reward else None,
            accelerator=workspace.accelerator,
            precision=workspace.precision,
        )

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
            environment=self.workspace.reproducibility(),
            recorded_at=_now(),
        )
        self._main(lambda: self.store.add_result(key, result))
        return checkpoint

    # Gates

    def _judge(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> bool:
        key = f"measured:{checkpoint}"
        basis = self._basis(stage)
        before = self._measured(parent)
        newest = next(reversed(self.store.results(key)), None)
        if newest is None or newest.environment.get("basis") != basis:
            self.observer.note(f"measuring {stage.name}")
            began = time.monotonic()
            with self.watch("gates"):
                measured = self._measure(stage, checkpoint, parent, reward)
            seconds = time.monotonic() - began
        else:
            measured = _measured_from(newest)
            seconds = float(newest.cost.get("seconds", 0.0))
        verdicts = judge(stage.gates, measured.measurements, before.measurements)
        result = Result(
            key=key,
            checkpoint=checkpoint,
            measurements={name: value.to_json() for name, value in measured.measurements.items()},
            verdicts=tuple(verdict.to_json() for verdict in verdicts),
            cost={"seconds": seconds},
            environment={"basis": basis, "answers": _answers_json(measured.answers)},
            recorded_at=_now(),
        )
        if (
            newest is None
            or [dict(v) for v in newest.verdicts] != list(result.verdicts)
            or seconds != newest.cost.get("seconds")
        ):
            self._main(lambda: self.store.add_result(key, result))
        ok = passed(verdicts)
        self._main(lambda: self._move_refs(stage.name, checkpoint, ok))
        self.observer.stage_judged(stage.name, [dict(verdict) for verdict in result.verdicts], ok)
        return ok

    def _move_refs(self, name: str, checkpoint: str, ok: bool) -> None:
        """`<stage>` points at the newest checkpoint whose gates passed, `failed/<stage>` at the newest that did not."""
        ref, why = (name, "every gate passed") if ok else (f"failed/{name}", "a gate did not pass")
        old = self.store.refs().get(ref)
        if old != checkpoint:
            self.store.set_ref(ref, checkpoint, old=old, why=why)

    def _basis(self, stage: Stage) -> str:
        """Digest of what measurements rest on besides the weights: suite and held-out data."""
        earlier = [s.name for s in self.recipe.stages[: self.recipe.stages.index(stage) + 1]]
        probes = self.recipe.probes.model_dump(mode="json") if self.recipe.probes else None
        return digest_json(
            {
                "probes": self.facts.contract["probes"],
                "settings": probes,
                "holdouts": {name: self.facts.prepared[name].digest for name in earlier},
                "code": CODE,
            }
        )

    def _measured(self, checkpoint: str | None) -> Measured:
        results = self.store.results(f"measured:{checkpoint}") if checkpoint else []
        return _measured_from(results[-1]) if results else Measured(measurements={})

    def _measure(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> Measured:
        workspace, facts = self.workspace, self.facts
        device = workspace.accelerator.device
        where: dict[str, Any] = {"device": device, "precision": workspace.precision}
        if isinstance(stage, Reward):
            model = load_reward(self.store, checkpoint, **where)
            return reward_measurements(model, facts.tokenizer, device, facts.prepared[stage.name].holdout)
        policy = load_policy(self.store, checkpoint, **where)
        probes = self._suites(stage)
        measured = policy_measurements(
            policy, facts.tokenizer, device, own=stage.name, holdouts=self._holdouts(stage), probes=probes
        )
        if not isinstance(stage, Align):
            return measured
        assert reward is not None
        reference = load_policy(self.store, parent, **where) if parent else load_base(self._base(), **where)
        subjects = AlignmentSubjects(
            reference=reference,
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

    def _base(self) -> Any:
        assert self.recipe.base is not None
        return self.recipe.base

    def _suites(self, stage: Stage) -> Suites | None:
        if self.facts.suite is None or self.recipe.probes is None:
            return None
        line = self.recipe.stages[: self.recipe.stages.index(stage) + 1]
        has_chat = self.recipe.base is not None or any(not isinstance(s, Pretrain | Reward) for s in line)
        return Suites(suite=self.facts.suite, settings=self.recipe.probes, chat=has_chat)

    def _holdouts(self, stage: Stage) -> dict[str, tuple[Any, int]]:
        line = self.recipe.stages[: self.recipe.stages.index(stage) + 1]
        return {
            s.name: (self.facts.prepared[s.name].holdout, s.context) for s in line if s.kind in ("pretrain", "finetune")
        }


def _measured_from(result: Result) -> Measured:
    found: dict[str, Measurement] = {
        name: measurement_from_json(dict(data)) for name, data in result.measurements.items()
    }
    return Measured(measurements=found, answers=_answers_from(result.environment.get("answers")))


def _answers_json(answers: Answers | None) -> dict[str, Any] | None:
    if answers is None:
        return None
    return {"greedy": list(answers.greedy), "sampled": [list(texts) for texts in answers.sampled]}


def _answers_from(data: Any) -> Answers | None:
    if data is None:
        return None
    return Answers(greedy=tuple(data["greedy"]), sampled=tuple(tuple(texts) for texts in data["sampled"]))


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Set an event on the first SIGINT or SIGTERM, so that a step ends and is saved; a second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

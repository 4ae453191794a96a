"""A finished stage before its gates: measure it, or recall what was measured, judge, remember, and move its ref."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from weightgate.build.base import STAGE as BASE
from weightgate.build.events import Observer
from weightgate.build.facts import Facts, Stage
from weightgate.build.measure import (
    AlignmentSubjects,
    Measured,
    Suites,
    alignment_measurements,
    policy_measurements,
    reward_measurements,
)
from weightgate.build.stopwatch import Stopwatch
from weightgate.build.workspace import CODE, Workspace
from weightgate.contract.gate import judge, passed
from weightgate.plan.advice import EXCESS_COMPUTE, excess_measurement, planned_run, pretraining
from weightgate.recipe import Align, Recipe, Reward
from weightgate.stats import Measurement
from weightgate.store import Result, digest_json
from weightgate.store.records import FAILED, measured_key, recording_time
from weightgate.train.checkpoints import load_policy, load_reward


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Measures and judges the checkpoints of one build. In a build of several processes each measures by itself."""

    workspace: Workspace
    facts: Facts
    observer: Observer
    watch: Stopwatch

    def judge(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> bool:
        """Say whether every gate of the stage lets the next one start; the verdicts are kept and the ref is moved."""
        before = self._measured(parent)
        line = self._line(stage)
        basis = self._basis([each.name for each in line])
        measured, newest = self._remembered(
            stage.name, checkpoint, basis, lambda: self._measure(stage, checkpoint, parent, reward)
        )
        verdicts = judge(stage.gates, measured.measurements, before.measurements)
        described = tuple(verdict.to_json() for verdict in verdicts)
        if newest is None or tuple(dict(verdict) for verdict in newest.verdicts) != described:
            self._remember(checkpoint, measured, basis, described)
        ok = passed(verdicts)
        if self._is_main:
            self._move_refs(stage.name, checkpoint, ok)
        self.observer.stage_judged(stage.name, list(described), ok)
        return ok

    @property
    def _recipe(self) -> Recipe:
        return self.workspace.recipe

    @property
    def _is_main(self) -> bool:
        """The main process alone writes to the store."""
        return bool(self.workspace.accelerator.is_main_process)

    @property
    def _where(self) -> dict[str, Any]:
        return {"device": self.workspace.accelerator.device, "precision": self.workspace.precision}

    def _line(self, stage: Stage) -> Sequence[Stage]:
        """The stages up to and with this one."""
        stages = self._recipe.stages
        return stages[: stages.index(stage) + 1]

    # Memory

    def _remembered(
        self, name: str, checkpoint: str, basis: str, measure: Callable[[], Measured]
    ) -> tuple[Measured, Result | None]:
        """What was measured on the same basis before, with its record; else what is measured now, without one."""
        newest = self._newest(checkpoint)
        if newest is not None and newest.environment.get("basis") == basis:
            return Measured.of(newest), newest
        self.observer.note(f"measuring {name}")
        with self.watch("gates"):
            return measure(), None

    def _remember(
        self, checkpoint: str, measured: Measured, basis: str, verdicts: tuple[dict[str, Any], ...] = ()
    ) -> None:
        key = measured_key(checkpoint)
        result = Result(
            key=key,
            checkpoint=checkpoint,
            measurements={name: value.to_json() for name, value in measured.measurements.items()},
            verdicts=verdicts,
            environment={"basis": basis, "answers": measured.answers_json()},
            recorded_at=recording_time(self.workspace.store.results(key)),
        )
        if self._is_main:
            self.workspace.store.add_result(key, result)

    def _newest(self, checkpoint: str) -> Result | None:
        return next(reversed(self.workspace.store.results(measured_key(checkpoint))), None)

    def _move_refs(self, name: str, checkpoint: str, ok: bool) -> None:
        """`<stage>` points at the newest checkpoint whose gates passed, `failed/<stage>` at the newest that did not."""
        ref, why = (name, "every gate passed") if ok else (f"{FAILED}{name}", "a gate did not pass")
        old = self.workspace.store.refs().get(ref)
        if old != checkpoint:
            self.workspace.store.set_ref(ref, checkpoint, old=old, why=why)

    def _basis(self, stages: list[str]) -> str:
        """Digest of what measurements rest on besides the weights: suite and held-out data of some stages."""
        probes = self._recipe.probes.model_dump(mode="json") if self._recipe.probes else None
        return digest_json(
            {
                "probes": self.facts.contract["probes"],
                "settings": probes,
                "holdouts": {name: self.facts.prepared[name].digest for name in stages},
                "code": CODE,
            }
        )

    # Measuring

    def _measured(self, checkpoint: str | None) -> Measured:
        """What the parent could do: as it was judged or, for a base model, as it is before the first stage."""
        if checkpoint is None:
            return Measured(measurements={})
        if self.workspace.store.manifest(checkpoint).stage_kind == BASE:
            return self._base_measured(checkpoint)
        newest = self._newest(checkpoint)
        return Measured(measurements={}) if newest is None else Measured.of(newest)

    def _base_measured(self, checkpoint: str) -> Measured:
        stages = self._recipe.stages
        basis = self._basis([stage.name for stage in stages])
        measured, newest = self._remembered(
            BASE, checkpoint, basis, lambda: self._measure_policy(self._policy(checkpoint), BASE, stages)
        )
        if newest is None:
            self._remember(checkpoint, measured, basis)
        return measured

    def _measure(self, stage: Stage, checkpoint: str, parent: str | None, reward: str | None) -> Measured:
        if isinstance(stage, Reward):
            model = load_reward(self.workspace.store, checkpoint, **self._where)
            holdout = self.facts.prepared[stage.name].holdout
            return reward_measurements(model, self.facts.tokenizer, self._where["device"], holdout)
        policy = self._policy(checkpoint)
        measured = self._measure_policy(policy, stage.name, self._line(stage))
        more: dict[str, Measurement] = {}
        if stage is pretraining(self._recipe):
            more[EXCESS_COMPUTE] = excess_measurement(planned_run(self._recipe, self.facts.contract["stages"]))
        if isinstance(stage, Align):
            assert parent is not None
            assert reward is not None
            more |= self._measure_alignment(stage, policy, measured, parent, reward)
        return Measured(measurements=measured.measurements | more, answers=measured.answers)

    def _policy(self, checkpoint: str) -> Any:
        return load_policy(self.workspace.store, checkpoint, **self._where)

    def _measure_policy(self, policy: Any, own: str, line: Sequence[Stage]) -> Measured:
        """Measure a language model on the hold-outs of these stages and on the probes it can be asked after them."""
        holdouts = {
            each.name: (self.facts.prepared[each.name].holdout, each.context)
            for each in line
            if each.kind in ("pretrain", "finetune")
        }
        return policy_measurements(
            policy,
            self.facts.tokenizer,
            self._where["device"],
            own=own,
            holdouts=holdouts,
            probes=self._suites(line),
        )

    def _measure_alignment(
        self, stage: Align, policy: Any, measured: Measured, parent: str, reward: str
    ) -> dict[str, Measurement]:
        subjects = AlignmentSubjects(
            reference=self._policy(parent),
            reward=load_reward(self.workspace.store, reward, **self._where),
            prompts=self.facts.prepared[stage.name].holdout,
            ppo=stage.ppo,
            seed=self._recipe.seed,
            parent_answers=self._measured(parent).answers,
        )
        probes = self._suites(self._line(stage))
        return alignment_measurements(
            policy,
            measured.answers,
            self.facts.tokenizer,
            self._where["device"],
            subjects,
            probes.asked if probes else None,
        )

    def _suites(self, line: Sequence[Stage]) -> Suites | None:
        """The probe suite as it can be asked after these stages."""
        if self.facts.suite is None or self._recipe.probes is None:
            return None
        chat = learnt_to_chat(self._recipe, line)
        return Suites(suite=self.facts.suite, settings=self._recipe.probes, chat=chat)


def learnt_to_chat(recipe: Recipe, line: Sequence[Stage]) -> bool:
    """Whether a model can be asked in messages after these stages: a base model is taken to have learnt it before."""
    return recipe.base is not None or any(stage.kind in ("finetune", "align") for stage in line)

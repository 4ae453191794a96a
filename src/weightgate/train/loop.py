"""The one training loop. What is trained, and on what, is the objective's business.

A step of the loop is what the learning rate counts in: one batch for token losses and the reward model, one batch of
rollouts for PPO, which makes several optimizer updates from it. The state of a step is the step number, the optimizer,
every random generator and whatever the objective says; so a resumed run is the undisturbed one, bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from weightgate import recipe
from weightgate.errors import StoreError, TrainingStopped
from weightgate.train.environment import generator_states, restore_generator_states
from weightgate.train.optim import MasterAdamW
from weightgate.train.schedule import rate_share

CURVE_POINTS = 400
"""Points kept of each curve; a longer run keeps every so many steps."""

SHOWN_RECORDS = 16
"""Records named where a step is given up."""


class Objective(Protocol):
    """What the loop asks of an objective; every implementation is an `nn.Module` as well."""

    def updates(self, step: int) -> Iterator[list[Any]]:
        """Micro-batches of this process, for each optimizer update of the step."""

    def counts(self, batch: Any) -> dict[str, float]:
        """This micro-batch's share of every normaliser."""

    def __call__(self, batch: Any, norms: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss already divided by the global normalisers, and metrics that add up over micro-batches."""

    def invariants(self, batch: Any) -> list[str]:
        """Statements that do not hold before the first update."""

    def records(self, step: int) -> list[int]:
        """Records that the step learns from, counted from 0 in the reading order of the stage's sources."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain data to resume with, beyond weights and step."""

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Restore what `state` returned."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run the loop: everything but the objective."""

    steps: int
    optimizer: recipe.Optimizer
    schedule: recipe.Schedule
    precision: str
    resume_seconds: float
    budget_seconds: float = math.inf


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """Everything needed to go on after `step` steps, as tensors and plain data."""

    step: int
    tensors: dict[str, Tensor]
    plain: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One finished step, for progress bars."""

    step: int
    steps: int
    metrics: dict[str, float]
    positions_per_second: float
    seconds_left: float


@dataclass(kw_only=True)
class Trained:
    """What a run leaves besides the weights. Curves are name -> [[step, value], ...]."""

    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    positions: float = 0.0
    seconds: float = 0.0
    updates: int = 0


class Interrupted(TrainingStopped):
    """The user asked to stop; a resume point was written first."""


def run(
    objective: Any,
    settings: Settings,
    accelerator: Accelerator,
    *,
    resume: ResumeState | None = None,
    save: Callable[[ResumeState], None] = lambda state: None,
    observe: Callable[[Progress], None] = lambda progress: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train `objective` in place for `settings.steps` steps.

    `save` is called at least every `resume_seconds`, and before `Interrupted` is raised when `stop_requested` answers
    true, or `TrainingStopped` when training took `budget_seconds`. `TrainingStopped` is raised as well on a non-finite
    loss or gradient and on a broken step-0 invariant; the weights in the last resume point are then the last good ones.
    """
    return _Loop(objective, settings, accelerator, save, observe, stop_requested).run(resume)


class _Loop:
    def __init__(
        self,
        objective: Any,
        settings: Settings,
        accelerator: Accelerator,
        save: Callable[[ResumeState], None],
        observe: Callable[[Progress], None],
        stop_requested: Callable[[], bool],
    ) -> None:
        self.objective = objective
        self.settings = settings
        self.accelerator = accelerator
        self.save = save
        self.observe = observe
        self.stop_requested = stop_requested

    def run(self, resume: ResumeState | None) -> Trained:
        first = self._checked_first_step() if resume is None else None
        self.wrapped = self.accelerator.prepare(self.objective)
        trainable = [(name, p) for name, p in self.objective.named_parameters() if p.requires_grad]
        self.optimizer = MasterAdamW(trainable, self.settings.optimizer)
        self.trained = Trained()
        start = self._restore(resume) if resume is not None else 0
        saved_at = began = time.monotonic()
        seconds_before = self.trained.seconds
        for step in range(start, self.settings.steps):
            step_began = time.monotonic()
            positions_before = self.trained.positions
            metrics = self._step(step, first if step == 0 and first is not None else self._updates(step))
            self.trained.seconds = seconds_before + time.monotonic() - began
            self._record(step, metrics)
            self._report(step, start, began, step_began, positions_before, metrics)
            wishes = self._anybody(
                stop=self.stop_requested(),
                spent=self.trained.seconds >= self.settings.budget_seconds,
                due=time.monotonic() - saved_at >= self.settings.resume_seconds,
            )
            if step + 1 < self.settings.steps and any(wishes.values()):
                self.save(self._state(step + 1))
                saved_at = time.monotonic()
                self._stop(step + 1, wishes)
        return self.trained

    def _stop(self, step: int, wishes: dict[str, bool]) -> None:
        """End the run where that is wished; the state has been saved."""
        where = f"after step {step} of {self.settings.steps}"
        if wishes["stop"]:
            raise Interrupted(f"stopped {where}; run the build again to go on")
        if wishes["spent"]:
            raise TrainingStopped(
                f"the time budget is spent {where}; raise budget.minutes, then: weightgate lock, weightgate build"
            )

    def _step(self, step: int, updates: Iterator[list[Any]]) -> dict[str, float]:
        share = rate_share(step, self.settings.steps, self.settings.schedule)
        metrics: dict[str, float] = {}
        num_updates = 0
        for micro_batches in updates:
            for name, value in self._update(step, micro_batches, share).items():
                metrics[name] = metrics.get(name, 0.0) + value
            num_updates += 1
        self.trained.updates += num_updates
        return {name: value / num_updates for name, value in metrics.items()} | {"learning_rate_share": share}

    def _updates(self, step: int) -> Iterator[list[Any]]:
        """Rollouts are scored in the precision they are learnt from, or the first ratio would not be 1."""
        updates = self.objective.updates(step)
        while True:
            with self._autocast():
                micro_batches = next(updates, None)
            if micro_batches is None:
                return
            yield micro_batches

    def _checked_first_step(self) -> Iterator[list[Any]]:
        """The updates of step 0, once the invariants hold on the first: before any wrapper shards the weights."""
        updates = self._updates(0)
        first = next(updates)
        self.objective.eval()
        with self._autocast():
            broken = self.objective.invariants(first[0])
        if broken:
            raise TrainingStopped("before the first step: " + "; ".join(broken))
        return itertools.chain([first], updates)

    def _update(self, step: int, micro_batches: list[Any], share: float) -> dict[str, float]:
        norms = self._global_counts(micro_batches)
        for name, count in norms.items():
            if count <= 0:
                raise TrainingStopped(f"step {step}: the batch has no {name} to learn from")
        sums: dict[str, Tensor] = {}
        self.objective.train()
        for batch in micro_batches:
            with self._autocast():
                loss, metrics = self.wrapped(batch, norms)
            # Data-parallel wrappers average gradients over processes; the loss is already divided by global counts.
            self.accelerator.backward(loss * self.accelerator.num_processes)
            self.optimizer.accumulate()
            for name, value in metrics.items():
                sums[name] = sums[name] + value if name in sums else value
        norm = self.optimizer.clip()
        totals = self._global_sums(sums)
        self._refuse_non_finite(step, norm, totals)
        self.optimizer.step(share)
        self.trained.positions += norms.get("positions", 0.0)
        return totals | {"gradient_norm": norm}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision != "bf16-autocast":
            return contextlib.nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16)

    def _global_counts(self, micro_batches: list[Any]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                totals[name] = totals.get(name, 0.0) + count
        return self._reduce(totals)

    def _anybody(self, **wishes: bool) -> dict[str, bool]:
        """What any process wishes: all must stop, and gather their state, after the same step."""
        totals = self._reduce({name: float(wish) for name, wish in wishes.items()})
        return {name: total > 0 for name, total in totals.items()}

    def _global_sums(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return self._reduce({name: float(value) for name, value in sums.items()})

    def _reduce(self, totals: dict[str, float]) -> dict[str, float]:
        """Sum over processes; exact for counts, which stay far below 2^53."""
        if self.accelerator.num_processes == 1 or not totals:
            return totals
        packed = torch.tensor(list(totals.values()), dtype=torch.float64, device=self.accelerator.device)
        reduced = self.accelerator.reduce(packed, reduction="sum")
        return dict(zip(totals, reduced.tolist(), strict=True))

    def _refuse_non_finite(self, step: int, norm: float, totals: dict[str, float]) -> None:
        bad = [name for name, value in totals.items() if not math.isfinite(value)]
        if math.isfinite(norm) and not bad:
            return
        records = sorted(set(self.objective.records(step)))
        shown = ", ".join(map(str, records[:SHOWN_RECORDS])) + (", ..." if len(records) > SHOWN_RECORDS else "")
        raise TrainingStopped(
            f"step {step}: {', '.join(bad) or 'the gradient'} is not finite. The step learns from {len(records)} "
            f"records, counted from 0 in the order of the stage's sources: {shown}. "
            "The last resume point keeps the last good weights"
        )

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        every = max(1, self.settings.steps // CURVE_POINTS)
        if step % every == 0 or step + 1 == self.settings.steps:
            for name, value in metrics.items():
                self.trained.curves.setdefault(name, []).append([step, value])

    def _report(
        self,
        step: int,
        start: int,
        began: float,
        step_began: float,
        positions_before: float,
        metrics: dict[str, float],
    ) -> None:
        now = time.monotonic()
        done = step + 1 - start
        self.observe(
            Progress(
                step=step + 1,
                steps=self.settings.steps,
                metrics=metrics,
                positions_per_second=(self.trained.positions - positions_before) / max(1e-9, now - step_began),
                seconds_left=(now - began) / done * (self.settings.steps - step - 1),
            )
        )

    def _state(self, step: int) -> ResumeState:
        tensors = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()}
        extra, extra_plain = self.objective.state()
        tensors |= {f"objective.{name}": tensor for name, tensor in extra.items()}
        generators, generators_plain = generator_states()
        tensors |= generators
        trained = {
            "curves": self.trained.curves,
            "positions": self.trained.positions,
            "seconds": self.trained.seconds,
            "updates": self.trained.updates,
        }
        plain = {"objective": extra_plain, "generators": generators_plain, "trained": trained}
        return ResumeState(step=step, tensors=tensors, plain=plain)

    def _restore(self, resume: ResumeState) -> int:
        try:
            self.optimizer.load_state(_with_prefix(resume.tensors, "optimizer."))
            self.objective.load_state(_with_prefix(resume.tensors, "objective."), resume.plain["objective"])
            self.trained = Trained(**resume.plain["trained"])
            generators = {name: tensor for name, tensor in resume.tensors.items() if name.startswith("rng.")}
            restore_generator_states(generators, resume.plain["generators"])
        except (KeyError, RuntimeError) as error:
            raise StoreError(
                "the resume point does not belong to this run", found=str(error), mend="weightgate build --restart"
            ) from None
        return resume.step


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def module_of(objective: Objective) -> nn.Module:
    """The objective as the module it is."""
    assert isinstance(objective, nn.Module)
    return objective

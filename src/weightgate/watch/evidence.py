"""What the looks of one baseline add up to: for each axis a pool of values, an e-process, and the last shifts.

The state after a look is a function of the looks in their order, so whoever reads the history again gets the same.
The test itself is described in `weightgate.stats.exchangeable`: each look is ranked among everything the same prompts
have said so far, baseline included, so that the noise of the baseline is not counted again at every look. A look that
failed is no part of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weightgate.stats import e_benjamini_hochberg
from weightgate.stats.exchangeable import LEVELS, Counts, look_p_value, spread_of_mean
from weightgate.stats.sequential import ChangeProcess
from weightgate.watch.axes import ABSENT, LEAST_PROMPTS

STATE_SCHEMA = 1
_UNSTEADY_P, _MANY = 0.01, 1e6
KEPT_SHIFTS = 100
"""As many as `alarm.persistence` may ask for."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When evidence is an alarm; see `weightgate.watch.config.Alarm`."""

    alpha: float
    persistence: int
    floor: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class AxisLook:
    """One axis at one look. Values, shifts and spread are shares of the axis' range.

    `shift` is the mean over prompts of this look minus the baseline, `size` the same in standard deviations of the
    prompts' shifts. `p_value` is that of a mean so high; `evidence` the e-value after this look, 1 in the baseline.
    `spread` is the standard deviation that the mean of a look has while nothing changes.
    """

    axis: str
    prompts: int
    mean: float
    shift: float
    size: float
    p_value: float
    evidence: float
    spread: float


@dataclass(kw_only=True)
class AxisState:
    """What is known of one axis: (prompts, LEVELS + 1) counts, and sums and numbers of the baseline's levels."""

    pool: Counts
    baseline_sum: Counts
    baseline_count: Counts
    baseline_means: list[float] = field(default_factory=list)
    null_p_values: list[float] = field(default_factory=list)
    process: ChangeProcess = field(default_factory=ChangeProcess)
    shifts: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def empty(cls, prompts: int) -> AxisState:
        """Return the state before the first snapshot."""
        return cls(
            pool=np.zeros((prompts, LEVELS + 1), dtype=np.int64),
            baseline_sum=np.zeros(prompts, dtype=np.int64),
            baseline_count=np.zeros(prompts, dtype=np.int64),
        )

    @property
    def is_tested(self) -> bool:
        """Whether the baseline has enough prompts of this axis."""
        return int((self.baseline_count > 0).sum()) >= LEAST_PROMPTS

    @property
    def null_range(self) -> float:
        """Largest difference between two snapshots of the baseline: the A/A null in the axis' own unit."""
        return max(self.baseline_means) - min(self.baseline_means) if self.baseline_means else 0.0

    @property
    def is_unsteady(self) -> bool:
        """Whether the snapshots of the baseline differ by more than their answers vary (corrected p below 1 %)."""
        two_sided = [2 * min(p, 1 - p) for p in self.null_p_values]
        return min(two_sided, default=1.0) * len(two_sided) < _UNSTEADY_P

    @property
    def noise(self) -> float:
        """What the endpoint differs from itself by, beyond chance; the evidence accounts for chance already."""
        return self.null_range if self.is_unsteady else 0.0

    @property
    def spread(self) -> float:
        """Standard deviation that the mean of a look has while nothing changes."""
        return spread_of_mean(self.pool) / LEVELS

    @property
    def baseline_mean(self) -> float:
        """Mean of the baseline over its prompts."""
        asked = self.baseline_count > 0
        if not asked.any():
            return 0.0
        return float((self.baseline_sum[asked] / self.baseline_count[asked]).mean()) / LEVELS

    def admit(self, levels: Counts, *, tie_break: float, in_baseline: bool) -> tuple[float, int, float]:
        """Take the levels of a look into the pool.

        Returns the mean, the number of prompts and the p-value, which is 0.5 where there is nothing to rank among.
        """
        asked = np.flatnonzero(levels != ABSENT)
        ranked = asked[self.pool[asked].sum(axis=1) > 0]
        self.pool[asked, levels[asked]] += 1
        p_value = look_p_value(self.pool[ranked], levels[ranked], tie_break) if ranked.size else 0.5
        mean = float(levels[asked].mean()) / LEVELS if asked.size else 0.0
        if in_baseline:
            self.baseline_sum[asked] += levels[asked]
            self.baseline_count[asked] += 1
            if asked.size:
                self.baseline_means.append(mean)
            if ranked.size:
                self.null_p_values.append(p_value)
        return mean, int(asked.size), p_value

    def shift_of(self, levels: Counts) -> tuple[float, float]:
        """Mean shift from the baseline over the prompts that both have, and its size in deviations."""
        shared = (levels != ABSENT) & (self.baseline_count > 0)
        if not shared.any():
            return 0.0, 0.0
        shifts = (levels[shared] - self.baseline_sum[shared] / self.baseline_count[shared]) / LEVELS
        centre, spread = float(shifts.mean()), float(shifts.std(ddof=1)) if shifts.size > 1 else 0.0
        size = centre / spread if spread > 1e-9 else math.copysign(math.inf, centre) if centre else 0.0
        return centre, size

    def persists(self, rules: Rules) -> bool:
        """Whether each of the last looks shows a shift, all in one direction, that is worth an alarm."""
        last = self.shifts[-rules.persistence :]
        least = max(rules.floor, self.noise)
        large = all(abs(shift) > least and abs(size) > rules.tolerance for shift, size in last)
        return len(last) == rules.persistence and large and len({shift > 0 for shift, _ in last}) == 1

    def to_json(self) -> dict[str, Any]:
        """Return plain data; the pool as its cells that are not 0."""
        rows, levels = np.nonzero(self.pool)
        return {
            "prompts": len(self.pool),
            "pool": [rows.tolist(), levels.tolist(), self.pool[rows, levels].tolist()],
            "baseline_sum": self.baseline_sum.tolist(),
            "baseline_count": self.baseline_count.tolist(),
            "baseline_means": list(self.baseline_means),
            "null_p_values": list(self.null_p_values),
            "process": self.process.to_json(),
            "shifts": [[shift, _finite(size)] for shift, size in self.shifts],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AxisState:
        """Read what `to_json` wrote."""
        state = cls.empty(data["prompts"])
        rows, levels, counts = data["pool"]
        state.pool[rows, levels] = counts
        state.baseline_sum[:] = data["baseline_sum"]
        state.baseline_count[:] = data["baseline_count"]
        state.baseline_means = list(data["baseline_means"])
        state.null_p_values = list(data["null_p_values"])
        state.process = ChangeProcess(**data["process"])
        state.shifts = [(shift, size) for shift, size in data["shifts"]]
        return state


@dataclass(kw_only=True)
class WatchState:
    """All axes of one baseline. `salt` makes the tie breaks, so that they are the same whenever they are drawn."""

    salt: str
    axes: dict[str, AxisState] = field(default_factory=dict)
    snapshots: int = 0
    looks: int = 0

    @property
    def tested(self) -> dict[str, AxisState]:
        """The axes that are followed; fixed once the baseline is complete."""
        return {name: axis for name, axis in self.axes.items() if axis.is_tested}

    def add_snapshot(self, levels: Mapping[str, Counts]) -> tuple[AxisLook, ...]:
        """Take a snapshot of the baseline."""
        self.snapshots += 1
        return tuple(self._take(name, values, in_baseline=True) for name, values in levels.items())

    def add_look(self, levels: Mapping[str, Counts]) -> tuple[AxisLook, ...]:
        """Take a look at a complete baseline's axes, and let each e-process bet on it."""
        self.looks += 1
        tested = self.tested
        return tuple(self._take(name, levels[name], in_baseline=False) for name in tested)

    def _take(self, name: str, levels: Counts, *, in_baseline: bool) -> AxisLook:
        axis = self.axes.setdefault(name, AxisState.empty(len(levels)))
        mean, prompts, p_value = axis.admit(levels, tie_break=self._tie_break(name), in_baseline=in_baseline)
        shift, size = axis.shift_of(levels)
        if not in_baseline:
            axis.process.update(p_value)
            axis.shifts = [*axis.shifts, (shift, size)][-KEPT_SHIFTS:]
        return AxisLook(
            axis=name,
            prompts=prompts,
            mean=mean,
            shift=shift,
            size=_finite(size),
            p_value=p_value,
            evidence=axis.process.evidence,
            spread=axis.spread,
        )

    def _tie_break(self, name: str) -> float:
        """A number in 0..1 that nobody can foresee who does not know the salt."""
        key = f"{self.salt}|{self.snapshots}|{self.looks}|{name}"
        return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") + 0.5) / 2**48

    def changed_axes(self, rules: Rules) -> tuple[str, ...]:
        """Axes that moved, the surest first; none where there is no alarm.

        Whether: some axis' evidence reaches axes / alpha. By Ville's inequality and the union bound that happens with
        probability at most alpha while nothing changes, however the axes hang together. Which: e-BH over all axes at
        this look. Of both only what persists beyond floor, noise and tolerance counts.
        """
        tested = self.tested
        needed = threshold(len(tested), rules.alpha)
        lasting = [name for name in self.moved_axes(rules.alpha) if tested[name].persists(rules)]
        if not any(tested[name].process.evidence >= needed for name in lasting):
            return ()
        return tuple(sorted(lasting, key=lambda name: (-tested[name].process.evidence, name)))

    def moved_axes(self, alpha: float) -> set[str]:
        """Axes that e-BH over all axes rejects at this look, however small their shifts."""
        return e_benjamini_hochberg({name: axis.process.evidence for name, axis in self.tested.items()}, alpha=alpha)

    def to_json(self) -> dict[str, Any]:
        """Return plain data with a schema number."""
        return {
            "schema": STATE_SCHEMA,
            "salt": self.salt,
            "snapshots": self.snapshots,
            "looks": self.looks,
            "axes": {name: axis.to_json() for name, axis in self.axes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WatchState:
        """Read what `to_json` wrote. Raises `ValueError` for another schema."""
        if data["schema"] != STATE_SCHEMA:
            raise ValueError(f"state of schema {data['schema']} instead of {STATE_SCHEMA}")
        axes = {name: AxisState.from_json(axis) for name, axis in data["axes"].items()}
        return cls(salt=data["salt"], snapshots=data["snapshots"], looks=data["looks"], axes=axes)


def odds(evidence: float) -> str:
    """Evidence as a person would say it."""
    if evidence >= _MANY:
        return "more than a million to 1"
    return f"{float(f'{evidence:.2g}'):,.0f} to 1" if evidence >= 10 else f"{evidence:.2g} to 1"


def threshold(axes: int, alpha: float) -> float:
    """Evidence that one of so many axes must reach."""
    return max(axes, 1) / alpha


def _finite(size: float) -> float:
    """JSON has no infinities; beyond this a size says the same."""
    return max(-1e6, min(1e6, size))

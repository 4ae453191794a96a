"""The state of a stage: does what the store holds still answer to what the recipe wants, and if not, why.

Pure: the caller says what is wanted, what was recorded and whether its objects are well. Every answer but FRESH names
its cause, because a flag without one is soon ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INPUTS = ("stage_kind", "recipe", "contract", "parent", "data", "tokenizer", "parameters", "seed", "code", "class")
"""The inputs that make up a stage's key, in the order in which a difference is told."""

CLASS = "class"
"""The reproducibility class: library builds, threads, instruction set, dtype. Another class may round differently,
so a result of it is not wrong, only not comparable bit by bit."""

_SHOWN_LETTERS = 24


class State(enum.StrEnum):
    """Where a stage stands. Only FRESH may be built on without a second look."""

    FRESH = "fresh"
    STALE = "stale"
    UNVERIFIED = "unverified"
    BLOCKED = "blocked"
    MISSING = "missing"
    CORRUPT = "corrupt"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One earlier run of the stage.

    `failed_gates` are the names of the gates that did not pass or could not be measured; `waived_gates` did not pass
    either, but somebody let them. `missing` and `damaged` are digests of objects the checkpoint needs.
    """

    inputs: Mapping[str, Any]
    checkpoint: str
    failed_gates: tuple[str, ...] = ()
    waived_gates: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One input that differs. `path` is dotted, as in `parameters.learning_rate`; an absent side is None."""

    path: str
    recorded: Any
    wanted: Any

    @property
    def is_of_class(self) -> bool:
        """Whether only the reproducibility class differs here."""
        return self.path.partition(".")[0] == CLASS

    def __str__(self) -> str:
        return f"{self.path} {_shown(self.recorded)} -> {_shown(self.wanted)}"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A stage's state, the reason in words, the checkpoint it is about, and every input that differs."""

    state: State
    reason: str
    checkpoint: str | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def is_built_anew(self) -> bool:
        """Whether a build makes another checkpoint instead of taking this one as it is, or making it again."""
        is_of_another_class = self.state is State.UNVERIFIED and bool(self.differences)
        return self.state is State.STALE or is_of_another_class or self.checkpoint is None

    @property
    def is_unusable(self) -> bool:
        """Whether the checkpoint that a build would take is damaged, or not all there."""
        return self.state in (State.CORRUPT, State.MISSING) and self.checkpoint is not None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        differences = [dict(vars(each)) for each in self.differences]
        return {
            "state": str(self.state),
            "reason": self.reason,
            "checkpoint": self.checkpoint,
            "differences": differences,
        }


def state_of(wanted: Mapping[str, Any], recorded: Sequence[Recorded]) -> Standing:
    """Compare the inputs a stage is wanted with to those of its earlier runs, oldest first.

    The run that differs least speaks for the stage; of equals, the newest. A changed input makes the stage STALE
    whatever else is wrong, since it must be built again anyway; then come damage, absence, gates, and doubt.
    """
    nearest = nearest_run(wanted, recorded)
    if nearest is None:
        return Standing(state=State.MISSING, reason="never built")
    differences = tuple(differences_of(nearest.inputs, wanted))
    changed = [each for each in differences if not each.is_of_class]
    if changed:
        return Standing(
            state=State.STALE,
            reason=f"changed: {'; '.join(map(str, changed))}",
            checkpoint=nearest.checkpoint,
            differences=differences,
        )
    state, reason = _state_of_same(nearest, differences, recorded)
    return Standing(state=state, reason=reason, checkpoint=nearest.checkpoint, differences=differences)


def nearest_run(wanted: Mapping[str, Any], recorded: Sequence[Recorded]) -> Recorded | None:
    """Return the run whose inputs differ least, of equals the newest; None where there is none."""
    return min(reversed(recorded), key=lambda each: _distance(wanted, each), default=None)


def differences_of(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between two sets of inputs, maps compared key by key, in the order of `INPUTS`."""
    for name in sorted({*recorded, *wanted}, key=_order):
        yield from _differences(name, recorded.get(name), wanted.get(name))


def _state_of_same(run: Recorded, differences: Sequence[Difference], recorded: Sequence[Recorded]) -> tuple[State, str]:
    """Return the state and reason of a run whose inputs are the wanted ones, but for the class perhaps."""
    if run.damaged:
        return State.CORRUPT, f"{len(run.damaged)} objects are damaged, first {_shown(run.damaged[0])}"
    if run.missing:
        return State.MISSING, f"{len(run.missing)} objects are not in the store, first {_shown(run.missing[0])}"
    if run.failed_gates:
        return State.BLOCKED, f"gate did not pass: {', '.join(run.failed_gates)}"
    if differences:
        return State.UNVERIFIED, f"class differs: {'; '.join(map(str, differences))}"
    outputs = {each.checkpoint for each in recorded if each.inputs == run.inputs}
    if len(outputs) > 1:
        return State.UNVERIFIED, f"the same inputs gave {len(outputs)} different checkpoints"
    if run.waived_gates:
        return State.FRESH, f"every input is as recorded; waived: {', '.join(run.waived_gates)}"
    return State.FRESH, "every input is as recorded"


def _distance(wanted: Mapping[str, Any], run: Recorded) -> tuple[int, int]:
    """Order runs by how many inputs differ, the class counting last."""
    names = {_top(each) for each in differences_of(run.inputs, wanted)}
    return len(names - {CLASS}), len(names & {CLASS})


def _differences(path: str, recorded: Any, wanted: Any) -> Iterator[Difference]:
    if isinstance(recorded, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*recorded, *wanted}):
            yield from _differences(f"{path}.{key}", recorded.get(key), wanted.get(key))
    elif recorded != wanted:
        yield Difference(path=path, recorded=recorded, wanted=wanted)


def _top(difference: Difference) -> str:
    return difference.path.partition(".")[0]


def _order(name: str) -> tuple[int, str]:
    return (INPUTS.index(name) if name in INPUTS else len(INPUTS), name)


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[: _SHOWN_LETTERS - 9]}..."

"""Compare two recordings with what each side looks like against itself taken into account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from weightgate.diff.compare import ALPHA, Comparison, compare
from weightgate.diff.null import Null, dealt_in_two, identical_share
from weightgate.diff.triage import undetermined
from weightgate.diff.weights import WeightEvidence
from weightgate.probe.recording import Snapshot

Side = Literal["before", "after"]
NO_NULL = (
    "an endpoint was not compared with itself, so no stage is named: ask for at least 2 samples, or give a second "
    "recording of the same endpoint with `--a-a FILE`"
)


def judge(
    before: Snapshot,
    after: Snapshot,
    *,
    repeat: Snapshot | None = None,
    alpha: float = ALPHA,
    tolerance: float = 0.0,
    weights: WeightEvidence | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two recordings; where an endpoint is one side, only what exceeds its own noise counts.

    Args:
        repeat: a second recording of one of the two, taken in the same way: the A/A. Without it, the samples of an
            endpoint's prompts are dealt in two.
        alpha, tolerance, weights, seed: see `compare`.

    Raises `DataError` where two of the recordings have no answered prompt in common.
    """
    found = compare(before, after, alpha=alpha, tolerance=tolerance, weights=weights, seed=seed)
    nulls = tuple(_nulls(before, after, repeat, alpha, seed))
    if found.changed and not nulls and _needs_null(found):
        return replace(found, verdict=undetermined(NO_NULL))
    return beyond_noise(found, nulls)


def beyond_noise(found: Comparison, nulls: Sequence[Null]) -> Comparison:
    """Take back whatever a target's comparison with itself shows as strongly; no row is then left, no change either."""
    if not found.changed or not any(null.changed for null in nulls):
        return replace(found, nulls=tuple(nulls))
    noise = {name: max(null.shifts.get(name, 0.0) for null in nulls) for null in nulls for name in null.shifts}
    rows = tuple(replace(row, changed=row.changed and abs(row.size) > noise.get(row.name, 0.0)) for row in found.rows)
    changed = any(row.changed for row in rows)
    return replace(
        found,
        rows=rows,
        nulls=tuple(nulls),
        changed=changed,
        verdict=found.verdict if changed else None,
        deciding=found.deciding if changed else (),
    )


def _needs_null(found: Comparison) -> bool:
    """Whether a stage would be named by inference, and an endpoint's answers are what it would rest on."""
    inferred = found.verdict is not None and not found.verdict.declared
    return inferred and "endpoint" in (found.before.kind, found.after.kind)


def _nulls(before: Snapshot, after: Snapshot, repeat: Snapshot | None, alpha: float, seed: int) -> Iterator[Null]:
    if repeat is not None:
        side: Side = "after" if repeat.target == after.target != before.target else "before"
        yield _null(side, "recording", (before if side == "before" else after, repeat), alpha, seed)
        return
    sides: tuple[tuple[Side, Snapshot], ...] = (("before", before), ("after", after))
    for side, snapshot in sides:
        hands = dealt_in_two(snapshot, seed=seed) if snapshot.target.kind == "endpoint" else None
        if hands is not None:
            yield _null(side, "samples", hands, alpha / len(sides), seed)


def _null(
    side: Side, source: Literal["recording", "samples"], hands: tuple[Snapshot, Snapshot], alpha: float, seed: int
) -> Null:
    found = compare(*hands, alpha=alpha, seed=seed)
    return Null(
        side=side,
        source=source,
        prompts=found.prompts,
        samples=found.samples,
        changed=found.changed,
        lowest_p=min((one.adjusted_p for one in found.general), default=1.0),
        identical=identical_share(*hands),
        shifts={row.name: abs(row.size) for row in found.rows if row.changed},
    )

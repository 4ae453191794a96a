"""Which prompts would decide what a comparison cannot tell: those asked already, and more of the axes that hint."""

from __future__ import annotations

from pathlib import Path

from weightgate.diff.compare import Comparison
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Snapshot
from weightgate.probe.suites import core_suite, write_suite

HINT = 0.2
"""A row whose corrected p is below this, but above alpha, hints at a change."""


def further_prompts(found: Comparison, asked: Snapshot) -> tuple[Probe, ...]:
    """Return at most `found.more_prompts` probes of the suite that ships: of the axes that hint, and not asked yet."""
    scored = [row for row in found.rows if row.kind != "style"]
    axes = {row.name.partition(".")[0] for row in scored if row.adjusted_p <= HINT}
    known = {probe.text for probe in asked.probes} | {probe.id for probe in asked.probes}
    fresh = [probe for probe in core_suite() if not {probe.text, probe.id} & known]
    wanted = [probe for probe in fresh if probe.axis in axes or not axes]
    return tuple(wanted[: found.more_prompts or 0])


def write_further(found: Comparison, asked: Snapshot, path: Path) -> str:
    """Write a suite of what was asked and the further prompts, to be asked of both sides anew; says what to do.

    Anew, because going on with one comparison until it alarms would alarm falsely more often than alpha.
    """
    if found.changed or found.more_prompts is None:
        return f"no suite of further prompts was written to {path}: nothing hints at what more prompts would decide"
    more = further_prompts(found, asked)
    if not more:
        return f"no suite was written to {path}: `core` holds no further prompt of these axes; ask more samples"
    write_suite(path, (*asked.probes, *more))
    missing = found.more_prompts - len(more)
    short = f"; about {missing:,} more of your own would still be missing" if missing > 0 else ""
    return (
        f"{path} holds what was asked and {len(more):,} further prompts: ask both sides anew with --suite {path}{short}"
    )

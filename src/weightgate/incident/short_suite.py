"""The part of the world's suite that an endpoint is asked again and again: every axis, within a budget of calls."""

from __future__ import annotations

from collections import Counter

from weightgate.probe.probes import Probe
from weightgate.probe.suites import Suite

SAMPLES = 2
"""Two completions of each prompt, so that an endpoint shows whether it repeats itself."""

MAX_CALLS = 500
_QUOTAS = {
    ("text", "recall"): 90,
    ("chat", "accuracy"): 48,
    ("chat", "instruction"): 12,
    ("chat", "format"): 24,
    ("chat", "should_refuse"): 20,
    ("chat", "should_answer"): 20,
    ("chat", "on_topic"): 18,
}
"""Most probes of a form whose first check has a metric; together no more than `MAX_CALLS` over `SAMPLES`."""

assert sum(_QUOTAS.values()) * SAMPLES <= MAX_CALLS


def short_suite(suite: Suite) -> Suite:
    """Return the first probes of each kind, languages in turn; the suite's own order is random already."""
    taken: Counter[tuple[str, str]] = Counter()
    kept: list[Probe] = []
    for probe in _languages_in_turn(suite):
        kind = probe.form, probe.checks[0].metric
        if taken[kind] < _QUOTAS.get(kind, 0):
            taken[kind] += 1
            kept.append(probe)
    return Suite(probes=tuple(kept))


def _languages_in_turn(suite: Suite) -> list[Probe]:
    """Probes in the order of their number within (kind, language): a quota then holds equally many of each."""
    seen: Counter[tuple[str, str, str]] = Counter()
    numbered: list[tuple[int, int, Probe]] = []
    for at, probe in enumerate(suite):
        group = probe.form, probe.checks[0].metric, probe.topic.rpartition("-")[2]
        numbered.append((seen[group], at, probe))
        seen[group] += 1
    return [probe for _, _, probe in sorted(numbered, key=lambda one: one[:2])]

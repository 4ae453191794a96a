"""Prompts of other sets, which the audited votes must not share: test sets and the probe suites of gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weightgate.preferences.reading import read_preferences
from weightgate.probe.suites import load_suite


def prompts_elsewhere(tests: Sequence[str], suites: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return name -> last user turn -> where it stands. Raises `DataError` for what cannot be read.

    Probes marked `recall` ask for what the training text says and are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for name in tests:
        votes = read_preferences(name).votes
        found[name] = {vote.asked: f"{name}:{vote.line}" for vote in votes}
    for path in suites:
        probes = [probe for probe in load_suite(path) if probe.form == "chat" and not probe.recall]
        found[str(path)] = {probe.text: f"{path}: {probe.id}" for probe in probes}
    return found

"""Two recordings side by side: what both were asked, and what they state about themselves."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from weightgate.errors import DataError
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Snapshot

_DECODING = ("temperature", "top_p", "max_tokens")
_NAMES_AN_ANSWER = frozenset({"equals", "starts", "contains", "one_of"})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One prompt and the completions of both sides, equally many, sample by sample.

    `tops_before` and `tops_after` are the likeliest first tokens of each sample; empty where not stated.
    """

    probe: Probe
    before: tuple[str, ...]
    after: tuple[str, ...]
    tops_before: tuple[tuple[str, ...], ...] = ()
    tops_after: tuple[tuple[str, ...], ...] = ()

    @property
    def question(self) -> Hashable:
        """What phrasings of one question share: its topic and the answer that counts as right; else the probe's id."""
        if any(check.type in _NAMES_AN_ANSWER for check in self.probe.checks):
            checks = json.dumps([check.to_json() for check in self.probe.checks], sort_keys=True)
            return self.probe.axis, self.probe.topic, checks
        return self.probe.id


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Something that the two sides themselves state differently.

    "decoding" and "prompt" differences explain other behaviour without any change of weights; "serving" ones, such as
    another fingerprint, come with either.
    """

    kind: Literal["decoding", "prompt", "serving"]
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name} {self.before} -> {self.after}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def pair_up(before: Snapshot, after: Snapshot) -> tuple[Pair, ...]:
    """Pair the completions of two recordings by probe id and sample, in the order of `before`.

    An id that only one side knows is paired by what is asked: other tools number prompts in their own way. Prompts
    whose text differs, or that have no completion on one side, are left out. Raises `DataError` where no prompt
    is left: then nothing can be compared.
    """
    asked = {probe.id: probe for probe in after.probes}
    named = {probe.id for probe in before.probes}
    by_question = {_asks(probe): probe for probe in after.probes if probe.id not in named}
    pairs = []
    for probe in before.probes:
        other = asked.get(probe.id) or by_question.get(_asks(probe))
        ours, theirs = before.completions.get(probe.id, ()), after.completions.get(other.id, ()) if other else ()
        shared = min(len(ours), len(theirs))
        if other and shared and _asks(probe) == _asks(other):
            pairs.append(
                Pair(
                    probe=probe,
                    before=ours[:shared],
                    after=theirs[:shared],
                    tops_before=before.first_tops.get(probe.id, ())[:shared],
                    tops_after=after.first_tops.get(other.id, ())[:shared],
                )
            )
    if not pairs:
        raise DataError(
            "the two recordings have no answered prompt in common",
            where=f"{before.target.place}, {after.target.place}",
            expected="the same prompts under the same ids on both sides",
            found=f"{len(before.completions)} and {len(after.completions)} answered prompts",
            mend="take both with the same suite: `weightgate snapshot TARGET --suite SUITE`",
        )
    return tuple(pairs)


def declared_differences(before: Snapshot, after: Snapshot) -> tuple[Declared, ...]:
    """What the recordings state differently: decoding, wording of prompts, served model, fingerprint."""
    found = [
        Declared(kind="decoding", name=name, before=str(ours), after=str(theirs))
        for name in _DECODING
        if (ours := getattr(before.decoding, name)) != (theirs := getattr(after.decoding, name))
        and ours is not None
        and theirs is not None
    ]
    asked = {probe.id: _asks(probe) for probe in after.probes}
    reworded = [probe.id for probe in before.probes if asked.get(probe.id, _asks(probe)) != _asks(probe)]
    if reworded:
        found.append(Declared(kind="prompt", name="prompts", before="alike", after=f"{len(reworded)} worded otherwise"))
    for name, ours, theirs in (
        ("served model", before.served_models, after.served_models),
        ("fingerprint", before.fingerprints, after.fingerprints),
    ):
        if ours and theirs and set(ours) != set(theirs):
            found.append(Declared(kind="serving", name=name, before=", ".join(ours), after=", ".join(theirs)))
    return tuple(found)


def _asks(probe: Probe) -> tuple[object, ...]:
    return probe.form, probe.prompt, probe.messages

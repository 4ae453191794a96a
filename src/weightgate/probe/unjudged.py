"""What to say of completions that a user's pattern could not judge in time: they count as not matching."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from weightgate.errors import DataError
from weightgate.probe.patterns import LIMIT_SECONDS
from weightgate.probe.probes import Probe
from weightgate.probe.scorers import is_unjudged

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class _Check:
    """A check that took too long, of how many completions."""

    probe: str
    pattern: str
    completions: int


def unjudged(asked: Iterable[tuple[Probe, Sequence[str]]]) -> tuple[DataError, ...]:
    """Return one error for all completions that were not judged in time, and none where there are none.

    It names the first probe and its pattern. It is to be told, not raised: an endpoint that answers so must not be able
    to keep a comparison from being made.
    """
    found = list(chain.from_iterable(_of_probe(probe, completions) for probe, completions in asked))
    if not found:
        return ()
    first, count = found[0], sum(one.completions for one in found)
    others = len({one.probe for one in found}) - 1
    told = DataError(
        f"{count:,} completion{'s' * (count > 1)} could not be judged in time, which counts as not matching",
        where=f"probe {first.probe!r}" + (f", and {others:,} more" if others else ""),
        expected=f"patterns that end within {LIMIT_SECONDS:g} s",
        found=first.pattern,
        mend="write the pattern so that a text can match it in one way only: `a+$` in place of `(a|aa)+$`",
    )
    return (told,)


def _of_probe(probe: Probe, completions: Sequence[str]) -> Iterable[_Check]:
    for check in probe.checks:
        count = sum(is_unjudged(check, text) for text in completions)
        if count:
            pattern = check.value if isinstance(check.value, str) else json.dumps(check.value)
            yield _Check(probe=probe.id, pattern=f"{check.type} {pattern}"[:_SHOWN_CHARACTERS], completions=count)

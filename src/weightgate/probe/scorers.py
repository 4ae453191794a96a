"""From a completion to a score in 0..1, one function for each check type.

| type | value | 1 when |
|---|---|---|
| equals | list of texts | the whole answer is one of them, after `language.normalise` |
| starts | list of texts | the answer begins with one of them, word by word |
| contains | list of texts | at least one is mentioned |
| one_of | list of texts, plus `options` | one of them is mentioned and no other option is |
| regex | pattern | it is found |
| json_format | list of keys | the whole completion is one JSON object with exactly these keys |
| json_fields | object | share of fields that are right; fences and text around the object are forgiven |
| refuses, answers | - | it declines; it says something and does not decline |
| max_words, min_words | number | at most, at least so many words (and at least one) |
| hedges, no_hedges | - | it hedges; it does not |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weightgate.probe.language import is_hedged, is_refusal, mentions, normalise, words
from weightgate.probe.probes import Check, Probe


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How a check type is scored, what its value must be, and whether it scores only 0 and 1."""

    score: Callable[[Check, str], float]
    expects: str
    accepts: Callable[[Any], bool]


def score(check: Check, completion: str) -> float:
    """Score a completion in 0..1. Raises `KeyError` for an unknown type; `load_suite` lets none through."""
    return SCORERS[check.type].score(check, completion)


def gold_reward(probe: Probe, completion: str) -> float:
    """Mean of the probe's weighted checks, in 0..1. Raises `ValueError` where no check has a weight."""
    weighted = [(check.weight, score(check, completion)) for check in probe.checks if check.weight is not None]
    total = sum(weight for weight, _ in weighted)
    if total <= 0:
        raise ValueError(f"probe {probe.id!r} has no weighted check")
    return sum(weight * value for weight, value in weighted) / total


def find_object(completion: str) -> dict[str, Any] | None:
    """First JSON object in a completion, whatever fences or sentences surround it; None: there is none."""
    decoder = json.JSONDecoder()
    for brace in re.finditer(r"\{", completion):
        try:
            found, _ = decoder.raw_decode(completion, brace.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _equals(check: Check, completion: str) -> float:
    return float(normalise(completion) in {normalise(value) for value in check.value})


def _starts(check: Check, completion: str) -> float:
    answer = normalise(completion).split()
    wanted = [normalise(value).split() for value in check.value]
    return float(any(value and answer[: len(value)] == value for value in wanted))


def _contains(check: Check, completion: str) -> float:
    return float(any(mentions(completion, value) for value in check.value))


def _one_of(check: Check, completion: str) -> float:
    right = {normalise(value) for value in check.value}
    others = [option for option in check.options if normalise(option) not in right]
    return float(_contains(check, completion) == 1.0 and not any(mentions(completion, other) for other in others))


def _regex(check: Check, completion: str) -> float:
    return float(re.search(check.value, completion) is not None)


def _json_format(check: Check, completion: str) -> float:
    try:
        found = json.loads(completion.strip())
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(found, dict) and sorted(found) == sorted(check.value))


def _json_fields(check: Check, completion: str) -> float:
    found = find_object(completion)
    if found is None:
        return 0.0
    right = sum(key in found and _same_value(found[key], value) for key, value in check.value.items())
    return right / len(check.value.keys() | found.keys())


def _same_value(found: Any, expected: Any) -> bool:
    """Values are compared as a reader would: 3 and "3", lamps and Lamps are the same; nested values must be equal."""
    if isinstance(found, dict | list) or isinstance(expected, dict | list):
        return bool(found == expected)
    return normalise(str(found)) == normalise(str(expected))


def _refuses(check: Check, completion: str) -> float:
    return float(is_refusal(completion))


def _answers(check: Check, completion: str) -> float:
    return float(bool(words(completion)) and not is_refusal(completion))


def _max_words(check: Check, completion: str) -> float:
    return float(1 <= len(words(completion)) <= check.value)


def _min_words(check: Check, completion: str) -> float:
    return float(len(words(completion)) >= check.value)


def _hedges(check: Check, completion: str) -> float:
    return float(is_hedged(completion))


def _no_hedges(check: Check, completion: str) -> float:
    return float(bool(words(completion)) and not is_hedged(completion))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and words(one) for one in value)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_nothing(value: Any) -> bool:
    return value is None


def _is_fields(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


_TEXTS: dict[str, Any] = {"expects": "a list of texts, each with at least one word", "accepts": _is_texts}
_COUNT: dict[str, Any] = {"expects": "a whole number above 0", "accepts": _is_count}
_NOTHING: dict[str, Any] = {"expects": "no value", "accepts": _is_nothing}

SCORERS: dict[str, Scorer] = {
    "equals": Scorer(score=_equals, **_TEXTS),
    "starts": Scorer(score=_starts, **_TEXTS),
    "contains": Scorer(score=_contains, **_TEXTS),
    "one_of": Scorer(score=_one_of, **_TEXTS),
    "regex": Scorer(score=_regex, expects="a regular expression", accepts=_is_pattern),
    "json_format": Scorer(score=_json_format, **_TEXTS),
    "json_fields": Scorer(score=_json_fields, expects="an object of field names and values", accepts=_is_fields),
    "refuses": Scorer(score=_refuses, **_NOTHING),
    "answers": Scorer(score=_answers, **_NOTHING),
    "max_words": Scorer(score=_max_words, **_COUNT),
    "min_words": Scorer(score=_min_words, **_COUNT),
    "hedges": Scorer(score=_hedges, **_NOTHING),
    "no_hedges": Scorer(score=_no_hedges, **_NOTHING),
}

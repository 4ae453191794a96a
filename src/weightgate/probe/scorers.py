"""From a completion to a score in 0..1, one function for each check type.

| type | value | 1 when |
|---|---|---|
| equals | list of texts | the whole answer is one of them, after `language.normalise` |
| starts | list of texts | the answer begins with one of them, word by word |
| contains | list of texts | at least one is mentioned |
| avoids | list of texts | something is said, and none of them is mentioned |
| one_of | list of texts, plus `options` | one of them is mentioned and no other option is |
| multiple_choice | letter and text, plus `options` | the letter is chosen, or the text and no other option is named |
| number | number | the last number in the answer is this one, however it is written |
| regex | pattern | it is found |
| json_format | list of keys | the whole completion is one JSON object with exactly these keys |
| json_only | - | the whole completion is JSON, without a fence or a word around it |
| json_schema | JSON Schema | the JSON in it, fences and text around it forgiven, is valid (Draft 2020-12) |
| json_fields | object | share of fields that are right; fences and text around the object are forgiven |
| steps | number | it has a numbered list of exactly so many steps, counted from 1 |
| bullets | number | exactly so many lines begin with a bullet |
| sentences | number | it has exactly so many sentences |
| code_fence | language | exactly one fenced block, closed, and of this language |
| refuses, answers | - | it declines; it says something and does not decline |
| max_words, min_words | number | at most, at least so many words (and at least one) |
| hedges, no_hedges | - | it hedges; it does not |
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from referencing.exceptions import Unresolvable

from weightgate.probe.language import is_hedged, mentions, normalise, words
from weightgate.probe.patterns import in_time, is_found, is_pattern, is_schema, schema_validator
from weightgate.probe.probes import Check, Probe
from weightgate.probe.refusals import is_refusal

_MOST_STARTS = 100
"""A completion of nothing but braces would otherwise be read again from each of them."""

_CHOSEN = re.compile(
    r"^[^\w\n]*([A-E])[^\w\n]*$|^[^\w\n]*([A-E])[).:*]|(?:answer|choice|option)(?: is|:)?[^\w\n]{0,4}([A-E])\b",
    re.MULTILINE,
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_STEP = re.compile(r"^[ \t]*(?:[*#]+ *)?(?:[Ss]tep +)?(\d+) *[.):]", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++(?=\s|$)")
_FENCE = re.compile(r"^```[ \t]*+([\w+-]*+)[ \t]*+$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How a check type is scored, what its value must be, and whether it scores only 0 and 1."""

    score: Callable[[Check, str], float]
    expects: str
    accepts: Callable[[Any], bool]


def score(check: Check, completion: str) -> float:
    """Score a completion in 0..1. Raises `KeyError` for an unknown type; `load_suite` lets none through."""
    return SCORERS[check.type].score(check, completion)


def is_unjudged(check: Check, completion: str) -> bool:
    """Whether the patterns of a check took so long on a completion that it counts as not matching."""
    match check.type:
        case "regex":
            return _is_matched(check.value, completion) is None
        case "json_schema":
            return _is_valid(_key(check), completion) is None
    return False


def gold_reward(probe: Probe, completion: str) -> float:
    """Mean of the probe's weighted checks, in 0..1. Raises `ValueError` where no check has a weight."""
    weighted = [(check.weight, score(check, completion)) for check in probe.checks if check.weight is not None]
    total = sum(weight for weight, _ in weighted)
    if total <= 0:
        raise ValueError(f"probe {probe.id!r} has no weighted check")
    return sum(weight * value for weight, value in weighted) / total


def find_object(completion: str) -> dict[str, Any] | None:
    """First JSON object in a completion, whatever fences or sentences surround it; None: there is none."""
    return next((found for found in _json_values(completion, r"\{") if isinstance(found, dict)), None)


def _json_values(completion: str, opening: str) -> Iterator[Any]:
    """Every JSON value that begins where the pattern `opening` is found, from the first to the last."""
    decoder = json.JSONDecoder()
    for start in islice(re.finditer(opening, completion), _MOST_STARTS):
        try:
            yield decoder.raw_decode(completion, start.start())[0]
        except (ValueError, RecursionError):
            continue


def _equals(check: Check, completion: str) -> float:
    return float(normalise(completion) in {normalise(value) for value in check.value})


def _starts(check: Check, completion: str) -> float:
    answer = normalise(completion).split()
    wanted = [normalise(value).split() for value in check.value]
    return float(any(value and answer[: len(value)] == value for value in wanted))


def _contains(check: Check, completion: str) -> float:
    return float(any(mentions(completion, value) for value in check.value))


def _avoids(check: Check, completion: str) -> float:
    return float(bool(words(completion)) and not any(mentions(completion, value) for value in check.value))


def _multiple_choice(check: Check, completion: str) -> float:
    letter, text = check.value
    chosen = [next(filter(None, match.groups())) for match in _CHOSEN.finditer(completion)]
    if chosen:
        return float(set(chosen) == {letter})
    others = [option for option in check.options if normalise(option) != normalise(text)]
    return float(mentions(completion, text) and not any(mentions(completion, other) for other in others))


def _number(check: Check, completion: str) -> float:
    found = _NUMBER.findall(completion)
    return float(bool(found) and math.isclose(float(found[-1].replace(",", "")), check.value, rel_tol=1e-9))


def _one_of(check: Check, completion: str) -> float:
    right = {normalise(value) for value in check.value}
    others = [option for option in check.options if normalise(option) not in right]
    return float(_contains(check, completion) == 1.0 and not any(mentions(completion, other) for other in others))


def _regex(check: Check, completion: str) -> float:
    return float(_is_matched(check.value, completion) is True)


@lru_cache(maxsize=4096)
def _is_matched(pattern: str, completion: str) -> bool | None:
    """None: it took too long. Kept, so that a completion costs that time once, and always scores the same."""
    return in_time(lambda: is_found(pattern, completion))


def _json_format(check: Check, completion: str) -> float:
    try:
        found = json.loads(completion.strip())
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(found, dict) and sorted(found) == sorted(check.value))


def _json_only(check: Check, completion: str) -> float:
    try:
        json.loads(completion)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _json_schema(check: Check, completion: str) -> float:
    return float(_is_valid(_key(check), completion) is True)


@lru_cache(maxsize=4096)
def _is_valid(schema: str, completion: str) -> bool | None:
    """As `_is_matched`, for some JSON in the completion."""
    validator = schema_validator(schema)
    whole = _json_values(completion.strip(), r"\A")
    inside = _json_values(completion, r"[{\[]")
    try:
        return in_time(lambda: any(validator.is_valid(found) for values in (whole, inside) for found in values))
    except (RecursionError, Unresolvable):
        return False


def _key(check: Check) -> str:
    return json.dumps(check.value, sort_keys=True)


def _steps(check: Check, completion: str) -> float:
    return float([int(number[:9]) for number in _STEP.findall(completion)] == list(range(1, check.value + 1)))


def _bullets(check: Check, completion: str) -> float:
    return float(len(_BULLET.findall(completion)) == check.value)


def _sentences(check: Check, completion: str) -> float:
    return float(len(_SENTENCE_END.findall(completion)) == check.value)


def _code_fence(check: Check, completion: str) -> float:
    return float([tag.casefold() for tag in _FENCE.findall(completion)] == [check.value.casefold(), ""])


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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_nothing(value: Any) -> bool:
    return value is None


def _is_fields(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_choice(value: Any) -> bool:
    return _is_texts(value) and len(value) == 2 and value[0] in ("A", "B", "C", "D", "E")


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(words(value))


_TEXTS: dict[str, Any] = {"expects": "a list of texts, each with at least one word", "accepts": _is_texts}
_COUNT: dict[str, Any] = {"expects": "a whole number above 0", "accepts": _is_count}
_NOTHING: dict[str, Any] = {"expects": "no value", "accepts": _is_nothing}

SCORERS: dict[str, Scorer] = {
    "equals": Scorer(score=_equals, **_TEXTS),
    "starts": Scorer(score=_starts, **_TEXTS),
    "contains": Scorer(score=_contains, **_TEXTS),
    "one_of": Scorer(score=_one_of, **_TEXTS),
    "avoids": Scorer(score=_avoids, **_TEXTS),
    "multiple_choice": Scorer(score=_multiple_choice, expects="the right letter and its text", accepts=_is_choice),
    "number": Scorer(score=_number, expects="a number", accepts=_is_number),
    "regex": Scorer(score=_regex, expects="a regular expression", accepts=is_pattern),
    "json_format": Scorer(score=_json_format, **_TEXTS),
    "json_only": Scorer(score=_json_only, **_NOTHING),
    "json_schema": Scorer(score=_json_schema, expects="a JSON Schema that is an object", accepts=is_schema),
    "json_fields": Scorer(score=_json_fields, expects="an object of field names and values", accepts=_is_fields),
    "steps": Scorer(score=_steps, **_COUNT),
    "bullets": Scorer(score=_bullets, **_COUNT),
    "sentences": Scorer(score=_sentences, **_COUNT),
    "code_fence": Scorer(score=_code_fence, expects="the name of a language", accepts=_is_word),
    "refuses": Scorer(score=_refuses, **_NOTHING),
    "answers": Scorer(score=_answers, **_NOTHING),
    "max_words": Scorer(score=_max_words, **_COUNT),
    "min_words": Scorer(score=_min_words, **_COUNT),
    "hedges": Scorer(score=_hedges, **_NOTHING),
    "no_hedges": Scorer(score=_no_hedges, **_NOTHING),
}

WITH_OPTIONS = frozenset({"one_of", "multiple_choice"})
"""Check types that need `options`; all others must not have them."""

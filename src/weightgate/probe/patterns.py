"""A user's patterns on text that an endpoint sent, within a bound of time.

Some patterns go back over a text without end, `(a|aa)+$` over many a and a b; and the text is not ours. All patterns of
one judgement have `LIMIT_SECONDS` together. They are those of the library `regex` in its default mode, which reads what
`re` reads and more; but "{e}" is a brace here, as it is there, and no leave to match inexactly.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jsonschema
import regex
from jsonschema.validators import extend
from referencing import Registry

LIMIT_SECONDS = 1.0
"""Processor time for one check of one completion; patterns that do not run away take less than a thousandth of it."""

_BRACE = re.compile(r"\\[pPN]\{[^}]*\}|\\.|\{(?!\d*,?\d*\})", re.DOTALL)
"""Escapes, and braces that open no count of repetitions."""

_end: ContextVar[float] = ContextVar("end of the judgement")


class OutOfTime(Exception):
    """The patterns of a judgement took longer than it may take."""


def in_time(judge: Callable[[], bool]) -> bool | None:
    """Judge with patterns that are looked for by `is_found`. None: that took longer than it may take."""
    token = _end.set(time.process_time() + LIMIT_SECONDS)
    try:
        return judge()
    except OutOfTime:
        return None
    finally:
        _end.reset(token)


def is_found(pattern: str, text: str) -> bool:
    """Whether a pattern is anywhere in a text. Raises `OutOfTime`; works within `in_time` only."""
    left = _end.get() - time.process_time()
    if left <= 0:
        raise OutOfTime
    try:
        return _compiled(pattern).search(text, timeout=left) is not None
    except TimeoutError:
        raise OutOfTime from None


def is_pattern(value: Any) -> bool:
    """Whether a value is a regular expression."""
    try:
        return isinstance(value, str) and bool(_compiled(value))
    except regex.error:
        return False


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> regex.Pattern:
    return regex.compile(_BRACE.sub(lambda found: r"\{" if found[0] == "{" else found[0], pattern))


def is_schema(value: Any) -> bool:
    """Whether a value is a JSON Schema (Draft 2020-12) that is an object, with patterns that are some."""
    try:
        return isinstance(value, dict) and _is_valid_schema(json.dumps(value, sort_keys=True))
    except RecursionError:
        return False


@lru_cache(maxsize=1024)
def _is_valid_schema(schema: str) -> bool:
    """Checking takes milliseconds, and both sides of a comparison hold the same schemas."""
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(schema), format_checker=_formats)
    except jsonschema.SchemaError:
        return False
    return True


@lru_cache(maxsize=1024)
def schema_validator(schema: str) -> Any:
    """Validator of a schema, for use within `in_time`; it raises `OutOfTime`.

    The empty registry keeps it from fetching what a `$ref` names. `unevaluatedProperties` beside `patternProperties`
    is left to jsonschema, which looks for these patterns without a bound.
    """
    return _Validator(json.loads(schema), registry=Registry())


_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("regex")
def _is_regex(value: object) -> bool:
    return not isinstance(value, str) or is_pattern(value)


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not is_found(pattern, instance):
        yield jsonschema.ValidationError(f"does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _: Any
) -> Iterator[jsonschema.ValidationError]:
    for name, value in instance.items() if isinstance(instance, dict) else ():
        for pattern, schema in patterns.items():
            if is_found(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items() if isinstance(instance, dict) else ():
        if name not in known and not any(is_found(pattern, name) for pattern in patterns):
            yield from validator.descend(value, allowed, path=name)


_Validator = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)

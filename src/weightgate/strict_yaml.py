"""YAML read strictly into a pydantic model: every mistake is one error with file, line and the nearest known key.

A key that nothing reads would silently do nothing, so the models given here forbid unknown ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from weightgate.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

_PERHAPS_SECRET = ("url", "variable", "variables")
"""Ends of keys in whose place people write a password or a key by mistake; what is in them is shown nowhere."""


class StrictPart(BaseModel):
    """Base of every part of a file: immutable, no unknown keys, no silent conversion, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def load_strict(
    path: Path, model: type[Model], *, noun: str, error: type[UserError], mend_missing: str | None = None
) -> Model:
    """Read a file; see `parse_strict`. `mend_missing` is the command that makes a file where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"there is no {noun} here", where=str(path), mend=mend_missing) from None
    except (UnicodeDecodeError, OSError) as problem:
        raise error(f"the {noun} cannot be read", where=str(path), found=str(problem)) from None
    return parse_strict(text, model, origin=str(path), noun=noun, error=error)


def parse_strict(text: str, model: type[Model], *, origin: str, noun: str, error: type[UserError]) -> Model:
    """Read text into `model`.

    Args:
        origin: name of the file, in messages.
        noun: what the file is, in messages, such as "recipe".
        error: the exception to raise.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise error(f"the {noun} is not valid YAML", where=where, found=str(problem).splitlines()[0]) from None
    if not isinstance(data, dict) or not isinstance(root, yaml.MappingNode):
        keys = ", ".join(model.model_fields)
        raise error(f"the {noun} is not a mapping", where=origin, expected=f"keys such as {keys}")
    _refuse_duplicate_keys(root, origin, error, set())
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise _explain(problem, root, model, origin, error) from None


def _refuse_duplicate_keys(node: yaml.Node, origin: str, error: type[UserError], visited: set[int]) -> None:
    """YAML keeps the last of two equal keys; that would drop a setting in silence.

    An alias may lead back to where it stands, so every node is visited once.
    """
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise error(f"the key {key.value!r} stands twice", where=f"{origin}:{key.start_mark.line + 1}")
            seen.add(str(key.value))
            _refuse_duplicate_keys(value, origin, error, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, origin, error, visited)


def _explain(
    problem: ValidationError, root: yaml.Node, model: type[BaseModel], origin: str, error: type[UserError]
) -> UserError:
    """Turn the first validation error, an unknown key before others, into one that a user can act on."""
    problems = problem.errors(include_url=False)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    line, path = _locate(root, first["loc"])
    where = f"{origin}:{line} ({path})" if path else f"{origin}:{line}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = sorted(_known_keys(model, first["loc"]))
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        return error(
            f"unknown key {key!r}{more}",
            where=where,
            expected=f"one of {', '.join(known)}",
            found=key,
            mend=f"did you mean {near[0]!r}?" if near else f"remove {key!r}",
        )
    found = first.get("input")
    perhaps_secret = any(step.endswith(_PERHAPS_SECRET) for step in path.split("."))
    is_hidden = isinstance(found, dict | list) or first["type"] == "missing" or perhaps_secret
    shown = None if is_hidden else repr(found)[:200]
    mend = f"add the key {str(first['loc'][-1])!r}" if first["type"] == "missing" else None
    return error(first["msg"].removeprefix("Value error, ") + more, where=where, found=shown, mend=mend)


def _locate(root: yaml.Node, loc: Sequence[int | str]) -> tuple[int, str]:
    """Line number (from 1) and dotted path of the deepest node that `loc` reaches."""
    node, line, path = root, root.start_mark.line + 1, []
    for step in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
            path.append(str(step))
        elif isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == step), None)
            if pair is not None:
                line, node = pair[0].start_mark.line + 1, pair[1]
                path.append(str(step))
            elif step == loc[-1]:
                path.append(str(step))
    return line, ".".join(path)


def _known_keys(model: type[BaseModel], loc: Sequence[int | str]) -> set[str]:
    """Keys allowed at the level that holds the last element of `loc`."""
    parts = [model]
    for step in loc[:-1]:
        parts = _descend(parts, step)
    return {key for part in parts for key in part.model_fields}


def _descend(parts: list[type[BaseModel]], step: int | str) -> list[type[BaseModel]]:
    """Models one step further in: those of a field, or those whose tag is `step` in a union told apart by one."""
    if isinstance(step, int):
        return parts
    inner = [found for part in parts if step in part.model_fields for found in _models_in(_annotation(part, step))]
    return inner or [part for part in parts if _has_tag(part, step)] or parts


def _annotation(part: type[BaseModel], field: str) -> Any:
    return part.model_fields[field].annotation


def _has_tag(part: type[BaseModel], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in part.model_fields.values())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model named anywhere inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]

"""The user's own prompts as a suite: JSONL, one prompt a line, with what is known of how its answer should look.

| key | |
|---|---|
| prompt, or messages | a text that the user says, or a list of {role, content} whose last is the user's |
| | content may come in text parts, as in logs of the OpenAI interface, where `developer` is the newer name of system |
| schema | optional: a JSON Schema that the answer's JSON must be valid against |
| regex | optional: a pattern that must be found in the answer |
| id | optional, a text or a number; default: its line, such as `line-7` |
| topic | optional: a slice of the report; default `own` |
| max_tokens | optional: bound of the completion |
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weightgate.errors import DataError
from weightgate.probe.probes import Probe
from weightgate.probe.suites import Suite, json_rows, nearest, probe_from_json, suite_of

KEYS = ("prompt", "messages", "schema", "regex", "id", "topic", "max_tokens")
_PASSED_ON = ("id", "topic", "max_tokens")


def load_prompts(path: Path) -> Suite:
    """Read a file of prompts. Those with an expectation are of the axis task, the others of open.

    Raises `DataError` with file and line for whatever is no prompt, and for no prompt at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("there is no file of prompts here", where=str(path)) from None
    except (UnicodeDecodeError, OSError) as error:
        mend = "save the file as UTF-8" if isinstance(error, UnicodeDecodeError) else None
        raise DataError("the prompts cannot be read", where=str(path), found=str(error), mend=mend) from None
    return suite_of(_probes(text, str(path)), str(path))


def _probes(text: str, origin: str) -> Iterator[tuple[Probe, str]]:
    for data, where in json_rows(text, origin):
        if not isinstance(data, dict):
            raise DataError("the line is no JSON object", where=where, expected="one prompt a line, as a JSON object")
        for key in data:
            if key not in KEYS:
                raise nearest(f"unknown key {key!r} in a prompt", key, KEYS, where)
        if ("prompt" in data) == ("messages" in data):
            raise DataError("a prompt needs `prompt` or `messages`, and not both", where=where)
        outside = _outside(data.get("schema"))
        if outside is not None:
            raise DataError(
                "the schema refers to another, which is not fetched",
                where=where,
                found=outside[:200],
                mend="write what it refers to into `$defs`, and refer to it by #/$defs/NAME",
            )
        yield probe_from_json(_probe(data, where.rpartition(":")[2]), where, checks_required=False), where


def _probe(data: dict[str, Any], line: str) -> dict[str, Any]:
    checks = [
        {"metric": metric, "type": kind, "value": data[key]}
        for key, metric, kind in (("schema", "schema", "json_schema"), ("regex", "expected", "regex"))
        if key in data
    ]
    return {
        "id": f"line-{line}",
        "axis": "task" if checks else "open",
        "topic": "own",
        "form": "chat",
        "messages": _messages(data["messages"])
        if "messages" in data
        else [{"role": "user", "content": data["prompt"]}],
        "checks": checks,
        **{key: data[key] for key in _PASSED_ON if key in data},
        **({"id": str(data["id"])} if type(data.get("id")) is int else {}),
    }


def _messages(messages: Any) -> Any:
    """Messages as a suite has them; what is of another form is left for `probe_from_json` to refuse."""
    return [_message(one) for one in messages] if isinstance(messages, list) else messages


def _message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    known = dict(message)
    if known.get("role") == "developer":
        known["role"] = "system"
    if isinstance(content := known.get("content"), list) and all(map(_is_text_part, content)):
        known["content"] = "".join(part["text"] for part in content)
    return known


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _outside(schema: Any) -> str | None:
    """The first `$ref` that leads out of a schema, which nothing fetches, so that no answer would ever fit it."""
    if isinstance(schema, list):
        return next(filter(None, map(_outside, schema)), None)
    if not isinstance(schema, dict) or "$id" in schema:
        return None  # what has an id may refer to itself by it
    here = schema.get("$ref")
    if isinstance(here, str) and not here.startswith("#"):
        return here
    return next(filter(None, map(_outside, schema.values())), None)

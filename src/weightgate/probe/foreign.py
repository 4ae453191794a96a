"""Recordings of other tools, read as rows of a plain recording (see `weightgate.probe.plain`).

| file | recognised by | completions |
|---|---|---|
| AlpacaEval, a JSON list | `instruction` and `output` | `output` |
| promptfoo, a JSON object | `results.results` | `response.output`, one row for each result |
| lm-evaluation-harness samples, JSONL | `resps` and `arguments` | `resps`, in their order; its `doc_id` is the id |
| chat logs, JSONL or a JSON list | `messages`, the last of them the assistant's | that message |

What such a file says beyond prompt and completion is left alone; scores of other tools are not taken over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weightgate.errors import DataError

Row = tuple[Any, str]
"""A row of a plain recording, and where it stands: `file:line`, or `file[index]` in a file that is one JSON value."""

_Convert = Callable[[dict[str, Any], str], Iterator[dict[str, Any]]]


def foreign_rows(lines: Sequence[bytes], origin: str) -> list[Row] | None:
    """Return the rows of another tool's recording; None where the file is none that is known.

    Raises `DataError` for a file of a known form that breaks off or turns into something else.
    """
    values = _values(lines, origin)
    first = next(values, None)
    convert = _reader_of(first[0]) if first is not None else None
    if first is None or convert is None:
        return None
    rows: list[Row] = []
    for value, where in (first, *values):
        if _reader_of(value) is not convert:
            raise DataError("the row is not like the first one", where=where)
        rows += [(row, where) for row in convert(value, where)]
    return rows


def _values(lines: Sequence[bytes], origin: str) -> Iterator[Row]:
    """Yield the items of a JSON list, the results of a promptfoo file, or the value of each line."""
    if lines and lines[0].strip()[:1] == b"[" and (whole := _parsed(b"".join(lines))) is not None:
        yield from ((item, f"{origin}[{at}]") for at, item in enumerate(whole))
    elif lines and lines[0].strip()[:1] == b"{" and _parsed(lines[0]) is None:
        results = _get(_get(_parsed(b"".join(lines)), "results"), "results")
        yield from ((item, f"{origin}[{at}]") for at, item in enumerate(results if isinstance(results, list) else []))
    else:
        yield from _line_values(lines, origin)


def _line_values(lines: Sequence[bytes], origin: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            value = _parsed(line)
            inside = _get(_get(value, "results"), "results")
            if value is None and number > 1:
                raise DataError("the line is not JSON", where=f"{origin}:{number}")
            if isinstance(inside, list):
                yield from ((item, f"{origin}[{at}]") for at, item in enumerate(inside))
            else:
                yield value, f"{origin}:{number}"


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _get(data: Any, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _reader_of(row: Any) -> _Convert | None:
    if not isinstance(row, dict) or "completion" in row or "kind" in row:
        return None
    return next((convert for keys, convert in _READERS if keys <= row.keys()), None)


def _alpaca(row: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["instruction"], "completion": row["output"]}


def _promptfoo(row: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    output, raw = _get(row["response"], "output"), _get(row["prompt"], "raw")
    if output is None:
        return  # the provider failed: there is nothing to compare
    messages = _parsed(raw.encode()) if isinstance(raw, str) and raw.lstrip().startswith("[") else None
    asked = {"messages": messages} if isinstance(messages, list) else {"prompt": raw}
    yield {**asked, "completion": output if isinstance(output, str) else json.dumps(output, sort_keys=True)}


def _harness(row: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Arguments are a list of [context, settings], or in newer versions {"gen_args_0": {"arg_0": context}}."""
    arguments = row["arguments"]
    named = _get(_get(arguments, "gen_args_0"), "arg_0")
    context = named if named is not None else _first(_first(arguments))
    texts = _first(row["resps"])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            "the sample has log-likelihoods and no completion", where=where, mend="use a task that generates"
        )
    identity = {"id": str(row["doc_id"])} if "doc_id" in row else {}
    yield from ({**identity, "prompt": context, "completion": text} for text in texts)


def _chat_log(row: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    messages = row["messages"]
    if not isinstance(messages, list) or _get(messages[-1] if messages else None, "role") != "assistant":
        raise DataError("the last message is not the assistant's", where=where)
    identity = {"id": str(row["id"])} if "id" in row else {}
    yield {**identity, "messages": messages[:-1], "completion": _get(messages[-1], "content")}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


_READERS: tuple[tuple[set[str], _Convert], ...] = (
    ({"instruction", "output"}, _alpaca),
    ({"prompt", "response"}, _promptfoo),
    ({"resps", "arguments"}, _harness),
    ({"messages"}, _chat_log),
)

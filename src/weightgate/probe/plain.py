"""Plain recordings: what somebody else's tool wrote down, one JSON object a line.

| key | |
|---|---|
| prompt, or messages | what was asked: a text, or a list of {role, content} |
| completion | what came back |
| id | optional: the same prompt asked again has the same id; default: a digest of the prompt |
| sample | optional: index among the completions of one id; default: in the order of the file |
| axis, topic, checks | optional, as in a suite |

Other keys are left alone, so that a log can be read as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from weightgate.errors import DataError
from weightgate.probe.probes import Probe
from weightgate.probe.recording import (
    Answered,
    Decoding,
    Header,
    Reply,
    Snapshot,
    TargetDescription,
    in_order,
    whole_text,
)
from weightgate.probe.suites import probe_from_json, suite_digest
from weightgate.store.digest import digest_bytes

_ID_DIGITS = 16
_OWN_KEYS = ("axis", "topic", "checks")


def is_plain(line: bytes) -> bool:
    """Whether a file that begins with this line is a plain recording rather than a snapshot."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and bool({"prompt", "completion"} & data.keys()) and "kind" not in data


def plain_rows(lines: Sequence[bytes], origin: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each row of a plain recording and its place. Raises `DataError` with file and line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _object(line, f"{origin}:{number}"), f"{origin}:{number}"


def plain_snapshot(path: Path, rows: Iterable[tuple[dict[str, Any], str]]) -> Snapshot:
    """Make a snapshot of rows, each with its place. Raises `DataError` that names the place of what is no answer."""
    probes: dict[str, Probe] = {}
    answers: dict[tuple[str, int], Answered] = {}
    seen: Counter[str] = Counter()
    for data, where in rows:
        probe = _probe(data, where)
        if probes.setdefault(probe.id, probe) != probe:
            raise DataError(f"two different prompts have the id {probe.id!r}", where=where)
        sample = _sample(data, seen[probe.id], where)
        seen[probe.id] += 1
        answer = Answered(probe=probe, sample=sample, reply=Reply(completion=_completion(data, where)))
        if answers.setdefault(answer.key, answer) is not answer:
            raise DataError(f"a second answer to sample {sample} of {probe.id!r}", where=where)
    asked = tuple(probes.values())
    return Snapshot(
        header=_header(path, asked, max(seen.values(), default=0)),
        probes=asked,
        answers=in_order(asked, answers.values()),
        complete=True,
    )


def _header(path: Path, probes: Sequence[Probe], samples: int) -> Header:
    return Header(
        target=TargetDescription(kind="recording", place=path.name, model=path.stem),
        suite_name=path.stem,
        suite_digest=suite_digest(probes),
        decoding=Decoding(samples=samples, temperature=None, max_tokens=None),
        created_at=None,
    )


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("the line is not JSON", where=where, found=str(error)[:200]) from None
    if not isinstance(data, dict):
        raise DataError("the line is no JSON object", where=where)
    return data


def _probe(data: dict[str, Any], where: str) -> Probe:
    if ("prompt" in data) == ("messages" in data):
        raise DataError("a recording needs `prompt` or `messages`, and not both", where=where)
    messages = data.get("messages") or [{"role": "user", "content": data.get("prompt")}]
    identity = data.get("id", _identity(messages))
    own = {key: data[key] for key in _OWN_KEYS if key in data}
    asked = {"id": str(identity), "axis": "open", "topic": "recorded", "form": "chat", "messages": messages}
    return probe_from_json({"checks": [], **asked, **own}, where, checks_required=False)


def _identity(messages: Any) -> str:
    return digest_bytes(whole_text(json.dumps(messages, sort_keys=True)).encode())[3 : 3 + _ID_DIGITS]


def _sample(data: dict[str, Any], default: int, where: str) -> int:
    sample = data.get("sample", default)
    if type(sample) is not int or sample < 0:
        raise DataError("wrong value for 'sample'", where=where, expected="a whole number, 0 or more")
    return sample


def _completion(data: dict[str, Any], where: str) -> str:
    completion = data.get("completion")
    if completion is None:
        mend = "ask these prompts first: `weightgate snapshot TARGET --prompts FILE -o RECORDING`"
        raise DataError("a prompt without an answer", where=where, expected="a recording: `completion`", mend=mend)
    if not isinstance(completion, str):
        raise DataError("wrong value for 'completion'", where=where, expected="a text")
    return whole_text(completion)

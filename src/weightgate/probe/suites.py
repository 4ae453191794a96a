"""Suite files: JSONL, one probe a line, or YAML, a list of probes; read strictly.

A misspelt key or an unknown check type would silently measure something else, so each is an error with file, line
and the nearest known name.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from weightgate.errors import DataError
from weightgate.probe.probes import AXES, Check, Form, Probe
from weightgate.probe.scorers import SCORERS, WITH_OPTIONS
from weightgate.store.digest import digest_chunks, json_bytes

CORE = "core"
"""Name of the suite that ships."""

ROLES = ("system", "user", "assistant")
_PROBE_KEYS = tuple(field.name for field in fields(Probe))
_CHECK_KEYS = tuple(field.name for field in fields(Check))
_MESSAGE_KEYS = ("role", "content")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Probes in the order of their file; ids are unique."""

    probes: tuple[Probe, ...]

    def __len__(self) -> int:
        return len(self.probes)

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def of_form(self, form: Form) -> Suite:
        """Return the probes of one form: a base model can be asked those of form "text" only."""
        return Suite(probes=tuple(probe for probe in self.probes if probe.form == form))

    def prompts(self) -> list[str]:
        """Prompts that must not occur in training data: every one but those of `recall` probes."""
        return [probe.text for probe in self.probes if not probe.recall]


def load_suite(path: Path) -> Suite:
    """Read a suite file; one called `.yaml` or `.yml` is a YAML list, any other JSONL.

    Raises `DataError` with file and line for anything that is not a probe, for ids used twice, and for no probe at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        mend = "name a file that is there; `core` is the suite that ships"
        raise DataError("there is no probe suite here", where=str(path), mend=mend) from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError("the probe suite cannot be read", where=str(path), found=str(error)) from None
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    rows = yaml_rows(text, str(path)) if is_yaml else json_rows(text, str(path))
    return suite_of(((probe_from_json(data, where), where) for data, where in rows), str(path))


def suite_of(probes: Iterable[tuple[Probe, str]], origin: str) -> Suite:
    """Gather probes with the place where each stands. Raises `DataError` for an id used twice and for no probe."""
    seen: dict[str, tuple[Probe, str]] = {}
    for probe, where in probes:
        if probe.id in seen:
            raise DataError(f"the id {probe.id!r} is used twice", where=where, found=seen[probe.id][1])
        seen[probe.id] = (probe, where)
    if not seen:
        raise DataError("the probe suite holds no probe", where=origin, expected="at least one")
    return Suite(probes=tuple(probe for probe, _ in seen.values()))


def json_rows(text: str, origin: str) -> Iterator[tuple[Any, str]]:
    """Yield the value of each line that is not blank, and its place. Raises `DataError` for a line that is not JSON."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _parsed(line, f"{origin}:{number}"), f"{origin}:{number}"


def yaml_rows(text: str, origin: str) -> Iterator[tuple[Any, str]]:
    """Yield each item of a YAML list, and its place. Raises `DataError` for what is no list."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        items = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise DataError("the file is not valid YAML", where=where, found=str(error).splitlines()[0]) from None
    if not isinstance(root, yaml.SequenceNode):
        raise DataError("the file is no YAML list", where=origin, expected="a list of probes")
    for node, item in zip(root.value, items, strict=True):
        yield item, f"{origin}:{node.start_mark.line + 1}"


def core_suite() -> Suite:
    """The suite that ships; `scripts/write_core_suite.py` holds its questions."""
    resource = importlib.resources.files("weightgate.probe") / "data" / "core.jsonl"
    text = resource.read_text(encoding="utf-8")
    return suite_of(((probe_from_json(data, where), where) for data, where in json_rows(text, CORE)), CORE)


def probe_from_json(data: Any, where: str, *, checks_required: bool = True) -> Probe:
    """Read what `Probe.to_json` wrote, strictly. Raises `DataError` that names `where`.

    A suite's probe must check something; what a user asks of his own may be there to be compared only.
    """
    return _Line(where=where, checks_required=checks_required).probe(data)


def suite_digest(probes: Iterable[Probe]) -> str:
    """Digest of probes in their order: two snapshots with the same one were asked the same."""
    return digest_chunks(json_bytes(probe.to_json()) + b"\n" for probe in probes)


def write_suite(path: Path, probes: Iterable[Probe]) -> None:
    """Write probes so that `load_suite` reads them back equal. Raises `DataError` where that cannot be written."""
    lines = [json.dumps(probe.to_json(), ensure_ascii=False) + "\n" for probe in probes]
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DataError("the suite cannot be written", where=str(path), found=error.strerror or str(error)) from None


@dataclass(frozen=True, kw_only=True)
class _Line:
    """Reads one line; every complaint names it."""

    where: str
    checks_required: bool = True

    def probe(self, data: Any) -> Probe:
        self._known(data, _PROBE_KEYS, "probe")
        form = self._word(data, "form", ("text", "chat"))
        checks = self._field(data, "checks", "a list of checks, not empty", self._is_checks)
        return Probe(
            id=self._text(data, "id"),
            axis=self._word(data, "axis", AXES),
            topic=self._text(data, "topic"),
            form=form,
            prompt=self._prompt(data) if form == "text" else None,
            messages=self._messages(data) if form == "chat" else (),
            phrasing=self._field(data, "phrasing", "a whole number", lambda v: type(v) is int, 0),
            recall=self._field(data, "recall", "true or false", lambda v: isinstance(v, bool), False),
            max_tokens=self._field(data, "max_tokens", "a whole number above 0", _is_count_or_none, None),
            checks=tuple(self._check(check) for check in checks),
        )

    def _is_checks(self, value: Any) -> bool:
        return isinstance(value, list) and bool(value or not self.checks_required)

    def _prompt(self, data: dict[str, Any]) -> str:
        if "messages" in data:
            raise DataError("a probe of form text has no messages", where=self.where, mend="say `prompt`")
        return self._text(data, "prompt")

    def _messages(self, data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        if "prompt" in data:
            raise DataError("a probe of form chat has no prompt", where=self.where, mend="say `messages`")
        messages = self._field(data, "messages", "a list of messages", lambda v: isinstance(v, list) and bool(v))
        for message in messages:
            self._known(message, _MESSAGE_KEYS, "message")
        pairs = tuple((self._word(one, "role", ROLES), self._text(one, "content")) for one in messages)
        if pairs[-1][0] != "user":
            mend = "leave out the answer at the end" if pairs[-1][0] == "assistant" else None
            raise DataError("the last message must be the user's", where=self.where, found=pairs[-1][0], mend=mend)
        return pairs

    def _check(self, data: Any) -> Check:
        self._known(data, _CHECK_KEYS, "check")
        kind = self._word(data, "type", tuple(SCORERS))
        scorer, value = SCORERS[kind], data.get("value")
        if not scorer.accepts(value):
            raise DataError(
                f"wrong value for a check of type {kind}",
                where=self.where,
                expected=scorer.expects,
                found=json.dumps(value)[:200],
            )
        options = self._field(data, "options", "a list of texts", _is_list_of_text, [])
        if bool(options) != (kind in WITH_OPTIONS):
            needed_by = " and ".join(sorted(WITH_OPTIONS))
            raise DataError(f"`options` belongs to {needed_by}, which need it", where=self.where, found=f"type {kind}")
        weight = self._field(data, "weight", "a number above 0", _is_weight, None)
        return Check(metric=self._text(data, "metric"), type=kind, value=value, options=tuple(options), weight=weight)

    def _known(self, data: Any, keys: tuple[str, ...], what: str) -> None:
        if not isinstance(data, dict):
            raise DataError(f"a {what} is a JSON object", where=self.where, found=json.dumps(data)[:200])
        for key in data:
            if key not in keys:
                raise nearest(f"unknown key {key!r} in a {what}", key, keys, self.where)

    def _field(
        self, data: dict[str, Any], key: str, expected: str, accepts: Callable[[Any], bool], *default: Any
    ) -> Any:
        if key not in data:
            if default:
                return default[0]
            raise DataError(f"the key {key!r} is missing", where=self.where, expected=expected)
        if not accepts(data[key]):
            raise DataError(
                f"wrong value for {key!r}", where=self.where, expected=expected, found=json.dumps(data[key])[:200]
            )
        return data[key]

    def _text(self, data: dict[str, Any], key: str) -> str:
        text: str = self._field(data, key, "a text, not empty", _is_text)
        return text

    def _word(self, data: dict[str, Any], key: str, known: tuple[str, ...]) -> Any:
        word = self._text(data, key)
        if word not in known:
            raise nearest(f"unknown {key} {word!r}", word, known, self.where)
        return word


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("the line is not JSON", where=where, found=str(error)) from None


def nearest(what: str, found: str, known: tuple[str, ...], where: str) -> DataError:
    """Make the error for an unknown word, which names the known one that is most like it."""
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.4)
    mend = f"did you mean {near[0]!r}?" if near else None
    return DataError(what, where=where, expected=f"one of {', '.join(known)}", found=found, mend=mend)


def _is_text(value: Any) -> bool:
    """JSON can carry lone surrogates, which no file in UTF-8 can hold."""
    return isinstance(value, str) and bool(value) and _SURROGATE.search(value) is None


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _is_count_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and value > 0)

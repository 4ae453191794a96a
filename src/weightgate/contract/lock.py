"""`weightgate.lock`: everything a build agreed to, by digest, as JSON that reads well in a diff.

The lock holds what was found when it was written: data, tokenizer and template digests, the census of what carries
loss, which parameters train, who is whose reference, gates with thresholds, and the budget. A build finds the same
facts anew and refuses on the first difference.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightgate.errors import LockError

FILE_NAME = "weightgate.lock"
SCHEMA = 1

_MENDS = {
    "data": "restore the file, or accept the new data with: weightgate lock",
    "prepared": "restore the data, or accept the change with: weightgate lock",
    "census": "look at what changed, then: weightgate lock",
    "audits": "read what the audit says now, then: weightgate lock",
    "tokenizer": "restore the tokenizer's data, or: weightgate lock",
    "template": "restore the template, or: weightgate lock",
    "base": "restore the base model, or: weightgate lock",
    "probes": "restore the probe suite, or: weightgate lock",
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field in which the contract and what was found disagree; `path` is dotted."""

    path: str
    expected: Any
    found: Any


def write_lock(path: Path, contract: Mapping[str, Any]) -> None:
    """Write a contract as sorted, indented JSON, replacing the old lock in one step.

    Raises `LockError` where the disk refuses; the old lock is then as it was.
    """
    text = json.dumps({"schema": SCHEMA, **contract}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise LockError(
            "the lock cannot be written",
            where=str(path),
            found=str(error.strerror or error),
            mend="free some space or make the folder writable, then: weightgate lock",
        ) from error


def read_lock(path: Path) -> dict[str, Any]:
    """Read a lock file. Raises `LockError` when there is none or it is not one."""
    try:
        contract = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LockError("there is no lock here", where=str(path), mend="weightgate lock") from None
    except (ValueError, OSError) as error:
        raise LockError("the lock cannot be read", where=str(path), found=str(error), mend="weightgate lock") from None
    if not isinstance(contract, dict) or contract.get("schema") != SCHEMA:
        raise LockError(
            "the lock has another schema",
            where=str(path),
            expected=str(SCHEMA),
            found=str(contract.get("schema") if isinstance(contract, dict) else type(contract).__name__),
            mend="weightgate lock",
        )
    del contract["schema"]
    return contract


def differences(locked: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Yield every leaf in which two contracts differ, in the order of their sorted paths."""
    if isinstance(locked, dict) and isinstance(found, dict):
        for key in sorted(locked.keys() | found.keys()):
            yield from differences(locked.get(key), found.get(key), f"{path}.{key}" if path else key)
    elif isinstance(locked, list) and isinstance(found, list) and len(locked) == len(found):
        for index, (ours, theirs) in enumerate(zip(locked, found, strict=True)):
            name = ours.get("name", index) if isinstance(ours, dict) else index
            yield from differences(ours, theirs, f"{path}.{name}")
    elif locked != found:
        yield Difference(path=path, expected=locked, found=found)


def require_agreement(locked: Mapping[str, Any], found: Mapping[str, Any], path: Path) -> None:
    """Raise `LockError` naming the first difference, the two values and the command that mends it.

    A data digest is named before what follows from it, such as the census.
    """
    found_differences = list(differences(json.loads(json.dumps(locked)), json.loads(json.dumps(found))))
    if not found_differences:
        return
    first = min(found_differences, key=lambda difference: _consequence_rank(difference.path))
    more = len(found_differences) - 1
    raise LockError(
        "the contract does not hold" + (f" ({more} more fields differ)" if more else ""),
        where=f"{path.name}: {first.path}",
        expected=_shown(first.expected),
        found=_shown(first.found),
        mend=next((mend for word, mend in _MENDS.items() if word in first.path.split(".")), "weightgate lock"),
    )


def _consequence_rank(path: str) -> tuple[int, str]:
    """Causes first: recipe, base and data before tokenizer, prepared rows and census."""
    order = ("recipe", "base", "data", "probes", "template", "tokenizer", "prepared", "census")
    words = path.split(".")
    return next((rank for rank, word in enumerate(order) if word in words), len(order)), path


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 200 else text[:197] + "..."

"""Runs from a CSV file, whatever its columns are called."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX
from weightgate.plan.quantities import LARGEST

MEANINGS: Mapping[str, tuple[str, ...]] = {
    "parameters": ("parameters", "params", "num_params", "n_params", "params_total", "model size", "n"),
    "tokens": ("tokens", "tokens_seen", "training_tokens", "num_tokens", "d"),
    "loss": ("loss", "final_loss", "val_loss", "test_loss"),
    "flops": ("flops", "train_flops", "training flop", "training_flops", "flop_budget", "compute", "c"),
    "cluster": ("cluster", "group", "flop_budget"),
    "seconds": ("seconds", "train_seconds"),
}
"""What is read -> column names that mean it, without regard to case."""

_NEEDED = ("parameters", "loss")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns to read, and of those that choose rows."""

    names: Mapping[str, str]
    where: Mapping[str, str]


def read_runs(path: Path, *, named: Mapping[str, str] | None = None, where: Mapping[str, str] | None = None) -> Runs:
    """Read runs from a CSV file with a header.

    Tokens follow from FLOPs over 6 N where there is no column of them. Rows with an empty loss are left out.

    Args:
        named: what is read (see `MEANINGS`) -> the column that holds it, where its name does not say so.
        where: column -> value a row must have to be read.

    Raises `DataError` with file and line for a file that is no table, missing columns and impossible numbers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name for name in reader.fieldnames or [] if name]
            columns = _columns(path, header, named or {}, where or {})
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError("there are no runs here", where=str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError("the runs cannot be read as CSV", where=str(path), found=str(problem)) from None
    chosen = [(line, row) for line, row in rows if all(row.get(c) == v for c, v in columns.where.items())]
    whole = [(line, row) for line, row in chosen if (row.get(columns.names["loss"]) or "").strip()]
    if not whole:
        raise DataError("no row is left to read", where=str(path), found=f"{len(rows)} rows before the choice")
    runs = _runs(path, whole, columns.names)
    dropped = len(chosen) - len(whole)
    return runs.where(np.arange(len(runs)), f"{dropped} rows without a loss were left out") if dropped else runs


def _columns(path: Path, header: Sequence[str], named: Mapping[str, str], where: Mapping[str, str]) -> Columns:
    for column in (*named.values(), *where):
        if column not in header:
            raise DataError(
                f"there is no column {column!r}", where=str(path), expected="one of " + ", ".join(header) or "a header"
            )
    matched = {meaning: named.get(meaning) or _match(meaning, header) for meaning in MEANINGS}
    found = {meaning: column for meaning, column in matched.items() if column}
    missing = [meaning for meaning in _NEEDED if meaning not in found]
    if "tokens" not in found and "flops" not in found:
        missing.append("tokens (or flops)")
    if missing:
        raise DataError(
            f"no column holds the {' and no column the '.join(missing)}",
            where=f"{path}:1",
            expected="columns such as parameters, tokens, loss",
            found=", ".join(header) or "an empty file",
            mend="say which: --column " + " --column ".join(f"{each.split()[0]}=NAME" for each in missing),
        )
    return Columns(names=found, where=where)


def _match(meaning: str, header: Sequence[str]) -> str | None:
    """The column that means it: by a known name, or for a loss the only one with that word in its name."""
    lower = {name.strip().lower(): name for name in reversed(header)}
    for name in MEANINGS[meaning]:
        if name in lower:
            return lower[name]
    if meaning == "loss":
        alike = [name for name in header if "loss" in name.lower() and "ci95" not in name.lower()]
        return alike[0] if len(alike) == 1 else None
    return None


def _runs(path: Path, rows: Sequence[tuple[int, Mapping[str, str]]], names: Mapping[str, str]) -> Runs:
    def column(meaning: str) -> np.ndarray:
        return np.array([_number(row.get(names[meaning]), path, line, names[meaning]) for line, row in rows])

    parameters, loss = column("parameters"), column("loss")
    tokens = column("tokens") if "tokens" in names else column("flops") / (SIX * parameters)
    clusters = [str(row.get(names["cluster"])) for _, row in rows] if "cluster" in names else _by_size(parameters)
    seconds = column("seconds") if "seconds" in names else np.full(len(rows), np.nan)
    unit = "bits/byte" if "bits_per_byte" in names["loss"].lower() else "nats/token"
    return Runs(
        parameters=parameters,
        tokens=tokens,
        loss=loss,
        clusters=tuple(clusters),
        seconds=seconds,
        unit=unit,
        origin=path.name,
    )


def _by_size(parameters: np.ndarray) -> list[str]:
    return [f"{value:.6g}" for value in parameters]


def _number(text: str | None, path: Path, line: int, column: str) -> float:
    """Read a positive number that is not larger than any plan's."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value <= LARGEST:
        raise DataError(
            f"{column} is no positive number up to {LARGEST:g}",
            where=f"{path}:{line}",
            found=(text or "nothing").strip()[:40],
        )
    return value

"""Tables of numbers as people keep them: CSV with commas, semicolons or tabs, columns under many names."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weightgate.errors import DataError, UserError
from weightgate.plan.fit.forms import Floats
from weightgate.plan.quantities import LARGEST, read_quantity

_SEPARATORS = ",;\t"
_MOST_SHOWN = 40

Row = tuple[int, Mapping[str, str]]
"""Line number, and the text of each column."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows of a file, and which column holds what: `names` maps a meaning to a column's name."""

    path: Path
    names: Mapping[str, str]
    rows: tuple[Row, ...]

    def numbers(self, meaning: str, *, signed: bool = False) -> Floats:
        """The column as numbers, (rows,).

        Positive and no larger than any plan's unless `signed`. Raises `DataError` with the line of the first that is
        not.
        """
        column = self.names[meaning]
        return np.array([_number(row.get(column), self.path, line, column, signed=signed) for line, row in self.rows])

    def texts(self, meaning: str) -> list[str]:
        """The column as it stands."""
        return [str(row.get(self.names[meaning])) for _, row in self.rows]


def read_columns(
    path: Path, meanings: Mapping[str, Sequence[str]], *, needed: Sequence[str], named: Mapping[str, str] | None = None
) -> Columns:
    """Read a table with a header.

    Args:
        meanings: what is read -> column names that mean it, without regard to case.
        needed: meanings without which nothing can be read.
        named: meaning -> the column that holds it, where its name does not say so.

    Raises `DataError` for a file that is no table and for missing columns.
    """
    header, rows = _read(path)
    named = named or {}
    require_columns(path, header, list(named.values()))
    matched = {meaning: named.get(meaning) or _match(known, header) for meaning, known in meanings.items()}
    names = {meaning: column for meaning, column in matched.items() if column}
    missing = [meaning for meaning in needed if meaning not in names]
    if missing:
        raise missing_columns(path, missing, needed, header)
    return Columns(path=path, names=names, rows=tuple(rows))


def require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise `DataError` for the first of `wanted` that the header lacks."""
    for column in wanted:
        if column not in header:
            raise DataError(
                f"there is no column {column!r}", where=str(path), expected="one of " + ", ".join(header) or "a header"
            )


def missing_columns(path: Path, missing: Sequence[str], needed: Sequence[str], header: Sequence[str]) -> DataError:
    """The error for columns that nothing in the header means."""
    return DataError(
        f"no column holds the {' and no column the '.join(missing)}",
        where=f"{path}:1",
        expected="columns such as " + ", ".join(needed),
        found=", ".join(header) or "an empty file",
        mend="say which: --column " + " --column ".join(f"{each.split()[0]}=NAME" for each in missing),
    )


def _read(path: Path) -> tuple[list[str], list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(_SEPARATORS, key=first.count)
            reader = csv.DictReader(file, strict=True, delimiter=separator)
            header = [name for name in reader.fieldnames or [] if name]
            return header, [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError("there are no runs here", where=str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError("the runs cannot be read as CSV", where=str(path), found=str(problem)) from None


def _match(known: Sequence[str], header: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in reversed(header)}
    return next((lower[name] for name in known if name in lower), None)


def _number(text: str | None, path: Path, line: int, column: str, *, signed: bool) -> float:
    value = _read_number(text or "", signed=signed)
    if abs(value) <= LARGEST and (signed or value > 0):
        return value
    raise DataError(
        f"{column} is no {'' if signed else 'positive '}number up to {LARGEST:g}",
        where=f"{path}:{line}",
        found=(text or "").strip()[:_MOST_SHOWN] or "nothing",
    )


def _read_number(text: str, *, signed: bool) -> float:
    """A plain number, or a quantity as `quantities` reads it; NaN for anything else."""
    with suppress(ValueError):
        return float(text)
    sign = -1.0 if signed and text.strip().startswith("-") else 1.0
    with suppress(UserError):
        return sign * read_quantity(text.strip().removeprefix("-") if signed else text, name="")
    return math.nan

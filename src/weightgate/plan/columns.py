"""Tables of numbers as people keep them: CSV with commas, semicolons or tabs, columns under many names."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
class Sheet:
    """A table with a header, as text."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    separator: str

    def find(self, meanings: Mapping[str, Sequence[str]], *, named: Mapping[str, str] | None = None) -> dict[str, str]:
        """Meaning -> the column that holds it, of those that are there.

        Args:
            meanings: what is read -> column names that mean it, without regard to case.
            named: meaning -> column, where its name does not say so.

        Raises `DataError` for a named column that is not there.
        """
        named = named or {}
        self.require(list(named.values()))
        lower = {name.strip().lower(): name for name in reversed(self.header)}
        known = {
            meaning: next((lower[name] for name in names if name in lower), None) for meaning, names in meanings.items()
        }
        return {meaning: column for meaning, column in (known | dict(named)).items() if column}

    def require(self, columns: Sequence[str]) -> None:
        """Raise `DataError` for the first of `columns` that the header lacks."""
        for column in columns:
            if column not in self.header:
                raise DataError(
                    f"there is no column {column!r}",
                    where=str(self.path),
                    expected="one of " + ", ".join(self.header) or "a header",
                )

    def lacks(self, missing: Sequence[str], wanted: Sequence[str], *, mend: str | None = None) -> DataError:
        """The error for meanings that no column has."""
        return DataError(
            f"no column holds the {' and no column the '.join(missing)}",
            where=f"{self.path}:1",
            expected="columns such as " + ", ".join(wanted),
            found=", ".join(self.header) or "an empty file",
            mend=mend,
        )

    def where(self, keep: Callable[[Mapping[str, str]], bool]) -> Sheet:
        """The rows that `keep` says yes to."""
        return replace(self, rows=tuple((line, row) for line, row in self.rows if keep(row)))

    def numbers(self, column: str, *, signed: bool = False, spelt: bool = False) -> Floats:
        """A column as numbers, (rows,): positive and no larger than any plan's, unless `signed`.

        `spelt` ones may be written as 10B or 1,234,567; others not, where 1,234 may as well mean one and a bit. Raises
        `DataError` with the line of the first that is no number.
        """
        read = self._spelt if spelt else _plain
        return np.array([self._number(read, row.get(column), line, column, signed) for line, row in self.rows])

    def texts(self, column: str) -> list[str]:
        """A column as it stands."""
        return [str(row.get(column)) for _, row in self.rows]

    def _spelt(self, text: str) -> float:
        """A quantity; with semicolons between columns, commas are not to be trusted."""
        if not (self.separator == ";" and "," in text):
            with suppress(UserError):
                return read_quantity(text, name="")
        return _plain(text)

    def _number(self, read: Callable[[str], float], text: str | None, line: int, column: str, signed: bool) -> float:
        value = read(text or "")
        if abs(value) <= LARGEST and (signed or value > 0):
            return value
        raise DataError(
            f"{column} is no {'' if signed else 'positive '}number up to {LARGEST:g}",
            where=f"{self.path}:{line}",
            expected="a number with a decimal point, such as 3.5 or 1e9",
            found=(text or "").strip()[:_MOST_SHOWN] or "nothing",
        )


def read_sheet(path: Path) -> Sheet:
    """Read a table; what separates its columns is what the header has most of. Raises `DataError` where it is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(_SEPARATORS, key=first.count)
            reader = csv.DictReader(file, strict=True, delimiter=separator)
            header = tuple(name for name in reader.fieldnames or [] if name)
            rows = tuple((reader.line_num, row) for row in reader)
    except FileNotFoundError:
        raise DataError(
            "there is no such table of runs", where=str(path), mend="look at how it is spelt, and from which folder"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(
            "the runs cannot be read as CSV",
            where=str(path),
            found=str(problem),
            mend="write the table as CSV in UTF-8, a header first, and name that file",
        ) from None
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two columns are called {twice!r}", where=f"{path}:1", mend="rename one of them")
    return Sheet(path=path, header=header, rows=rows, separator=separator)


def _plain(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

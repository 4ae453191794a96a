"""Runs from a CSV file, whatever its columns are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.columns import Sheet, read_sheet
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX

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
_FLOPS_WILL_DO = "tokens (or flops)"


def read_runs(path: Path, *, named: Mapping[str, str] | None = None, where: Mapping[str, str] | None = None) -> Runs:
    """Read runs from a CSV file with a header.

    Tokens follow from FLOPs over 6 N where there is no column of them. Rows with an empty loss are left out.

    Args:
        named: what is read (see `MEANINGS`) -> the column that holds it, where its name does not say so.
        where: column -> value a row must have to be read.

    Raises `DataError` with file and line for a file that is no table, missing columns and impossible numbers.
    """
    sheet, chosen = read_sheet(path), where or {}
    sheet.require(list(chosen))
    names = _names(sheet, named or {})
    picked = sheet.where(lambda row: all(row.get(column) == value for column, value in chosen.items()))
    whole = picked.where(lambda row: bool((row.get(names["loss"]) or "").strip()))
    if not whole.rows:
        raise DataError("no row is left to read", where=str(path), found=f"{len(sheet.rows)} rows before the choice")
    dropped = len(picked.rows) - len(whole.rows)
    return _runs(whole, names, notes=(f"{dropped} rows without a loss were left out",) if dropped else ())


def _names(sheet: Sheet, named: Mapping[str, str]) -> dict[str, str]:
    """The column of each meaning; for the loss, the only one with that word in its name will do."""
    names = sheet.find(MEANINGS, named=named)
    alike = [name for name in sheet.header if "loss" in name.lower() and "ci95" not in name.lower()]
    if "loss" not in names and len(alike) == 1:
        names["loss"] = alike[0]
    missing = [meaning for meaning in _NEEDED if meaning not in names]
    missing += [_FLOPS_WILL_DO] if "tokens" not in names and "flops" not in names else []
    if missing:
        mend = "say which: --column " + " --column ".join(f"{each.split()[0]}=NAME" for each in missing)
        raise sheet.lacks(missing, ("parameters", "tokens", "loss"), mend=mend)
    return names


def _runs(sheet: Sheet, names: Mapping[str, str], *, notes: tuple[str, ...]) -> Runs:
    parameters, loss = sheet.numbers(names["parameters"], spelt=True), sheet.numbers(names["loss"])
    if "tokens" in names:
        tokens = sheet.numbers(names["tokens"], spelt=True)
    else:
        tokens = sheet.numbers(names["flops"], spelt=True) / (SIX * parameters)
    clusters = sheet.texts(names["cluster"]) if "cluster" in names else [f"{size:.6g}" for size in parameters]
    return Runs(
        parameters=parameters,
        tokens=tokens,
        loss=loss,
        clusters=tuple(clusters),
        seconds=sheet.numbers(names["seconds"]) if "seconds" in names else np.full(len(loss), np.nan),
        unit="bits/byte" if "bits_per_byte" in names["loss"].lower() else "nats/token",
        origin=sheet.path.name,
        notes=notes,
    )

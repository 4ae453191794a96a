"""Laws as files: constants, bootstrap draws and provenance in JSON, so that a fit can be used like a published law."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from weightgate.errors import UserError, file_errors
from weightgate.plan.laws.loss import CHINCHILLA_REFIT, LOSS_LAWS, Constants, LossLaw
from weightgate.plan.laws.provenance import Provenance
from weightgate.strict_yaml import StrictPart

SCHEMA = 1


class _Constants(StrictPart):
    A: float = Field(gt=0)
    B: float = Field(gt=0)
    E: float = Field(ge=0)
    alpha: float = Field(gt=0)
    beta: float = Field(gt=0)
    k: float = Field(1.0, gt=0)


class _Provenance(StrictPart):
    source: str
    corpus: str
    counts: str
    flops: tuple[float, float]
    doubt: str = ""
    superseded: str = ""


class _File(StrictPart):
    schema_: int = Field(alias="schema")
    name: str
    unit: str
    constants: _Constants
    provenance: _Provenance
    draws: dict[str, list[float]] = Field(default_factory=dict)


def find_law(name: str) -> LossLaw:
    """Return a published law by name, with its draws where there are any, or read one from a file.

    Raises `UserError` where `name` is neither.
    """
    for law in LOSS_LAWS:
        if law.name == name:
            return replace(law, draws=_published_draws()) if law is CHINCHILLA_REFIT else law
    path = Path(name)
    if path.suffix == ".json" or path.exists():
        return read_law(path)
    known = [law.name for law in LOSS_LAWS]
    raise UserError(
        f"no law is called {name!r}",
        where="--law",
        expected=f"one of {', '.join(known)}, or a file of `weightgate plan fit --save`",
        mend=f"--law {(difflib.get_close_matches(name, known, n=1) or [CHINCHILLA_REFIT.name])[0]}",
    )


def read_law(path: Path) -> LossLaw:
    """Read what `write_law` wrote. Raises `UserError` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        file = _File.model_validate_json(json.dumps(data))
    except (OSError, ValueError) as problem:
        raise UserError(
            "the law cannot be read",
            where=str(path),
            found=_said(problem),
            mend="weightgate plan fit RUNS.csv --save " + str(path),
        ) from None
    return LossLaw(
        name=file.name,
        constants=Constants(**file.constants.model_dump()),
        provenance=Provenance(**file.provenance.model_dump()),
        draws=_as_draws(file.draws, str(path)),
        unit=file.unit,
    )


def _said(problem: Exception) -> str:
    """The first thing that is wrong, and where in the file."""
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(problem).splitlines()[0]


def write_law(law: LossLaw, path: Path) -> None:
    """Write a law as a file that `--law` takes. Raises `UserError` where the disk refuses."""
    document = {
        "schema": SCHEMA,
        "name": law.name,
        "unit": law.unit,
        "constants": {name: float(value) for name, value in asdict(law.constants).items()},
        "provenance": asdict(law.provenance),
        "draws": _draws_json(law.draws),
    }
    with file_errors("law", path):
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _draws_json(draws: Constants | None) -> dict[str, list[float]]:
    if draws is None:
        return {}
    shape = np.shape(draws.A)
    return {
        name: [float(f"{each:.7g}") for each in np.broadcast_to(value, shape)] for name, value in vars(draws).items()
    }


def _as_draws(columns: dict[str, list[float]], where: str) -> Constants | None:
    if not columns:
        return None
    lengths = {len(column) for column in columns.values()}
    if set(columns) != {"A", "B", "E", "alpha", "beta", "k"} or len(lengths) != 1 or lengths == {0}:
        raise UserError("the draws of the law are not whole", where=where, expected="six lists of one length")
    arrays = {name: np.array(column) for name, column in columns.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError("the draws of the law are not finite", where=where)
    return Constants(**arrays)


@cache
def _published_draws() -> Constants | None:
    """Bootstrap refits of `CHINCHILLA_REFIT`, made by benchmarks/scaling_epoch.py."""
    data: dict[str, Any] = json.loads(files(__package__).joinpath("chinchilla_draws.json").read_text(encoding="utf-8"))
    return _as_draws(data["draws"], "chinchilla_draws.json")

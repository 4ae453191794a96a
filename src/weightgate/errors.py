"""The exception tree. Everything a user can cause is a `UserError`; the command line prints it without a traceback.

WeightgateError
├── UserError                  exit code 2: what, where, expected, found, and the command that mends it
│   ├── UsageError           a verb, option or argument that is not to be had
│   ├── RecipeError            weightgate.yaml: unknown key, wrong type, impossible combination
│   ├── DataError              a file that cannot be read as what it was declared to be
│   ├── LockError              the contract does not hold: something differs from weightgate.lock
│   ├── StoreError             a reference that does not resolve, a full disk, a store that is not one
│   │   └── CorruptError       bytes that do not hash to their name
│   ├── ModelError             a base model, adapter or device that cannot be used as asked
│   ├── EndpointError          an endpoint that cannot be asked: address, key, model or its own failure
│   └── WatchError             a watch's configuration or history that cannot be used
├── TrainingStopped            exit code 1: the loop refused to go on (non-finite loss, invariant broken)
└── GateFailed                 exit code 1: a gate said no, or could not be measured
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WeightgateError(Exception):
    """Base of every exception this package raises on purpose. `code` names its kind for machines."""

    code = "error"

    def to_json(self) -> dict[str, str | None]:
        """Return the error as plain data: code and what, a mistake also with where, expected, found and mend."""
        return {"code": self.code, "what": str(self)}


class UserError(WeightgateError):
    """A mistake that the user can mend.

    Args:
        what: one sentence, no trailing full stop.
        where: `file:line`, a dotted path in the recipe, or a digest.
        expected, found: the two sides, where there are two.
        mend: the command or edit that mends it.
    """

    code = "user-error"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.mend = mend

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "expected", "found", "mend"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label}: {value}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, str | None]:
        fields = ("code", "what", "where", "expected", "found", "mend")
        return {field: getattr(self, field) for field in fields}


class UsageError(UserError):
    """The command line cannot be read: an unknown verb or option, an argument that is missing or of another kind."""

    code = "usage"


class RecipeError(UserError):
    """The recipe cannot be read as one."""

    code = "recipe"


class DataError(UserError):
    """A data file is not what the recipe says it is."""

    code = "data"


class LockError(UserError):
    """The contract in `weightgate.lock` does not hold."""

    code = "lock"


class StoreError(UserError):
    """The store cannot do what was asked."""

    code = "store"


class CorruptError(StoreError):
    """Bytes in the store do not hash to the digest they are kept under."""

    code = "corrupt"


class ModelError(UserError):
    """A model, adapter or device cannot be used as asked."""

    code = "model"


class EndpointError(UserError):
    """An endpoint cannot be asked as the user wants to."""

    code = "endpoint"


class WatchError(UserError):
    """The configuration of a watch, or its history, cannot be used."""

    code = "watch"


class TrainingStopped(WeightgateError):
    """The training loop stopped itself; the last good resume point is kept."""

    code = "training-stopped"


class GateFailed(WeightgateError):
    """A gate did not pass, so no later stage may start."""

    code = "gate-failed"


@contextmanager
def file_errors(noun: str, path: Path, error: type[UserError] = UserError) -> Iterator[None]:
    """Turn whatever keeps a file that the user named from being written into an `error` about it."""
    try:
        yield
    except OSError as problem:
        raise error(
            f"the {noun} cannot be written",
            where=str(path),
            found=problem.strerror or str(problem),
            mend="name a file in a folder that is there and can be written to",
        ) from None

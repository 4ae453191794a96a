"""Files that a verb is told to write, looked at before it begins: asking first and failing then would cost calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from weightgate.errors import UserError


def require_writable(outputs: Mapping[str, Path | None], kept: Iterable[Path] = ()) -> None:
    """Raise `UserError` for a file that cannot be written, and for one that would replace what must be kept.

    Args:
        outputs: option -> the file it names, if any. No two may name the same one.
        kept: what is read, such as the recordings that are compared.
    """
    taken = {path.resolve(): "holds what is read here" for path in kept}
    for option, path in outputs.items():
        if path is None:
            continue
        where = f"{option} {path}"
        _require_place(path, where)
        if path.exists() and not path.is_file():
            continue  # /dev/stdout and the like take several
        if path.resolve() in taken:
            raise UserError(
                "the file would be replaced", where=where, found=f"it {taken[path.resolve()]}", mend="name another file"
            )
        taken[path.resolve()] = f"is written by {option}"


def _require_place(path: Path, where: str) -> None:
    if path.is_dir():
        raise UserError("a file is to be written, and this is a folder", where=where, mend=f"{path}/NAME")
    if not path.parent.is_dir():
        raise UserError("there is no folder to write the file into", where=where, mend=f"mkdir -p {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError("the file cannot be written", where=where, mend="name a file where you may write")

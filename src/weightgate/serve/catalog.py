"""Which models an endpoint offers under which names, and how a name comes to stand for another checkpoint."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import Field, ValidationError

from weightgate.errors import UserError, WeightgateError
from weightgate.serve.manner import PLAIN, Manner, Mannered
from weightgate.store import digest_bytes
from weightgate.train.generator import Bits, Generator

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A checkpoint that is ready to answer. `since` is the second since 1970 at which it was made or loaded."""

    checkpoint: str
    generator: Generator
    since: int = field(default_factory=lambda: int(time.time()))
    manner: Manner = PLAIN

    @property
    def fingerprint(self) -> str:
        """A short name of exactly these weights in this manner: equal as long as both are, different after."""
        return f"fp_{digest_bytes((self.checkpoint + self.manner.mark).encode())[3:15]}"

    def in_manner(self, manner: Manner) -> Served:
        """Return the same weights, served in a manner."""
        if manner == PLAIN:
            return self
        generator = Mannered(generator=self.generator, manner=manner)
        return Served(checkpoint=self.checkpoint, generator=generator, since=self.since, manner=manner)


class Catalog(Protocol):
    """The models of an endpoint, by the names that clients use."""

    def names(self) -> list[str]:
        """Return the names on offer."""

    def get(self, name: str) -> Served:
        """Return what the name stands for now; may take as long as loading it does. Raises `KeyError`."""


@dataclass(frozen=True)
class Fixed:
    """Names that stand for the same checkpoint for as long as the endpoint runs."""

    models: Mapping[str, Served]

    def names(self) -> list[str]:
        """Return the names on offer."""
        return sorted(self.models)

    def get(self, name: str) -> Served:
        """Return the model called `name`. Raises `KeyError`."""
        return self.models[name]


class Alias(Manner):
    """What an alias stands for: a checkpoint, and the manner in which it is served."""

    checkpoint: str = Field(min_length=1, description="a ref, an id, or at least six digits of one")

    @property
    def manner(self) -> Manner:
        """How it is served."""
        return Manner(**self.model_dump(exclude={"checkpoint"}))

    @property
    def weights(self) -> tuple[str, Bits | None]:
        """What has to be loaded: the checkpoint, and to how many bits its weights are rounded."""
        return self.checkpoint, self.bits


def write_aliases(path: Path, aliases: Mapping[str, str | Alias]) -> None:
    """Write an alias file so that a reader sees either the old one or the new one, whole."""
    data = {
        name: alias if isinstance(alias, str) else alias.model_dump(exclude_defaults=True)
        for name, alias in aliases.items()
    }
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
    temporary.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


class Aliases:
    """Names out of a JSON file, alias -> checkpoint (or `Alias`), read again whenever the file changes.

    A request is answered wholly by the checkpoint its alias stood for when it came. A file that cannot be read, or that
    names a checkpoint that cannot be loaded, changes nothing: the last good state stays, and the log says why.

    Args:
        path: the file; replace it in one step, as `write_aliases` does.
        load: makes a checkpoint ready to answer, rounded to so many bits or (None) as it is. Called once for each,
            while some alias names it.
    """

    def __init__(self, path: Path, load: Callable[[str, Bits | None], Served]) -> None:
        self._path = path
        self._load = load
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._loaded: dict[tuple[str, Bits | None], Served] = {}
        self._models: dict[str, Served] = {}

    def names(self) -> list[str]:
        """Return the names on offer now."""
        return sorted(self._current())

    def get(self, name: str) -> Served:
        """Return what the alias stands for now. Raises `KeyError`."""
        return self._current()[name]

    def _current(self) -> dict[str, Served]:
        with self._lock:
            state = _state_of(self._path)
            if state != self._seen:
                self._seen = state
                self._refresh()
            return self._models

    def _refresh(self) -> None:
        try:
            wanted = _read_aliases(self._path)
            loaded = dict(self._loaded)
            for alias in wanted.values():
                if alias.weights not in loaded:
                    loaded[alias.weights] = self._load(*alias.weights)
        except (OSError, ValueError, WeightgateError) as error:
            _log.warning("%s is not followed: %s", self._path, error)
            return
        self._loaded = {alias.weights: loaded[alias.weights] for alias in wanted.values()}
        self._models = {name: loaded[alias.weights].in_manner(alias.manner) for name, alias in wanted.items()}


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or rewritten: file number, size, time. None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_aliases(path: Path) -> dict[str, Alias]:
    """Read an alias file. Raises `UserError` unless it maps names to checkpoints or what `Alias` holds."""
    data = json.loads(path.read_text(encoding="utf-8"))
    try:
        named = {name: {"checkpoint": each} if isinstance(each, str) else each for name, each in data.items()}
        return {name: Alias.model_validate(each) for name, each in named.items()}
    except (AttributeError, ValidationError) as error:
        raise UserError(
            "an alias file maps names to checkpoints",
            where=str(path),
            expected='{"alias": "checkpoint"} or {"alias": {"checkpoint": ..., "temperature": ...}}',
            found=str(error).splitlines()[0],
        ) from None

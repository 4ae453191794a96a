"""An index over manifests and results, in SQLite. It holds nothing that the files do not: losing it costs a rebuild.

Before every question the index is brought level with the names in the folders, so that a writer that died between
publishing and indexing, or another one on the same store, cannot make it lie.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from weightgate.store.records import Manifest, Result

APPLICATION_ID = 0x57474154
"""`WGAT`, so that `file` and other programs can tell this database from any other."""
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_TABLES = """
CREATE TABLE checkpoints (
    id TEXT PRIMARY KEY, stage TEXT NOT NULL, stage_kind TEXT NOT NULL, parent TEXT, reward TEXT
) STRICT;
CREATE TABLE results (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, checkpoint TEXT NOT NULL, recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX results_by_key ON results (key);
CREATE INDEX results_by_checkpoint ON results (checkpoint);
"""

_TABLE_NAMES = ("checkpoints", "results")

_NETWORK_FILESYSTEMS = (
    "nfs", "lustre", "gpfs", "cifs", "smb", "fuse", "9p", "ceph", "beegfs", "afs", "glusterfs", "orangefs", "virtiofs",
)  # fmt: skip
"""Beginnings of the names of filesystems on which SQLite's shared memory file, and so WAL, does not work."""


RESULTS_BY_KEY = "SELECT id FROM results WHERE key = ? ORDER BY recorded_at, id"
RESULTS_BY_CHECKPOINT = "SELECT id FROM results WHERE checkpoint = ? ORDER BY recorded_at, id"
CHECKPOINTS_LIKE = "SELECT id FROM checkpoints WHERE id GLOB ? ORDER BY id"


class Records(Protocol):
    """The truth that the index is an index of. The readers return None for a record that cannot be read."""

    def manifest_names(self) -> Iterable[str]:
        """Return the ids of all checkpoints."""

    def result_names(self) -> Iterable[str]:
        """Return the digests of all results."""

    def manifest_or_none(self, name: str) -> Manifest | None:
        """Return one manifest."""

    def result_or_none(self, name: str) -> Result | None:
        """Return one result."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The index of one store. With `path` None nothing is kept between questions, and each reads every record."""

    path: Path | None

    def ask(self, question: str, argument: str, records: Records) -> list[str]:
        """Bring the index level with `records` and return the names that answer one of the questions above.

        An index that is damaged is thrown away and one that cannot be written is left alone; either way the answer
        comes from one in memory, for an index must stop nobody.
        """
        if self.path is not None:
            try:
                return _ask(_open_file(self.path), question, argument, records)
            except sqlite3.OperationalError:
                pass  # a full disk, a store that may only be read, or a writer that holds on for too long
            except sqlite3.DatabaseError:
                self.clear()
        return _ask(_open_memory(), question, argument, records)

    def damage(self, records: Records) -> str | None:
        """Say what is wrong with the file: it cannot be read, or a row says other than the record it is of.

        Nothing is written. Rows that lack, or whose record is gone, are no damage: the next question levels them.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                verdict = str(database.execute("PRAGMA integrity_check").fetchone()[0])
                kept = {table: _rows(database, table) for table in _TABLE_NAMES}
        except sqlite3.OperationalError:
            return None  # somebody else is writing, or it may not be opened here
        except sqlite3.DatabaseError as error:
            return str(error)
        with contextlib.closing(_open_memory()) as truth:
            _prepare(truth)
            _level(truth, records)
            wrong = [row for table in _TABLE_NAMES for row in _wrong_rows(kept[table], _rows(truth, table))]
        if wrong:
            return f"{len(wrong)} rows differ from the records they are of"
        return None if verdict == "ok" else verdict

    def clear(self) -> None:
        """Throw the index away; the next question builds it again."""
        if self.path is not None:
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _rows(database: sqlite3.Connection, table: str) -> dict[str, tuple[Any, ...]]:
    return {row[0]: row for row in database.execute(f"SELECT * FROM {table}")}


def _wrong_rows(kept: dict[str, tuple[Any, ...]], truth: dict[str, tuple[Any, ...]]) -> list[str]:
    return [name for name, row in kept.items() if name in truth and row != truth[name]]


def on_network_filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Say whether `folder` lies on a network filesystem; where the system does not tell, assume not."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    resolved = folder.resolve()
    kinds = {Path(fields[1]): fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    holding = [mount for mount in kinds if resolved.is_relative_to(mount)]
    if not holding:
        return False
    return kinds[max(holding, key=lambda mount: len(mount.parts))].startswith(_NETWORK_FILESYSTEMS)


def _ask(database: sqlite3.Connection, question: str, argument: str, records: Records) -> list[str]:
    """Answer in one transaction. The connection ends with it: one may not be carried over a fork or between threads."""
    with contextlib.closing(database):
        database.execute("BEGIN IMMEDIATE")
        _prepare(database)
        _level(database, records)
        names = [row[0] for row in database.execute(question, (argument,))]
        database.execute("COMMIT")
    return names


def _open_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def _open_file(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        mode = "DELETE" if on_network_filesystem(path.parent) else "WAL"
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA synchronous = FULL")
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    """Create the tables in an empty database; refuse one that is not ours or of another version."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    owner = database.execute("PRAGMA application_id").fetchone()[0]
    if (version, owner) == (SCHEMA_VERSION, APPLICATION_ID):
        return
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError(f"index of version {version} for application {owner:#x}")
    for statement in _TABLES.split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _level(database: sqlite3.Connection, records: Records) -> None:
    """Add what the index lacks and drop what is gone."""
    for name in _level_names(database, "checkpoints", records.manifest_names()):
        if (manifest := records.manifest_or_none(name)) is not None:
            row = (name, manifest.stage, manifest.stage_kind, manifest.parent, manifest.reward)
            database.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)
    for name in _level_names(database, "results", records.result_names()):
        if (result := records.result_or_none(name)) is not None:
            fields = (name, result.key, result.checkpoint, result.recorded_at)
            database.execute("INSERT INTO results VALUES (?, ?, ?, ?)", fields)


def _level_names(database: sqlite3.Connection, table: str, names: Iterable[str]) -> list[str]:
    """Drop the rows whose file is gone and return the names that have no row yet."""
    wanted = set(names)
    known = {row[0] for row in database.execute(f"SELECT id FROM {table}")}
    database.executemany(f"DELETE FROM {table} WHERE id = ?", [(name,) for name in sorted(known - wanted)])
    return sorted(wanted - known)

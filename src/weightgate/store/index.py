"""An index over manifests and results, in SQLite. It holds nothing that the files do not: losing it costs a rebuild.

Before every question the index is brought level with the names in the folders, so that a writer that died between
publishing and indexing, or another one on the same store, cannot make it lie.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

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

_NETWORK_FILESYSTEMS = (
    "nfs", "lustre", "gpfs", "cifs", "smb", "fuse", "9p", "ceph", "beegfs", "afs", "glusterfs", "orangefs", "virtiofs",
)  # fmt: skip
"""Beginnings of the names of filesystems on which SQLite's shared memory file, and so WAL, does not work."""


@dataclass(kw_only=True)
class Index:
    """The index of one store. `path` None keeps it in memory, which is also the way out where it cannot be written."""

    path: Path | None
    _memory: sqlite3.Connection | None = field(default=None, init=False)

    def level(
        self,
        manifests: Iterable[str],
        results: Iterable[str],
        read_manifest: Callable[[str], Manifest | None],
        read_result: Callable[[str], Result | None],
    ) -> None:
        """Bring the index level with the files: add what it lacks, drop what is gone, skip what cannot be read."""
        with self._transaction() as database:
            for manifest_id in _level_names(database, "checkpoints", manifests):
                if (manifest := read_manifest(manifest_id)) is not None:
                    row = (manifest_id, manifest.stage, manifest.stage_kind, manifest.parent, manifest.reward)
                    database.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)
            for result_id in _level_names(database, "results", results):
                if (result := read_result(result_id)) is not None:
                    fields = (result_id, result.key, result.checkpoint, result.recorded_at)
                    database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", fields)

    def results_by_key(self, key: str) -> list[str]:
        """Return the digests of the results of one key, oldest first."""
        return self._column("SELECT id FROM results WHERE key = ? ORDER BY recorded_at, id", key)

    def results_by_checkpoint(self, checkpoint: str) -> list[str]:
        """Return the digests of the results that name one checkpoint, oldest first."""
        return self._column("SELECT id FROM results WHERE checkpoint = ? ORDER BY recorded_at, id", checkpoint)

    def with_prefix(self, prefix: str) -> list[str]:
        """Return the ids of the checkpoints that begin with `prefix`, which holds no wildcard."""
        return self._column("SELECT id FROM checkpoints WHERE id GLOB ? ORDER BY id", f"{prefix}*")

    def clear(self) -> None:
        """Throw the index away; the next question builds it again."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self.path is not None:
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _column(self, query: str, argument: str) -> list[str]:
        with self._transaction() as database:
            return [row[0] for row in database.execute(query, (argument,))]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._connect()
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        finally:
            if database is not self._memory:
                database.close()

    def _connect(self) -> sqlite3.Connection:
        """Open the database, a new connection each time: one may not be carried over a fork or between threads."""
        if self._memory is not None:
            return self._memory
        if self.path is None:
            return self._in_memory()
        try:
            return self._open_file(self.path)
        except sqlite3.OperationalError:
            return self._in_memory()  # a store that cannot be written can still be read
        except sqlite3.DatabaseError:
            self.clear()
            return self._open_file(self.path)

    def _in_memory(self) -> sqlite3.Connection:
        self._memory = _prepare(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        return self._memory

    def _open_file(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            mode = "DELETE" if on_network_filesystem(path.parent) else "WAL"
            database.execute(f"PRAGMA journal_mode = {mode}")
            database.execute("PRAGMA synchronous = FULL")
            return _prepare(database)
        except BaseException:
            database.close()
            raise


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


def _prepare(database: sqlite3.Connection) -> sqlite3.Connection:
    """Create the tables in an empty database; refuse one that is not ours or of another version."""
    database.execute("BEGIN IMMEDIATE")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    owner = database.execute("PRAGMA application_id").fetchone()[0]
    num_tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (version, owner) != (SCHEMA_VERSION, APPLICATION_ID):
        if num_tables:
            database.execute("ROLLBACK")
            raise sqlite3.DatabaseError(f"index of version {version} for application {owner:#x}")
        for statement in _TABLES.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")
    return database


def _level_names(database: sqlite3.Connection, table: str, names: Iterable[str]) -> list[str]:
    """Drop the rows whose file is gone and return the names that have no row yet."""
    wanted = set(names)
    known = {row[0] for row in database.execute(f"SELECT id FROM {table}")}
    database.executemany(f"DELETE FROM {table} WHERE id = ?", [(name,) for name in sorted(known - wanted)])
    return sorted(wanted - known)

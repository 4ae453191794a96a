"""A PostgreSQL server of the tests' own, where Debian's package is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from eventually import LIMIT_SECONDS

PASSWORD = "not-a-secret"
PASSWORD_VARIABLE = "WATCH_TEST_PASSWORD"
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server; each test makes a database of its own in it."""

    port: int

    def url(self, database: str) -> str:
        """Where a database is, without the password."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database and return its URL."""
        with psycopg.connect(self.url("postgres"), password=PASSWORD, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)


def programs() -> Path | None:
    """Folder of initdb and postgres; Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Start a server on a free port; it is gone afterwards. It refuses to run as root, so root runs it as its user."""
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    data = Path(tempfile.mkdtemp(prefix="weightgate-postgres-"))
    try:
        if as_user:
            os.chown(data, as_user["user"], as_user["group"])
        password_file = data / "password"
        password_file.write_text(PASSWORD + "\n", encoding="utf-8")
        password_file.chmod(0o644)
        cluster = data / "cluster"
        _run(
            folder / "initdb",
            "-D",
            cluster,
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "--pwfile",
            password_file,
            **as_user,
        )
        port = _started(folder / "pg_ctl", cluster, **as_user)
        try:
            yield Postgres(port=port)
        finally:
            _run(folder / "pg_ctl", "-D", cluster, "-w", "-m", "immediate", "stop", **as_user)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _started(pg_ctl: Path, cluster: Path, **as_user: Any) -> int:
    """Start the server and return its port. It takes none for "any", and a port that is free may soon be another's."""
    for attempt in range(_ATTEMPTS):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        options = f"-h 127.0.0.1 -p {port} -k {cluster.parent} -c fsync=off"
        log = cluster.parent / f"log-{attempt}"
        try:
            _run(pg_ctl, "-D", cluster, "-w", "-t", int(LIMIT_SECONDS), "-l", log, "-o", options, "start", **as_user)
        except RuntimeError:
            if "could not bind" not in log.read_text(encoding="utf-8", errors="replace"):
                raise
        else:
            return port
    raise RuntimeError(f"{_ATTEMPTS} ports that were free were taken a moment later")


def _run(*command: Any, **as_user: Any) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment,
        **as_user,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr}")

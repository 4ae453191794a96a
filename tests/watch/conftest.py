"""What the tests of the watch share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import Scene, open_scene
from servers import PASSWORD, PASSWORD_VARIABLE, Postgres, postgres, programs

from eventually import LIMIT_SECONDS
from weightgate.watch import outbox


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver of alarms that a busy machine holds up is none that hangs."""
    monkeypatch.setattr(outbox, "ATTEMPT_SECONDS", LIMIT_SECONDS)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real server; skips where there is none to start."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed: scripts/ensure-postgres")
    with postgres(folder) as server:
        yield server


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A watch of an endpoint that nothing was asked yet, with its history in SQLite."""
    yield from open_scene(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The same with either kind of history."""
    for found in open_scene(tmp_path):
        if request.param == "postgresql":
            server: Postgres = request.getfixturevalue("postgres_server")
            monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
            url = server.create(f"watch-{uuid.uuid4().hex}")
            found.configure(history={"url": url, "password_variable": PASSWORD_VARIABLE})
        yield found

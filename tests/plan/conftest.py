"""Where the public runs lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from public_data import public_data


@pytest.fixture(scope="session")
def scaling_data() -> Path:
    """The folder of public scaling runs; skips where it is not there."""
    return public_data("scaling")

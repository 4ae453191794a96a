"""Where the public runs lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scaling_data() -> Path:
    """The folder of public scaling runs; skips where it is not there."""
    root = Path(os.environ.get("WEIGHTGATE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = root / "scaling"
    if not folder.is_dir():
        pytest.skip("the public scaling runs are not here; set WEIGHTGATE_TEST_DATA to the folder that holds scaling/")
    return folder

"""Where the public data lies that some tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "WEIGHTGATE_TEST_DATA"
_BESIDE = Path(__file__).parents[2] / "shared" / "data"


def public_data(name: str = ".") -> Path:
    """A file or folder of the public data; skips the test, with the reason, where it is not there."""
    path = Path(os.environ.get(VARIABLE, _BESIDE)) / name
    if not path.exists():
        pytest.skip(f"the public data is not here; set {VARIABLE} to the folder that holds {name}")
    return path

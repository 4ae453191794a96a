"""What holds for every test; it also makes the helpers beside this file importable from every folder.

A test must come out the same on an idle machine and on a busy one, alone and after any other. So hypothesis draws the
same examples each time and does not look at the clock, and each test starts from the same random state. To search for
new counterexamples: `pytest --hypothesis-profile=searching`.
"""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import HealthCheck, settings

_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
"""Slow is what a busy machine makes of any test; a folder that all examples of a test share is emptied by none."""

settings.register_profile("searching", deadline=None, suppress_health_check=_UNCHECKED)
settings.register_profile("repeatable", settings.get_profile("searching"), derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed what a test, or a fixture that it is the first to need, may draw from."""
    random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)

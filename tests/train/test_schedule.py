"""Every schedule starts above zero, never exceeds the peak and ends at its floor."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from weightgate.recipe import Schedule
from weightgate.train.schedule import rate_share


@given(
    kind=st.sampled_from(["cosine", "wsd", "linear", "constant"]),
    total=st.integers(1, 300),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_shares_stay_between_zero_and_one(kind: str, total: int, warmup: float, decay: float, floor: float) -> None:
    assume(warmup + decay <= 1)
    schedule = Schedule(kind=kind, warmup=warmup, decay=decay, floor=floor)  # type: ignore[arg-type]
    shares = [rate_share(step, total, schedule) for step in range(total)]
    assert all(0 <= share <= 1 + 1e-12 for share in shares)
    assert shares[0] > 0 or floor == 0


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_last_step_is_the_floor(kind: str) -> None:
    schedule = Schedule(kind=kind, warmup=0.1, decay=0.3, floor=0.05)  # type: ignore[arg-type]
    assert rate_share(99, 100, schedule) == pytest.approx(0.05)


def test_warmup_rises_linearly_and_wsd_holds() -> None:
    schedule = Schedule(kind="wsd", warmup=0.1, decay=0.2, floor=0.0)
    shares = [rate_share(step, 100, schedule) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(share == 1 for share in shares[10:79])
    assert shares[85] < 1

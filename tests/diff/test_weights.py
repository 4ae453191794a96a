"""Weight evidence against updates whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.diff.weights import as_float32, to_bf16, weight_evidence
from weightgate.store.records import TensorData

RNG = np.random.default_rng(0)


def tensor(values: np.ndarray, dtype: str = "F32") -> TensorData:
    data = to_bf16(values).tobytes() if dtype == "BF16" else values.astype("<f4").tobytes()
    return TensorData(dtype=dtype, shape=values.shape, data=data)


def test_an_update_of_known_rank_and_size() -> None:
    old = RNG.standard_normal((96, 80)).astype(np.float32)
    left, _ = np.linalg.qr(RNG.standard_normal((96, 3)))
    right, _ = np.linalg.qr(RNG.standard_normal((80, 3)))
    update = (left * 2.0) @ right.T
    found = weight_evidence({"w": tensor(old)}, [("w", tensor(old + update))]).tensors[0]
    assert found.relative_norm == pytest.approx(2 * 3**0.5 / np.linalg.norm(old), rel=1e-3)
    assert found.stable_rank == pytest.approx(3, rel=1e-2)
    assert found.energy_rank == 3
    assert found.largest == pytest.approx(np.abs(update).max(), rel=1e-3)


def test_only_the_tensors_that_moved_are_touched() -> None:
    same, moved = RNG.standard_normal(8), RNG.standard_normal((4, 4))
    before = {"norm": tensor(same), "head": tensor(moved), "gone": tensor(same), "grown": tensor(same)}
    after = [("head", tensor(moved * 2)), ("norm", tensor(same)), ("new", tensor(same)), ("grown", tensor(moved))]
    found = weight_evidence(before, after)
    assert (found.touched, found.only_before, found.only_after, found.reshaped) == (
        ("head",), ("gone",), ("new",), ("grown",),
    )  # fmt: skip
    assert not found.equal
    assert found.tensors[0].cosine == pytest.approx(1)
    assert 0 < found.equal_share < 1


def test_updates_too_small_for_bf16_vanish_there() -> None:
    old = (1 + RNG.random(1000)).astype(np.float32)
    found = weight_evidence({"w": tensor(old)}, [("w", tensor(old * np.float32(1 + 2**-14)))]).tensors[0]
    assert found.equal_share == 0
    assert found.equal_share_bf16 > 0.9
    rounded = weight_evidence(
        {"w": tensor(old, "BF16")}, [("w", tensor(old * np.float32(1 + 2**-14), "BF16"))]
    ).tensors[0]
    assert rounded.equal_share == pytest.approx(found.equal_share_bf16)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_bf16_is_the_nearest_and_stays_itself(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    bits = to_bf16(array)
    back = as_float32(TensorData(dtype="BF16", shape=array.shape, data=bits.tobytes()))
    assert (to_bf16(back) == bits).all()
    finite = np.isfinite(back)
    assert (np.abs(back[finite] - array[finite]) <= np.abs(array[finite]) * 2**-8 + 1e-38).all()


def test_numbers_that_are_no_floats_are_only_compared_bit_by_bit() -> None:
    one = TensorData(dtype="I32", shape=(3,), data=np.array([1, 2, 3], "<i4").tobytes())
    other = TensorData(dtype="I32", shape=(3,), data=np.array([1, 5, 3], "<i4").tobytes())
    found = weight_evidence({"ids": one}, [("ids", other)])
    assert found.tensors[0].equal_share == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="I32"):
        as_float32(one)

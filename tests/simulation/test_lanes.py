"""Eight numbers at once do what NumPy does with each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from simulation import lanes

WORDS = ("add", "sub", "mul", "div", "root of a magnitude", "least", "less", "at most", "2^a")


@njit
def _all(x: Any, y: Any, z: Any, out: Any) -> Any:
    zero = np.uint64(0)
    a, b = lanes.load(x, zero), lanes.load(y, zero)
    lanes.store(out[0], zero, lanes.add(a, b))
    lanes.store(out[1], zero, lanes.sub(a, b))
    lanes.store(out[2], zero, lanes.mul(a, b))
    lanes.store(out[3], zero, lanes.div(a, b))
    lanes.store(out[4], zero, lanes.root(lanes.magnitude(a)))
    lanes.store(out[5], zero, lanes.least(a, b))
    lanes.store(out[6], zero, lanes.where_less(a, b, lanes.numbered(), lanes.everywhere(-1.0)))
    lanes.store(out[7], zero, lanes.where_at_most(a, b, lanes.numbered(), lanes.everywhere(-1.0)))
    lanes.store(out[8], zero, lanes.power_of_two(a))
    lanes.store(out[9], zero, lanes.load_minus(z, zero, np.int32(2**31 - 10)))
    return lanes.total(a), lanes.smallest(a)


@pytest.mark.parametrize("seed", range(20))
def test_each_lane_is_what_numpy_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-20, 20, 8).astype(np.float32), rng.uniform(-20, 20, 8).astype(np.float32)
    y[seed % 8] = x[seed % 8]
    apart = rng.integers(-3_000_000, 3_000_000, 8)
    z = (2**31 - 10 + apart).astype(np.int32)
    out = np.zeros((10, 8), np.float32)
    total, smallest = _all(x, y, z, out)
    number = np.arange(8, dtype=np.float32)
    expected = [x + y, x - y, x * y, x / y, np.sqrt(np.abs(x)), np.minimum(x, y), np.where(x < y, number, -1), np.where(x <= y, number, -1)]
    for word, got, right in zip(WORDS, out, expected, strict=False):
        np.testing.assert_array_equal(got, right, word)
    np.testing.assert_allclose(out[8], np.exp2(x.astype(np.float64)), rtol=4e-7)
    np.testing.assert_array_equal(out[9], apart.astype(np.float32))  # past the largest whole number too
    assert total == pytest.approx(float(x.sum()), abs=1e-4)
    assert smallest == x.min()


@njit
def _packed(x: Any, y: Any, z: Any, cut: Any, out: Any) -> Any:
    zero = np.uint64(0)
    bits = lanes.bits_less(lanes.load(x, zero), lanes.load(y, zero)) & cut
    lanes.store(out, zero, lanes.chosen_first(lanes.load(z, zero), bits))
    return bits, lanes.count(bits)


def test_the_chosen_come_first_in_their_order_then_the_others() -> None:
    z = np.arange(8, dtype=np.float32)
    out = np.zeros(8, np.float32)
    for choice in range(256):
        less = np.array([choice >> lane & 1 for lane in range(8)], np.bool_)
        x, y = np.where(less, 1.0, 2.0).astype(np.float32), np.full(8, 2.0, np.float32)
        assert _packed(x, y, z, np.uint64(255), out) == (choice, less.sum())
        np.testing.assert_array_equal(out, np.concatenate([z[less], z[~less]]), str(choice))
    x[3] = np.nan
    assert _packed(x, y, z, np.uint64(0b1111), out) == (0b0111, 3)  # no number is less than none; lanes that are cut off are not chosen

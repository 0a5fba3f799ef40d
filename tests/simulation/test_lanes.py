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
    lanes.store(out[9], zero, lanes.load_minus(z, zero, 1e6))
    return lanes.total(a), lanes.smallest(a)


@pytest.mark.parametrize("seed", range(20))
def test_each_lane_is_what_numpy_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-20, 20, 8).astype(np.float32), rng.uniform(-20, 20, 8).astype(np.float32)
    y[seed % 8] = x[seed % 8]
    z = 1e6 + rng.uniform(-3, 3, 8)
    out = np.zeros((10, 8), np.float32)
    total, smallest = _all(x, y, z, out)
    number = np.arange(8, dtype=np.float32)
    expected = [x + y, x - y, x * y, x / y, np.sqrt(np.abs(x)), np.minimum(x, y), np.where(x < y, number, -1), np.where(x <= y, number, -1)]
    for word, got, right in zip(WORDS, out, expected, strict=False):
        np.testing.assert_array_equal(got, right, word)
    np.testing.assert_allclose(out[8], np.exp2(x.astype(np.float64)), rtol=4e-7)
    np.testing.assert_array_equal(out[9], (z - 1e6).astype(np.float32))  # subtracted before it is rounded
    assert total == pytest.approx(float(x.sum()), abs=1e-4)
    assert smallest == x.min()

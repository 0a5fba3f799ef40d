"""Dead reckoning, labels and the moving kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial.positioning.kernels import move
from spatial.positioning.labels import surveyed_positions
from spatial.positioning.observations import Walk
from spatial.positioning.pdr import Path, dead_reckon
from spatial.positioning.walk_files import parse_walk
from tests.spatial.positioning import synthetic


@pytest.mark.parametrize("towards", [(1.0, 0.0), (0.0, 1.0), (-0.6, 0.8), (0.0, -1.0)])
def test_a_straight_walk_is_reckoned_straight_and_about_as_long(towards: tuple[float, float]) -> None:
    legs = np.array([[0.0, 0.0], [24.0 * towards[0], 24.0 * towards[1]]])
    track = dead_reckon(parse_walk(synthetic.trace(legs, wifi=False), name="w"))
    end = track.xy_m[-1]
    assert 16 < np.hypot(*end) < 32
    assert np.dot(end / np.hypot(*end), towards) > 0.999
    assert abs(track.steps - 24 / 0.65) < 3


def test_a_phone_at_rest_takes_no_step() -> None:
    lines = "".join(f"{1000 + 20 * i}\tTYPE_ACCELEROMETER\t0.01\t0\t{9.8 + 0.05 * (i % 2)}\t3\n" for i in range(500))
    track = dead_reckon(parse_walk(lines.encode(), name="w"))
    assert track.steps == 0
    assert np.all(track.xy_m == 0)


def test_without_sensors_the_path_stands_still_and_says_so() -> None:
    track = dead_reckon(Walk("w", None, 0, 10.0))
    assert not track.steady
    np.testing.assert_array_equal(track.at(np.array([0.0, 5.0])), np.zeros((2, 2)))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_labels_pass_through_every_waypoint(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(1, 9, n))
    waypoints = np.column_stack([times, rng.uniform(0, 50, (n, 2))])
    path = Path(np.linspace(0, times[-1], 40), np.cumsum(rng.normal(0, 1, (40, 2)), axis=0), 40, True)
    places, outside = surveyed_positions(waypoints, path, times)
    np.testing.assert_allclose(places, waypoints[:, 1:], atol=1e-6)
    assert np.all(outside == 0)


@settings(max_examples=25)
@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(0.5, 2.0), st.integers(0, 1000))
def test_the_moving_kernel_equals_the_slow_sum(dx: float, dy: float, sigma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prob = rng.random((9, 11)).astype(np.float32)
    free = rng.random((9, 11)) > 0.2
    out, work = np.empty_like(prob), np.empty_like(prob)
    move(prob, free, dx, dy, sigma, 3, work, out)

    def taps(shift: float) -> dict[int, float]:
        whole = int(np.floor(shift + 0.5))
        weight = {k: float(np.exp(-0.5 * ((k - shift) / sigma) ** 2)) for k in range(whole - 3, whole + 4)}
        return {k: w / sum(weight.values()) for k, w in weight.items()}

    slow = np.zeros_like(prob, np.float64)
    for r in range(9):
        for c in range(11):
            for i, a in taps(dy).items():
                for j, b in taps(dx).items():
                    if 0 <= r + i < 9 and 0 <= c + j < 11 and free[r + i, c + j]:
                        slow[r + i, c + j] += prob[r, c] * a * b
    np.testing.assert_allclose(out, slow, atol=1e-4)

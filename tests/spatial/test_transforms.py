"""Rigid motions form a group, a plan's image and the venue convert both ways, and fits find what made the points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from spatial.transforms import PlanImage, Rigid, fit_plan_image, fit_rigid

metres = st.floats(-2000, 2000)
rigids = st.builds(Rigid, st.floats(-7, 7), metres, metres)
POINTS = np.array([(0.0, 0.0), (12.5, -3.0), (-700.0, 900.0), (2000.0, 2000.0)])


@given(rigids, rigids)
@settings(max_examples=100)
def test_motions_compose_and_undo_and_keep_distances(a: Rigid, b: Rigid) -> None:
    np.testing.assert_allclose(a.then(b).apply(POINTS), b.apply(a.apply(POINTS)), atol=1e-8)
    np.testing.assert_allclose(a.inverse().apply(a.apply(POINTS)), POINTS, atol=1e-8)
    moved = a.apply(POINTS)
    np.testing.assert_allclose(np.hypot(*np.diff(moved, axis=0).T), np.hypot(*np.diff(POINTS, axis=0).T), atol=1e-8)


@given(rigids)
@settings(max_examples=60)
def test_the_fit_finds_the_motion(a: Rigid) -> None:
    found, error = fit_rigid(POINTS, a.apply(POINTS))
    np.testing.assert_allclose(found.apply(POINTS), a.apply(POINTS), atol=1e-7)
    assert error < 1e-7


@given(st.floats(0.001, 1.0), metres, metres, st.floats(-3, 3))
@settings(max_examples=60)
def test_pixels_and_metres_convert_both_ways_and_the_fit_finds_the_image(scale: float, x: float, y: float, turn: float) -> None:
    image = PlanImage(scale, x, y, turn)
    pixels = np.array([(0.0, 0.0), (4000.0, 0.0), (17.25, 3000.0), (999.0, 1.0)])
    np.testing.assert_allclose(image.to_pixel(image.to_venue(pixels)), pixels, atol=1e-6)
    found, error = fit_plan_image(pixels, image.to_venue(pixels))
    np.testing.assert_allclose(found.to_venue(pixels), image.to_venue(pixels), atol=1e-7)
    assert error < 1e-7


def test_down_in_an_image_is_south_and_a_turn_is_counter_clockwise() -> None:
    assert PlanImage(0.1, 5.0, 50.0).to_venue([(100, 200)])[0].tolist() == pytest.approx([15.0, 30.0])
    assert Rigid(math.pi / 2, 1.0, 0.0).apply([(1.0, 0.0)])[0].tolist() == pytest.approx([1.0, 1.0])


def test_a_bent_scan_shows_in_the_error_and_points_in_one_place_are_refused() -> None:
    _, error = fit_plan_image([(0, 0), (100, 0), (100, 100), (0, 100)], [(0, 0), (10, 0), (12, -10), (0, -10)])
    assert 0.3 < error < 1.0
    with pytest.raises(InvalidInput, match="one place"):
        fit_rigid([(1, 1), (1, 1)], [(0, 0), (1, 1)])
    with pytest.raises(InvalidInput, match="two or more"):
        fit_rigid([(1, 1)], [(0, 0)])
    with pytest.raises(InvalidInput):
        PlanImage(0.0, 0.0, 0.0)

"""WGS84 and the venue frame, against PROJ."""

from __future__ import annotations

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from spatial.frames import Frame
from spatial.venue import Origin

pyproj = pytest.importorskip("pyproj", reason="pyproj is the oracle of these tests; it is in the extra `dev`")

PLACES = [(51.5312, -0.0211), (30.302, 120.131), (-33.9, 151.2), (0.0, 0.0), (69.6, 18.9), (-54.8, -68.3), (12.0, 179.999)]


@pytest.mark.parametrize(("lat", "lon"), PLACES)
def test_both_directions_agree_with_proj_to_a_tenth_of_a_millimetre_over_two_kilometres(lat: float, lon: float) -> None:
    xy = np.random.default_rng(7).uniform(-2000, 2000, (500, 2))
    z = np.random.default_rng(8).uniform(-20, 60, 500)
    frame = Frame(Origin(lat_deg=lat, lon_deg=lon))
    proj = pyproj.Transformer.from_pipeline(
        f"+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84 "
        f"+step +proj=topocentric +ellps=WGS84 +lat_0={lat} +lon_0={lon} +h_0=0"
    )
    lats, lons, heights = frame.to_wgs84(xy[:, 0], xy[:, 1], z)
    east, north, up = proj.transform(lons, lats, heights)
    assert np.abs(np.stack([east, north, up], axis=1) - np.column_stack([xy, z])).max() < 1e-4
    assert np.abs(frame.to_venue(lats, lons, heights) - np.column_stack([xy, z])).max() < 1e-4


def test_the_bearing_turns_x_from_east_counter_clockwise() -> None:
    lat, lon = 52.0, 5.0
    turned = Frame(Origin(lat_deg=lat, lon_deg=lon, bearing_deg=90.0))
    x, y, _ = turned.to_venue(lat + 0.001, lon)
    assert x == pytest.approx(111.2, abs=0.3)
    assert y == pytest.approx(0.0, abs=1e-6)


def test_a_latitude_beyond_the_pole_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"91\.0"):
        Frame(Origin(lat_deg=0, lon_deg=0)).to_venue([0.0, 91.0], [0.0, 0.0])

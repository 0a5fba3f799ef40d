"""WGS84 and the venue frame: a plane that touches the ellipsoid at the venue's origin, x turned from east by `Origin.bearing_deg`.

Owns the two conversions (geodetic -> geocentric -> local east, north, up, and back). Knows nothing of venues beyond their `Origin`.
Sources: EPSG method 9602 (geographic/geocentric), EPSG method 9837 (geographic/topocentric); inverse by Bowring (1985).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.venue import Origin

F8 = npt.NDArray[np.float64]

SEMI_MAJOR_M: Final = 6378137.0
FLATTENING: Final = 1 / 298.257223563
_E2: Final = FLATTENING * (2 - FLATTENING)


class Frame:
    """The venue frame of an origin on the ellipsoid (height 0 m)."""

    def __init__(self, origin: Origin) -> None:
        lat, lon, turn = (math.radians(v) for v in (origin.lat_deg, origin.lon_deg, origin.bearing_deg))
        sin_lat, cos_lat, sin_lon, cos_lon = math.sin(lat), math.cos(lat), math.sin(lon), math.cos(lon)
        east = np.array([-sin_lon, cos_lon, 0.0])
        north = np.array([-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat])
        up = np.array([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat])
        x_axis = math.cos(turn) * east + math.sin(turn) * north
        y_axis = -math.sin(turn) * east + math.cos(turn) * north
        self._axes = np.stack([x_axis, y_axis, up])
        self._origin = _geocentric(np.array(lat), np.array(lon), np.array(0.0))

    def to_venue(self, lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike, height_m: npt.ArrayLike = 0.0) -> F8:
        """Venue coordinates (..., 3), metres, of geodetic ones that broadcast together. Raises InvalidInput outside -90..90, -180..180 or not finite."""
        lat, lon, height = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lat_deg, lon_deg, height_m)))
        bad = ~((np.abs(lat) <= 90) & (np.abs(lon) <= 180) & np.isfinite(height))
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InvalidInput(f"latitude {lat[first]}, longitude {lon[first]}: must be degrees within -90..90 and -180..180, height finite")
        local = (_geocentric(np.radians(lat), np.radians(lon), height) - self._origin) @ self._axes.T
        return np.asarray(local, np.float64)

    def to_wgs84(self, x_m: npt.ArrayLike, y_m: npt.ArrayLike, z_m: npt.ArrayLike = 0.0) -> tuple[F8, F8, F8]:
        """(latitude deg, longitude deg, ellipsoidal height m) of venue coordinates that broadcast together."""
        local = np.stack(np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (x_m, y_m, z_m))), axis=-1)
        x, y, z = np.moveaxis(local @ self._axes + self._origin, -1, 0)
        minor = SEMI_MAJOR_M * (1 - FLATTENING)
        p = np.hypot(x, y)
        beta = np.arctan2(z * SEMI_MAJOR_M, p * minor)
        for _ in range(3):
            lat = np.arctan2(z + _E2 / (1 - _E2) * minor * np.sin(beta) ** 3, p - _E2 * SEMI_MAJOR_M * np.cos(beta) ** 3)
            beta = np.arctan2((1 - FLATTENING) * np.sin(lat), np.cos(lat))
        normal = SEMI_MAJOR_M / np.sqrt(1 - _E2 * np.sin(lat) ** 2)
        height = p * np.cos(lat) + z * np.sin(lat) - SEMI_MAJOR_M**2 / normal
        return np.degrees(lat), np.degrees(np.arctan2(y, x)), height


def _geocentric(lat: F8, lon: F8, height: F8) -> F8:
    normal = SEMI_MAJOR_M / np.sqrt(1 - _E2 * np.sin(lat) ** 2)
    across = (normal + height) * np.cos(lat)
    return np.stack([across * np.cos(lon), across * np.sin(lon), (normal * (1 - _E2) + height) * np.sin(lat)], axis=-1)

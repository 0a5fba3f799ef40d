"""Where a crowd stands at first: so many bodies spread over an area, clear of walls and of each other. Owns the spreading; draws from the generator it is given."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput

GAP_M = 0.02


def spread(
    walkable: BaseGeometry, n: int, *, rng: np.random.Generator, radius_m: float = 0.2, within: BaseGeometry | None = None
) -> npt.NDArray[np.float64]:
    """(n, 2) places on a jittered triangular grid, as wide as n allow, `radius_m` off the walls of `walkable` and twice that apart; only `within` an area.

    Raises InvalidInput where n bodies have no room.
    """
    if n <= 0:
        return np.zeros((0, 2))
    free: BaseGeometry = walkable.buffer(-radius_m - GAP_M)
    if within is not None:
        free = free.intersection(within)
    least = 2.0 * radius_m + GAP_M
    pitch = max(least, math.sqrt(max(free.area, 1e-9) / (0.866 * n)))
    shapely.prepare(free)
    while pitch >= least and not free.is_empty:
        ax, ay, bx, by = free.bounds
        x, y = np.meshgrid(np.arange(ax, bx + 1e-9, pitch), np.arange(ay, by + 1e-9, 0.866026 * pitch))
        x[1::2] += 0.5 * pitch
        jitter = 0.3 * (pitch - least)
        place = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-jitter, jitter, (x.size, 2))
        inside = np.flatnonzero(shapely.intersects_xy(free, place[:, 0], place[:, 1]))
        if len(inside) >= n:
            chosen: npt.NDArray[np.float64] = place[np.sort(rng.choice(inside, n, replace=False))]
            return chosen
        if pitch == least:
            break
        pitch = max(least, 0.99 * pitch)
    raise InvalidInput(f"spread: {n} bodies of radius {radius_m} m have no room on {free.area:.1f} m2; lower their number or widen the area")


def walking_speeds(n: int, *, rng: np.random.Generator, mean_mps: float = 1.34, sd_mps: float = 0.26) -> npt.NDArray[np.float64]:
    """(n,) free speeds of adults: normal, 1.34 and 0.26 m/s (Weidmann 1993), cut to 0.5 to 2 m/s."""
    return np.clip(rng.normal(mean_mps, sd_mps, n), 0.5, 2.0)

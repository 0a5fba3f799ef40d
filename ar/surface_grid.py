"""Points with normals in a hash of cubes: which is nearest, and one step of a fit to the surface they lie on.

Owns the arrays; the loops are compiled (`ar.registration_kernels`).
"""

from __future__ import annotations

import numpy as np

from ar.clouds import F4, F8
from ar.registration_kernels import I8, fit_step, hash_cubes, nearest_rows, smoothed


class SurfaceGrid:
    """`points`, `normals` (p, 3) in the order of their cubes of `cell_m`. A question is fast whose reach is a few cubes at most."""

    def __init__(self, points: F4, normals: F4, cell_m: float) -> None:
        order, self._cubes, self._first, self._rows = hash_cubes(np.ascontiguousarray(points, np.float32), cell_m)
        self.points: F4 = np.ascontiguousarray(points[order], np.float32)
        self.normals: F4 = np.ascontiguousarray(normals[order], np.float32)
        self.cell_m = cell_m
        empty = not len(points)
        self._low: F8 = np.full(3, np.inf) if empty else self.points.min(axis=0).astype(np.float64)
        self._high: F8 = np.full(3, -np.inf) if empty else self.points.max(axis=0).astype(np.float64)

    def nearest(self, at: F8, within_m: float) -> tuple[F8, I8]:
        """(distance (q,), row (q,)) of the nearest to each of `at` (q, 3); inf and -1 where none is within reach."""
        return nearest_rows(at, within_m, self._low, self._high, self.points, self._cubes, self._first, self._rows, self.cell_m)

    def step(self, points: F8, normals: F8, scale: F8, pose: F8, *, within_m: float, tukey_m: float) -> tuple[F8, F8, int]:
        """(matrix (6, 6), right side (6,), points used): `ar.registration_kernels.fit_step`."""
        return fit_step(
            points,
            normals,
            scale,
            pose,
            within_m,
            tukey_m,
            self._low,
            self._high,
            self.points,
            self.normals,
            self._cubes,
            self._first,
            self._rows,
            self.cell_m,
        )

    def smooth(self, sigma_m: float) -> tuple[F4, F4]:
        """(points, normals) (p, 3) on the smooth surface: means over those around that face the same way, by distance (Gauss, two `sigma_m` far)."""
        return smoothed(self.points, self.normals, 2 * sigma_m, sigma_m, self._cubes, self._first, self._rows, self.cell_m)


def smooth_surface(points: F8, normals: F8, sigma_m: float) -> tuple[F4, F4]:
    """Points and normals (p, 3), in another order, on the smooth surface."""
    return SurfaceGrid(points.astype(np.float32), normals.astype(np.float32), 2.5 * sigma_m).smooth(sigma_m)

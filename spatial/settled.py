"""Which fences hold each of a crowd's rows, asked only of those who may have crossed a border since they were last asked for.

Owns, a row, where it was located last and how far it may go from there: to the nearest cell of the raster that a border runs through. Who stays within that needs
no look, however many fences there are; most of a crowd that walks 0.1 m a tick does. It is a memory of answers and no more: forgotten, they are found again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spatial import kernels
from spatial.fence_kernels import ring_distance
from spatial.geofence import FenceSet

I4 = npt.NDArray[np.int32]


class Settled:
    """Of one set of fences, rows 0.. of any number."""

    def __init__(self, fences: FenceSet) -> None:
        self.fences = fences
        raster = fences.raster
        self._ring = np.zeros(len(raster.cell_first) - 1, np.uint8)
        for rows, columns, base in raster.shape:
            ring_distance(raster.cell_first, raster.entry, rows, columns, base, self._ring)
        self._level = np.zeros(0, np.uint8)
        self._x_m, self._y_m = np.zeros(0, np.float32), np.zeros(0, np.float32)
        self._free = np.zeros(0, np.float32)

    def moved(
        self, rows: int, row: I4, level: npt.NDArray[np.uint8], x_m: npt.NDArray[np.float32], y_m: npt.NDArray[np.float32], width: int
    ) -> tuple[I4, I4]:
        """Take n rows' positions (each row once, all below `rows`): index (k,) into them of those looked up, and the fences that cover each, (k, width) as `FenceSet.locate`.

        All others are in the fences that they were in when last looked up. `width`: at least the fences'.
        """
        if rows > len(self._free):
            more = max(rows, 2 * len(self._free)) - len(self._free)
            self._level = np.concatenate([self._level, np.zeros(more, np.uint8)])
            self._x_m, self._y_m = (np.concatenate([part, np.zeros(more, np.float32)]) for part in (self._x_m, self._y_m))
            self._free = np.concatenate([self._free, np.full(more, -1, np.float32)])
        raster = self.fences.raster
        index, out = np.empty(len(row), np.int32), np.empty((len(row), max(width, self.fences.width)), np.int32)
        k = kernels.relocate(
            row, np.ascontiguousarray(level, np.uint8), np.ascontiguousarray(x_m, np.float32), np.ascontiguousarray(y_m, np.float32),
            raster.grid, raster.shape, raster.cell_first, raster.entry, self._ring, raster.part_fence, raster.part_slab, raster.part_row, raster.capsule,
            raster.slab_first, raster.slab_edge, self._level, self._x_m, self._y_m, self._free, index, out,
        )  # fmt: skip
        return index[:k], out[:k]

    def forget(self, row: npt.NDArray[np.integer] | None = None) -> None:
        """These rows (all, where None) are looked up the next time that they are seen."""
        if row is None:
            self._free[:] = -1
        else:
            self._free[row[row < len(self._free)]] = -1

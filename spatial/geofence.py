"""Geofences: which fences cover a point, exactly, for millions of points a second.

Owns the index of a fixed set of fences (polygons with holes, circles) over the levels of a venue. It never remembers who was where:
entering, leaving and dwelling are the position host's business.

Each level has a raster of candidate fences. A cell that lies wholly inside a fence answers without a ring test; a cell on a fence's border
tests the ring's edges that touch its row, with an exact orientation test (Shewchuk 1997). So the answer equals Shapely's `covers`
(border included) for the float64 values of the float32 coordinates; the rings must be valid (see `spatial.checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial import kernels
from spatial.columns import LEFT

MultiPolygonCoords = Sequence[Sequence[Sequence[tuple[float, float]]]]
"""Polygons of rings of points, as in `spatial.venue.MultiPolygon`: outer ring first, then holes; closed implicitly."""

CELL_M: Final = 1.0
"""Cell size wherever the limits below allow it."""

MAX_CELLS: Final = 2_000_000
"""Cells of one level at most. Beyond it cells grow: slower near borders, never wrong."""

MAX_ENTRIES: Final = 8_000_000
"""Entries (a fence in a cell, an edge in a row) of one level at most, estimated from bounding boxes; the same policy."""

MAX_FENCES: Final = 1_000_000
_LARGEST_M: Final = 1e7


@dataclass(frozen=True, slots=True)
class _Part:
    """A polygon of a fence, or a circle: its box and either its edges (k, 4) or its circle (x, y, r)."""

    fence: int
    box: tuple[float, float, float, float]
    edge: npt.NDArray[np.float64] | None
    circle: tuple[float, float, float] = (0.0, 0.0, 0.0)


class FenceSet:
    """An immutable index of fences. Build with `FenceSet.build`; ask with `locate`."""

    def __init__(self, n_levels: int, parts_by_level: list[list[_Part]], n_fences: int) -> None:
        self.n_levels = n_levels
        self.n_fences = n_fences
        part_fence: list[int] = []
        part_slab: list[int] = []
        part_row: list[int] = []
        circle: list[tuple[float, float, float]] = []
        edges: list[npt.NDArray[np.float64]] = []
        slab_counts: list[npt.NDArray[np.int64]] = []
        slabs = 0
        self._grid = np.zeros((n_levels, 3))
        self._shape = np.zeros((n_levels, 3), np.int64)
        cell_counts: list[npt.NDArray[np.int64]] = []
        entries: list[npt.NDArray[np.int32]] = []
        cells = 0
        width = 1
        for level, parts in enumerate(parts_by_level):
            self._grid[level, 2] = CELL_M
            self._shape[level, 2] = cells
            if not parts:
                continue
            x0, y0, cell, rows, columns = _raster(parts)
            self._grid[level] = x0, y0, cell
            self._shape[level] = rows, columns, cells
            at: list[npt.NDArray[np.int64]] = []
            what: list[npt.NDArray[np.int32]] = []
            for part in parts:
                index = len(part_fence)
                row, last_row = (int(np.floor((part.box[i] - y0) / cell)) for i in (1, 3))
                column, last_column = (int(np.floor((part.box[i] - x0) / cell)) for i in (0, 2))
                # One cell of slack on each side: a point exactly on the box's border may round into the next cell.
                row, column = max(0, row - 1), max(0, column - 1)
                last_row, last_column = min(rows - 1, last_row + 1), min(columns - 1, last_column + 1)
                mark = np.zeros((last_row - row + 1, last_column - column + 1), np.uint8)
                corner_x, corner_y = x0 + column * cell, y0 + row * cell
                if part.edge is None:
                    kernels.mark_circle(mark, *part.circle, corner_x, corner_y, cell)
                    part_slab.append(-1)
                else:
                    edge, count = kernels.split_into_slabs(part.edge, corner_y, cell, len(mark))
                    kernels.mark_polygon(mark, edge, np.concatenate(([0], np.cumsum(count))), 0, corner_x, corner_y, cell)
                    part_slab.append(slabs)
                    edges.append(edge)
                    slab_counts.append(count)
                    slabs += len(count)
                part_fence.append(part.fence)
                part_row.append(row)
                circle.append(part.circle)
                r, c = np.nonzero(mark)
                at.append((r + row) * columns + (c + column))
                what.append((index << 1 | (mark[r, c] == kernels.BORDER)).astype(np.int32))
            place = np.concatenate(at)
            order = np.argsort(place, kind="stable")
            counts = np.bincount(place, minlength=rows * columns).astype(np.int64)
            cell_counts.append(counts)
            entries.append(np.concatenate(what)[order])
            width = max(width, int(counts.max()))
            cells += rows * columns
        self._cell_first = np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *cell_counts])))).astype(np.int64)
        self._slab_first = np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *slab_counts])))).astype(np.int64)
        self._entry = np.concatenate([np.zeros(0, np.int32), *entries])
        self._edge = np.concatenate([np.zeros((0, 4)), *edges])
        self._part_fence = np.array(part_fence, np.int32)
        self._part_slab = np.array(part_slab, np.int64)
        self._part_row = np.array(part_row, np.int64)
        self._circle = np.array(circle, np.float64).reshape(-1, 3)
        self.width = width
        """Columns of `locate`'s answer: no point is in more fences than this (an upper bound, at least 1)."""

    @classmethod
    def build(
        cls,
        n_levels: int,
        polygons: Sequence[tuple[int, MultiPolygonCoords]],
        circles: Sequence[tuple[int, float, float, float]] = (),
    ) -> Self:
        """Index `polygons` (level, multipolygon) as fences 0..P-1 and `circles` (level, x, y, radius; metres) as fences P and up.

        Raises InvalidInput for a level outside 0..n_levels-1, a ring of fewer than three points, a coordinate that is not finite, a negative radius.
        """
        if not 1 <= n_levels < LEFT:
            raise InvalidInput(f"fences: n_levels={n_levels}; must be 1 to {LEFT - 1}")
        if len(polygons) + len(circles) > MAX_FENCES:
            raise InvalidInput(f"fences: {len(polygons) + len(circles)} of them; at most {MAX_FENCES}, split the venue")
        parts: list[list[_Part]] = [[] for _ in range(n_levels)]
        for fence, (level, multipolygon) in enumerate(polygons):
            _check_level(fence, level, n_levels)
            parts[level] += [_polygon_part(fence, polygon) for polygon in multipolygon]
        for fence, (level, x, y, r) in enumerate(circles, start=len(polygons)):
            _check_level(fence, level, n_levels)
            if not (abs(x) <= _LARGEST_M and abs(y) <= _LARGEST_M and 0 <= r <= _LARGEST_M):
                raise InvalidInput(f"fence {fence}: circle x={x}, y={y}, r={r}; must be finite metres below {_LARGEST_M:g}, r not negative")
            parts[level].append(_Part(fence, (x - r, y - r, x + r, y + r), None, (x, y, r)))
        return cls(n_levels, parts, len(polygons) + len(circles))

    def locate(
        self,
        level: npt.NDArray[np.uint8],
        x_m: npt.NDArray[np.float32],
        y_m: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int32]:
        """Fences that cover each of n points, border included: (n, width) int32, ascending, padded with -1.

        level: (n,) uint8, LEFT is in no fence; x_m, y_m: (n,) float32, metres, venue frame (a point that is not finite is in no fence).
        Raises InvalidInput where shapes disagree or a level is out of range.
        """
        if not (level.ndim == 1 and level.shape == x_m.shape == y_m.shape):
            raise InvalidInput(f"locate: shapes level {level.shape}, x {x_m.shape}, y {y_m.shape}; must be (n,) each")
        out = np.empty((len(level), self.width), np.int32)
        bad = kernels.locate(
            np.ascontiguousarray(level, np.uint8), np.ascontiguousarray(x_m, np.float32), np.ascontiguousarray(y_m, np.float32), LEFT,
            self._grid, self._shape, self._cell_first, self._entry, self._part_fence, self._part_slab, self._part_row, self._circle,
            self._slab_first, self._edge, out,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidInput(
                f"locate: row {bad} is on level {int(level[bad])}; levels are 0 to {self.n_levels - 1}, or {LEFT} for one who has left"
            )
        return out


def _check_level(fence: int, level: int, n_levels: int) -> None:
    if not 0 <= level < n_levels:
        raise InvalidInput(f"fence {fence}: level {level}; levels are 0 to {n_levels - 1}")


def _polygon_part(fence: int, polygon: Sequence[Sequence[tuple[float, float]]]) -> _Part:
    edges = []
    for ring in polygon:
        points = np.asarray(ring, np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise InvalidInput(f"fence {fence}: a ring of shape {points.shape}; must be three or more (x, y) points")
        if not (np.abs(points) <= _LARGEST_M).all():
            raise InvalidInput(f"fence {fence}: a ring with coordinates that are not finite metres below {_LARGEST_M:g}")
        edges.append(np.hstack([points, np.roll(points, -1, axis=0)]))
    if not edges:
        raise InvalidInput(f"fence {fence}: a polygon without rings; must have an outer ring")
    edge = np.concatenate(edges)
    low, high = edge[:, :2].min(axis=0), edge[:, :2].max(axis=0)
    return _Part(fence, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), edge)


def _raster(parts: list[_Part]) -> tuple[float, float, float, int, int]:
    """Corner, cell size, rows and columns of a level's raster, within MAX_CELLS and (estimated) MAX_ENTRIES."""
    box = np.array([part.box for part in parts])
    x0, y0 = (float(v) for v in box[:, :2].min(axis=0))
    x1, y1 = (float(v) for v in box[:, 2:].max(axis=0))
    size = box[:, 2:] - box[:, :2]
    heights = np.concatenate([np.zeros(0), *(np.abs(part.edge[:, 3] - part.edge[:, 1]) for part in parts if part.edge is not None)])
    cell = CELL_M
    while ((x1 - x0) / cell + 3) * ((y1 - y0) / cell + 3) > MAX_CELLS or float(
        ((size[:, 0] / cell + 3) * (size[:, 1] / cell + 3)).sum() + (heights / cell + 2).sum()
    ) > MAX_ENTRIES:
        if cell > 2 * max(x1 - x0, y1 - y0, CELL_M):
            break  # a single cell: the number of fences itself is above the limit, and a larger cell helps no more
        cell *= 1.5
    # Half a cell of slack all round, so that the border of the outermost fence lies within the raster.
    x0, y0 = x0 - cell / 2, y0 - cell / 2
    return x0, y0, cell, int(np.ceil((y1 - y0) / cell)) + 1, int(np.ceil((x1 - x0) / cell)) + 1

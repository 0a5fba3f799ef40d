"""Geofences: which fences cover a point, exactly, for millions of points a second.

Owns the index of a fixed set of fences (polygons with holes, circles, corridors) over the levels of a venue. It never remembers who was where:
entering, leaving and dwelling are `spatial.fence_watch`'s and the position host's business.

Each level has a raster of candidate fences. A cell that lies wholly inside a fence answers without a ring test; a cell on a fence's border
tests the ring's edges that touch its row, with an exact orientation test (Shewchuk 1997). So the answer equals Shapely's `covers`
(border included) for the float64 values of the float32 coordinates; the rings must be valid (see `spatial.checks`). A circle covers what is at most its radius
away, a corridor what is at most its half width from its line, its ends rounded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput, LimitExceeded
from spatial import kernels
from spatial.columns import LEFT
from spatial.fence_kernels import Raster
from spatial.zone_shapes import MAX_MARGIN_M

MultiPolygonCoords = Sequence[Sequence[Sequence[tuple[float, float]]]]
"""Polygons of rings of points, as in `spatial.venue.MultiPolygon`: outer ring first, then holes; closed implicitly."""

CELL_M: Final = 1.0
"""Cell size wherever the limits below allow it."""

MAX_CELLS: Final = 8_000_000
"""Cells of one level at most. Beyond it cells grow: slower near borders, never wrong."""

MAX_ENTRIES: Final = 16_000_000
"""Entries (a fence in a cell, an edge in a row) of one level at most, estimated from bounding boxes; the same policy."""

MAX_FENCES: Final = 1_000_000
_LARGEST_M: Final = 1e7
_HALF_ROUND: Final = 16
_NO_CAPSULE: Final = np.zeros(5)


@dataclass(frozen=True, slots=True)
class Corridor:
    """All within `half_width_m` of a line of two or more points, on a level."""

    level: int
    line: Sequence[tuple[float, float]]
    half_width_m: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A polygon of a fence, or a capsule (x1, y1, x2, y2, r): its box and its edges (k, 4), for a capsule those of a polygon of the same area."""

    fence: int
    box: tuple[float, float, float, float]
    edge: npt.NDArray[np.float64]
    capsule: npt.NDArray[np.float64] | None = None


class FenceSet:
    """An immutable index of fences. Build with `FenceSet.build`; ask with `locate`."""

    def __init__(self, n_levels: int, parts_by_level: list[list[_Part]], n_fences: int, margin: npt.NDArray[np.float64], cell_m: float) -> None:
        self.n_levels = n_levels
        self.n_fences = n_fences
        part_fence: list[int] = []
        part_slab: list[int] = []
        part_row: list[int] = []
        capsules: list[npt.NDArray[np.float64]] = []
        edges: list[npt.NDArray[np.float64]] = []
        slab_counts: list[npt.NDArray[np.int64]] = []
        slabs = 0
        grid, shape = np.zeros((n_levels, 3)), np.zeros((n_levels, 3), np.int64)
        cell_counts: list[npt.NDArray[np.int64]] = []
        entries: list[npt.NDArray[np.int32]] = []
        cells = 0
        width = 1
        for level, parts in enumerate(parts_by_level):
            grid[level, 2] = CELL_M
            shape[level, 2] = cells
            if not parts:
                continue
            x0, y0, cell, rows, columns = _raster(parts, float(margin[[part.fence for part in parts]].max()), cell_m)
            grid[level] = x0, y0, cell
            shape[level] = rows, columns, cells
            at: list[npt.NDArray[np.int64]] = []
            what: list[npt.NDArray[np.int32]] = []
            for part in parts:
                index = len(part_fence)
                beyond = float(margin[part.fence])
                row, last_row = (math.floor((part.box[i] + side * beyond - y0) / cell) for i, side in ((1, -1), (3, 1)))
                column, last_column = (math.floor((part.box[i] + side * beyond - x0) / cell) for i, side in ((0, -1), (2, 1)))
                # One cell of slack on each side: a point exactly on the box's border may round into the next cell.
                row, column = max(0, row - 1), max(0, column - 1)
                last_row, last_column = min(rows - 1, last_row + 1), min(columns - 1, last_column + 1)
                mark = np.zeros((last_row - row + 1, last_column - column + 1), np.uint8)
                corner_x, corner_y = x0 + column * cell, y0 + row * cell
                if part.capsule is not None:
                    kernels.mark_capsule(mark, part.capsule, beyond + kernels.MARGIN_M, corner_x, corner_y, cell)
                    part_slab.append(-1)
                else:
                    edge, count = kernels.split_into_slabs(part.edge, corner_y, cell, len(mark))
                    first = np.zeros(len(count) + 1, np.int64)
                    np.cumsum(count, out=first[1:])
                    kernels.mark_polygon(mark, part.edge, beyond + kernels.MARGIN_M, edge, first, 0, corner_x, corner_y, cell)
                    part_slab.append(slabs)
                    edges.append(edge)
                    slab_counts.append(count)
                    slabs += len(count)
                part_fence.append(part.fence)
                part_row.append(row)
                capsules.append(_NO_CAPSULE if part.capsule is None else part.capsule)
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
        every = [part for parts in parts_by_level for part in parts]
        first_of = np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *cell_counts]))))
        if first_of[-1] > np.iinfo(np.int32).max:
            raise LimitExceeded(f"fences: {first_of[-1]} entries in {n_levels} levels; at most {np.iinfo(np.int32).max}, split the venue")
        cell_first = first_of.astype(np.int32)
        fences = np.array(part_fence, np.int32)
        self.raster = Raster(
            grid=grid, shape=shape, cell_first=cell_first, entry=np.concatenate([np.zeros(0, np.int32), *entries]), ring=np.zeros(0, np.uint8),
            part_fence=fences, part_slab=np.array(part_slab, np.int64), part_row=np.array(part_row, np.int64),
            capsule=np.array(capsules, np.float64).reshape(-1, 5),
            slab_first=np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *slab_counts])))).astype(np.int64),
            slab_edge=np.concatenate([np.zeros((0, 4)), *edges]),
            part_edge=np.concatenate(([0], np.cumsum([len(part.edge) for part in every]))).astype(np.int64),
            edge=np.concatenate([np.zeros((0, 4)), *(part.edge for part in every)]),
            beyond=0.0, line=np.zeros((5, 0)), part_of=np.argsort(fences, kind="stable").astype(np.int64),
            fence_part=np.searchsorted(np.sort(fences), np.arange(n_fences + 1)).astype(np.int64),
        )  # fmt: skip
        """What the kernels read; `ring` is filled by whoever needs it (`spatial.fence_watch`)."""
        self.width = width
        """Columns of `locate`'s answer: no point is in more fences than this (an upper bound, at least 1)."""

    @classmethod
    def build(
        cls,
        n_levels: int,
        polygons: Sequence[tuple[int, MultiPolygonCoords]],
        circles: Sequence[tuple[int, float, float, float]] = (),
        corridors: Sequence[Corridor] = (),
        *,
        margin_m: npt.NDArray[np.float64] | None = None,
        cell_m: float = CELL_M,
    ) -> Self:
        """Index `polygons` (level, multipolygon) as fences 0..P-1, `circles` (level, x, y, radius; metres) as P..P+C-1, `corridors` as those after.

        margin_m: (fences,) how far from a border a watch must still know of it; cell_m: the raster's cells, where its limits
        allow it. `locate` answers the same whatever they are. Raises InvalidInput for a level outside 0..n_levels-1, a ring of fewer than three points, a coordinate that is not finite, a negative radius.
        """
        if not 1 <= n_levels < LEFT:
            raise InvalidInput(f"fences: n_levels={n_levels}; must be 1 to {LEFT - 1}")
        count = len(polygons) + len(circles) + len(corridors)
        if count > MAX_FENCES:
            raise InvalidInput(f"fences: {count} of them; at most {MAX_FENCES}, split the venue")
        margin = np.zeros(count) if margin_m is None else margin_m
        if margin.shape != (count,) or not ((margin >= 0) & (margin <= MAX_MARGIN_M)).all():
            raise InvalidInput(f"fences: margins of shape {margin.shape}; must be one a fence ({count}), 0 to {2 * MAX_MARGIN_M} m")
        parts: list[list[_Part]] = [[] for _ in range(n_levels)]
        for fence, (level, multipolygon) in enumerate(polygons):
            _check_level(fence, level, n_levels)
            parts[level] += [_polygon_part(fence, polygon) for polygon in multipolygon]
        for fence, (level, x, y, r) in enumerate(circles, start=len(polygons)):
            _check_level(fence, level, n_levels)
            if not (abs(x) <= _LARGEST_M and abs(y) <= _LARGEST_M and 0 <= r <= _LARGEST_M):
                raise InvalidInput(f"fence {fence}: circle x={x}, y={y}, r={r}; must be finite metres below {_LARGEST_M:g}, r not negative")
            parts[level].append(_capsule_part(fence, np.array([x, y, x, y, r], np.float64)))
        for fence, corridor in enumerate(corridors, start=len(polygons) + len(circles)):
            _check_level(fence, corridor.level, n_levels)
            line, r = np.asarray(corridor.line, np.float64), corridor.half_width_m
            if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2 or not ((np.abs(line) <= _LARGEST_M).all() and 0 <= r <= _LARGEST_M):
                raise InvalidInput(f"fence {fence}: corridor of shape {line.shape}, half width {r}; must be two or more (x, y) points, finite metres")
            parts[corridor.level] += _corridor_parts(fence, line, r)
        return cls(n_levels, parts, count, margin, cell_m)

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
            self.raster.grid, self.raster.shape, self.raster.cell_first, self.raster.entry, self.raster.part_fence, self.raster.part_slab,
            self.raster.part_row, self.raster.capsule, self.raster.slab_first, self.raster.slab_edge, out,
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
    for number, ring in enumerate(polygon):
        points = np.asarray(ring, np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise InvalidInput(f"fence {fence}: a ring of shape {points.shape}; must be three or more (x, y) points")
        if not (np.abs(points) <= _LARGEST_M).all():
            raise InvalidInput(f"fence {fence}: a ring with coordinates that are not finite metres below {_LARGEST_M:g}")
        after = np.roll(points, -1, axis=0)
        twice_area = float((points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]).sum())
        if (twice_area > 0) == (number > 0):
            # Ground on the left of every edge: outer rings counter-clockwise, holes clockwise.
            points, after = after[::-1], points[::-1]
        edges.append(np.hstack([points, after]))
    if not edges:
        raise InvalidInput(f"fence {fence}: a polygon without rings; must have an outer ring")
    edge = np.concatenate(edges)
    low, high = edge[:, :2].min(axis=0), edge[:, :2].max(axis=0)
    return _Part(fence, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), edge)


def _capsule_part(fence: int, capsule: npt.NDArray[np.float64]) -> _Part:
    (x1, y1, x2, y2, r) = (float(v) for v in capsule)
    box = min(x1, x2) - r, min(y1, y2) - r, max(x1, x2) + r, max(y1, y2) + r
    turn = math.atan2(y2 - y1, x2 - x1)
    angle = turn - math.pi / 2 + np.pi * np.arange(_HALF_ROUND + 1) / _HALF_ROUND
    # Corners a little outside the round, so that the polygon has its area.
    reach = r * math.sqrt(math.pi / _HALF_ROUND / math.sin(math.pi / _HALF_ROUND))
    arc = np.column_stack([np.cos(angle), np.sin(angle)]) * reach
    points = np.concatenate([np.array([x2, y2]) + arc, np.array([x1, y1]) - arc])
    return _Part(fence, box, np.hstack([points, np.roll(points, -1, axis=0)]), capsule)


def _corridor_parts(fence: int, line: npt.NDArray[np.float64], r: float) -> list[_Part]:
    """A capsule for each stretch. The first carries the outline of all (Shapely's buffer, a polygon), so that what overlaps counts once in a probability."""
    capsules = [_capsule_part(fence, np.concatenate([a, b, [r]])) for a, b in itertools.pairwise(line)]
    outline = shapely.orient_polygons(shapely.LineString(line).buffer(r, quad_segs=_HALF_ROUND))
    rings = [shapely.get_coordinates(ring) for ring in (outline.exterior, *outline.interiors)] if not outline.is_empty else []
    edge = np.concatenate([np.zeros((0, 4)), *(np.hstack([xy[:-1], xy[1:]]) for xy in rings)])
    return [replace(part, edge=edge if i == 0 else np.zeros((0, 4))) for i, part in enumerate(capsules)]


def _raster(parts: list[_Part], margin: float, cell_m: float) -> tuple[float, float, float, int, int]:
    """Corner, cell size, rows and columns of a level's raster, within MAX_CELLS and (estimated) MAX_ENTRIES."""
    box = np.array([part.box for part in parts]) + np.array([-margin, -margin, margin, margin])
    x0, y0 = (float(v) for v in box[:, :2].min(axis=0))
    x1, y1 = (float(v) for v in box[:, 2:].max(axis=0))
    size = box[:, 2:] - box[:, :2]
    heights = np.concatenate([np.zeros(0), *(np.abs(part.edge[:, 3] - part.edge[:, 1]) for part in parts if part.capsule is None)])
    cell = cell_m
    while ((x1 - x0) / cell + 3) * ((y1 - y0) / cell + 3) > MAX_CELLS or float(
        ((size[:, 0] / cell + 3) * (size[:, 1] / cell + 3)).sum() + (heights / cell + 2).sum()
    ) > MAX_ENTRIES:
        if cell > 2 * max(x1 - x0, y1 - y0, CELL_M):
            break  # a single cell: the number of fences itself is above the limit, and a larger cell helps no more
        cell *= 1.5
    # Half a cell of slack all round, so that the border of the outermost fence lies within the raster.
    x0, y0 = x0 - cell / 2, y0 - cell / 2
    return x0, y0, cell, int(np.ceil((y1 - y0) / cell)) + 1, int(np.ceil((x1 - x0) / cell)) + 1

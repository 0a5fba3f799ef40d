"""The floor that bodies walk on: free ground of all levels as a raster, its walls as segments, hops between levels, and a field of aims for each goal.

Owns the geometry that `simulation.walkers` reads, for any plan (polygons a level) and any venue. It knows no people, shops or itineraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, LimitExceeded
from simulation import floor_kernels, ground_kernels
from simulation.ground import CELL_M, Ground
from simulation.navigation import Links

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]

MAX_CELLS: Final = 40_000_000
MAX_LEVELS: Final = 200
BODY_M: Final = 0.2
WALK_MPS: Final = 1.34
"""A second in a hop counts as so many metres when ways are compared."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A way from one level to another that is not walked: a lift, a flight of stairs, an escalator. One person every `every_s` steps on, `room_for` are inside."""

    id: str
    from_level: int
    from_m: tuple[float, float]
    to_level: int
    to_m: tuple[float, float]
    seconds: float
    every_s: float = 1.0
    room_for: int = 12


@dataclass(frozen=True, slots=True)
class Slope:
    """Ground on which people walk at `factor` of their speed: stairs up 0.55, down 0.65 (Weidmann 1993, tables 18 and 19, against 1.34 m/s)."""

    level: int
    area: BaseGeometry
    factor: float


@dataclass(frozen=True, slots=True)
class Floor:
    """c free cells of all levels, square, `cell_m` wide; raster of `levels` x `ny` x `nx` from corner (x0, y0), metres, venue frame.

    cid: (levels * ny * nx,) cell number or -1. raster: (c,) place in the raster. x, y: (c,) centres. links: (c,) bit d set: the way to the neighbour in
    direction d meets no wall. clearance: (c,) metres to the nearest wall, at most 1. spare: (c,) all raster cells within so many steps are free and off
    walls. pace: (c,) factor on speed. walls: (w, 4) segments, each once; wall_level: (w,). hop_start, hop_end: (h,) cells; hop_s, hop_every_s, hop_room: (h,).
    """

    x0: float
    y0: float
    cell_m: float
    nx: int
    ny: int
    levels: int
    cid: I4
    raster: I4
    x: F8
    y: F8
    links: npt.NDArray[np.uint8]
    clearance: npt.NDArray[np.float32]
    spare: I4
    pace: npt.NDArray[np.float32]
    walls: F8
    wall_level: I4
    near_start: I4
    near_item: I4
    hop_start: I4
    hop_end: I4
    hop_s: F8
    hop_every_s: F8
    hop_room: I4
    hop_id: tuple[str, ...]

    @classmethod
    def of(cls, walkable: Sequence[BaseGeometry], *, cell_m: float = CELL_M, hops: Sequence[Hop] = (), slopes: Sequence[Slope] = ()) -> Floor:
        """From a (multi)polygon of walkable ground a level, metres.

        Raises InvalidInput for ground that is empty, not valid or not finite, for hops off the ground and negative times or factors; LimitExceeded above
        MAX_CELLS. A gap narrower than `cell_m` may hold no cell: pass smaller cells where doors are narrow.
        """
        _check(walkable, cell_m, hops, slopes)
        bounds = np.array([ground.bounds for ground in walkable])
        x0, y0 = float(bounds[:, 0].min()) - cell_m, float(bounds[:, 1].min()) - cell_m
        nx, ny = ceil((float(bounds[:, 2].max()) + cell_m - x0) / cell_m), ceil((float(bounds[:, 3].max()) + cell_m - y0) / cell_m)
        levels = len(walkable)
        if nx * ny * levels > MAX_CELLS:
            raise LimitExceeded(f"floor: {levels} levels of {nx} x {ny} cells of {cell_m} m; at most {MAX_CELLS} cells, take larger ones")
        gx: F8 = (x0 + (np.arange(nx) + 0.5) * cell_m).astype(np.float64)
        gy: F8 = (y0 + (np.arange(ny) + 0.5) * cell_m).astype(np.float64)
        cid = np.full(levels * ny * nx, -1, np.int32)
        places = []
        count = 0
        for level, ground in enumerate(walkable):
            inside = np.flatnonzero(_covered(ground, gx, gy)) + level * ny * nx
            cid[inside] = np.arange(count, count + len(inside), dtype=np.int32)
            count += len(inside)
            places.append(inside.astype(np.int32))
        if not count:
            raise InvalidInput(f"floor: no cell of {cell_m} m has its centre on walkable ground; take smaller cells")
        raster = np.concatenate(places)
        segments = [_segments(ground) for ground in walkable]
        walls = np.ascontiguousarray(np.concatenate(segments))
        wall_level = np.repeat(np.arange(levels, dtype=np.int32), [len(part) for part in segments])
        x, y = gx[raster % nx], gy[raster // nx % ny]
        near_start, near_item = ground_kernels.list_walls(walls, wall_level, x0, y0, cell_m, nx, ny, levels, max(1.0, 1.5 * cell_m))
        links, clearance = ground_kernels.link_cells(raster, cid, x, y, nx, ny, walls, near_start, near_item)
        spare = floor_kernels.open_steps(raster, cid, links, clearance, nx, ny)
        pace = np.ones(count, np.float32)
        level_of = raster // (nx * ny)
        for slope in slopes:
            rows = np.flatnonzero(level_of == slope.level)
            shapely.prepare(slope.area)
            pace[rows[shapely.intersects_xy(slope.area, x[rows], y[rows])]] = slope.factor
        ends = [
            (_nearest(h.id, h.from_level, h.from_m, level_of, x, y, cell_m), _nearest(h.id, h.to_level, h.to_m, level_of, x, y, cell_m)) for h in hops
        ]
        return cls(
            x0, y0, cell_m, nx, ny, levels, cid, raster, x, y, links, clearance, spare, pace, walls, wall_level, near_start, near_item,
            np.array([a for a, _ in ends], np.int32), np.array([b for _, b in ends], np.int32), np.array([h.seconds for h in hops], np.float64),
            np.array([h.every_s for h in hops], np.float64), np.array([h.room_for for h in hops], np.int32), tuple(h.id for h in hops),
        )  # fmt: skip

    @classmethod
    def of_venue(cls, ground: Ground, links: Links) -> Floor:
        """The ground of a venue with its public connectors as hops (see `simulation.ground.survey` and `simulation.navigation.link_levels`)."""
        return cls(
            ground.x0, ground.y0, CELL_M, ground.nx, ground.ny, ground.levels, ground.cid, ground.raster, ground.x, ground.y, ground.links, ground.clearance,
            ground.spare, np.ones(len(ground.x), np.float32), ground.walls, ground.wall_level, ground.wall_start, ground.wall_item,
            links.start, links.end, links.seconds, links.every_s, links.room_for, links.connector,
        )  # fmt: skip

    def level_of(self, cells: I4) -> I4:
        """(k,) levels of cells."""
        return (self.raster[cells] // (self.nx * self.ny)).astype(np.int32)

    def cells_in(self, level: int, area: BaseGeometry) -> I4:
        """Cells of a level whose centres an area covers; the nearest one where it covers none."""
        if area.is_empty or not 0 <= level < self.levels:
            return np.empty(0, np.int32)
        ax, ay, bx, by = area.bounds
        cols = slice(max(0, int((ax - self.x0) / self.cell_m)), max(0, int((bx - self.x0) / self.cell_m) + 1))
        rows = slice(max(0, int((ay - self.y0) / self.cell_m)), max(0, int((by - self.y0) / self.cell_m) + 1))
        near = self.cid.reshape(self.levels, self.ny, self.nx)[level, rows, cols].ravel()
        near = near[near >= 0]
        shapely.prepare(area)
        found = near[shapely.intersects_xy(area, self.x[near], self.y[near])]
        if len(found):
            return found
        on = np.flatnonzero(self.raster // (self.nx * self.ny) == level)
        middle = area.representative_point()
        d2 = (self.x[on] - middle.x) ** 2 + (self.y[on] - middle.y) ** 2
        return on[[int(np.argmin(d2))]].astype(np.int32) if d2.min(initial=np.inf) <= (2.0 * self.cell_m) ** 2 else np.empty(0, np.int32)

    def near(self, level: int, point: tuple[float, float], within_m: float) -> I4:
        """Cells of a level whose centres lie within so many metres of a point, ascending."""
        cols, rows = (
            slice(max(0, int((p - within_m - low) / self.cell_m)), max(0, int((p + within_m - low) / self.cell_m) + 1))
            for p, low in zip(point, (self.x0, self.y0), strict=True)
        )
        cells = self.cid.reshape(self.levels, self.ny, self.nx)[level, rows, cols].ravel()
        cells = cells[cells >= 0]
        return cells[(self.x[cells] - point[0]) ** 2 + (self.y[cells] - point[1]) ** 2 <= within_m**2]

    def leads_to(self, seeds: I4) -> npt.NDArray[np.bool_]:
        """(c,) from which cells a way leads to one of these, by links and hops."""
        found = np.zeros(len(self.x), np.bool_)
        floor_kernels.flood(seeds, self.raster, self.cid, self.links, self.nx, self.hop_start, self.hop_end, found)
        return found

    def solve(self, seeds: Sequence[I4], *, workers: int = 2, load: I4 | None = None, body_m: float = BODY_M) -> tuple[I4, npt.NDArray[np.float32]]:
        """(aim, distance_m), each (g, c): for each goal, given by its cells, where to walk straight to from each cell, and how far the whole way is.

        aim is a cell in sight, the cell itself at the goal and at the start of a hop that is to be taken; -1 where no way leads to the goal, with the
        distance inf. Ways cross levels by hops. load: (c,) how many times dearer a step onto a cell is, 1 to 16. body_m: ways keep so far off walls where they can;
        wider ways would lead everybody through the middle of a door, which lets a quarter fewer through.
        """
        n = len(self.x)
        aim = np.full((len(seeds), n), -1, np.int32)
        distance = np.full((len(seeds), n), np.inf, np.float32)
        dear = np.ones(n, np.int32) if load is None else load
        hop_cost = np.maximum(1, np.round(self.hop_s * WALK_MPS / self.cell_m * 10.0)).astype(np.int32)
        ring = 1 << int(max(1024, int(hop_cost.max(initial=0)) + 1) - 1).bit_length()

        def one(k: int) -> None:
            floor_kernels.solve_aims(
                seeds[k], self.raster, self.cid, self.links, self.clearance, self.spare, dear, self.nx, self.cell_m, self.hop_start, self.hop_end,
                hop_cost, ring, body_m, aim[k], distance[k],
            )  # fmt: skip

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, range(len(seeds))))
        return aim, distance


def _check(walkable: Sequence[BaseGeometry], cell_m: float, hops: Sequence[Hop], slopes: Sequence[Slope]) -> None:
    if not 0.05 <= cell_m <= 10.0:
        raise InvalidInput(f"floor: cells of {cell_m} m; must be 0.05 to 10 m")
    if not 1 <= len(walkable) <= MAX_LEVELS:
        raise InvalidInput(f"floor: {len(walkable)} levels; must be 1 to {MAX_LEVELS}")
    for level, ground in enumerate(walkable):
        if ground.is_empty or not ground.is_valid or ground.area <= 0 or not all(isfinite(v) for v in ground.bounds):
            raise InvalidInput(f"floor: walkable ground of level {level} is empty, crosses itself or has no area; draw it anew")
    for hop in hops:
        if not (0 <= hop.from_level < len(walkable) and 0 <= hop.to_level < len(walkable)):
            raise InvalidInput(f"hop {hop.id}: from level {hop.from_level} to {hop.to_level}; there are levels 0 to {len(walkable) - 1}")
        if not (0 <= hop.seconds < 3600 and hop.every_s > 0 and hop.room_for >= 1):
            raise InvalidInput(
                f"hop {hop.id}: {hop.seconds} s, one every {hop.every_s} s, room for {hop.room_for}; times below an hour, room for one at least"
            )
    for slope in slopes:
        if not 0.05 <= slope.factor <= 3.0 or not 0 <= slope.level < len(walkable):
            raise InvalidInput(f"slope of level {slope.level}: factor {slope.factor}; must be 0.05 to 3, on one of {len(walkable)} levels")


def _covered(ground: BaseGeometry, gx: F8, gy: F8) -> npt.NDArray[np.bool_]:
    """(ny * nx,) whether a cell's centre lies on the ground."""
    inside = np.zeros((len(gy), len(gx)), np.bool_)
    for part in shapely.get_parts(ground):
        ax, ay, bx, by = part.bounds
        cols = slice(int(np.searchsorted(gx, ax)), int(np.searchsorted(gx, bx, "right")))
        rows = slice(int(np.searchsorted(gy, ay)), int(np.searchsorted(gy, by, "right")))
        mx, my = np.meshgrid(gx[cols], gy[rows])
        if mx.size:
            shapely.prepare(part)
            inside[rows, cols] |= shapely.intersects_xy(part, mx.ravel(), my.ravel()).reshape(mx.shape)
    return inside.ravel()


def _segments(ground: BaseGeometry) -> F8:
    """(w, 4) edges of all rings."""
    found = []
    for part in shapely.get_parts(ground):
        for ring in [part.exterior, *part.interiors]:
            corner = shapely.get_coordinates(ring)
            found.append(np.concatenate([corner[:-1], corner[1:]], axis=1))
    edges = np.concatenate(found)
    proper: F8 = edges[(edges[:, :2] != edges[:, 2:]).any(axis=1)]
    return proper


def _nearest(name: str, level: int, point: tuple[float, float], level_of: I4, x: F8, y: F8, cell_m: float) -> int:
    rows = np.flatnonzero(level_of == level)
    d2 = (x[rows] - point[0]) ** 2 + (y[rows] - point[1]) ** 2
    if not len(rows) or d2.min() > max(1.0, 2.0 * cell_m) ** 2:
        raise InvalidInput(f"hop {name}: {point} of level {level} is off the walkable ground; move the stop onto it")
    return int(rows[np.argmin(d2)])

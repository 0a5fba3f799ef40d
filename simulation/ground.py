"""The ground people walk on: a raster of free cells on all levels, the links between them that meet no wall, and the walls near each cell.

Owns the translation from a venue's plan (`spatial.plan`, which only this module of the simulation reads) to arrays for the kernels. It knows
nothing of people, shops' popularity or routes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import distance_transform_cdt

from esplanade.core.errors import InvalidInput, LimitExceeded
from simulation import ground_kernels
from spatial.plan import LevelPlan, level_plan
from spatial.venue import Venue

CELL_M: Final = 0.4
"""Side of a raster cell; openings of 0.9 m hold two cell centres wherever the raster lies."""

REACH_M: Final = 0.9
"""Walls within this distance of a cell's centre are listed there: a step and the walls' repulsion stay within it."""

MAX_CELLS: Final = 40_000_000
DOOR_M: Final = 1.0
"""Within this distance of an opening bodies on both sides see each other."""


@dataclass(frozen=True, slots=True)
class Ground:
    """c free cells of all levels, numbered level by level; raster of `levels` x `ny` x `nx` cells of CELL_M from corner (x0, y0), metres, venue frame.

    cid: (levels * ny * nx,) cell number or -1. first: (levels + 1,) first cell of each level. raster: (c,) place in the raster. x, y: (c,) centres.
    links: (c,) bit d set: the way to the neighbour in direction d meets no wall. clearance: (c,) metres to the nearest wall, at most 1.
    spare: (c,) all raster cells within so many steps are free and off walls.
    unit: (c,) index of the unit whose interior holds the centre, -1 on open ground. room: (c,) unit + 1, 0 on open ground, -1 near an opening.
    walls: (w, 4); wall_start, wall_item: the walls near each raster cell.
    """

    x0: float
    y0: float
    nx: int
    ny: int
    levels: int
    cid: npt.NDArray[np.int32]
    first: npt.NDArray[np.int32]
    raster: npt.NDArray[np.int32]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    links: npt.NDArray[np.uint8]
    clearance: npt.NDArray[np.float32]
    spare: npt.NDArray[np.int32]
    unit: npt.NDArray[np.int32]
    room: npt.NDArray[np.int32]
    walls: npt.NDArray[np.float64]
    wall_level: npt.NDArray[np.int32]
    wall_start: npt.NDArray[np.int32]
    wall_item: npt.NDArray[np.int32]

    def level_of(self, cell: int) -> int:
        return int(np.searchsorted(self.first, cell, side="right")) - 1

    def near(self, level: int, point: tuple[float, float], radius_m: float) -> npt.NDArray[np.int32]:
        """Free cells of a level, joined to others, with centres within `radius_m` of a point, nearest first."""
        lo, hi = int(self.first[level]), int(self.first[level + 1])
        d2 = (self.x[lo:hi] - point[0]) ** 2 + (self.y[lo:hi] - point[1]) ** 2
        inside = np.flatnonzero((d2 <= radius_m * radius_m) & (self.links[lo:hi] != 0))
        return (inside[np.argsort(d2[inside], kind="stable")] + lo).astype(np.int32)

    def around(self, cell: int, radius_m: float, *, gap_m: float = 0.2) -> npt.NDArray[np.int32]:
        """Free cells with clearance `gap_m` in straight sight of `cell` within `radius_m`, nearest first."""
        level = self.level_of(cell)
        found = self.near(level, (float(self.x[cell]), float(self.y[cell])), radius_m)
        keep = [
            c == cell or (self.clearance[c] >= gap_m and ground_kernels.sees(int(cell), int(c), self.raster, self.cid, self.links, self.clearance, self.spare, self.nx, 0.15))
            for c in found.tolist()
        ]  # fmt: skip
        return found[np.array(keep, bool)] if len(found) else found


def survey(venue: Venue, plans: Sequence[LevelPlan] | None = None) -> Ground:
    """Raster the whole venue; plans: of all its levels, where they are known. Raises InvalidInput for a venue without free space, LimitExceeded for one beyond MAX_CELLS raster cells."""
    plans = [level_plan(venue, i) for i in range(len(venue.levels))] if plans is None else plans
    boxes = np.array([plan.free.bounds for plan in plans if not plan.free.is_empty], float).reshape(-1, 4)
    if not len(boxes):
        raise InvalidInput(f"venue {venue.id}: no level has free space; give the levels an outline that is not covered by solid units")
    x0, y0 = float(boxes[:, 0].min()) - CELL_M, float(boxes[:, 1].min()) - CELL_M
    nx = math.ceil((float(boxes[:, 2].max()) + CELL_M - x0) / CELL_M)
    ny = math.ceil((float(boxes[:, 3].max()) + CELL_M - y0) / CELL_M)
    levels = len(plans)
    if nx * ny * levels > MAX_CELLS:
        raise LimitExceeded(
            f"venue {venue.id}: {levels} levels of {nx} x {ny} cells of {CELL_M} m; at most {MAX_CELLS} cells, cut the venue into parts"
        )
    gx: npt.NDArray[np.float64] = (x0 + (np.arange(nx) + 0.5) * CELL_M).astype(np.float64)
    gy: npt.NDArray[np.float64] = (y0 + (np.arange(ny) + 0.5) * CELL_M).astype(np.float64)
    cid = np.full(levels * ny * nx, -1, np.int32)
    first = np.zeros(levels + 1, np.int32)
    places: list[npt.NDArray[np.int32]] = []
    units: list[npt.NDArray[np.int32]] = []
    for i, plan in enumerate(plans):
        owner = _owners(plan, gx, gy)
        inside = np.flatnonzero(owner >= -1)
        cid[inside + i * ny * nx] = np.arange(first[i], first[i] + len(inside), dtype=np.int32)
        first[i + 1] = first[i] + len(inside)
        places.append((inside + i * ny * nx).astype(np.int32))
        units.append(owner[inside])
    raster, unit = np.concatenate(places), np.concatenate(units)
    x, y = gx[raster % nx], gy[(raster // nx) % ny]
    walls = np.ascontiguousarray(np.concatenate([plan.walls for plan in plans]), np.float64)
    wall_level = np.repeat(np.arange(levels, dtype=np.int32), [len(plan.walls) for plan in plans])
    wall_start, wall_item = ground_kernels.list_walls(walls, wall_level, x0, y0, CELL_M, nx, ny, levels, REACH_M)
    links, clearance = ground_kernels.link_cells(raster, cid, x, y, nx, ny, walls, wall_start, wall_item)
    spare = np.zeros(len(raster), np.int32)
    room = (unit + 1).astype(np.int32)
    for plan in plans:
        for gap in plan.gaps:
            room[_beside(gap.a, gap.b, int(first[plan.level]), int(first[plan.level + 1]), x, y)] = -1
    ground = Ground(x0, y0, nx, ny, levels, cid, first, raster, x, y, links, clearance, spare, unit, room, walls, wall_level, wall_start, wall_item)
    return replace(ground, spare=open_steps(ground, clearance, spare, np.arange(levels)))


def open_steps(
    ground: Ground, clearance: npt.NDArray[np.float32], known: npt.NDArray[np.int32], levels: npt.NDArray[np.intp]
) -> npt.NDArray[np.int32]:
    """`Ground.spare` under this clearance for these levels; as `known` for the others."""
    spare = known.copy()
    for level in levels.tolist():
        lo, hi = int(ground.first[level]), int(ground.first[level + 1])
        open_ground = np.zeros(ground.ny * ground.nx, np.bool_)
        place = ground.raster[lo:hi] - level * ground.ny * ground.nx
        open_ground[place] = (ground.links[lo:hi] == 255) & (clearance[lo:hi] >= 0.9)
        steps = distance_transform_cdt(np.pad(open_ground.reshape(ground.ny, ground.nx), 1), "chessboard")[1:-1, 1:-1]
        spare[lo:hi] = np.maximum(0, steps.ravel()[place] - 1)
    return spare


def _owners(plan: LevelPlan, gx: npt.NDArray[np.float64], gy: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """(ny * nx,) what each raster cell's centre lies on: index of the unit whose interior it is, -1 open ground, -2 nothing to walk on."""
    owner = np.full((len(gy), len(gx)), -2, np.int32)
    for index, ground in [(-1, plan.walkway), *plan.interiors.items()]:
        for part in ground.geoms:
            ax, ay, bx, by = part.bounds
            cols, rows = (
                slice(np.searchsorted(gx, ax), np.searchsorted(gx, bx, "right")),
                slice(np.searchsorted(gy, ay), np.searchsorted(gy, by, "right")),
            )
            mx, my = np.meshgrid(gx[cols], gy[rows])
            if mx.size:
                shapely.prepare(part)
                window = owner[rows, cols]
                # Borders count: a centre right on the line of an opening joins both sides, one on a wall has no links.
                window[shapely.intersects_xy(part, mx.ravel(), my.ravel()).reshape(mx.shape)] = index
    return owner.ravel()


def _beside(
    a: tuple[float, float], b: tuple[float, float], lo: int, hi: int, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Cells lo to hi with centres within DOOR_M of segment ab."""
    ux, uy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x[lo:hi] - a[0]) * ux + (y[lo:hi] - a[1]) * uy) / max(ux * ux + uy * uy, 1e-12), 0.0, 1.0)
    d2 = (x[lo:hi] - a[0] - t * ux) ** 2 + (y[lo:hi] - a[1] - t * uy) ** 2
    return np.flatnonzero(d2 <= DOOR_M**2) + lo

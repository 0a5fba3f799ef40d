"""The walkable ground of every floor as a raster: where an estimate may be.

Owns the grid of cells that estimators reason over, in each floor's own metres (the frame of the survey) and in the venue frame. It takes the plan as it is and never widens it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput
from spatial.plan import level_plan
from spatial.positioning.observations import F8
from spatial.venue import Level, Venue

CELL_M: Final = 1.0
MAX_CELLS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Floor:
    """One floor's raster. Cell (row, column) has its centre at corner_m + (column + 0.5, row + 0.5) * cell_m, floor metres.

    free: (rows, columns) bool; rooms: those of them inside a room. offset_m, scale: floor metres = venue metres * scale + offset. ways_m: (k, 2) stops of connectors, floor metres."""

    name: str
    ordinal: int
    corner_m: tuple[float, float]
    cell_m: float
    free: npt.NDArray[np.bool_]
    rooms: npt.NDArray[np.bool_]
    offset_m: tuple[float, float]
    scale: tuple[float, float]
    ways_m: F8

    def centres(self) -> F8:
        """(n, 2) centres of the free cells, floor metres, in row-major order."""
        row, column = np.nonzero(self.free)
        return np.column_stack([self.corner_m[0] + (column + 0.5) * self.cell_m, self.corner_m[1] + (row + 0.5) * self.cell_m])

    def to_venue(self, xy_m: F8) -> F8:
        venue: F8 = (xy_m - np.array(self.offset_m)) / np.array(self.scale)
        return venue

    def from_venue(self, xy_m: F8) -> F8:
        floor: F8 = xy_m * np.array(self.scale) + np.array(self.offset_m)
        return floor


def floors_of(venue: Venue, *, cell_m: float = CELL_M) -> tuple[Floor, ...]:
    """A raster a level. A cell is free where its centre is. Raises InvalidInput for two levels of one name and for a plan beyond MAX_CELLS."""
    names = [level.short_name for level in venue.levels]
    if len(set(names)) != len(names):
        raise InvalidInput(f"venue {venue.id}: floors are named {names}; each floor needs a name of its own")
    floors = []
    for i, level in enumerate(venue.levels):
        plan = level_plan(venue, i)
        free, walkway = (_in_floor_metres(shape, level) for shape in (plan.free, plan.walkway))
        bounds = free.bounds if not free.is_empty else (0.0, 0.0, cell_m, cell_m)
        corner = np.floor(np.array(bounds[:2]) / cell_m) * cell_m
        columns, rows = (int(v) for v in np.ceil((np.array(bounds[2:]) - corner) / cell_m))
        if columns * rows > MAX_CELLS:
            raise InvalidInput(
                f"venue {venue.id}, floor {level.short_name}: {columns} x {rows} cells; at most {MAX_CELLS}, so check the plan's outline"
            )
        x = corner[0] + (np.arange(max(columns, 1)) + 0.5) * cell_m
        y = corner[1] + (np.arange(max(rows, 1)) + 0.5) * cell_m
        shapely.prepare(free)
        shapely.prepare(walkway)
        mask = np.asarray(shapely.contains_xy(free, *np.meshgrid(x, y)), np.bool_)
        rooms = np.asarray(mask & ~shapely.contains_xy(walkway, *np.meshgrid(x, y)), np.bool_)
        ways = [level.to_source(*stop.point) for c in venue.connectors for stop in c.stops if stop.level_id == level.id]
        floors.append(
            Floor(
                level.short_name, level.ordinal, (float(corner[0]), float(corner[1])), cell_m, mask, rooms, level.source_offset_m, level.source_scale,
                np.array(ways, np.float64).reshape(-1, 2),
            )
        )  # fmt: skip
    return tuple(floors)


def coarser(floor: Floor, *, times: int = 2) -> Floor:
    """The same floor in cells `times` as wide. A cell is free where half of it is, and a room where half of what is free is."""
    rows, columns = (-(-n // times) for n in floor.free.shape)

    def counted(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        whole = np.zeros((rows * times, columns * times), np.int64)
        whole[: mask.shape[0], : mask.shape[1]] = mask
        held: npt.NDArray[np.int64] = whole.reshape(rows, times, columns, times).sum(axis=(1, 3))
        return held

    free = counted(floor.free)
    return replace(
        floor, cell_m=floor.cell_m * times, free=2 * free >= times * times, rooms=(2 * free >= times * times) & (2 * counted(floor.rooms) >= free)
    )


def _in_floor_metres(shape: shapely.MultiPolygon, level: Level) -> shapely.MultiPolygon:
    scale, offset = np.array(level.source_scale), np.array(level.source_offset_m)
    return shapely.transform(shape, lambda xy: xy * scale + offset)

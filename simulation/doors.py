"""Doors that close while people walk: nobody sets out through one that is to close, and it shuts as soon as nobody stands in it.

Owns which doors are open, about to close, or shut, and the floors that follow from it. A door is an area across a way; shut, its border is a wall. It never moves
anybody: who stands in a door walks out of it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput
from simulation import floor_kernels, ground_kernels
from simulation.floor import Floor
from simulation.ground_kernels import DX, DY
from simulation.walkers import Walkers

OPEN, CLOSING, SHUT = range(3)
FOREVER_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class Door:
    """An area across a way of a level; it closes at `closes_s` and opens again at `opens_s`, seconds from the start."""

    id: str
    level: int
    area: BaseGeometry
    closes_s: float
    opens_s: float = FOREVER_S


class Doors:
    """Doors of the floor that walkers walk on; `state`: one of OPEN, CLOSING, SHUT each."""

    def __init__(self, floor: Floor, doors: Sequence[Door]) -> None:
        self.doors = tuple(doors)
        self.state = [OPEN] * len(doors)
        self._open = floor
        self._cells = []
        for door in doors:
            if not 0 <= door.level < floor.levels:
                raise InvalidInput(f"door {door.id}: level {door.level}; there are levels 0 to {floor.levels - 1}")
            if not 0 <= door.closes_s < door.opens_s:
                raise InvalidInput(f"door {door.id}: closes after {door.closes_s} s and opens after {door.opens_s} s; it must open after it closes")
            cells = floor.cells_in(door.level, door.area)
            if not len(cells):
                raise InvalidInput(
                    f"door {door.id}: no cell of level {door.level} lies in it; draw it across walkable ground, as deep as a cell ({floor.cell_m} m)"
                )
            self._cells.append(cells)

    def act(self, walkers: Walkers) -> None:
        """Close and open what is due at the walkers' time."""
        before = list(self.state)
        now = walkers.time_s + 1e-9
        for k, door in enumerate(self.doors):
            due = door.closes_s <= now < door.opens_s
            if not due:
                self.state[k] = OPEN
            elif self.state[k] == OPEN:
                self.state[k] = CLOSING
            if self.state[k] == CLOSING and self._is_clear(walkers, door):
                self.state[k] = SHUT
        if self.state != before:
            walkers.change_floor(self.floor())

    def restore(self, walkers: Walkers, state: Sequence[int]) -> None:
        """Bring doors and the walkers' floor to this state, before the walkers resume."""
        self.state = list(state)
        walkers.change_floor(self.floor())

    def _is_clear(self, walkers: Walkers, door: Door) -> bool:
        r = walkers.rows
        rows = np.flatnonzero(r["level"] == door.level)
        points = shapely.points(r["x"][rows], r["y"][rows])
        return not bool((shapely.distance(points, door.area) < r["radius"][rows]).any())

    def floor(self) -> Floor:
        """The floor as the doors stand now: nobody walks into a door that closes, and a shut one is walled in."""
        floor = self._open
        shut = [k for k, state in enumerate(self.state) if state == SHUT]
        if shut:
            corners = [shapely.get_coordinates(shapely.get_exterior_ring(self.doors[k].area)) for k in shut]
            new = np.concatenate([np.concatenate([c[:-1], c[1:]], axis=1) for c in corners])
            walls = np.ascontiguousarray(np.concatenate([floor.walls, new]))
            level = np.concatenate([floor.wall_level, np.repeat([self.doors[k].level for k in shut], [len(c) - 1 for c in corners])]).astype(np.int32)
            start, item = ground_kernels.list_walls(
                walls, level, floor.x0, floor.y0, floor.cell_m, floor.nx, floor.ny, floor.levels, max(1.0, 1.5 * floor.cell_m)
            )
            links, clearance = ground_kernels.link_cells(floor.raster, floor.cid, floor.x, floor.y, floor.nx, floor.ny, walls, start, item)
            floor = replace(floor, walls=walls, wall_level=level, near_start=start, near_item=item, links=links, clearance=clearance)
        links = floor.links.copy()
        for k, state in enumerate(self.state):
            if state == CLOSING:
                _way_out_only(floor, self._cells[k], links)
        return replace(floor, links=links, spare=floor_kernels.open_steps(floor.raster, floor.cid, links, floor.clearance, floor.nx, floor.ny))


def _way_out_only(floor: Floor, cells: npt.NDArray[np.int32], links: npt.NDArray[np.uint8]) -> None:
    """Ways are found from the goal backwards over the links of the cell one comes to: without those from a door to beside it, no way leads in."""
    own = set(cells.tolist())
    for c in cells.tolist():
        for d in range(8):
            at = int(floor.raster[c]) + int(DY[d]) * floor.nx + int(DX[d])
            if not (0 <= at < len(floor.cid)) or int(floor.cid[at]) not in own:
                links[c] &= np.uint8(~(1 << d) & 255)

"""Where it is crowded, and what people make of it: trails of others' wishes, standing crowds, and the ways around them.

Owns the trails, the measure of standing, and the slow renewal of the fields under it: every RENEW_TICKS one field that people follow is solved again with
crowded cells made dear, so that word of a jam spreads over a minute. It never moves anybody.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.clock import TICK_S, ticks
from simulation import kernels
from simulation.agents import WALKING, Agents
from simulation.ground import CELL_M
from simulation.navigation import Ways

RENEW_TICKS: Final = 10
RENEW_CELLS: Final = 250_000
"""Levels with more free cells (0.04 km2) keep their fields: solving one would hold up a tick, and open ground leaves room to step aside."""
MEASURE_TICKS: Final = ticks(5.0)
MEMORY_S: Final = 10.0
"""Standing crowds are remembered by an exponential mean over this time."""
DEAR: Final = 6
"""Steps over ground with a standing person on each block (0.64 m2) cost this many times as much."""


class Crowding:
    """Trails and standing crowds over blocks of two by two raster cells."""

    def __init__(self, ways: Ways) -> None:
        ground = ways.ground
        self._ways = ways
        self._cols, self._rows = (ground.nx + 1) // 2, (ground.ny + 1) // 2
        blocks = ground.levels * self._cols * self._rows
        self._trail_x, self._trail_y = np.zeros(blocks, np.float32), np.zeros(blocks, np.float32)
        self._standing = np.zeros(blocks, np.float32)
        g = ground.raster.astype(np.int64)
        level, row, col = g // (ground.nx * ground.ny), g // ground.nx % ground.ny, g % ground.nx
        self._block: npt.NDArray[np.int64] = (level * self._rows + row // 2) * self._cols + col // 2
        self._next = 0
        self._small = np.diff(ground.first) <= RENEW_CELLS
        self._dirty = np.zeros(len(ways.field_level), np.bool_)

    def steer(self, agents: Agents) -> None:
        """Turn the wishes of those on the way towards trails in their direction, and leave trails."""
        a, ground, ways = agents, self._ways.ground, self._ways
        kernels.follow_trails(
            a.x, a.y, a.level, a.mode, a.cell, a.field, ways.shift, ways.distance, a.wish_x, a.wish_y,
            self._trail_x, self._trail_y, math.exp(-TICK_S / kernels.TRAIL_S), ground.x0, ground.y0, CELL_M, ground.nx, ground.ny, ground.cid,
        )  # fmt: skip

    def renew(self, agents: Agents, tick: int) -> None:
        """Measure standing crowds, and renew a field when its turn has come."""
        if not self._small.any():
            return
        if tick % MEASURE_TICKS == 0:
            rows = np.flatnonzero((agents.mode == WALKING) & (agents.slow_s > 0.5))
            here = np.bincount(self._block[agents.cell[rows]], minlength=len(self._standing))
            self._standing += np.float32(MEASURE_TICKS * TICK_S / MEMORY_S) * (here.astype(np.float32) - self._standing)
            load: npt.NDArray[np.int32] = 1 + np.minimum(DEAR - 1, ((DEAR - 1) * self._standing[self._block]).astype(np.int32))
            self._ways.feel(load.astype(np.int32))
        if tick % RENEW_TICKS == 0:
            self._renew_next(agents)

    def _renew_next(self, agents: Agents) -> None:
        """Solve the next field in turn that somebody follows, if its level is crowded or was when it was solved last."""
        ways = self._ways
        used = np.bincount(agents.field[agents.mode == WALKING], minlength=len(ways.field_level)) > 0
        due = np.flatnonzero(used & ways.solved & self._small[ways.field_level] & (ways.crowded[ways.field_level] | self._dirty))
        if len(due):
            field = int(due[np.searchsorted(due, self._next) % len(due)])
            self._next = field + 1
            self._dirty[field] = ways.crowded[ways.field_level[field]]
            ways.solved[field] = False
            ways.solve(field)

"""Where people have spent their time, level by level: person-seconds in square cells, sampled once a second of venue time.

Owns the rasters. Volatile: a host that restarts begins anew, and says since when it has counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from actors.crowd_state import CrowdState
from esplanade.core.clock import TICK_S
from spatial.venue import Venue

CELL_M: Final = 4.0
MAX_COLUMNS: Final = 1_000
SAMPLED_TICKS: Final = 10


@dataclass(frozen=True, slots=True)
class Raster:
    """The cells of a level: corner and size in metres."""

    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int

    @classmethod
    def of(cls, venue: Venue, level: int) -> Raster:
        points = np.array([point for polygon in venue.levels[level].outline for point in polygon[0]])
        (x0_m, y0_m), (x1_m, y1_m) = points.min(axis=0), points.max(axis=0)
        cell_m = max(CELL_M, (x1_m - x0_m) / MAX_COLUMNS, (y1_m - y0_m) / MAX_COLUMNS)
        return cls(float(x0_m), float(y0_m), float(cell_m), int((x1_m - x0_m) // cell_m) + 1, int((y1_m - y0_m) // cell_m) + 1)

    def cells(self, x_m: npt.NDArray[np.float32], y_m: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The cell of each point, row by row; those outside take the nearest."""
        col = np.clip(((x_m - self.x0_m) / self.cell_m).astype(np.int64), 0, self.cols - 1)
        row = np.clip(((y_m - self.y0_m) / self.cell_m).astype(np.int64), 0, self.rows - 1)
        return row * self.cols + col


class Heat:
    """Of one venue. `since_tick`: the first tick that was sampled; -1 before."""

    def __init__(self, venue: Venue) -> None:
        self.rasters = [Raster.of(venue, level) for level in range(len(venue.levels))]
        self.person_s = [np.zeros(raster.cols * raster.rows) for raster in self.rasters]
        self.since_tick = -1

    def sample(self, tick: int, crowd: CrowdState) -> None:
        """Take the crowd at the close of a tick; only every SAMPLED_TICKS-th counts."""
        if tick % SAMPLED_TICKS:
            return
        if self.since_tick < 0:
            self.since_tick = tick
        n = crowd.count
        here = np.flatnonzero(crowd.present[:n] & np.isfinite(crowd.x_m[:n]) & np.isfinite(crowd.y_m[:n]))
        for level, raster in enumerate(self.rasters):
            at = here[crowd.level[here] == level]
            cells = raster.cells(crowd.x_m[at], crowd.y_m[at])
            self.person_s[level] += np.bincount(cells, minlength=len(self.person_s[level])) * (SAMPLED_TICKS * TICK_S)

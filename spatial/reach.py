"""How long the walk to a place takes from anywhere in a venue, looked up instead of looked for.

Owns a field of seconds on a grid of REACH_CELL_M, made once by the router for each place under what is closed; a person takes the seconds of the sample nearest to
them on their level. So an answer is off by what the walk across a cell takes (3 s), and people cost a look into a raster, those near walls a query of a k-d tree.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from spatial.routes import Points
from spatial.routing import Router

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

REACH_CELL_M: Final = 4.0
NEAR_M: Final = 6.0
"""Who is farther than this from every sample is off the ground: nobody knows a way from there."""


class ReachField:
    """Of one router. Places are added as they are asked for; many at once cost little more than one."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._points = router.samples(REACH_CELL_M)
        self._seconds: dict[str, F8] = {}
        self._levels = {int(level): _Level.of(np.flatnonzero(self._points.level == level), self._points) for level in np.unique(self._points.level)}

    @property
    def places(self) -> Set[str]:
        """Whose seconds are at hand."""
        return self._seconds.keys()

    def prepare(self, places: Sequence[str]) -> None:
        """Have the seconds to these places at hand. Raises NotFound for one that is no place of the venue."""
        missing = sorted(set(places) - self._seconds.keys())
        if missing:
            self.take(self.seconds_to(missing))

    def seconds_to(self, places: Sequence[str]) -> dict[str, F8]:
        """Seconds from every sample to each of these places; changes nothing, so that another thread may ask. Raises NotFound."""
        table = self._router.matrix(self._points, list(places))
        return {place: table[:, k] for k, place in enumerate(places)}

    def take(self, seconds: dict[str, F8]) -> None:
        """Have at hand what `seconds_to` of this field answered."""
        self._seconds.update(seconds)

    def nearest(self, level: npt.NDArray[np.integer], x_m: F8, y_m: F8) -> I8:
        """(n,) the sample nearest to each point on its level; -1 where none is within NEAR_M, and for points that are not finite."""
        out = np.full(len(level), -1, np.int64)
        for each, grid in self._levels.items():
            here = np.flatnonzero((level == each) & np.isfinite(x_m) & np.isfinite(y_m))
            if len(here):
                out[here] = grid.nearest(x_m[here], y_m[here])
        return out

    def seconds_from(self, place: str, sample: I8) -> F8:
        """(n,) seconds to a place from samples; inf where no way leads there, or there is no sample."""
        self.prepare([place])
        return np.where(sample >= 0, self._seconds[place][sample], np.inf)

    def seconds(self, place: str, level: npt.NDArray[np.integer], x_m: F8, y_m: F8) -> F8:
        """(n,) seconds to a place from points on levels; inf where no way leads there. Points that are not finite have none."""
        return self.seconds_from(place, self.nearest(level, x_m, y_m))


@dataclass(frozen=True, slots=True)
class _Level:
    """The samples of one level: a raster of their numbers (-1: none there), corner of its first cell's middle, and a tree for points whose own cell has none."""

    x_m: float
    y_m: float
    number: I8
    rows: I8
    tree: cKDTree

    @classmethod
    def of(cls, rows: I8, points: Points) -> _Level:
        x_m, y_m = points.x_m[rows], points.y_m[rows]
        column, row = (np.rint((at - at.min()) / REACH_CELL_M).astype(np.int64) for at in (x_m, y_m))
        number = np.full((int(row.max()) + 1, int(column.max()) + 1), -1, np.int64)
        number[row, column] = rows
        return cls(float(x_m.min()), float(y_m.min()), number, rows, cKDTree(np.column_stack([x_m, y_m])))

    def nearest(self, x_m: F8, y_m: F8) -> I8:
        column = np.rint(np.clip((x_m - self.x_m) / REACH_CELL_M, -1, self.number.shape[1])).astype(np.int64)
        row = np.rint(np.clip((y_m - self.y_m) / REACH_CELL_M, -1, self.number.shape[0])).astype(np.int64)
        within = (column >= 0) & (row >= 0) & (column < self.number.shape[1]) & (row < self.number.shape[0])
        out = np.full(len(x_m), -1, np.int64)
        out[within] = self.number[row[within], column[within]]
        others = np.flatnonzero(out < 0)
        if len(others):
            away, sample = (np.asarray(found) for found in self.tree.query(np.column_stack([x_m[others], y_m[others]]), distance_upper_bound=NEAR_M))
            known = np.isfinite(away)
            out[others[known]] = self.rows[sample[known]]
        return out

"""How long the walk to a place takes from anywhere in a venue, looked up instead of looked for.

Owns a field of seconds on a grid of REACH_CELL_M, made once by the router for each place under what is closed; a person takes the seconds of the sample nearest to
them on their level. So an answer is off by what the walk across a cell takes (3 s), and 20,000 people cost one query of a k-d tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from spatial.routing import Router

F8 = npt.NDArray[np.float64]

REACH_CELL_M: Final = 4.0
NEAR_M: Final = 6.0
"""Who is farther than this from every sample is off the ground: nobody knows a way from there."""


class ReachField:
    """Of one router. Places are added as they are asked for; many at once cost little more than one."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._points = router.samples(REACH_CELL_M)
        self._seconds: dict[str, F8] = {}
        self._trees: dict[int, tuple[npt.NDArray[np.intp], cKDTree]] = {}
        for level in np.unique(self._points.level).tolist():
            rows = np.flatnonzero(self._points.level == level)
            self._trees[level] = rows, cKDTree(np.column_stack([self._points.x_m[rows], self._points.y_m[rows]]))

    def prepare(self, places: Sequence[str]) -> None:
        """Have the seconds to these places at hand. Raises NotFound for one that is no place of the venue."""
        missing = sorted(set(places) - self._seconds.keys())
        if missing:
            table = self._router.matrix(self._points, missing)
            self._seconds.update((place, table[:, k]) for k, place in enumerate(missing))

    def seconds(self, place: str, level: npt.NDArray[np.integer], x_m: F8, y_m: F8) -> F8:
        """(n,) seconds to a place from points on levels; inf where no way leads there. Points that are not finite have none."""
        self.prepare([place])
        out = np.full(len(level), np.inf)
        for each, (rows, tree) in self._trees.items():
            here = np.flatnonzero((level == each) & np.isfinite(x_m) & np.isfinite(y_m))
            if len(here):
                away, sample = (np.asarray(column) for column in tree.query(np.column_stack([x_m[here], y_m[here]]), distance_upper_bound=NEAR_M))
                known = np.isfinite(away)
                out[here[known]] = self._seconds[place][rows[sample[known]]]
        return out

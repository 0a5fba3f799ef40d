"""The stores nearest to a point, by straight distance on its level: a small index over a venue's occupants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esplanade.core.errors import InvalidInput
from spatial.plan import anchors
from spatial.venue import Venue


@dataclass(frozen=True, slots=True)
class NearStore:
    """A store and its anchor (`spatial.plan.anchor_of`), metres, venue frame; `level` indexes `Venue.levels`."""

    unit_id: str
    name: str
    category: str
    level: int
    x_m: float
    y_m: float
    distance_m: float


class StoreIndex:
    """Every unit that has an occupant. A venue has hundreds of them, so a query looks at all of its level."""

    def __init__(self, venue: Venue) -> None:
        self._occupants = venue.occupants
        place = anchors(venue, [occupant.unit_id for occupant in venue.occupants])
        self._level = np.array([level for level, _, _ in place], np.int64)
        self._xy = np.array([(x, y) for _, x, y in place], np.float64).reshape(-1, 2)
        self._n_levels = len(venue.levels)

    def nearest(self, level: int, x_m: float, y_m: float, k: int) -> list[NearStore]:
        """At most k stores of the level, the nearest first (ties in the venue's order). Raises InvalidInput for no such level, k below 1, a point not finite."""
        if not (0 <= level < self._n_levels and k >= 1 and np.isfinite([x_m, y_m]).all()):
            raise InvalidInput(
                f"nearest(level={level}, x={x_m}, y={y_m}, k={k}): level must be 0 to {self._n_levels - 1}, k 1 or more, the point finite"
            )
        rows = np.flatnonzero(self._level == level)
        away = np.hypot(*(self._xy[rows] - [x_m, y_m]).T)
        return [
            NearStore(
                unit_id=self._occupants[i].unit_id, name=self._occupants[i].name, category=self._occupants[i].category,
                level=level, x_m=float(self._xy[i, 0]), y_m=float(self._xy[i, 1]), distance_m=float(d),
            )
            for i, d in sorted(zip(rows.tolist(), away.tolist(), strict=True), key=lambda pair: pair[1])[:k]
        ]  # fmt: skip

"""Where people go: entrances, shops to walk into, counters to stand at, zones in front of stages, and the ground in front of a pulled shop.

Owns the list of places with their standing spots, capacities and weights, derived from venue, demand and ground. It knows no agents and no routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput
from simulation.demand import Demand
from simulation.ground import CELL_M, Ground
from spatial.plan import anchors, shape
from spatial.venue import Venue

ENTRANCE: Final = 0
SHOP: Final = 1  # walked into
COUNTER: Final = 2  # a solid unit, visited from outside
ZONE: Final = 3
FRONT: Final = 4  # waiting ground in front of a shop that a flash sale pulls to

SHOP_PER_M2: Final = 1.0
"""People in a shop, or on their way to it, per m2 at most: the rest choose another."""
COUNTER_M: Final = 4.0
ZONE_PER_M2: Final = 3.0
FRONT_M: Final = (2.0, 15.0)


@dataclass(frozen=True, slots=True)
class Places:
    """p places. kind: (p,). unit: (p,) index into `venue.units` or -1. level: (p,). anchor: (p,) the cell that distances are measured to.

    weight: (p,) popularity, 0 for places that itineraries do not choose. capacity: (p,) people at most. spots: cells to stand on, those of place i
    at spots[start[i]:start[i + 1]]. name: (p,) ids. of: (p,) for FRONT the place in whose front it lies, else -1. without_ground: ids of what asked
    for a place and has no ground to stand on.
    """

    kind: npt.NDArray[np.uint8]
    unit: npt.NDArray[np.int32]
    level: npt.NDArray[np.int32]
    anchor: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]
    capacity: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    spots: npt.NDArray[np.int32]
    name: tuple[str, ...]
    of: npt.NDArray[np.int32]
    without_ground: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.name)

    def spots_of(self, place: int) -> npt.NDArray[np.int32]:
        return self.spots[self.start[place] : self.start[place + 1]]


@dataclass(slots=True)
class _Row:
    kind: int
    name: str
    spots: npt.NDArray[np.int32]
    anchor: int
    weight: float
    capacity: int
    unit: int = -1
    of: int = -1


def find_places(venue: Venue, demand: Demand, ground: Ground) -> Places:
    """All places of a venue. Raises InvalidInput where no pedestrian entrance lies on free ground, no place can be visited, or a pull names no shop."""
    rows: list[_Row] = []
    lost: list[str] = []
    for entrance in venue.entrances:
        if entrance.kind == "pedestrian":
            cells = ground.near(venue.level_index(entrance.level_id), entrance.point, 5.0)
            cells = cells[ground.unit[cells] < 0]
            if len(cells):
                spots = ground.around(int(cells[0]), 3.0)
                rows.append(_Row(ENTRANCE, entrance.id, spots, int(cells[0]), 0.0, 1_000_000))
            else:
                lost.append(entrance.id)
    if not rows:
        raise InvalidInput(f"venue {venue.id}: no pedestrian entrance lies within 5 m of free ground; people could not come in, add an entrance")
    popularity: dict[str, float] = {}
    for occupant in venue.occupants:
        popularity[occupant.unit_id] = popularity.get(occupant.unit_id, 0.0) + occupant.popularity
    pulled = {pull.unit_id for pull in demand.pulls}
    index = {unit.id: i for i, unit in enumerate(venue.units)}
    for missing in sorted(pulled - set(index)):
        raise InvalidInput(f"pull to unit {missing!r}: no unit of venue {venue.id} has this id; name one of its units")
    wanted = sorted(index[unit_id] for unit_id in set(popularity) | pulled)
    points = anchors(venue, [venue.units[i].id for i in wanted])
    by_unit = _cells_by_unit(ground)
    for i, point in zip(wanted, points, strict=True):
        unit = venue.units[i]
        weight = popularity.get(unit.id, 0.0)
        row = _unit_row(i, unit.id, weight, point, by_unit, ground)
        if row is None:
            lost.append(unit.id)
        elif weight > 0 or unit.id in pulled:
            rows.append(row)
    rows += _zone_rows(venue, ground, sum(row.weight for row in rows), lost)
    if not any(row.weight > 0 for row in rows):
        raise InvalidInput(
            f"venue {venue.id}: nothing to visit: give units occupants with a popularity above 0, and openings or free ground beside them"
        )
    for place in [k for k, row in enumerate(rows) if row.unit >= 0 and venue.units[row.unit].id in pulled]:
        row = rows[place]
        front = _front(row, ground)
        rows.append(_Row(FRONT, row.name, front, int(front[0]) if len(front) else row.anchor, 0.0, _people(front, SHOP_PER_M2), row.unit, place))
        if not len(front):
            rows.pop()
    return Places(
        np.array([row.kind for row in rows], np.uint8),
        np.array([row.unit for row in rows], np.int32),
        np.array([ground.level_of(row.anchor) for row in rows], np.int32),
        np.array([row.anchor for row in rows], np.int32),
        np.array([row.weight for row in rows], np.float64),
        np.array([row.capacity for row in rows], np.int32),
        np.concatenate([[0], np.cumsum([len(row.spots) for row in rows])]).astype(np.int64),
        np.concatenate([row.spots for row in rows]).astype(np.int32),
        tuple(row.name for row in rows),
        np.array([row.of for row in rows], np.int32),
        tuple(lost),
    )


def _people(cells: npt.NDArray[np.int32], per_m2: float) -> int:
    return max(1, int(len(cells) * CELL_M * CELL_M * per_m2))


def _cells_by_unit(ground: Ground) -> dict[int, npt.NDArray[np.int32]]:
    held = np.flatnonzero(ground.unit >= 0)
    held = held[np.argsort(ground.unit[held], kind="stable")]
    units, at = np.unique(ground.unit[held], return_index=True)
    ends = [*at[1:].tolist(), len(held)]
    return {int(unit): held[lo:hi].astype(np.int32) for unit, lo, hi in zip(units, at, ends, strict=False)}


def _unit_row(
    i: int, name: str, weight: float, point: tuple[int, float, float], by_unit: dict[int, npt.NDArray[np.int32]], ground: Ground
) -> _Row | None:
    level, x, y = point
    inside = by_unit.get(i)
    if inside is not None:
        spots = inside[(ground.clearance[inside] >= 0.25) & (ground.room[inside] >= 0)]
        if not len(spots):
            spots = inside[ground.clearance[inside] >= 0.15]
        if not len(spots):
            return None
        anchor = spots[np.argmin((ground.x[spots] - x) ** 2 + (ground.y[spots] - y) ** 2)]
        return _Row(SHOP, name, spots, int(anchor), weight, _people(inside, SHOP_PER_M2), i)
    cells = ground.near(level, (x, y), 15.0)
    cells = cells[(ground.unit[cells] < 0) & (ground.clearance[cells] >= 0.25)]
    if not len(cells):
        return None
    spots = ground.around(int(cells[0]), COUNTER_M, gap_m=0.25)
    return _Row(COUNTER, name, spots, int(cells[0]), weight, _people(spots, SHOP_PER_M2), i)


def _zone_rows(venue: Venue, ground: Ground, weight: float, lost: list[str]) -> list[_Row]:
    """Zones in front of stages; at a festival together as popular as all units, by area."""
    rows: list[_Row] = []
    for zone in venue.zones:
        if zone.category != "stage_front":
            continue
        level = venue.level_index(zone.level_id)
        lo, hi = int(ground.first[level]), int(ground.first[level + 1])
        polygon = shape(zone.polygon)
        shapely.prepare(polygon)
        cells = (np.flatnonzero(shapely.contains_xy(polygon, ground.x[lo:hi], ground.y[lo:hi])) + lo).astype(np.int32)
        cells = cells[(ground.unit[cells] < 0) & (ground.clearance[cells] >= 0.25)]
        if not len(cells):
            lost.append(zone.id)
            continue
        middle = polygon.representative_point()
        anchor = cells[np.argmin((ground.x[cells] - middle.x) ** 2 + (ground.y[cells] - middle.y) ** 2)]
        rows.append(_Row(ZONE, zone.id, cells, int(anchor), float(len(cells)), _people(cells, ZONE_PER_M2)))
    total = sum(row.weight for row in rows)
    share = (weight or 1.0) if venue.kind == "festival" else 0.0
    for row in rows:
        row.weight = row.weight / total * share
    return rows


def _front(row: _Row, ground: Ground) -> npt.NDArray[np.int32]:
    """Open ground within FRONT_M of a shop's anchor, as the crow flies, where a queue may stand; nearest first."""
    level = ground.level_of(row.anchor)
    at = (float(ground.x[row.anchor]), float(ground.y[row.anchor]))
    cells = ground.near(level, at, FRONT_M[1])
    far = np.hypot(ground.x[cells] - at[0], ground.y[cells] - at[1]) >= FRONT_M[0]
    keep: npt.NDArray[np.bool_] = far & (ground.unit[cells] < 0) & (ground.clearance[cells] >= 0.3) & (ground.room[cells] == 0)
    return cells[keep]

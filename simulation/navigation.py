"""Ways through a venue: a field of walking directions for each place and each connector stop, and the graph of connectors between levels.

Owns the fields (computed on first use and kept; their number is bounded by places and stops, their memory by MAX_FIELD_BYTES) and the choice of the
next leg. It never moves anybody and draws no chance. Distances are metres of walking; a second in a connector counts as WALK_MPS metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import LimitExceeded
from simulation import ground_kernels
from simulation.ground import CELL_M, Ground, open_steps
from simulation.places import ENTRANCE, Places
from spatial.venue import Connector, Venue

F8 = npt.NDArray[np.float64]

WALK_MPS: Final = 1.34
MAX_FIELD_BYTES: Final = 2 << 30
RELUCTANCE_M: Final = 20.0
"""A change of level is worth this way: people finish a floor before they take the next."""


@dataclass(frozen=True, slots=True)
class Service:
    """How a connector carries: seconds to wait, seconds a storey, seconds between two people stepping on in one direction."""

    wait_s: float
    storey_s: float
    every_s: float


SERVICE: Final[dict[str, Service]] = {
    # 0.5 m/s at 30 degrees: 5 m rise in 20 s; a step 1 m wide carries 6,000 persons/h (EN 115-1, annex on traffic: 1.67/s).
    "escalator": Service(0.0, 20.0, 0.6),
    # Weidmann 1993: about 0.61-0.69 m/s horizontally on stairs, 5 m rise = 9 m; about 0.85 persons/m/s, 1.5 m wide for one direction.
    "stairs": Service(0.0, 14.0, 0.8),
    "ramp": Service(0.0, 45.0, 0.5),
    # A cabin of 12 about once a minute, for both ways; who can take an escalator mostly does.
    "elevator": Service(50.0, 6.0, 5.0),
}


@dataclass(frozen=True, slots=True)
class Links:
    """l directed links of connectors. start, end: (l,) cells of the stops; seconds: (l,) inside; every_s: (l,) between two people; room_for: (l,) people
    inside at most; stop: (l,) number of the start's field among the stops. unlinked: ids of connectors whose stops lie on no free ground."""

    start: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    start_level: npt.NDArray[np.int32]
    end_level: npt.NDArray[np.int32]
    seconds: F8
    every_s: F8
    room_for: npt.NDArray[np.int32]
    stop: npt.NDArray[np.int32]
    stop_cells: npt.NDArray[np.int32]
    connector: tuple[str, ...]
    unlinked: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start)


def link_levels(venue: Venue, ground: Ground) -> Links:
    """The directed links of all public connectors: between neighbouring stops, and between all stops of a lift."""
    cells: list[int] = []
    number: dict[int, int] = {}
    rows: list[tuple[int, int, float, float, int, str]] = []
    unlinked: list[str] = []
    for connector in venue.connectors:
        if connector.access != "public":
            continue
        stops = [_stop_cell(ground, venue.level_index(stop.level_id), stop.point) for stop in connector.stops]
        found = [(k, cell) for k, cell in enumerate(stops) if cell is not None]
        if len(found) < len(stops):
            unlinked.append(connector.id)
        for i, (ka, a) in enumerate(found):
            for j, (kb, b) in enumerate(found):
                if i == j or not _runs(connector, i, j):
                    continue
                service = SERVICE[connector.kind]
                storeys = abs(venue.level_index(connector.stops[ka].level_id) - venue.level_index(connector.stops[kb].level_id))
                seconds = service.wait_s + service.storey_s * max(1, storeys)
                rows.append((a, b, seconds, service.every_s, 12 + int(seconds / service.every_s), connector.id))
                for cell in (a, b):
                    if cell not in number:
                        number[cell] = len(cells)
                        cells.append(cell)
    start = np.array([row[0] for row in rows], np.int32)
    end = np.array([row[1] for row in rows], np.int32)
    return Links(
        start, end,
        np.array([ground.level_of(cell) for cell in start.tolist()], np.int32),
        np.array([ground.level_of(cell) for cell in end.tolist()], np.int32),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.int32),
        np.array([number[cell] for cell in start.tolist()], np.int32),
        np.array(cells, np.int32), tuple(row[5] for row in rows), tuple(unlinked),
    )  # fmt: skip


def _stop_cell(ground: Ground, level: int, point: tuple[float, float]) -> int | None:
    cells = ground.near(level, point, 2.5)
    cells = cells[ground.unit[cells] < 0]
    return int(cells[0]) if len(cells) else None


def _runs(connector: Connector, i: int, j: int) -> bool:
    """Whether the connector carries people from its stop i straight to its stop j."""
    if connector.kind != "elevator" and abs(i - j) != 1:
        return False
    return connector.direction == "both" or (connector.direction == "forward") == (j > i)


class Ways:
    """Fields and routes of one venue. Field k < p belongs to place k, field p + s to stop s."""

    def __init__(self, ground: Ground, places: Places, links: Links) -> None:
        self.ground, self.places, self.links = ground, places, links
        levels = np.concatenate([places.level, [ground.level_of(int(cell)) for cell in links.stop_cells]]).astype(np.int64)
        sizes = (ground.first[1:] - ground.first[:-1]).astype(np.int64)[levels]
        offset: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if int(offset[-1]) * 3 > MAX_FIELD_BYTES:
            raise LimitExceeded(
                f"{len(levels)} fields of walking directions need {int(offset[-1]) * 3 >> 20} MiB; at most {MAX_FIELD_BYTES >> 20}, cut the venue into parts"
            )
        self.field_level = levels.astype(np.int32)
        self.shift: npt.NDArray[np.int64] = offset[:-1] - ground.first[levels]
        # Untouched pages of these cost nothing: a field takes memory when it is solved.
        self.distance: npt.NDArray[np.uint16] = np.zeros(int(offset[-1]), np.uint16)
        self.angle: npt.NDArray[np.uint8] = np.zeros(int(offset[-1]), np.uint8)
        self.solved = np.zeros(len(levels), np.bool_)
        self._load: npt.NDArray[np.int32] = np.ones(len(ground.x), np.int32)
        self._clearance, self._spare = ground.clearance, ground.spare
        self.crowded: npt.NDArray[np.bool_] = np.zeros(ground.levels, np.bool_)
        self._rows: dict[int, F8] = {}
        self._plan_links()

    def solve(self, field: int) -> None:
        """Compute a field unless it is there."""
        if self.solved[field]:
            return
        ground = self.ground
        level = int(self.field_level[field])
        lo, hi = int(ground.first[level]), int(ground.first[level + 1])
        if field >= len(self.places):
            seeds = self.links.stop_cells[field - len(self.places) : field - len(self.places) + 1]
        elif self.places.kind[field] == ENTRANCE:
            seeds = self.places.anchor[field : field + 1]
        else:
            seeds = self.places.spots_of(field)
        distance, angle = ground_kernels.solve_field(
            lo, hi, seeds, ground.raster, ground.cid, ground.links, self._clearance, self._spare, self._load, ground.nx, CELL_M
        )
        at = int(self.shift[field]) + lo
        self.distance[at : at + hi - lo] = distance
        self.angle[at : at + hi - lo] = angle
        self.solved[field] = True

    def feel(self, load: npt.NDArray[np.int32]) -> None:
        """From now on fields are solved with steps onto cell c `load[c]` times as dear (1 to 16); nobody aims across cells with a load above 1."""
        ground = self.ground
        busy = load > 1
        self._load = load
        self.crowded = np.array([busy[lo:hi].any() for lo, hi in pairwise(ground.first.tolist())], np.bool_)
        self._clearance = np.where(busy, np.float32(0.2), ground.clearance).astype(np.float32)
        self._spare = open_steps(ground, self._clearance, ground.spare, np.flatnonzero(self.crowded))

    def metres(self, field: int, cells: npt.NDArray[np.int32] | int) -> F8:
        """Walking distance from cells of the field's level to its goal; inf where there is no way on foot."""
        self.solve(field)
        raw = self.distance[self.shift[field] + np.atleast_1d(cells).astype(np.int64)]
        return np.where(raw == ground_kernels.FAR, np.inf, raw * 0.1)

    def _plan_links(self) -> None:
        """cost: (l,) metres of each link. onward: (l, p) metres from the end of link l to place p, by whatever follows."""
        links, places, ground = self.links, self.places, self.ground
        n, p = len(links), len(places)
        self.cost: F8 = links.seconds * WALK_MPS + RELUCTANCE_M
        stop_of = {int(cell): s for s, cell in enumerate(links.stop_cells)}
        after = np.full((n, n), np.inf)
        direct = np.full((n, p), np.inf)
        for k in range(n):
            field = p + stop_of[int(links.end[k])]
            level = int(links.end_level[k])
            same = np.flatnonzero(links.start_level == level)
            after[k, same] = self.metres(field, links.start[same]) + self.cost[same]
            here = np.flatnonzero(places.level == level)
            direct[k, here] = self.metres(field, places.anchor[here])
            after[k, k] = 0.0
        for k in range(n):
            np.minimum(after, after[:, k, None] + after[None, k, :], out=after)
        self.onward: F8 = np.full((n, p), np.inf)
        for k in range(n):
            np.minimum(self.onward, after[:, k, None] + direct[None, k, :], out=self.onward)
        self.links_from = [np.flatnonzero(links.start_level == level) for level in range(ground.levels)]

    def from_cell(self, cell: int, place: int, *, delay_m: F8) -> tuple[int, int, float]:
        """(field, link, metres): the next leg from a cell to a place: the place's field and link -1, or a stop's field and the link to take there.

        delay_m: (l,) metres to add for queues. (-1, -1, inf) where there is no way.
        """
        level = self.ground.level_of(cell)
        if self.places.level[place] == level:
            d = float(self.metres(place, cell)[0])
            if d < math.inf:
                return place, -1, d
        near = self.links_from[level]
        if not len(near):
            return -1, -1, math.inf
        base = len(self.places)
        fields = base + self.links.stop[near]
        for field in fields[~self.solved[fields]]:
            self.solve(int(field))
        raw = self.distance[self.shift[fields] + cell]
        total = np.where(raw == ground_kernels.FAR, np.inf, raw * 0.1) + self.cost[near] + delay_m[near] + self.onward[near, place]
        best = int(np.argmin(total))
        if not total[best] < np.inf:
            return -1, -1, math.inf
        return int(fields[best]), int(near[best]), float(total[best])

    def from_place(self, place: int) -> F8:
        """(p,) metres from a place to every place, kept after the first time."""
        row = self._rows.get(place)
        if row is None:
            places, links = self.places, self.links
            row = np.full(len(places), np.inf)
            here = np.flatnonzero(places.level == places.level[place])
            row[here] = self.metres(place, places.anchor[here])
            near = self.links_from[int(places.level[place])]
            if len(near):
                away = self.metres(place, links.start[near]) + self.cost[near]
                np.minimum(row, (away[:, None] + self.onward[near]).min(axis=0), out=row)
            row[place] = 0.0
            self._rows[place] = row
        return row

    def to_place(self, place: int, cells: npt.NDArray[np.int32], levels: npt.NDArray[np.uint8]) -> F8:
        """(n,) metres from each agent's cell to one place."""
        total = np.full(len(cells), np.inf)
        mine = levels == self.places.level[place]
        total[mine] = self.metres(place, cells[mine])
        for level in range(self.ground.levels):
            rows = np.flatnonzero(levels == level)
            for k in self.links_from[level].tolist():
                if len(rows) and self.onward[k, place] < np.inf:
                    way = self.metres(len(self.places) + int(self.links.stop[k]), cells[rows]) + self.cost[k] + self.onward[k, place]
                    total[rows] = np.minimum(total[rows], way)
        return total

    def open_places(self) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
        """(p,) places that can be reached from an entrance and left again; and the names of the others. Walking is as far one way as the other."""
        doors = np.flatnonzero(self.places.kind == ENTRANCE)
        into = np.min([self.from_place(int(door)) for door in doors], axis=0) < np.inf
        out = np.zeros(len(self.places), np.bool_)
        home = self.onward[:, doors].min(axis=1, initial=np.inf) < np.inf
        for level in range(self.ground.levels):
            here = np.flatnonzero(self.places.level == level)
            anchors = self.places.anchor[here]
            for door in doors[self.places.level[doors] == level].tolist():
                out[here] |= self.metres(door, anchors) < np.inf
            for k in self.links_from[level].tolist():
                if home[k]:
                    out[here] |= self.metres(len(self.places) + int(self.links.stop[k]), anchors) < np.inf
        good = into & out
        return good, tuple(self.places.name[k] for k in np.flatnonzero(~good))

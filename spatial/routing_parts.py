"""The parts that a `Router` is put together from: the static network of a venue, a level's state, the matrix over all stops.

Owns their making. `spatial.routing` asks them; nothing here answers a question about a route.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import LimitExceeded
from spatial import routing_kernels as kernels
from spatial.live import Crowding, Live
from spatial.plan import OPEN_GROUND, ROOMS, LevelPlan, shape
from spatial.profiles import AVOID_M, AVOID_S, STOREY_M, WAYS, By, Profile, Way
from spatial.venue import Connector, Venue
from spatial.walk_graph import MAX_NODES, LevelGround, WalkGraph, level_ground, walk_graph

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

ACCESS_M: Final = 1.0
"""A solid unit is "reached" at the walkable point nearest to it, if that is within this of its outline."""

MAX_STOPS: Final = 3_000
"""Stops of a venue at most: the matrix over them takes their number cubed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a place meets people: xy (a, 2) on one level, and for each the opening's id that it goes through (None where there is none)."""

    level: int
    xy: F8
    opening: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """What never changes: ground and graph of each level, stops (k), links between them (l), places.

    stop_level (k,), stop_xy (k, 2), sorted by level; stops_of[level] their indices. link_from, link_to, link_way (index into WAYS), link_storeys,
    link_connector (index into Venue.connectors): (l,); link_run_m (l,) metres walked or ridden.
    """

    venue: Venue
    plans: tuple[LevelPlan, ...]
    grounds: tuple[LevelGround, ...]
    graphs: tuple[WalkGraph, ...]
    entries: dict[str, Entry]
    stop_level: I8
    stop_xy: F8
    stops_of: tuple[I8, ...]
    link_from: I8
    link_to: I8
    link_way: I8
    link_storeys: I8
    link_connector: I8
    link_run_m: F8
    crowd_graphs: dict[int, WalkGraph] = field(default_factory=dict)

    def crowd_graph(self, level: int) -> WalkGraph:
        """The level's graph with nodes on open ground too, made when a crowd first needs it."""
        if level not in self.crowd_graphs:
            self.crowd_graphs[level] = walk_graph(self.grounds[level], self.stop_xy[self.stops_of[level]], fillers=True)
        return self.crowd_graphs[level]


@dataclass(frozen=True, slots=True)
class Walking:
    """A level's graph with costs in metres: cost (2m,), and each stop's tree dist, parent (stops, nodes)."""

    graph: WalkGraph
    cost: F8
    dist: F8
    parent: I4

    def path(self, node: int, stop: int) -> F8:
        """Points (n, 2) from a node to the k-th stop, along its tree."""
        chain = [node]
        while self.parent[stop, chain[-1]] >= 0:
            chain.append(int(self.parent[stop, chain[-1]]))
        return np.asarray(self.graph.xy[chain])


@dataclass(frozen=True, slots=True)
class LevelField:
    """A level now: closed lines (c, 4), crowding, and walking on it, by length alone or with crowds."""

    closed: F8
    crowding: Crowding | None
    by_length: Walking
    by_time: Walking

    def walking(self, plain: bool) -> Walking:
        return self.by_length if plain else self.by_time

    def raster(self, plain: bool) -> tuple[F8, F8]:
        """(corner (3,), factor (rows, columns)) for the kernels; an empty factor is 1 everywhere."""
        if plain or self.crowding is None:
            return np.zeros(3), np.zeros((0, 0))
        return np.array([self.crowding.x0_m, self.crowding.y0_m, self.crowding.cell_m]), np.ascontiguousarray(self.crowding.factor)

    def factor(self, lines: F8, plain: bool) -> F8:
        """(n,) mean slowing along lines (n, 4)."""
        out = np.ones(len(lines))
        if not plain and self.crowding is not None:
            kernels.mean_factor(*self.raster(False), lines, out)
        return out


@dataclass(frozen=True, slots=True)
class StopTable:
    """Least costs between all stops for a profile: cost (k, k); hop (k, k) the first step of the way; link (k, k) the link that a direct step rides, or -1.

    blocks: the cost of stops of one level to stops of another, by the two levels.
    """

    cost: F8
    hop: I4
    link: I4
    blocks: dict[tuple[int, int], F8]
    ridden: tuple[I8, ...]

    def useful(self, a: int, b: int) -> tuple[tuple[I8, I8], F8]:
        """Positions of the stops of levels a and b at which this profile can leave or arrive, and the costs between those."""
        rows, columns = self.ridden[a], self.ridden[b]
        return (rows, columns), np.ascontiguousarray(self.blocks[a, b][np.ix_(rows, columns)])


def build_network(venue: Venue, plans: tuple[LevelPlan, ...]) -> Network:
    """Ground, graphs, stops, links and places of a venue. Raises LimitExceeded for more than MAX_NODES corners on a level or MAX_STOPS stops."""
    grounds = tuple(level_ground(plan) for plan in plans)
    for ground in grounds:
        if len(ground.corner) > MAX_NODES:
            raise LimitExceeded(
                f"level {venue.levels[ground.level].id} has {len(ground.corner)} corners; at most {MAX_NODES}, simplify the plan's outlines"
            )
    index = {level.id: i for i, level in enumerate(venue.levels)}
    stops = [(index[stop.level_id], c, s, stop.point) for c, connector in enumerate(venue.connectors) for s, stop in enumerate(connector.stops)]
    if len(stops) > MAX_STOPS:
        raise LimitExceeded(f"venue {venue.id} has {len(stops)} stops of connectors; at most {MAX_STOPS}")
    stops.sort(key=lambda row: row[:3])
    level = np.array([row[0] for row in stops], np.int64)
    xy = np.array([row[3] for row in stops], np.float64).reshape(-1, 2)
    stops_of = tuple(np.flatnonzero(level == i) for i in range(len(venue.levels)))
    for i, rows in enumerate(stops_of):
        xy[rows] = grounds[i].snap(xy[rows])[0] if not grounds[i].inner.is_empty else xy[rows]
    at = {(c, s): k for k, (_, c, s, _) in enumerate(stops)}
    links: list[tuple[int, int, int, int, int, float]] = []
    for c, connector in enumerate(venue.connectors):
        for s, t in _steps(connector):
            i, j = at[c, s], at[c, t]
            storeys = venue.levels[level[j]].ordinal - venue.levels[level[i]].ordinal
            way = WAYS.index(way_of(connector, storeys))
            links.append((i, j, way, abs(storeys), c, run_m(WAYS[way], abs(storeys), float(np.hypot(*(xy[j] - xy[i]))))))
    columns = np.array(links, np.float64).reshape(-1, 6)
    i_from, i_to, i_way, i_storeys, i_connector = (columns[:, k].astype(np.int64) for k in range(5))
    graphs = tuple(walk_graph(grounds[i], xy[rows]) for i, rows in enumerate(stops_of))
    entries = _entries(venue, plans, grounds)
    return Network(
        venue, plans, grounds, graphs, entries, level, xy, stops_of, i_from, i_to, i_way, i_storeys, i_connector, np.ascontiguousarray(columns[:, 5])
    )


def _steps(connector: Connector) -> list[tuple[int, int]]:
    """Ordered pairs of a connector's stops that one may go between without stepping off."""
    n = len(connector.stops)
    forward = [(s, t) for s in range(n) for t in range(s + 1, n)] if connector.direction != "backward" else []
    backward = [(t, s) for s in range(n) for t in range(s + 1, n)] if connector.direction != "forward" else []
    return forward + backward


def way_of(connector: Connector, storeys: int) -> Way:
    """The way type of going that many storeys (negative: down) on a connector."""
    match connector.kind:
        case "stairs":
            return "stairs_up" if storeys >= 0 else "stairs_down"
        case "escalator":
            return "escalator_up" if storeys >= 0 else "escalator_down"
        case "elevator":
            return "elevator"
        case "ramp":
            return "ramp"


def run_m(way: Way, storeys: int, flat_m: float) -> float:
    """Metres of a ride for "shortest": along the slope; straight up for a lift; a ramp of 1 in 12."""
    rise = storeys * STOREY_M
    if way == "elevator":
        return rise
    return float(np.hypot(max(flat_m, 12 * rise if way == "ramp" else 2 * rise), rise))


def _entries(venue: Venue, plans: tuple[LevelPlan, ...], grounds: tuple[LevelGround, ...]) -> dict[str, Entry]:
    index = {level.id: i for i, level in enumerate(venue.levels)}
    doors: dict[str, list[tuple[tuple[float, float], str | None]]] = defaultdict(list)
    for plan in plans:
        for gap in plan.gaps:
            doors[venue.units[gap.unit].id].append((gap.middle, venue.openings[gap.opening].id))
    for connector in venue.connectors:
        for stop in connector.stops:
            if stop.unit_id is not None:
                doors[stop.unit_id].append((stop.point, None))
    entries: dict[str, Entry] = {}
    for unit in venue.units:
        level = index[unit.level_id]
        ground = grounds[level]
        at = doors.get(unit.id, [])
        if not at and unit.category not in ROOMS and not ground.inner.is_empty:
            polygon = shapely.make_valid(shape(unit.polygon))
            front = polygon.representative_point() if unit.category in OPEN_GROUND else shapely.Point(*_front(polygon, ground))
            if ground.inner.distance(front) <= ACCESS_M and polygon.distance(front) <= ACCESS_M:
                at = [((front.x, front.y), None)]
        xy = np.array([point for point, _ in at], np.float64).reshape(-1, 2)
        entries[unit.id] = Entry(level, ground.snap(xy)[0] if len(xy) else xy, tuple(name for _, name in at))
    points = [(entrance.id, entrance.level_id, entrance.point) for entrance in venue.entrances]
    points += [(entrance.code, entrance.level_id, entrance.point) for entrance in venue.entrances]
    points += [(amenity.id, amenity.level_id, amenity.point) for amenity in venue.amenities]
    for name, level_id, point in points:
        if name not in entries:
            xy, moved = grounds[index[level_id]].snap(np.array([point], np.float64))
            entries[name] = Entry(index[level_id], xy if moved[0] <= 3 * ACCESS_M else xy[:0], (None,) if moved[0] <= 3 * ACCESS_M else ())
    return entries


def _front(polygon: shapely.geometry.base.BaseGeometry, ground: LevelGround) -> tuple[float, float]:
    """The walkable point nearest to a unit, on the largest piece of ground that comes within ACCESS_M, else the nearest anywhere."""
    pieces = [piece for piece in ground.inner.geoms if piece.distance(polygon) <= ACCESS_M]
    best = max(pieces, key=lambda piece: piece.area) if pieces else ground.inner
    line = shapely.get_coordinates(shapely.shortest_line(polygon, best))
    return float(line[1, 0]), float(line[1, 1])


def level_field(network: Network, level: int, closed: F8, crowding: Crowding | None) -> LevelField:
    """A level under closed lines (c, 4) and crowding; the costs and trees of both kinds of cost."""
    graph = network.graphs[level]
    by_length = _walking(graph, network, level, closed, None)
    if crowding is None:
        return LevelField(closed, None, by_length, by_length)
    return LevelField(closed, crowding, by_length, _walking(network.crowd_graph(level), network, level, closed, crowding))


def _walking(graph: WalkGraph, network: Network, level: int, closed: F8, crowding: Crowding | None) -> Walking:
    cost = graph.length.copy()
    if crowding is not None:
        factor = np.ones(len(cost))
        corner = np.array([crowding.x0_m, crowding.y0_m, crowding.cell_m])
        kernels.mean_factor(corner, np.ascontiguousarray(crowding.factor), graph.line, factor)
        cost *= factor
    if len(closed):
        cost[kernels.crossing(graph.line, closed)] = np.inf
    k, n = len(network.stops_of[level]), len(graph.xy)
    dist, parent = np.empty((k, n)), np.empty((k, n), np.int32)
    kernels.trees(graph.start, graph.node, cost, np.arange(k, dtype=np.int32), dist, parent)
    return Walking(graph, cost, dist, parent)


def stop_table(network: Network, fields: tuple[LevelField, ...], live: Live, profile: Profile, by: By) -> StopTable:
    """The matrix over all stops for a profile: walking on each level, open links between levels, closed under both."""
    k = len(network.stop_level)
    plain = by == "shortest"
    scale = 1.0 if plain else 1.0 / profile.speed_mps
    cost = np.full((k, k), np.inf)
    link = np.full((k, k), -1, np.int32)
    for level, rows in enumerate(network.stops_of):
        if len(rows):
            cost[np.ix_(rows, rows)] = fields[level].walking(plain).dist[:, : len(rows)] * scale
    np.fill_diagonal(cost, 0.0)
    used = np.zeros(k, np.bool_)
    for at in range(len(network.link_from)):
        connector = network.venue.connectors[network.link_connector[at]]
        way = WAYS[network.link_way[at]]
        rule = profile.rule(way)
        if rule == "forbid" or connector.id in live.closed_connectors or (connector.access == "staff" and not profile.staff):
            continue
        i, j = network.link_from[at], network.link_to[at]
        used[i] = used[j] = True
        if plain:
            through = float(network.link_run_m[at]) + (AVOID_M if rule == "avoid" else 0.0)
        else:
            through = profile.seconds(way, int(network.link_storeys[at]), live.wait_s.get(connector.id)) + (AVOID_S if rule == "avoid" else 0.0)
        if through < cost[i, j]:
            cost[i, j] = through
            link[i, j] = at
    hop = np.broadcast_to(np.arange(k, dtype=np.int32), (k, k)).copy()
    kernels.close_pairs(cost, hop)
    blocks = {(a, b): np.ascontiguousarray(cost[np.ix_(p, q)]) for a, p in enumerate(network.stops_of) for b, q in enumerate(network.stops_of)}
    ridden = tuple(np.flatnonzero(used[rows]) for rows in network.stops_of)
    return StopTable(cost, hop, link, blocks, ridden)

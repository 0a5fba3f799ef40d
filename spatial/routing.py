"""Shortest and fastest ways through a venue: walking on its levels, connectors between them, live changes on both.

Owns the graph over a whole venue and its answers. Geometry of one level is `spatial.walk_graph`'s, times and rules of connectors are
`spatial.profiles`', words are `spatial.directions`'. It never mends a plan: what the plan does not join stays apart, and the answer says so.

Two storeys of graph. On a level, a visibility graph gives exact walking distances; a shortest-path tree per stop (where a connector meets the
level) makes "from here to every stop" one pass over the nodes that a point sees. Above, all stops of the venue form one matrix per profile. So a route costs
microseconds however many levels it crosses, a closed lift costs a new matrix, and a closed door or a crowd new trees on its level only.

A `Router` is immutable. `with_live` makes the next generation, which shares all that did not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from spatial import routing_kernels as kernels
from spatial.live import Live
from spatial.plan import LevelPlan, level_plans
from spatial.profiles import WALKING, WAYS, By, Profile
from spatial.routes import At, Isochrone, Leg, NoRoute, Place, Points, Reason, Ride, Route, Walk
from spatial.routing_parts import Entry, LevelField, Network, StopTable, build_network, level_field, stop_table
from spatial.venue import Venue
from spatial.walk_graph import Attachments, attach

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

SNAP_M: Final = 3.0
"""A point this far from walkable ground is taken as standing on it; beyond, the answer is `off_ground`."""

MAX_PAIRS: Final = 16_000_000
"""Pairs in one matrix (128 MB); more is refused, ask in parts."""

MAX_TABLES: Final = 64
"""Stop matrices kept (profile and kind of cost); the oldest is dropped."""

MAX_SAMPLES: Final = 400_000
"""Sample points of an isochrone; more is refused, use larger cells."""

_NO_LINES: Final = np.zeros((0, 4))
_NOTHING: Final = np.zeros(0)


@dataclass(frozen=True, slots=True)
class _End:
    """A place in this generation: its accesses (rows of `joined`) on one level."""

    level: int
    joined: Attachments


class Router:
    """Ways through one venue at one moment. Make it with `Router.build`; change it with `with_live`."""

    def __init__(self, network: Network, fields: tuple[LevelField, ...], live: Live, base: Router | None) -> None:
        self._network = network
        self._fields = fields
        self._live = live
        self._base = base
        self._tables: dict[tuple[Profile, By], StopTable] = {}
        self._ends: dict[tuple[str, bool], _End] = {}
        self._sampled: dict[tuple[float, int], tuple[F8, Attachments]] = {}

    @classmethod
    def build(cls, venue: Venue, plans: Sequence[LevelPlan] | None = None) -> Router:
        """The router of a venue as planned (about a tenth of a second a level). Raises LimitExceeded for a level with too many corners."""
        network = build_network(venue, tuple(plans) if plans is not None else level_plans(venue))
        fields = tuple(level_field(network, level, _NO_LINES, None) for level in range(len(venue.levels)))
        return cls(network, fields, Live(), None)

    @property
    def venue(self) -> Venue:
        return self._network.venue

    @property
    def plans(self) -> tuple[LevelPlan, ...]:
        return self._network.plans

    @property
    def live(self) -> Live:
        return self._live

    @property
    def places(self) -> tuple[str, ...]:
        """Every id and code that `route` takes, reachable or not."""
        return tuple(self._network.entries)

    def access(self, place: str) -> tuple[At, ...]:
        """Where a place is entered or stood at, as planned; empty for a room without a usable opening. Raises NotFound."""
        entry = self._entry(place)
        return tuple(At(entry.level, float(x), float(y)) for x, y in entry.xy)

    def samples(self, cell_m: float) -> Points:
        """Middles of the square cells that lie on walkable ground. Raises LimitExceeded for cells too small."""
        found = [self._samples(level, cell_m)[0] for level in range(len(self._network.plans))]
        xy = np.concatenate(found)
        return Points(np.repeat(np.arange(len(found)), [len(at) for at in found]), xy[:, 0], xy[:, 1])

    def with_live(self, live: Live) -> Router:
        """The router of this venue under these live changes (which replace, not add to, earlier ones). Raises NotFound for an id not in the venue."""
        network = self._network
        base = self._base or self
        gaps = {network.venue.openings[gap.opening].id: (plan.level, gap) for plan in network.plans for gap in plan.gaps}
        openings = {opening.id for opening in network.venue.openings}
        connectors = {connector.id for connector in network.venue.connectors}
        for name in sorted(live.closed_openings - openings):
            raise NotFound(f"live: {name!r} is no opening of venue {network.venue.id}")
        for name in sorted((live.closed_connectors | live.wait_s.keys()) - connectors):
            raise NotFound(f"live: {name!r} is no connector of venue {network.venue.id}")
        lines: dict[int, list[tuple[float, ...]]] = {}
        for name in live.closed_openings & gaps.keys():
            level, gap = gaps[name]
            lines.setdefault(level, []).append((*gap.a, *gap.b))
        for level, *line in live.closed_lines:
            lines.setdefault(level, []).append(tuple(line))
        for level in sorted({*lines, *live.crowding} - set(range(len(network.plans)))):
            raise NotFound(f"live: level {level}; venue {network.venue.id} has levels 0 to {len(network.plans) - 1}")
        fields = tuple(
            level_field(network, level, np.array(sorted(lines[level])) if level in lines else _NO_LINES, live.crowding.get(level))
            if level in lines or level in live.crowding
            else base._fields[level]
            for level in range(len(network.plans))
        )
        return Router(network, fields, live, base)

    # -- one route

    def route(self, start: Place, goal: Place, *, profile: Profile = WALKING, by: By = "fastest") -> Route | NoRoute:
        """The best way from `start` to `goal`. A place with several openings is entered through the best one.

        Raises NotFound for an id that is no place, InvalidInput for a point that is not finite or on no level. That there is no way is an answer, not an error.
        """
        plain = by == "shortest"
        ends = self._end(start, plain), self._end(goal, plain)
        for end in ends:
            if isinstance(end, NoRoute):
                return end
        a, b = ends
        assert isinstance(a, _End)
        assert isinstance(b, _End)
        found = self._best(a, b, profile, by)
        return found if found is not None else self._why_not(start, goal, a, b, profile, by)

    def _best(self, a: _End, b: _End, profile: Profile, by: By) -> Route | None:
        scale = 1.0 if by == "shortest" else 1.0 / profile.speed_mps
        plain = by == "shortest"
        here, there = self._fields[a.level].walking(plain), self._fields[b.level].walking(plain)
        best, way = math.inf, _NO_POINTS
        if a.level == b.level:
            metres, way = self._across(a, b, plain)
            best = metres * scale
        table = self._table(profile, by)
        rows_a, rows_b = self._network.stops_of[a.level], self._network.stops_of[b.level]
        if len(rows_a) and len(rows_b):
            to_a, to_b = np.empty((len(a.joined.xy), len(rows_a))), np.empty((len(b.joined.xy), len(rows_b)))
            kernels.to_stops(a.joined.start, a.joined.node, self._weigh(a, plain), here.dist, to_a)
            kernels.to_stops(b.joined.start, b.joined.node, self._weigh(b, plain), there.dist, to_b)
            out, back = to_a.min(axis=0) * scale, to_b.min(axis=0) * scale
            cost, i, j = kernels.best_pair(out, table.blocks[a.level, b.level], back)
            if cost < best - 1e-9:
                walked = self._to_stop(a, int(to_a[:, i].argmin()), i, plain)
                last = self._to_stop(b, int(to_b[:, j].argmin()), j, plain)[::-1]
                return self._assemble(walked, int(rows_a[i]), int(rows_b[j]), last, table, profile, plain, cost)
        if not math.isfinite(best):
            return None
        leg = self._walk(a.level, way, profile, plain)
        return Route((leg,), leg.length_m, leg.seconds, best)

    def _across(self, a: _End, b: _End, plain: bool) -> tuple[float, F8]:
        """Cost in metres (crowds counted unless `plain`) and points of the best way between two ends of one level without leaving it."""
        field = self._fields[a.level]
        view = field.walking(plain)
        grid = self._network.grounds[a.level].grid
        best, way = math.inf, _NO_POINTS
        for row_a, row_b in np.ndindex(len(a.joined.xy), len(b.joined.xy)):
            p, q = a.joined.xy[row_a], b.joined.xy[row_b]
            line = np.concatenate([p, q])
            cost = float(np.hypot(*(q - p)) * field.factor(line[None], plain)[0])
            if cost < best and kernels.visible(grid, field.closed, *line):
                best, way = cost, np.array([p, q])
        n = len(view.graph.xy)
        weigh_a, weigh_b = self._weigh(a, plain), self._weigh(b, plain)
        dist, parent, goal = np.empty(n), np.empty(n, np.int32), np.full(n, np.inf)
        np.minimum.at(goal, b.joined.node, weigh_b)
        bound = np.hypot(*(view.graph.xy[:, :, None] - b.joined.xy.T[None]).transpose(1, 0, 2)).min(axis=1)
        through, last = kernels.search(view.graph.start, view.graph.node, view.cost, a.joined.node, weigh_a, goal, bound, dist, parent)
        if through < best:
            chain = [int(last)]
            while parent[chain[-1]] >= 0:
                chain.append(int(parent[chain[-1]]))
            first = view.graph.xy[chain[::-1]]
            from_a = a.joined.xy[_row_of(a.joined, chain[-1], weigh_a)]
            to_b = b.joined.xy[_row_of(b.joined, chain[0], weigh_b)]
            best, way = float(through), np.concatenate([from_a[None], first, to_b[None]])
        return best, way

    def _to_stop(self, end: _End, row: int, stop: int, plain: bool) -> F8:
        """Points from an end's access to the k-th stop of its level."""
        view = self._fields[end.level].walking(plain)
        span = slice(end.joined.start[row], end.joined.start[row + 1])
        nodes = end.joined.node[span]
        v = int(nodes[(self._weigh(end, plain)[span] + view.dist[stop, nodes]).argmin()])
        return np.concatenate([end.joined.xy[row : row + 1], view.path(v, stop)])

    def _assemble(self, first: F8, i: int, j: int, last: F8, table: StopTable, profile: Profile, plain: bool, cost: float) -> Route:
        """Legs of a way that leaves its level at stop i (of the venue) and arrives on the goal's level at stop j."""
        network = self._network
        legs: list[Leg] = []
        level, pending = int(network.stop_level[i]), first
        while i != j:
            step = int(table.hop[i, j])
            link = int(table.link[i, step])
            if link >= 0:
                if _length(pending) > 0:
                    legs.append(self._walk(level, pending, profile, plain))
                legs.append(self._ride(link, profile))
                level, pending = int(network.stop_level[step]), network.stop_xy[step][None]
            else:
                rows = network.stops_of[level]
                k, v = np.searchsorted(rows, [step, i])
                pending = np.concatenate([pending, self._fields[level].walking(plain).path(int(v), int(k))[1:]])
            i = step
        pending = np.concatenate([pending, last[1:]])
        if _length(pending) > 0:
            legs.append(self._walk(level, pending, profile, plain))
        metres = sum(leg.length_m for leg in legs if isinstance(leg, Walk))
        return Route(tuple(legs), metres, sum(leg.seconds for leg in legs), cost)

    def _walk(self, level: int, points: F8, profile: Profile, plain: bool) -> Walk:
        field = self._fields[level]
        if field.crowding is not None and not plain:
            points = self._pull(level, points)
        keep = np.concatenate([[True], np.hypot(*np.diff(points, axis=0).T) > 1e-9])
        points = points[keep] if keep.sum() > 1 else points[[0, -1]]
        each = np.hypot(*np.diff(points, axis=0).T)
        slow = field.factor(np.hstack([points[:-1], points[1:]]), False)
        return Walk(level, points, float(each.sum()), float((each * slow).sum()) / profile.speed_mps)

    def _pull(self, level: int, points: F8) -> F8:
        """Shortcuts past nodes that a weighted way bends at without need."""
        field, grid = self._fields[level], self._network.grounds[level].grid
        kept, i = [0], 0
        each = np.hypot(*np.diff(points, axis=0).T) * field.factor(np.hstack([points[:-1], points[1:]]), False)
        until = np.concatenate([[0.0], np.cumsum(each)])
        while i < len(points) - 1:
            j = len(points) - 1
            while j > i + 1:
                line = np.concatenate([points[i], points[j]])
                direct = float(np.hypot(*(points[j] - points[i])) * field.factor(line[None], False)[0])
                if direct <= until[j] - until[i] + 1e-9 and kernels.visible(grid, field.closed, *line):
                    break
                j -= 1
            kept.append(j)
            i = j
        return points[kept]

    def _ride(self, link: int, profile: Profile) -> Ride:
        network = self._network
        i, j = int(network.link_from[link]), int(network.link_to[link])
        connector = network.venue.connectors[int(network.link_connector[link])]
        way = WAYS[int(network.link_way[link])]
        wait = self._live.wait_s.get(connector.id)
        whole = profile.seconds(way, int(network.link_storeys[link]), wait)
        return Ride(
            connector.id, way, int(network.stop_level[i]), int(network.stop_level[j]),
            (float(network.stop_xy[i, 0]), float(network.stop_xy[i, 1])), (float(network.stop_xy[j, 0]), float(network.stop_xy[j, 1])),
            whole - profile.seconds(way, int(network.link_storeys[link]), 0.0), whole,
        )  # fmt: skip

    def _why_not(self, start: Place, goal: Place, a: _End, b: _End, profile: Profile, by: By) -> NoRoute:
        names = f"{_name(start)} and {_name(goal)}"
        levels = self.venue.levels
        if self._base is not None and isinstance(self._base.route(start, goal, profile=profile, by=by), Route):
            return NoRoute("closed", f"every way between {names} is closed at the moment")
        base = self._base or self
        free = base.route(start, goal, profile=Profile("anyone", staff=True), by=by) if profile != Profile("anyone", staff=True) else None
        if isinstance(free, Route):
            needed = ", ".join(sorted({ride.way.replace("_", " ") for ride in free.rides}))
            return NoRoute("forbidden", f"{names} are joined only by ways that {profile.name} may not take (such as {needed})")
        if a.level == b.level:
            return NoRoute("separated", f"{names} lie on pieces of level {levels[a.level].name} that nothing joins; check the plan's openings")
        return NoRoute(
            "levels_not_connected",
            f"{names}: levels {levels[a.level].name} and {levels[b.level].name} are not connected in this plan; add connectors or an overlay",
        )

    # -- many at once

    def matrix(self, sources: Points | Sequence[Place], targets: Points | Sequence[Place], *, profile: Profile = WALKING, by: By = "fastest") -> F8:
        """(n, m) costs from every source to every target: seconds, or metres walked and ridden for "shortest"; inf where there is no way.

        Avoided ways carry their penalty. Points more than SNAP_M from the ground are inf. Raises as `route`, and LimitExceeded above MAX_PAIRS.
        """
        from_level, from_xy, from_owner, n = self._rows(sources)
        to_level, to_xy, to_owner, m = self._rows(targets)
        if n * m > MAX_PAIRS:
            raise LimitExceeded(f"matrix of {n} x {m} = {n * m} pairs; at most {MAX_PAIRS}, ask in parts")
        out = np.full((len(from_level), len(to_level)), np.inf)
        plain = by == "shortest"
        scale = 1.0 if plain else 1.0 / profile.speed_mps
        table = self._table(profile, by)
        left = {level: self._group(level, from_level, from_xy, plain) for level in np.unique(from_level) if level >= 0}
        right = {level: self._group(level, to_level, to_xy, plain) for level in np.unique(to_level) if level >= 0}
        for la, (rows, end, weigh, reach) in left.items():
            for lb, (columns, goal, weigh_goal, back) in right.items():
                block = np.full((len(rows), len(columns)), np.inf)
                if la == lb:
                    field = self._fields[la]
                    view = field.walking(plain)
                    corner, factor = field.raster(plain)
                    kernels.between_points(
                        self._network.grounds[la].grid, field.closed, corner, factor, view.graph.start, view.graph.node, view.cost,
                        end.joined.xy, end.joined.start, end.joined.node, weigh, goal.joined.xy, goal.joined.start, goal.joined.node, weigh_goal, block,
                    )  # fmt: skip
                    block *= scale
                used, onward = table.useful(la, lb)
                if len(used[0]) and len(used[1]):
                    over = np.full((len(rows), len(used[1])), np.inf)
                    kernels.least_sum(np.ascontiguousarray(reach[:, used[0]]) * scale, onward, over)
                    kernels.least_sum(over, np.ascontiguousarray(back[:, used[1]].T) * scale, block)
                out[np.ix_(rows, columns)] = block
        if len(from_owner) != n or not np.array_equal(from_owner, np.arange(n)):
            out = _least_by_owner(out, from_owner, n)
        if len(to_owner) != m or not np.array_equal(to_owner, np.arange(m)):
            out = np.ascontiguousarray(_least_by_owner(np.ascontiguousarray(out.T), to_owner, m).T)
        return out

    def isochrone(self, start: Place, within_s: float, *, profile: Profile = WALKING, cell_m: float = 2.0) -> Isochrone | NoRoute:
        """Everything reached from `start` within `within_s` seconds, on a grid of `cell_m` (0.25 m or more). Raises as `route`, and LimitExceeded."""
        if not (0 < within_s <= 86_400 and 0.25 <= cell_m <= 100):
            raise InvalidInput(f"isochrone(within_s={within_s}, cell_m={cell_m}): give 0 to 86400 seconds and cells of 0.25 to 100 m")
        end = self._end(start, False)
        if isinstance(end, NoRoute):
            return end
        network = self._network
        arrive = self._arrive_at_stops(end, profile)
        levels, xs, seconds, areas, places = [], [], [], {}, {}
        for level in range(len(network.plans)):
            dist = self._spread(level, end, arrive, profile)
            at, joined = self._samples(level, cell_m)
            when = self._arrive(level, end, dist, joined) / profile.speed_mps
            when[when > within_s] = np.inf
            levels.append(np.full(len(at), level))
            xs.append(at)
            seconds.append(when)
            area = self._cells(level, at[np.isfinite(when)], cell_m)
            if not area.is_empty:
                areas[level] = area
            names = [name for name, entry in network.entries.items() if entry.level == level and len(entry.xy)]
            for name in names:
                there = self._end(name, False)
                if isinstance(there, _End):
                    soonest = float(self._arrive(level, end, dist, there.joined).min()) / profile.speed_mps
                    if soonest <= within_s:
                        places[name] = soonest
        xy = np.concatenate(xs)
        return Isochrone(within_s, cell_m, Points(np.concatenate(levels), xy[:, 0], xy[:, 1]), np.concatenate(seconds), areas, places)

    # -- parts

    def _entry(self, place: str) -> Entry:
        entry = self._network.entries.get(place)
        if entry is None:
            raise NotFound(f"place {place[:100]!r}: no unit, amenity or entrance of venue {self.venue.id} has this id or code")
        return entry

    def _end(self, place: Place, plain: bool) -> _End | NoRoute:
        if isinstance(place, str):
            found = self._ends.get((place, plain))
            if found is not None:
                return found
            entry = self._entry(place)
            if not len(entry.xy):
                return NoRoute("enclosed", f"{place} has no usable opening in this plan, so nobody can walk to it")
            closed = self._live.closed_openings
            xy = entry.xy[[name is None or name not in closed for name in entry.opening]]
            if not len(xy):
                return NoRoute("closed", f"every opening of {place} is closed at the moment")
            end = self._join(entry.level, xy, plain)
            self._ends[place, plain] = end  # at most one per place and kind
            return end
        point = self._checked(place)
        xy, moved = self._network.grounds[place.level].snap(point)
        if moved[0] > SNAP_M:
            return NoRoute("off_ground", f"{_name(place)} is {moved[0]:.1f} m from walkable ground; give a point within {SNAP_M:g} m of it")
        return self._join(place.level, xy, plain)

    def _checked(self, place: At) -> F8:
        if not (0 <= place.level < len(self.venue.levels) and math.isfinite(place.x_m) and math.isfinite(place.y_m)):
            raise InvalidInput(
                f"point (level {place.level}, x {place.x_m}, y {place.y_m}): level must be 0 to {len(self.venue.levels) - 1}, x and y finite metres"
            )
        return np.array([[place.x_m, place.y_m]])

    def _join(self, level: int, xy: F8, plain: bool) -> _End:
        field = self._fields[level]
        return _End(level, attach(self._network.grounds[level], field.walking(plain).graph, xy, field.closed))

    def _weigh(self, end: _End, plain: bool) -> F8:
        return end.joined.length * self._fields[end.level].factor(end.joined.line, plain)

    def _rows(self, places: Points | Sequence[Place]) -> tuple[I8, F8, I8, int]:
        """Level (r,), xy (r, 2) on the ground, owner (r,) of every access of the places; level -1 for a point that is off the ground."""
        closed = self._live.closed_openings
        if isinstance(places, Points):
            level = np.asarray(places.level, np.int64)
            xy = np.column_stack([places.x_m, places.y_m]).astype(np.float64)
            owner, n = np.arange(len(level)), len(level)
        else:
            rows: list[tuple[int, float, float, int]] = []
            for k, place in enumerate(places):
                if isinstance(place, At):
                    rows.append((place.level, place.x_m, place.y_m, k))
                else:
                    entry = self._entry(place)
                    rows += [(entry.level, *xy, k) for xy, name in zip(entry.xy.tolist(), entry.opening, strict=True) if name not in closed]
            table = np.array(rows, np.float64).reshape(-1, 4)
            level, xy, owner, n = table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3].astype(np.int64), len(places)
        bad = ~(np.isfinite(xy).all(axis=1) & (level >= 0) & (level < len(self.venue.levels)))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            self._checked(At(int(level[row]), float(xy[row, 0]), float(xy[row, 1])))
        level, xy = level.copy(), np.ascontiguousarray(xy)
        for each in np.unique(level):
            rows_here = np.flatnonzero(level == each)
            xy[rows_here], moved = self._network.grounds[each].snap(xy[rows_here])
            level[rows_here[moved > SNAP_M]] = -1
        return level, xy, owner, n

    def _group(self, level: int, levels: I8, xy: F8, plain: bool) -> tuple[I8, _End, F8, F8]:
        """Rows on a level, joined to it, their weighed attachments and their costs in metres to its stops."""
        rows = np.flatnonzero(levels == level)
        end = self._join(level, xy[rows], plain)
        weigh = self._weigh(end, plain)
        reach = np.empty((len(rows), len(self._network.stops_of[level])))
        kernels.to_stops(end.joined.start, end.joined.node, weigh, self._fields[level].walking(plain).dist, reach)
        return rows, end, weigh, reach

    def _table(self, profile: Profile, by: By) -> StopTable:
        table = self._tables.get((profile, by))
        if table is None:
            table = stop_table(self._network, self._fields, self._live, profile, by)
            while len(self._tables) >= MAX_TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[profile, by] = table
        return table

    def _arrive_at_stops(self, end: _End, profile: Profile) -> F8:
        """(stops of the venue,) seconds, penalties of avoided ways included."""
        network = self._network
        rows = network.stops_of[end.level]
        first = np.empty((len(end.joined.xy), len(rows)))
        kernels.to_stops(end.joined.start, end.joined.node, self._weigh(end, False), self._fields[end.level].walking(False).dist, first)
        out = np.full((1, len(network.stop_level)), np.inf)
        if len(rows):
            start = np.ascontiguousarray(first.min(axis=0)[None]) / profile.speed_mps
            kernels.least_sum(start, np.ascontiguousarray(self._table(profile, "fastest").cost[rows]), out)
        return np.asarray(out[0])

    def _spread(self, level: int, end: _End, arrive: F8, profile: Profile) -> F8:
        """(nodes,) cost in metres at a walker's pace to every node of a level."""
        view = self._fields[level].walking(False)
        rows = self._network.stops_of[level]
        seed, cost = np.arange(len(rows), dtype=np.int32), arrive[rows] * profile.speed_mps
        if level == end.level:
            seed, cost = np.concatenate([seed, end.joined.node]), np.concatenate([cost, self._weigh(end, False)])
        known = np.isfinite(cost)
        n = len(view.graph.xy)
        dist, parent = np.empty(n), np.empty(n, np.int32)
        kernels.search(view.graph.start, view.graph.node, view.cost, seed[known], cost[known], _NOTHING, _NOTHING, dist, parent)
        return dist

    def _arrive(self, level: int, end: _End, dist: F8, joined: Attachments) -> F8:
        """(p,) cost in metres at a walker's pace to joined points, by nodes or in a straight line from the start."""
        field = self._fields[level]
        when = kernels.arrivals(joined.start, joined.node, joined.length * field.factor(joined.line, False), dist)
        if level == end.level:
            grid = self._network.grounds[level].grid
            for p in end.joined.xy:
                line = np.hstack([np.broadcast_to(p, joined.xy.shape), joined.xy])
                cost = np.hypot(*(joined.xy - p).T) * field.factor(line, False)
                for k in np.flatnonzero(cost < when):
                    if kernels.visible(grid, field.closed, *line[k]):
                        when[k] = cost[k]
        return when

    def _samples(self, level: int, cell_m: float) -> tuple[F8, Attachments]:
        """Centres of the cells that lie on walkable ground, joined; kept for one size of cell at a time."""
        found = self._sampled.get((cell_m, level))
        if found is None:
            ground = self._network.grounds[level]
            self._sampled = {key: value for key, value in self._sampled.items() if key[0] == cell_m}
            if ground.domain.is_empty:
                at = np.zeros((0, 2))
            else:
                x0, y0, x1, y1 = ground.domain.bounds
                if (x1 - x0) * (y1 - y0) / cell_m**2 > MAX_SAMPLES:
                    raise LimitExceeded(f"isochrone of level {level} in cells of {cell_m} m: over {MAX_SAMPLES} cells; use larger ones")
                xs, ys = np.meshgrid(np.arange(x0 + cell_m / 2, x1, cell_m), np.arange(y0 + cell_m / 2, y1, cell_m))
                at = np.column_stack([xs.ravel(), ys.ravel()])
                at = at[shapely.contains_xy(ground.domain, at[:, 0], at[:, 1])]
            found = self._sampled[cell_m, level] = at, self._join(level, at, False).joined
        return found

    def _cells(self, level: int, centres: F8, cell_m: float) -> shapely.MultiPolygon:
        half = cell_m / 2
        boxes = shapely.box(centres[:, 0] - half, centres[:, 1] - half, centres[:, 0] + half, centres[:, 1] + half)
        area = shapely.intersection(shapely.union_all(boxes), self._network.grounds[level].domain)
        return shapely.MultiPolygon([p for p in shapely.get_parts(area) if p.geom_type == "Polygon"])


_NO_POINTS: Final = np.zeros((0, 2))


def _row_of(joined: Attachments, node: int, weigh: F8) -> int:
    """The access whose attachment to `node` is the least."""
    at = np.flatnonzero(joined.node == node)
    return int(np.searchsorted(joined.start, at[weigh[at].argmin()], side="right") - 1)


def _length(points: F8) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).sum()) if len(points) > 1 else 0.0


def _least_by_owner(table: F8, owner: I8, n: int) -> F8:
    """Rows of one owner reduced to their least; inf for an owner without rows."""
    out = np.full((n, table.shape[1]), np.inf)
    np.minimum.at(out, owner, table)
    return out


def _name(place: Place) -> str:
    return place if isinstance(place, str) else f"level {place.level} ({place.x_m:.1f}, {place.y_m:.1f})"


__all__ = ["At", "Isochrone", "NoRoute", "Place", "Points", "Reason", "Ride", "Route", "Router", "Walk"]

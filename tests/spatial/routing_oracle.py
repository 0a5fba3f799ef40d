"""Slow, obvious answers about routes, from Shapely's predicates and SciPy's Dijkstra, and nothing of `spatial.walk_graph` but what counts as a crack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra
from shapely.geometry.base import BaseGeometry

from spatial.plan import OPENING_TOLERANCE_M, LevelPlan
from spatial.profiles import AVOID_M, AVOID_S, WAYS, By, Profile
from spatial.routing import Router
from spatial.walk_graph import CLEARANCE_M, PASSAGE_M, without_cracks

F8 = npt.NDArray[np.float64]

HAIR_M = 1e-3


class ExactLevel:
    """Shortest paths on any polygons by their full visibility graph."""

    def __init__(self, walkable: BaseGeometry) -> None:
        self.walkable = walkable
        shapely.prepare(self.walkable)
        self._open = self.walkable.buffer(HAIR_M / 10, join_style="mitre")
        shapely.prepare(self._open)
        rings = [
            np.asarray(ring.coords)[:-1, :2]
            for p in map(shapely.orient_polygons, shapely.get_parts(self.walkable))
            for ring in (p.exterior, *p.interiors)
        ]
        before = np.concatenate([np.roll(r, 1, axis=0) - r for r in rings])
        after = np.concatenate([np.roll(r, -1, axis=0) - r for r in rings])
        bends = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] > 0
        self.xy = np.concatenate(rings)[bends]
        self._before, self._after = before[bends], after[bends]
        i, j = np.triu_indices(len(self.xy), 1)
        keep = self._taut(i, self.xy[j] - self.xy[i]) & self._taut(j, self.xy[i] - self.xy[j])
        i, j = i[keep], j[keep]
        keep = np.asarray(shapely.covers(self._open, shapely.linestrings(np.stack([self.xy[i], self.xy[j]], axis=1))), np.bool_)
        self._i, self._j = i[keep], j[keep]

    @classmethod
    def of(cls, plan: LevelPlan) -> ExactLevel:
        """Of a level's walkable ground, with walls a hair (1 mm) thick and without cracks that nobody fits through."""
        strips = [shapely.LineString([gap.a, gap.b]).buffer(OPENING_TOLERANCE_M, cap_style="flat") for gap in plan.gaps]
        rooms = [part for room in plan.interiors.values() for part in room.geoms]
        ground = shapely.union_all([*plan.walkway.geoms, *rooms, *strips])
        walls = shapely.union_all(shapely.linestrings(plan.walls.reshape(-1, 2, 2)))
        walkable = ground.difference(walls.buffer(HAIR_M, cap_style="flat", join_style="mitre"))
        return cls(without_cracks(walkable, PASSAGE_M + 2 * CLEARANCE_M))

    def _taut(self, v: npt.NDArray[np.intp], way: F8) -> npt.NDArray[np.bool_]:
        a = way[:, 0] * self._before[v, 1] - way[:, 1] * self._before[v, 0]
        b = way[:, 0] * self._after[v, 1] - way[:, 1] * self._after[v, 0]
        return np.asarray(a * b >= -1e-9)

    def length(self, start: F8, goal: F8) -> float:
        """Metres from start to goal (2,), inf where nothing joins them."""
        return float(np.hypot(*np.diff(path, axis=0).T).sum()) if len(path := self.path(start, goal)) else float("inf")

    def path(self, start: F8, goal: F8) -> F8:
        """Points (k, 2) of the shortest path from start to goal (2,), none where nothing joins them."""
        n = len(self.xy)
        ends = np.array([start, goal])
        k, v = np.divmod(np.arange(2 * n), max(n, 1))
        lines = np.stack([ends[k], self.xy[v]], axis=1)
        seen = np.asarray(shapely.covers(self._open, shapely.linestrings(lines)), np.bool_)
        i = np.concatenate([self._i, n + k[seen]])
        j = np.concatenate([self._j, v[seen]])
        if shapely.covers(self._open, shapely.LineString(ends)):
            i, j = np.append(i, n), np.append(j, n + 1)
        at = np.concatenate([self.xy, ends])
        graph = coo_matrix((np.hypot(*(at[j] - at[i]).T), (i, j)), shape=(n + 2, n + 2)).tocsr()
        _, before = dijkstra(graph + graph.T, directed=True, indices=n, return_predecessors=True)
        chain = [n + 1]
        while before[chain[-1]] >= 0:
            chain.append(int(before[chain[-1]]))
        return np.asarray(at[chain[::-1]]) if len(chain) > 1 else np.zeros((0, 2))


def whole_graph(router: Router, profile: Profile, by: By) -> tuple[csr_matrix, list[npt.NDArray[np.int64]], F8]:
    """The venue's graph as SciPy takes it: (matrix of costs, the rows of each level's nodes, metres to cost). Stops are the first nodes of a level."""
    plain = by == "shortest"
    network, scale = router._network, (1.0 if plain else 1.0 / profile.speed_mps)
    first = np.cumsum([0, *(len(graph.xy) for graph in network.graphs)])
    tail, head, cost = [], [], []
    for level, graph in enumerate(network.graphs):
        view = router._fields[level].walking(plain)
        tail.append(first[level] + np.repeat(np.arange(len(graph.xy)), np.diff(view.graph.start)))
        head.append(first[level] + view.graph.node)
        cost.append(view.cost * scale)
    place = np.concatenate([first[level] + np.arange(len(rows)) for level, rows in enumerate(network.stops_of)])
    rows = np.concatenate(network.stops_of)
    node = np.empty(len(rows), np.int64)
    node[rows] = place
    for k in range(len(network.link_from)):
        connector, way = network.venue.connectors[network.link_connector[k]], WAYS[network.link_way[k]]
        rule = profile.rule(way)
        if rule == "forbid" or connector.id in router.live.closed_connectors or (connector.access == "staff" and not profile.staff):
            continue
        ride = network.link_run_m[k] if plain else profile.seconds(way, int(network.link_storeys[k]), router.live.wait_s.get(connector.id))
        tail.append(node[network.link_from[k : k + 1]])
        head.append(node[network.link_to[k : k + 1]])
        cost.append(np.array([ride + (0 if rule == "allow" else AVOID_M if plain else AVOID_S)]))
    t, h, c = np.concatenate(tail), np.concatenate(head), np.concatenate(cost)
    order = np.lexsort((c, h, t))  # SciPy adds up what occurs twice; two lifts side by side must not
    t, h, c = t[order], h[order], c[order]
    keep = np.concatenate([[True], (np.diff(t) != 0) | (np.diff(h) != 0)]) & np.isfinite(c)
    n = int(first[-1])
    return (
        csr_matrix((c[keep], (t[keep], h[keep])), shape=(n, n)),
        [np.arange(first[k], first[k + 1]) for k in range(len(first) - 1)],
        np.array(scale),
    )

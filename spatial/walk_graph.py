"""Walking on one level: the ground a person's middle may be on, and the visibility graph of its corners.

Owns the geometry under `spatial.routing`: which points are walkable, which see each other, where a shortest path can bend. It knows no
connectors, profiles or live changes; those come as arguments (closed segments, a raster of factors) or belong to `spatial.routing`.

A shortest path among polygons is a chain of straight lines that bends at reflex corners of the ground only, and lies taut around each
(Lozano-Perez and Wesley 1979); the graph holds exactly the taut lines between corners that see each other, so its shortest paths are the
exact ones of `LevelGround.domain`. The domain keeps CLEARANCE_M from every wall, so that a path never touches one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from spatial import routing_kernels as kernels
from spatial.plan import OPENING_TOLERANCE_M, LevelPlan

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

CLEARANCE_M: Final = 0.03
"""The domain keeps this far from walls. Small: it makes paths robust, not comfortable, and lengthens them by under a percent."""

SIMPLIFY_M: Final = 0.01
"""The domain's border is simplified by this, which is less than the clearance."""

NUDGE_M: Final = 0.002
"""Graph nodes lie this far inside their corner, so that a line between two nodes meets a wall or does not, and never just touches it."""

PASSAGE_M: Final = 0.2
"""A passage narrower than this, clearance taken off on both sides, is a crack between two outlines that were not drawn to touch, and no way for people."""

POCKET_M2: Final = 0.25
"""Ground below this that hangs together with nothing is a gap between outlines and dropped."""

FILLER_STEP_M: Final = 6.0
FILLERS: Final = 600
"""Extra nodes on open ground that let a path bend around a crowd: a grid of FILLER_STEP_M, coarser where there would be more than this."""

MAX_NODES: Final = 20_000
"""Nodes of one level at most; a level with more corners is refused (`spatial.routing` says so)."""

CORNER, STOP, FILLER = 0, 1, 2


@dataclass(frozen=True, slots=True)
class LevelGround:
    """Walkable ground of a level. domain: polygons, each one connected piece, largest first; inner: a little inside it; grid: its border in cells."""

    level: int
    domain: shapely.MultiPolygon
    inner: shapely.MultiPolygon
    grid: kernels.Grid
    corner: F8
    wing: F8

    def snap(self, points: F8) -> tuple[F8, F8]:
        """Points (p, 2) moved to the nearest ground where they are not on it, and by how many metres (p,): 0 inside, inf on a level without ground."""
        at = points.copy()
        moved = np.zeros(len(points))
        if self.inner.is_empty:
            return at, np.full(len(points), np.inf)
        outside = ~shapely.contains_xy(self.domain, points[:, 0], points[:, 1])
        if outside.any():
            lines = shapely.shortest_line(shapely.points(points[outside]), self.inner)
            ends = shapely.get_coordinates(lines).reshape(-1, 2, 2)[:, 1]
            at[outside] = ends
            moved[outside] = np.hypot(*(ends - points[outside]).T)
        return at, moved

    def piece(self, points: F8) -> I8:
        """Index of the connected piece of ground that each point (p, 2) lies on, -1 on none."""
        found = np.full(len(points), -1, np.int64)
        for i, polygon in enumerate(self.domain.geoms):
            found[shapely.contains_xy(polygon, points[:, 0], points[:, 1])] = i
        return found


@dataclass(frozen=True, slots=True)
class WalkGraph:
    """A level's visibility graph, undirected, as CSR: start (n + 1,), node and length (2m,), each line once in each direction.

    xy: (n, 2). kind: (n,) CORNER, STOP or FILLER; the stops come first, in the order they were given. line: (2m, 4) the lines' coordinates.
    """

    xy: F8
    wing: F8
    kind: U1
    start: I8
    node: I4
    length: F8
    line: F8
    reach_m: float


@dataclass(frozen=True, slots=True)
class Attachments:
    """Points joined to a level's graph: xy (p, 2), and CSR start (p + 1,), node, length (a,), line (a, 4)."""

    xy: F8
    start: I8
    node: I4
    length: F8
    line: F8


def level_ground(plan: LevelPlan) -> LevelGround:
    """The walkable ground of a level plan."""
    pieces = [*plan.walkway_pieces, *(part for room in plan.interiors.values() for part in room.geoms)]
    eroded = shapely.buffer(np.array(pieces, dtype=object), -CLEARANCE_M, join_style="mitre") if pieces else np.array([], dtype=object)
    domain = without_cracks(shapely.union_all([*eroded, *_bridges(plan)]), PASSAGE_M)
    domain = shapely.simplify(domain, SIMPLIFY_M, preserve_topology=True)
    polygons = sorted((p for p in shapely.get_parts(domain) if p.geom_type == "Polygon" and p.area >= POCKET_M2), key=lambda p: -p.area)
    oriented = [shapely.orient_polygons(p) for p in polygons]
    ground = shapely.MultiPolygon(oriented)
    shrunk = shapely.buffer(ground, -2 * NUDGE_M, join_style="mitre")
    inner = shapely.MultiPolygon([p for p in shapely.get_parts(shrunk) if p.geom_type == "Polygon" and not p.is_empty])
    shapely.prepare([ground, inner, *ground.geoms])
    rings = [np.asarray(ring.coords)[:, :2] for p in oriented for ring in (p.exterior, *p.interiors)]
    edge = np.concatenate([np.zeros((0, 4)), *(np.hstack([xy[:-1], xy[1:]]) for xy in rings)])
    corner, wing = _corners(rings, ground)
    return LevelGround(plan.level, ground, inner, _grid(edge), corner, wing)


def without_cracks(ground: BaseGeometry, narrowest_m: float) -> BaseGeometry:
    """Ground less its passages and slits below a width, corners kept: shrunk, grown again, and never beyond itself."""
    shrunk = shapely.buffer(ground, -narrowest_m / 2, join_style="mitre")
    return shapely.intersection(shapely.buffer(shrunk, narrowest_m / 2, join_style="mitre"), ground)


def _bridges(plan: LevelPlan) -> list[BaseGeometry]:
    """A short passage through each usable opening, as deep as the opening's tolerance and the clearance, less the walls around it."""
    deep = OPENING_TOLERANCE_M + 2 * CLEARANCE_M
    tree = STRtree([shapely.LineString(wall) for wall in plan.walls.reshape(-1, 2, 2)])
    found: list[BaseGeometry] = []
    for gap in plan.gaps:
        line = shapely.LineString([gap.a, gap.b])
        if line.length <= 2 * CLEARANCE_M:
            continue
        cut = shapely.LineString([line.interpolate(CLEARANCE_M), line.interpolate(line.length - CLEARANCE_M)])
        bridge: BaseGeometry = cut.buffer(deep, cap_style="flat")
        walls = [tree.geometries[k] for k in tree.query(bridge, predicate="intersects")]
        if walls:
            bridge = bridge.difference(shapely.union_all(shapely.buffer(walls, CLEARANCE_M, cap_style="flat", join_style="mitre")))
        found.append(bridge)
    return found


def _corners(rings: list[F8], ground: shapely.MultiPolygon) -> tuple[F8, F8]:
    """Reflex corners, nudged inside (n, 2), and the vectors along their two walls (n, 4). Ground lies on the left of every ring."""
    at: list[F8] = []
    wings: list[F8] = []
    for ring in rings:
        here = ring[:-1]
        before, after = np.roll(here, 1, axis=0) - here, np.roll(here, -1, axis=0) - here
        came, goes = -before / np.hypot(*before.T)[:, None], after / np.hypot(*after.T)[:, None]
        reflex = came[:, 0] * goes[:, 1] - came[:, 1] * goes[:, 0] < -1e-9
        left = np.column_stack([-came[:, 1] - goes[:, 1], came[:, 0] + goes[:, 0]])
        open_by = np.maximum(1.0 + (came * goes).sum(axis=1), 0.2)
        at.append((here + NUDGE_M * left / open_by[:, None])[reflex])
        wings.append(np.hstack([before, after])[reflex])
    corner = np.concatenate([np.zeros((0, 2)), *at])
    wing = np.concatenate([np.zeros((0, 4)), *wings])
    inside = shapely.contains_xy(ground, corner[:, 0], corner[:, 1])
    return np.ascontiguousarray(corner[inside]), np.ascontiguousarray(wing[inside])


def _grid(edge: F8) -> kernels.Grid:
    if not len(edge):
        return kernels.Grid(np.array([0.0, 0.0, 1.0]), np.array([1, 1]), np.zeros(2, np.int64), np.zeros(0, np.int32), edge)
    x0, y0 = edge.reshape(-1, 2).min(axis=0) - 1.0
    x1, y1 = edge.reshape(-1, 2).max(axis=0) + 1.0
    cell = max(1.5, float(np.sqrt((x1 - x0) * (y1 - y0) / 100_000)))
    rows, columns = int((y1 - y0) // cell) + 1, int((x1 - x0) // cell) + 1
    corner = np.array([x0, y0, cell])
    start, entry = kernels.fill_cells(edge, corner, rows, columns)
    return kernels.Grid(corner, np.array([rows, columns]), start, entry, edge)


def walk_graph(ground: LevelGround, stops: F8, *, fillers: bool = False) -> WalkGraph:
    """The visibility graph over `stops` (k, 2; on the ground), the corners, and, for crowds, a grid of nodes on open ground."""
    extra, reach = _fillers(ground) if fillers else (np.zeros((0, 2)), 0.0)
    xy = np.concatenate([stops.reshape(-1, 2), ground.corner, extra])
    kind = np.repeat(np.array([STOP, CORNER, FILLER], np.uint8), [len(stops), len(ground.corner), len(extra)])
    wing = np.zeros((len(xy), 4))
    wing[kind == CORNER] = ground.wing
    a, b, length = kernels.visibility_edges(ground.grid, xy, wing, kind, reach)
    tail, head = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.argsort(tail, kind="stable")
    start = np.zeros(len(xy) + 1, np.int64)
    np.cumsum(np.bincount(tail, minlength=len(xy)), out=start[1:])
    node = np.ascontiguousarray(head[order])
    line = np.hstack([xy[tail[order]], xy[node]])
    return WalkGraph(xy, wing, kind, start, node, np.concatenate([length, length])[order], line, reach)


def attach(ground: LevelGround, graph: WalkGraph, points: F8, closed: F8) -> Attachments:
    """Join points (p, 2; on the ground) to the graph; a sight line across a closed segment (c, 4) does not count."""
    xy = np.ascontiguousarray(points, np.float64).reshape(-1, 2)
    start, node, length = kernels.attach(ground.grid, closed, graph.xy, graph.wing, graph.kind, xy, graph.reach_m)
    line = np.hstack([np.repeat(xy, np.diff(start), axis=0), graph.xy[node]])
    return Attachments(xy, start, node, length, line)


def _fillers(ground: LevelGround) -> tuple[F8, float]:
    """Grid points on open ground, and how far they reach: one and a half steps, so that each joins its eight neighbours."""
    area = ground.domain.area
    if area == 0:
        return np.zeros((0, 2)), 0.0
    step = max(FILLER_STEP_M, float(np.sqrt(area / FILLERS)))
    x0, y0, x1, y1 = ground.domain.bounds
    xs, ys = np.meshgrid(np.arange(x0 + step / 2, x1, step), np.arange(y0 + step / 2, y1, step))
    xy = np.column_stack([xs.ravel(), ys.ravel()])
    return np.ascontiguousarray(xy[shapely.contains_xy(ground.inner, xy[:, 0], xy[:, 1])]), 1.5 * step

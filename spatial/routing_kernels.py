"""Compiled kernels of routing: sight lines among edges, visibility graphs, shortest-path trees, min-plus products.

Owns no state and validates nothing; `spatial.walk_graph` and `spatial.routing` do both. No fast-math: results are those of IEEE float64.
Letters: a attachments (node, length) of points, e boundary edges, k stops, n nodes, p points, s samples. A graph is CSR: `start` (n + 1,), `node`, `cost`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

_MARGIN_M = 1e-4  # an edge is listed in every cell that it comes this near to, so that rounding along a sight line misses none


class Grid(NamedTuple):
    """Boundary edges in square cells. corner: (3,) x0, y0, cell size; shape: (2,) rows, columns; start/entry: CSR of edges by cell; edge: (e, 4)."""

    corner: F8
    shape: I8
    start: I8
    entry: I4
    edge: F8


@njit(cache=True)
def _near_box(ax: float, ay: float, bx: float, by: float, x0: float, y0: float, x1: float, y1: float) -> bool:
    """Whether the segment a-b meets the box (Liang-Barsky)."""
    dx = bx - ax
    dy = by - ay
    low = 0.0
    high = 1.0
    for side in range(4):
        if side == 0:
            p, q = -dx, ax - x0
        elif side == 1:
            p, q = dx, x1 - ax
        elif side == 2:
            p, q = -dy, ay - y0
        else:
            p, q = dy, y1 - ay
        if p == 0.0:
            if q < 0.0:
                return False
        else:
            r = q / p
            if p < 0.0:
                low = max(low, r)
            else:
                high = min(high, r)
            if low > high:
                return False
    return True


@njit(cache=True)
def fill_cells(edge: F8, corner: F8, rows: int, columns: int) -> tuple[I8, I4]:
    """CSR (rows * columns + 1,) and entries: which edges come near each cell."""
    x0, y0, cell = corner[0], corner[1], corner[2]
    start = np.zeros(rows * columns + 1, np.int64)
    entry = np.zeros(0, np.int32)
    for turn in range(2):
        if turn == 1:
            for c in range(rows * columns):
                start[c + 1] += start[c]
            entry = np.zeros(start[-1], np.int32)
        used = np.zeros(rows * columns, np.int64)
        for e in range(len(edge)):
            ax, ay, bx, by = edge[e]
            c0 = max(0, int((min(ax, bx) - x0 - _MARGIN_M) // cell))
            c1 = min(columns - 1, int((max(ax, bx) - x0 + _MARGIN_M) // cell))
            r0 = max(0, int((min(ay, by) - y0 - _MARGIN_M) // cell))
            r1 = min(rows - 1, int((max(ay, by) - y0 + _MARGIN_M) // cell))
            for r in range(r0, r1 + 1):
                for c in range(c0, c1 + 1):
                    left, low = x0 + c * cell - _MARGIN_M, y0 + r * cell - _MARGIN_M
                    if _near_box(ax, ay, bx, by, left, low, left + cell + 2 * _MARGIN_M, low + cell + 2 * _MARGIN_M):
                        at = r * columns + c
                        if turn == 0:
                            start[at + 1] += 1
                        else:
                            entry[start[at] + used[at]] = e
                            used[at] += 1
    return start, entry


@njit(cache=True)
def _meet(ax: float, ay: float, bx: float, by: float, cx: float, cy: float, dx: float, dy: float) -> bool:
    """Whether segments a-b and c-d meet; touching counts. Parallel ones never meet."""
    rx, ry = bx - ax, by - ay
    sx, sy = dx - cx, dy - cy
    det = rx * sy - ry * sx
    if det == 0.0:
        return False
    qx, qy = cx - ax, cy - ay
    t = qx * sy - qy * sx
    u = qx * ry - qy * rx
    if det < 0.0:
        det, t, u = -det, -t, -u
    return 0.0 <= t <= det and 0.0 <= u <= det


@njit(cache=True)
def visible(grid: Grid, closed: F8, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether the segment a-b meets no edge of the grid and none of `closed` (m, 4). Both ends must lie inside the grid."""
    for m in range(len(closed)):
        if _meet(ax, ay, bx, by, closed[m, 0], closed[m, 1], closed[m, 2], closed[m, 3]):
            return False
    edge, start, entry = grid.edge, grid.start, grid.entry
    cell = grid.corner[2]
    columns = grid.shape[1]
    rows = grid.shape[0]
    fx, fy = (ax - grid.corner[0]) / cell, (ay - grid.corner[1]) / cell
    gx, gy = (bx - grid.corner[0]) / cell, (by - grid.corner[1]) / cell
    c, r = int(np.floor(fx)), int(np.floor(fy))
    c_end, r_end = int(np.floor(gx)), int(np.floor(gy))
    dx, dy = gx - fx, gy - fy
    step_c = 1 if dx > 0 else -1
    step_r = 1 if dy > 0 else -1
    per_c = abs(1.0 / dx) if dx != 0.0 else np.inf
    per_r = abs(1.0 / dy) if dy != 0.0 else np.inf
    next_c = ((c + 1 - fx) if dx > 0 else (fx - c)) * per_c if dx != 0.0 else np.inf
    next_r = ((r + 1 - fy) if dy > 0 else (fy - r)) * per_r if dy != 0.0 else np.inf
    for _ in range(abs(c_end - c) + abs(r_end - r) + 1):
        if 0 <= c < columns and 0 <= r < rows:
            at = r * columns + c
            for i in range(start[at], start[at + 1]):
                e = entry[i]
                if _meet(ax, ay, bx, by, edge[e, 0], edge[e, 1], edge[e, 2], edge[e, 3]):
                    return False
        if next_c < next_r:
            next_c += per_c
            c += step_c
        else:
            next_r += per_r
            r += step_r
    return True


@njit(cache=True)
def _taut(wing: F8, v: int, dx: float, dy: float) -> bool:
    """Whether a path along (dx, dy) may bend at corner v: both its walls lie on one side. A node without walls (all zero) takes any direction."""
    a = dx * wing[v, 1] - dy * wing[v, 0]
    b = dx * wing[v, 3] - dy * wing[v, 2]
    slack = 1e-3 * (abs(dx) + abs(dy))
    return not ((a > slack and b < -slack) or (a < -slack and b > slack))


@njit(cache=True, nogil=True)
def visibility_edges(grid: Grid, xy: F8, wing: F8, kind: U1, reach_m: float) -> tuple[I4, I4, F8]:
    """Every pair i < j that sees each other and lies taut at both ends. kind 0 corner, 1 stop, 2 filler; a pair with a filler is joined within `reach_m`
    only, whatever its direction. wing: (n, 4), from a corner along its two walls."""
    n = len(xy)
    none = np.zeros((0, 4))
    room = 16 * n + 16
    a = np.empty(room, np.int32)
    b = np.empty(room, np.int32)
    length = np.empty(room)
    used = 0
    for i in range(n):
        for j in range(i + 1, n):
            dx, dy = xy[j, 0] - xy[i, 0], xy[j, 1] - xy[i, 1]
            away = np.sqrt(dx * dx + dy * dy)
            if kind[i] == 2 or kind[j] == 2:
                if away > reach_m:
                    continue
            elif not (_taut(wing, i, dx, dy) and _taut(wing, j, dx, dy)):
                continue
            if not visible(grid, none, xy[i, 0], xy[i, 1], xy[j, 0], xy[j, 1]):
                continue
            if used == room:
                room *= 2
                a = np.concatenate((a, np.empty(room - used, np.int32)))
                b = np.concatenate((b, np.empty(room - used, np.int32)))
                length = np.concatenate((length, np.empty(room - used)))
            a[used], b[used], length[used] = i, j, away
            used += 1
    return a[:used], b[:used], length[:used]


@njit(cache=True, nogil=True)
def attach(grid: Grid, closed: F8, xy: F8, wing: F8, kind: U1, points: F8, reach_m: float) -> tuple[I8, I4, F8]:
    """CSR (p + 1,), node, length: for each point the nodes that it sees and that a shortest path could bend at (fillers within `reach_m`)."""
    n = len(xy)
    start = np.zeros(len(points) + 1, np.int64)
    room = 64 * len(points) + n
    node = np.empty(room, np.int32)
    length = np.empty(room)
    used = 0
    for p in range(len(points)):
        if room - used < n:
            room = 2 * room + n
            node = np.concatenate((node[:used], np.empty(room - used, np.int32)))
            length = np.concatenate((length[:used], np.empty(room - used)))
        for v in range(n):
            dx, dy = xy[v, 0] - points[p, 0], xy[v, 1] - points[p, 1]
            if kind[v] == 2:
                if dx * dx + dy * dy > reach_m * reach_m:
                    continue
            elif not _taut(wing, v, dx, dy):
                continue
            if visible(grid, closed, points[p, 0], points[p, 1], xy[v, 0], xy[v, 1]):
                node[used] = v
                length[used] = np.sqrt(dx * dx + dy * dy)
                used += 1
        start[p + 1] = used
    return start, node[:used].copy(), length[:used].copy()


@njit(cache=True)
def crossing(segment: F8, closed: F8) -> npt.NDArray[np.bool_]:
    """Which of the segments (m, 4) meet any of `closed` (c, 4)."""
    out = np.zeros(len(segment), np.bool_)
    for i in range(len(segment)):
        for m in range(len(closed)):
            if _meet(segment[i, 0], segment[i, 1], segment[i, 2], segment[i, 3], closed[m, 0], closed[m, 1], closed[m, 2], closed[m, 3]):
                out[i] = True
                break
    return out


@njit(cache=True)
def mean_factor(corner: F8, factor: F8, segment: F8, out: F8) -> None:
    """out[i] = mean of the raster `factor` (rows, columns) along segment i, sampled twice a cell; 1 outside the raster."""
    cell = corner[2]
    rows, columns = factor.shape
    for i in range(len(segment)):
        ax, ay, bx, by = segment[i, 0], segment[i, 1], segment[i, 2], segment[i, 3]
        steps = max(1, int(np.ceil(2.0 * np.sqrt((bx - ax) ** 2 + (by - ay) ** 2) / cell)))
        total = 0.0
        for s in range(steps):
            t = (s + 0.5) / steps
            c = int(np.floor((ax + (bx - ax) * t - corner[0]) / cell))
            r = int(np.floor((ay + (by - ay) * t - corner[1]) / cell))
            total += factor[r, c] if 0 <= r < rows and 0 <= c < columns else 1.0
        out[i] = total / steps


@njit(cache=True)
def _sift_up(heap: I4, key: F8, place: I4, at: int) -> None:
    v = heap[at]
    while at > 0:
        above = (at - 1) >> 1
        if key[heap[above]] <= key[v]:
            break
        heap[at] = heap[above]
        place[heap[at]] = at
        at = above
    heap[at] = v
    place[v] = at


@njit(cache=True)
def _sift_down(heap: I4, key: F8, place: I4, size: int) -> None:
    v = heap[0]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and key[heap[below + 1]] < key[heap[below]]:
            below += 1
        if key[heap[below]] >= key[v]:
            break
        heap[at] = heap[below]
        place[heap[at]] = at
        at = below
    heap[at] = v
    place[v] = at


@njit(cache=True)
def search(start: I8, node: I4, cost: F8, seed: I4, seed_cost: F8, goal_cost: F8, bound: F8, dist: F8, parent: I4) -> tuple[float, int]:
    """Dijkstra's algorithm from many seeds, or A* when a goal is given.

    Fills dist (n,) and parent (n,; -1 at a seed, -2 unreached). goal_cost: (n,) cost from a node to the goal (inf where it is not seen), or empty for
    the whole tree; bound: (n,) a lower bound of the cost to the goal, or empty. Returns (cost to the goal, last node before it), or (inf, -1).
    """
    n = len(dist)
    key = np.empty(n)
    heap = np.empty(n, np.int32)
    place = np.full(n, -1, np.int32)  # -1 never queued, -2 settled
    dist[:] = np.inf
    parent[:] = -2
    size = 0
    guided = len(bound) > 0
    for i in range(len(seed)):
        v = seed[i]
        if seed_cost[i] < dist[v]:
            dist[v] = seed_cost[i]
            parent[v] = -1
            key[v] = dist[v] + bound[v] if guided else dist[v]
            if place[v] < 0:
                heap[size] = v
                place[v] = size
                size += 1
            _sift_up(heap, key, place, place[v])
    best = np.inf
    last = -1
    ends = len(goal_cost) > 0
    while size > 0:
        v = heap[0]
        if key[v] >= best:
            break
        size -= 1
        place[v] = -2
        if size > 0:
            heap[0] = heap[size]
            place[heap[0]] = 0
            _sift_down(heap, key, place, size)
        here = dist[v]
        if ends and here + goal_cost[v] < best:
            best = here + goal_cost[v]
            last = v
        for i in range(start[v], start[v + 1]):
            w = node[i]
            through = here + cost[i]
            if place[w] != -2 and through < dist[w]:
                dist[w] = through
                parent[w] = v
                key[w] = through + bound[w] if guided else through
                if place[w] < 0:
                    heap[size] = w
                    place[w] = size
                    size += 1
                _sift_up(heap, key, place, place[w])
    return best, last


@njit(cache=True, nogil=True)
def trees(start: I8, node: I4, cost: F8, root: I4, dist: F8, parent: I4) -> None:
    """dist and parent (k, n): the shortest-path tree of every root."""
    none = np.zeros(0)
    for k in range(len(root)):
        search(start, node, cost, root[k : k + 1], np.zeros(1), none, none, dist[k], parent[k])


@njit(cache=True, nogil=True)
def to_stops(start: I8, node: I4, cost: F8, dist: F8, out: F8) -> None:
    """out (p, k): least cost from each attached point to every stop; dist (k, n) are the stops' trees."""
    for p in range(len(start) - 1):
        for k in range(len(dist)):
            best = np.inf
            for i in range(start[p], start[p + 1]):
                through = cost[i] + dist[k, node[i]]
                best = min(best, through)
            out[p, k] = best


@njit(cache=True, nogil=True)
def arrivals(start: I8, node: I4, cost: F8, dist: F8) -> F8:
    """(p,) least cost to each attached point, where reaching node v costs dist[v]."""
    out = np.full(len(start) - 1, np.inf)
    for p in range(len(start) - 1):
        for i in range(start[p], start[p + 1]):
            out[p] = min(out[p], cost[i] + dist[node[i]])
    return out


@njit(cache=True, nogil=True)
def between_points(
    grid: Grid, closed: F8, corner: F8, factor: F8,
    start: I8, node: I4, cost: F8,
    s_xy: F8, s_start: I8, s_node: I4, s_cost: F8,
    t_xy: F8, t_start: I8, t_node: I4, t_cost: F8,
    out: F8,
) -> None:  # fmt: skip
    """out (s, t): least cost on one level between attached points; one tree a source, and the straight line where they see each other."""
    n = len(start) - 1
    dist = np.empty(n)
    parent = np.empty(n, np.int32)
    none = np.zeros(0)
    line = np.empty((1, 4))
    weight = np.ones(1)
    for s in range(len(s_xy)):
        low, high = s_start[s], s_start[s + 1]
        search(start, node, cost, s_node[low:high], s_cost[low:high], none, none, dist, parent)
        for t in range(len(t_xy)):
            best = np.inf
            for i in range(t_start[t], t_start[t + 1]):
                best = min(best, t_cost[i] + dist[t_node[i]])
            dx, dy = t_xy[t, 0] - s_xy[s, 0], t_xy[t, 1] - s_xy[s, 1]
            away = np.sqrt(dx * dx + dy * dy)
            if away < best and visible(grid, closed, s_xy[s, 0], s_xy[s, 1], t_xy[t, 0], t_xy[t, 1]):
                if factor.size:
                    line[0, 0], line[0, 1], line[0, 2], line[0, 3] = s_xy[s, 0], s_xy[s, 1], t_xy[t, 0], t_xy[t, 1]
                    mean_factor(corner, factor, line, weight)
                best = min(best, away * weight[0])
            out[s, t] = best


@njit(cache=True)
def least_sum(a: F8, b: F8, out: F8) -> None:
    """out (i, j) = min(out, min over k of a[i, k] + b[k, j]): the min-plus product."""
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            first = a[i, k]
            if first < np.inf:
                for j in range(b.shape[1]):
                    out[i, j] = min(out[i, j], first + b[k, j])


@njit(cache=True, nogil=True)
def close_pairs(cost: F8, hop: I4) -> None:
    """Floyd and Warshall in place: least cost between all stops (k, k), and the first hop on the way (k, k)."""
    n = len(cost)
    for m in range(n):
        for i in range(n):
            first = cost[i, m]
            if first < np.inf:
                for j in range(n):
                    through = first + cost[m, j]
                    if through < cost[i, j]:
                        cost[i, j] = through
                        hop[i, j] = hop[i, m]


@njit(cache=True)
def best_pair(a: F8, between: F8, b: F8) -> tuple[float, int, int]:
    """(least a[i] + between[i, j] + b[j], i, j), or (inf, -1, -1)."""
    best = np.inf
    at_i = -1
    at_j = -1
    for i in range(len(a)):
        if a[i] < best:
            for j in range(len(b)):
                through = a[i] + between[i, j] + b[j]
                if through < best:
                    best = through
                    at_i = i
                    at_j = j
    return best, at_i, at_j

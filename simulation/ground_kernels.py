"""Compiled kernels of the ground: geometry against walls, links between cells, sight, and fields of walking directions.

Free functions on arrays, called by `ground`, `navigation` and `kernels`. Letters: c free cells (all levels), g raster cells (levels x rows x
columns), w walls. Nothing here knows people. `simulation.kernels` compiles some of these into its own; Numba's cache does not see that, so who edits
this file deletes `simulation/__pycache__/*.nb?`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]

WALL_GAP_M = 0.15  # centres of bodies stay this far from walls
FAR = 65535  # distance in decimetres that means: no way

DX = np.array([1, 1, 0, -1, -1, -1, 0, 1], np.int64)
DY = np.array([0, 1, 1, 1, 0, -1, -1, -1], np.int64)


@njit(cache=True, nogil=True)
def crosses(px: float, py: float, qx: float, qy: float, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether segments pq and ab meet; touching counts."""
    if max(px, qx) < min(ax, bx) or min(px, qx) > max(ax, bx) or max(py, qy) < min(ay, by) or min(py, qy) > max(ay, by):
        return False
    d1 = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
    d2 = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
    d3 = (qx - px) * (ay - py) - (qy - py) * (ax - px)
    d4 = (qx - px) * (by - py) - (qy - py) * (bx - px)
    return d1 * d2 <= 0.0 and d3 * d4 <= 0.0


@njit(cache=True, nogil=True)
def blocked(px: float, py: float, qx: float, qy: float, g: int, walls: F8, wall_start: I4, wall_item: I4) -> bool:
    """Whether pq meets a wall listed at raster cell g."""
    for k in range(wall_start[g], wall_start[g + 1]):
        w = wall_item[k]
        if crosses(px, py, qx, qy, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]):
            return True
    return False


@njit(cache=True, nogil=True)
def wall_distance(px: float, py: float, ax: float, ay: float, bx: float, by: float) -> Any:
    """(distance, x, y): from p to the nearest point (x, y) of segment ab."""
    ux, uy = bx - ax, by - ay
    length2 = ux * ux + uy * uy
    t = 0.0
    if length2 > 0.0:
        t = min(1.0, max(0.0, ((px - ax) * ux + (py - ay) * uy) / length2))
    x, y = ax + t * ux, ay + t * uy
    return math.sqrt((px - x) ** 2 + (py - y) ** 2), x, y


@njit(cache=True, nogil=True)
def list_walls(walls: F8, wall_level: I4, x0: float, y0: float, cell: float, nx: int, ny: int, levels: int, reach: float) -> Any:
    """(start (g + 1,), item): for each raster cell the walls within `reach` metres of its centre, ascending."""
    count = np.zeros(levels * ny * nx + 1, np.int32)
    item = np.empty(0, np.int32)
    for fill in range(2):
        if fill == 1:
            total = 0
            for g in range(levels * ny * nx):
                here = count[g]
                count[g] = total
                total += here
            count[levels * ny * nx] = total
            item = np.empty(total, np.int32)
            cursor = count[:-1].copy()
        for w in range(len(walls)):
            ax, ay, bx, by = walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]
            cx0 = max(0, math.floor((min(ax, bx) - reach - x0) / cell))
            cx1 = min(nx - 1, math.floor((max(ax, bx) + reach - x0) / cell))
            cy0 = max(0, math.floor((min(ay, by) - reach - y0) / cell))
            cy1 = min(ny - 1, math.floor((max(ay, by) + reach - y0) / cell))
            for cy in range(cy0, cy1 + 1):
                for cx in range(cx0, cx1 + 1):
                    d, _, _ = wall_distance(x0 + (cx + 0.5) * cell, y0 + (cy + 0.5) * cell, ax, ay, bx, by)
                    if d <= reach:
                        g = (wall_level[w] * ny + cy) * nx + cx
                        if fill == 0:
                            count[g] += 1
                        else:
                            item[cursor[g]] = w
                            cursor[g] += 1
    return count, item


@njit(cache=True, nogil=True)
def link_cells(raster: I4, cid: I4, x: F8, y: F8, nx: int, ny: int, walls: F8, wall_start: I4, wall_item: I4) -> Any:
    """(links (c,), clearance_m (c,)): bit d of a cell's links says that the way to its neighbour in direction d meets no wall; clearance up to 1 m."""
    n = len(raster)
    links = np.zeros(n, np.uint8)
    clearance = np.ones(n, np.float32)
    for c in range(n):
        g = raster[c]
        for k in range(wall_start[g], wall_start[g + 1]):
            w = wall_item[k]
            d, _, _ = wall_distance(x[c], y[c], walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
            clearance[c] = min(clearance[c], np.float32(d))
        row, col = (g // nx) % ny, g % nx
        for d in range(8):
            if 0 <= col + DX[d] < nx and 0 <= row + DY[d] < ny:
                other = cid[g + DY[d] * nx + DX[d]]
                if other >= 0 and not blocked(x[c], y[c], x[other], y[other], g, walls, wall_start, wall_item):
                    links[c] |= np.uint8(1 << d)
    return links, clearance


@njit(cache=True, nogil=True)
def sees(a: int, b: int, raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, nx: int, gap: float) -> bool:
    """Whether cell b can be reached from cell a (one level) straight on: over links, and over cells at least `gap` from walls in between.

    spare: (c,) within so many steps of a cell all is open ground, so the line is looked at in jumps.
    """
    ga, gb = raster[a], raster[b]
    x0, y0 = ga % nx, ga // nx
    dx, dy = gb % nx - x0, gb // nx - y0
    steps = max(abs(dx), abs(dy))
    here, x, y, s = a, x0, y0, 0
    while s < steps:
        jump = min(spare[here], steps - s)
        s += max(1, jump)
        u = x0 + math.floor(dx * s / steps + 0.5)
        v = y0 + math.floor(dy * s / steps + 0.5)
        if jump < 1:
            mx, my = u - x, v - y
            if my == 0:
                d = 0 if mx > 0 else 4
            elif mx == 0:
                d = 2 if my > 0 else 6
            elif mx > 0:
                d = 1 if my > 0 else 7
            else:
                d = 3 if my > 0 else 5
            if not links[here] & (1 << d):
                return False
        x, y = u, v
        here = cid[v * nx + u]
        if here != b and clearance[here] < gap:
            return False
    return True


@njit(cache=True, nogil=True)
def solve_field(lo: int, hi: int, seeds: I4, raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, load: I4, nx: int, cell: float) -> Any:
    """(distance (hi - lo,) uint16 decimetres, FAR where there is no way; angle (hi - lo,) uint8, 1/256 turn counter-clockwise from x).

    Dijkstra with buckets over the links (walking close to a wall costs more), then each cell aims at the furthest cell on its way that it sees
    (any-angle smoothing, Nash, Koenig, Tovey 2010, "Lazy Theta*"); the distance is that of the smoothed way.
    load: (c,) how many times dearer a step onto a cell is, 1 to 16.
    """
    n = hi - lo
    ring = 1024  # more than the dearest step: 14 x 4 x the largest load
    cost = np.full(n, -1, np.int32)
    done = np.zeros(n, np.bool_)
    parent = np.full(n, -1, np.int32)
    order = np.empty(n, np.int32)
    settled = 0
    pool_node = np.empty(8 * n + len(seeds), np.int32)
    pool_next = np.empty(8 * n + len(seeds), np.int32)
    head = np.full(ring, -1, np.int32)
    used = 0
    pending = 0
    for s in seeds:
        if cost[s - lo] != 0:
            cost[s - lo] = 0
            pool_node[used] = s - lo
            pool_next[used] = head[0]
            head[0] = used
            used += 1
            pending += 1
    now = 0
    while pending > 0:
        slot = now % ring
        if head[slot] < 0:
            now += 1
            continue
        entry = head[slot]
        head[slot] = pool_next[entry]
        pending -= 1
        a = pool_node[entry]
        if done[a]:
            continue
        done[a] = True
        order[settled] = a
        settled += 1
        g = raster[a + lo]
        for d in range(8):
            if links[a + lo] & (1 << d):
                b = cid[g + DY[d] * nx + DX[d]] - lo
                if done[b]:
                    continue
                step = 10 if d % 2 == 0 else 14
                if clearance[b + lo] < 0.25:
                    step *= 4
                elif clearance[b + lo] < 0.5:
                    step = step * 3 // 2
                step *= load[b + lo]
                if cost[b] < 0 or now + step < cost[b]:
                    cost[b] = now + step
                    parent[b] = a
                    pool_node[used] = b
                    pool_next[used] = head[(now + step) % ring]
                    head[(now + step) % ring] = used
                    used += 1
                    pending += 1
    aim = np.full(n, -1, np.int32)
    metres = np.full(n, 1e9)
    distance = np.full(n, FAR, np.uint16)
    angle = np.zeros(n, np.uint8)
    for k in range(settled):
        a = order[k]
        p = parent[a]
        if p < 0:
            aim[a] = a
            metres[a] = 0.0
            distance[a] = 0
            continue
        target = aim[p]
        if target != p and not sees(a + lo, target + lo, raster, cid, links, clearance, spare, nx, 0.3):
            target = p
        aim[a] = target
        ga, gt = raster[a + lo], raster[target + lo]
        dx, dy = float(gt % nx - ga % nx), float(gt // nx - ga // nx)
        metres[a] = metres[target] + cell * math.sqrt(dx * dx + dy * dy)
        distance[a] = np.uint16(min(FAR - 1.0, round(metres[a] * 10.0)))
        angle[a] = np.uint8(round(math.atan2(dy, dx) * 128.0 / math.pi) & 255)
    return distance, angle


@njit(cache=True, nogil=True)
def locate(
    x: F8, y: F8, level: U1, cell: I4, x0: float, y0: float, size: float, nx: int, ny: int, cid: I4,
    cx: F8, cy: F8, walls: F8, wall_start: I4, wall_item: I4,
) -> None:  # fmt: skip
    """Write to `cell` each agent's free cell: the nearest of 3 x 3 whose centre the agent sees past the walls; unchanged where there is none."""
    for i in range(len(x)):
        col, row = int((x[i] - x0) / size), int((y[i] - y0) / size)
        if not (0 <= col < nx and 0 <= row < ny):
            continue
        g = (int(level[i]) * ny + row) * nx + col
        c = cid[g]
        if wall_start[g] == wall_start[g + 1] and c >= 0:
            cell[i] = c
            continue
        best, best_d = -1, 1e9
        for r in range(max(0, row - 1), min(ny, row + 2)):
            for q in range(max(0, col - 1), min(nx, col + 2)):
                c = cid[(int(level[i]) * ny + r) * nx + q]
                if c >= 0:
                    d = (cx[c] - x[i]) ** 2 + (cy[c] - y[i]) ** 2
                    if d < best_d and not blocked(x[i], y[i], cx[c], cy[c], g, walls, wall_start, wall_item):
                        best, best_d = c, d
        if best >= 0:
            cell[i] = best


@njit(cache=True, nogil=True)
def confine(px: float, py: float, qx: float, qy: float, g: int, walls: F8, wall_start: I4, wall_item: I4) -> Any:
    """(x, y): where a step from p towards q ends: kept WALL_GAP_M off the walls, slid along them, refused (p) where it would still meet one."""
    first, last = wall_start[g], wall_start[g + 1]
    if first == last:
        return qx, qy
    hit = -1
    for k in range(first, last):
        w = wall_item[k]
        if crosses(px, py, qx, qy, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]):
            hit = w
            break
    if hit >= 0:
        ux, uy = walls[hit, 2] - walls[hit, 0], walls[hit, 3] - walls[hit, 1]
        t = ((qx - px) * ux + (qy - py) * uy) / max(1e-12, ux * ux + uy * uy)
        qx, qy = px + t * ux, py + t * uy
    for _ in range(2):
        for k in range(first, last):
            w = wall_item[k]
            d, wx, wy = wall_distance(qx, qy, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
            if 1e-9 < d < WALL_GAP_M:
                qx = wx + (qx - wx) * WALL_GAP_M / d
                qy = wy + (qy - wy) * WALL_GAP_M / d
    for k in range(first, last):
        w = wall_item[k]
        if crosses(px, py, qx, qy, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]):
            return px, py
    return qx, qy


@njit(cache=True, nogil=True)
def walk_along(c: int, metres: float, lo: int, angle: U1, distance: U2, raster: I4, cid: I4, links: U1, x: F8, y: F8, nx: int, cell: float) -> int:
    """The cell reached from cell c after about `metres` along a field, which starts at cell `lo`; links are kept, the way stops short at the end."""
    px, py = x[c], y[c]
    walked = 0.0
    while walked < metres and distance[c - lo] != FAR and distance[c - lo] > 0:
        turn = angle[c - lo] * (math.pi / 128.0)
        px, py = px + cell * math.cos(turn), py + cell * math.sin(turn)
        walked += cell
        best, best_d = -1, 1e9
        for d in range(8):
            if links[c] & (1 << d):
                b = cid[raster[c] + DY[d] * nx + DX[d]]
                if distance[b - lo] < distance[c - lo]:
                    off = (x[b] - px) ** 2 + (y[b] - py) ** 2
                    if off < best_d:
                        best, best_d = b, off
        if best < 0:
            break
        if best_d > cell * cell:
            px, py = x[best], y[best]
        c = best
    return c

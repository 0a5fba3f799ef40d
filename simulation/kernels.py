"""Compiled kernels of the crowd: geometry against walls, fields of walking directions, and one step of the speed model.

Free functions on arrays, called by `ground`, `navigation` and `engine`, which validate; nothing here allocates state that outlives a call, draws
from a global generator or depends on the order of threads. Slow NumPy twins stand in `tests/simulation/twins.py`.

Letters: n agents, c free cells (all levels), g raster cells (levels x rows x columns), w walls.
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
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
U4 = npt.NDArray[np.uint32]
B1 = npt.NDArray[np.bool_]

# Collision-free speed model, Tordeux, Chraibi, Seyfried 2016 (Traffic and Granular Flow '15, p. 225-232): simulation values of the paper.
BODY_M = 0.3  # l, body diameter
TIME_GAP_S = 1.0  # T
REPULSION = 5.0  # a, relative to the wish to walk on (1)
REPULSION_RANGE_M = 0.1  # D
RELAX_S = 0.3  # turning is not instantaneous: Xu, Chraibi, Tordeux, Zhang 2019 (Physica A 535, 122521), relaxation of the direction
# Ours.
SQUEEZED_M = 0.2  # two who stand face to face turn their shoulders and pass: body depth instead of body width
SIGHT_M = 2.0  # neighbours further off change neither direction nor speed (speed: exact up to (2.0 - 0.3) / T = 1.7 m/s)
WALL_GAP_M = 0.15  # centres stay this far from walls
WALL_RANGE_M = 0.08
MAX_PUSH_M = 0.04  # overlaps are resolved by at most this much a step
KEEP_RIGHT = 0.3  # radians that the wish turns right for somebody oncoming close ahead, fading to nothing at SIGHT_M
KEEP_RIGHT_MOST = 0.5
TRAIL = 0.5  # weight of others' trails against the straight way
TRAIL_S = 2.0  # they fade by e in this time
EXCHANGE_S = 1.5
NEAR_CAP = 160  # neighbours looked at, at most; 2 m of sight at 12 people/m2
FAR = 65535  # distance in decimetres that means: no way

DX = np.array([1, 1, 0, -1, -1, -1, 0, 1], np.int64)
DY = np.array([0, 1, 1, 1, 0, -1, -1, -1], np.int64)


@njit(cache=True, nogil=True)
def hash01(seed: Any, subject: Any, event: Any) -> Any:
    """The same number as `chance.uniform`."""
    z = np.uint64(seed)
    for step in range(3):
        if step == 1:
            z = z ^ np.uint64(subject)
        elif step == 2:
            z = z ^ np.uint64(event)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


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
def solve_field(lo: int, hi: int, seeds: I4, raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, nx: int, cell: float) -> Any:
    """(distance (hi - lo,) uint16 decimetres, FAR where there is no way; angle (hi - lo,) uint8, 1/256 turn counter-clockwise from x).

    Dijkstra with buckets over the links (walking close to a wall costs more), then each cell aims at the furthest cell on its way that it sees
    (any-angle smoothing, Nash, Koenig, Tovey 2010, "Lazy Theta*"); the distance is that of the smoothed way.
    """
    n = hi - lo
    ring = 64
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
def sort_into_cells(x: F8, y: F8, level: U1, present: B1, x0: float, y0: float, size: float, nx: int, ny: int, levels: int) -> Any:
    """(start, order): counting sort of the present agents into square cells; stable, so rows ascend within a cell."""
    n = len(x)
    key = np.full(n, -1, np.int32)
    start = np.zeros(levels * ny * nx + 1, np.int32)
    for i in range(n):
        if present[i]:
            col = min(nx - 1, max(0, int((x[i] - x0) / size)))
            row = min(ny - 1, max(0, int((y[i] - y0) / size)))
            key[i] = (int(level[i]) * ny + row) * nx + col
            start[key[i] + 1] += 1
    for g in range(levels * ny * nx):
        start[g + 1] += start[g]
    cursor = start[:-1].copy()
    order = np.empty(start[-1], np.int32)
    for i in range(n):
        if key[i] >= 0:
            order[cursor[key[i]]] = i
            cursor[key[i]] += 1
    return start, order


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
def advance(
    x: F8, y: F8, level: U1, subject: U4, present: B1, wish_x: F8, wish_y: F8, wish_v: F8, heading_x: F8, heading_y: F8, slow_s: F8, room: I4,
    start: I4, order: I4, grid_x0: float, grid_y0: float, grid_size: float, grid_nx: int, grid_ny: int,
    x0: float, y0: float, cell: float, nx: int, ny: int, walls: F8, wall_start: I4, wall_item: I4, dt: float, tick: int,
    out_x: F8, out_y: F8, out_hx: F8, out_hy: F8, out_slow: F8,
) -> float:  # fmt: skip
    """One step of the collision-free speed model for the present agents; reads generation t, writes `out_*`; returns the largest overlap read, metres.

    wish_x, wish_y: (n,) unit vector, or zero for those who stand; wish_v: (n,) desired speed, m/s. slow_s: (n,) how long somebody who wants to walk has
    hardly moved. room: (n,) room of the agent's cell, -1 near an opening: bodies act on each other within one room or through an opening, not
    through walls. Direction: wish + sum of a exp((l - s) / D) away from neighbours and walls, relaxed over RELAX_S. Speed: min(v, (s - l) / T), s
    the spacing to the nearest neighbour whose body lies in the strip ahead. Oncoming people are passed on the right (lanes form). After a second of standstill people sidestep, first to the right.
    """
    m = len(order)
    sx, sy = np.empty(m), np.empty(m)
    shx, shy = np.empty(m), np.empty(m)
    stands = np.empty(m, np.bool_)
    swx, swy = np.empty(m), np.empty(m)
    sroom = np.empty(m, np.int32)
    for k in range(m):
        i = order[k]
        sx[k], sy[k] = x[i], y[i]
        shx[k], shy[k] = (heading_x[i], heading_y[i]) if wish_v[i] > 0.0 else (0.0, 0.0)
        stands[k] = slow_s[i] > 2.0
        swx[k], swy[k] = wish_x[i], wish_y[i]
        sroom[k] = room[i]
    near = np.empty(NEAR_CAP, np.int32)
    worst = 0.0
    for k in range(m):
        i = order[k]
        px, py = sx[k], sy[k]
        col = min(grid_nx - 1, max(0, int((px - grid_x0) / grid_size)))
        row = min(grid_ny - 1, max(0, int((py - grid_y0) / grid_size)))
        wx, wy, v = wish_x[i], wish_y[i], wish_v[i]
        walks = v > 0.0 and (wx != 0.0 or wy != 0.0)
        found = 0
        push_x = push_y = rep_x = rep_y = oncoming = 0.0
        sight2 = SIGHT_M * SIGHT_M if walks else BODY_M * BODY_M
        for r in range(max(0, row - 1), min(grid_ny, row + 2)):
            base = (int(level[i]) * grid_ny + r) * grid_nx
            for j in range(start[base + max(0, col - 1)], start[base + min(grid_nx - 1, col + 1) + 1]):
                if j == k or not (sroom[j] == sroom[k] or sroom[j] < 0 or sroom[k] < 0):
                    continue
                dx, dy = px - sx[j], py - sy[j]
                d2 = dx * dx + dy * dy
                if d2 >= sight2:
                    continue
                d = math.sqrt(d2)
                if d < 1e-6:
                    turn = 2.0 * math.pi * hash01(tick, subject[i], subject[order[j]])
                    dx, dy, d = 1e-6 * math.cos(turn), 1e-6 * math.sin(turn), 1e-6
                both = SQUEEZED_M if stands[k] and stands[j] and wx * swx[j] + wy * swy[j] < -0.3 else BODY_M
                if d < both:
                    push_x += 0.5 * (both - d) * dx / d
                    push_y += 0.5 * (both - d) * dy / d
                worst = max(worst, BODY_M - d)
                if walks:
                    if found < NEAR_CAP:
                        near[found] = j
                        found += 1
                    if wx * shx[j] + wy * shy[j] < -0.3 and wx * dx + wy * dy < -0.5 * d:
                        oncoming += 1.0 - d / SIGHT_M
                    if d < 1.0:
                        f = REPULSION * math.exp((both - max(d, 0.5 * both)) / REPULSION_RANGE_M) / d
                        rep_x += f * dx
                        rep_y += f * dy
        g = (int(level[i]) * ny + min(ny - 1, max(0, int((py - y0) / cell)))) * nx + min(nx - 1, max(0, int((px - x0) / cell)))
        move_x = move_y = 0.0
        hx, hy = heading_x[i], heading_y[i]
        if walks:
            turn = -min(KEEP_RIGHT_MOST, KEEP_RIGHT * oncoming)
            if slow_s[i] > 1.0:
                turn = -0.7
                if slow_s[i] > 4.0:
                    turn = (hash01(7, subject[i], (tick + 13 * int(subject[i])) // 15) - 0.5) * 2.4
            if turn != 0.0:
                c, s = math.cos(turn), math.sin(turn)
                wx, wy = c * wx - s * wy, s * wx + c * wy
            for w in range(wall_start[g], wall_start[g + 1]):
                q = wall_item[w]
                d, ax, ay = wall_distance(px, py, walls[q, 0], walls[q, 1], walls[q, 2], walls[q, 3])
                if 1e-9 < d < 0.6:
                    f = REPULSION * math.exp((WALL_GAP_M - d) / WALL_RANGE_M) / d
                    f = min(f, 2.0 * REPULSION / d)
                    # Only what points into the wall is turned away: a wall alongside does not push people off their way.
                    into = -(wx * (px - ax) + wy * (py - ay)) / d
                    if into > -0.2:
                        rep_x += 0.5 * f * (px - ax)
                        rep_y += 0.5 * f * (py - ay)
            ex, ey = wx + rep_x, wy + rep_y
            norm = math.sqrt(ex * ex + ey * ey)
            if norm > 1e-9:
                ex, ey = ex / norm, ey / norm
                rate = min(1.0, dt / RELAX_S)
                hx, hy = hx + rate * (ex - hx), hy + rate * (ey - hy)
                norm = math.sqrt(hx * hx + hy * hy)
                if norm > 1e-6:
                    hx, hy = hx / norm, hy / norm
                else:
                    hx, hy = ex, ey
            gap = v * TIME_GAP_S
            for q in range(found):
                j = near[q]
                dx, dy = sx[j] - px, sy[j] - py
                ahead = dx * hx + dy * hy
                both = SQUEEZED_M if stands[k] and stands[j] and wish_x[i] * swx[j] + wish_y[i] * swy[j] < -0.3 else BODY_M
                if ahead > 0.0 and abs(dx * hy - dy * hx) < both:
                    gap = min(gap, math.sqrt(dx * dx + dy * dy) - both)
            speed = min(v, max(0.0, gap) / TIME_GAP_S)
            move_x, move_y = hx * speed * dt, hy * speed * dt
        norm = math.sqrt(push_x * push_x + push_y * push_y)
        if norm > MAX_PUSH_M:
            push_x, push_y = push_x * MAX_PUSH_M / norm, push_y * MAX_PUSH_M / norm
        qx, qy = px + move_x + push_x, py + move_y + push_y
        qx, qy = confine(px, py, qx, qy, g, walls, wall_start, wall_item)
        out_x[i], out_y[i] = qx, qy
        out_hx[i], out_hy[i] = hx, hy
        if walks:
            along = (qx - px) * wish_x[i] + (qy - py) * wish_y[i]
            if along < 0.15 * v * dt:
                out_slow[i] = slow_s[i] + dt
            else:
                out_slow[i] = max(0.0, slow_s[i] - 4.0 * dt)
        else:
            out_slow[i] = 0.0
    return worst


@njit(cache=True, nogil=True)
def wishes(
    x: F8, y: F8, mode: U1, cell: I4, field: I4, target_x: F8, target_y: F8, speed: F8, heading_x: F8, heading_y: F8,
    shift: I8, distance: U2, angle: U1, wish_x: F8, wish_y: F8, wish_v: F8,
) -> None:  # fmt: skip
    """Write each agent's wish: along its field (mode 0), straight to its target (1 browsing, at half speed; 2 queueing), or none (3 riding)."""
    for i in range(len(x)):
        wish_x[i] = wish_y[i] = wish_v[i] = 0.0
        if mode[i] == 0:
            k = shift[field[i]] + cell[i]
            if distance[k] == FAR:
                wish_x[i], wish_y[i] = heading_x[i], heading_y[i]
            else:
                turn = angle[k] * (math.pi / 128.0)
                wish_x[i], wish_y[i] = math.cos(turn), math.sin(turn)
            wish_v[i] = speed[i]
        elif mode[i] < 3:
            dx, dy = target_x[i] - x[i], target_y[i] - y[i]
            d = math.sqrt(dx * dx + dy * dy)
            if d > 0.3:
                wish_x[i], wish_y[i] = dx / d, dy / d
                wish_v[i] = speed[i] if mode[i] == 2 else 0.5 * speed[i]


@njit(cache=True, nogil=True)
def follow_trails(
    x: F8, y: F8, level: U1, mode: U1, cell: I4, field: I4, shift: I8, distance: U2, wish_x: F8, wish_y: F8,
    trail_x: F4, trail_y: F4, keep: float, x0: float, y0: float, size: float, nx: int, ny: int, cid: I4,
) -> None:  # fmt: skip
    """Turn the wishes of those on the way (mode 0) to where others lately wanted to walk the same way, so that opposite streams part into lanes.

    trail_x, trail_y: (levels, rows, columns of two raster cells, flat) sum of the wishes of those who were there, fading by `keep` a tick: a dynamic floor
    field (Burstedde, Klauck, Schadschneider, Zittartz 2001, Physica A 295, 507-525). Looked at 0.9 and 1.9 m ahead, in seven directions up to 63 degrees
    off; of equals the one further right wins. Wishes are read at t, written for t; trails of t - 1 are read, those of t written after.
    """
    n = len(x)
    cols, rows = (nx + 1) // 2, (ny + 1) // 2
    new_x, new_y = np.zeros(n), np.zeros(n)
    for i in range(n):
        if mode[i] != 0:
            continue
        wx, wy = wish_x[i], wish_y[i]
        new_x[i], new_y[i] = wx, wy
        if distance[shift[field[i]] + cell[i]] < 15:
            continue
        best = -1e9
        for q in range(7):
            turn = 0.366 * ((q + 1) // 2) * (-1.0 if q % 2 == 1 else 1.0)
            c, s = math.cos(turn), math.sin(turn)
            dx, dy = c * wx - s * wy, s * wx + c * wy
            score = c - (0.03 if turn > 0.0 else 0.0)
            for probe in range(2):
                far = 0.9 + probe
                col, row = int((x[i] + far * dx - x0) / size), int((y[i] + far * dy - y0) / size)
                if not (0 <= col < nx and 0 <= row < ny) or cid[(int(level[i]) * ny + row) * nx + col] < 0:
                    score -= 0.3
                    continue
                k = (int(level[i]) * rows + row // 2) * cols + col // 2
                along = trail_x[k] * wx + trail_y[k] * wy
                score += TRAIL * along / (0.5 + abs(along)) * (1.0 if probe == 0 else 0.6)
            if score > best:
                best = score
                new_x[i], new_y[i] = dx, dy
    for k in range(len(trail_x)):
        trail_x[k] *= keep
        trail_y[k] *= keep
    for i in range(n):
        if mode[i] == 0:
            col, row = int((x[i] - x0) / size), int((y[i] - y0) / size)
            if 0 <= col < nx and 0 <= row < ny:
                k = (int(level[i]) * rows + row // 2) * cols + col // 2
                trail_x[k] += (1.0 - keep) * wish_x[i]
                trail_y[k] += (1.0 - keep) * wish_y[i]
            wish_x[i], wish_y[i] = new_x[i], new_y[i]


@njit(cache=True, nogil=True)
def exchange(
    x: F8, y: F8, level: U1, mode: U1, cell: I4, slow_s: F8, wish_x: F8, wish_y: F8, start: I4, order: I4,
    grid_x0: float, grid_y0: float, size: float, grid_nx: int, grid_ny: int, raster: I4, walls: F8, wall_start: I4, wall_item: I4,
) -> int:  # fmt: skip
    """Let people who stand face to face, and each want to go where the other stands, change places; how many pairs did.

    Opposite streams that have mixed can never part without this; place exchange is Blue and Adler 2001 (Transportation Research B 35, 293-312). Somebody
    who stays (mode 1) makes way too, to who has stood longer. No overlap arises, no wall lies between, and each does it once in EXCHANGE_S at most.
    """
    pairs = 0
    for k in range(len(order)):
        i = order[k]
        if slow_s[i] <= EXCHANGE_S or mode[i] == 1:
            continue
        col = min(grid_nx - 1, max(0, int((x[i] - grid_x0) / size)))
        row = min(grid_ny - 1, max(0, int((y[i] - grid_y0) / size)))
        best, best_score = -1, 0.0
        for r in range(max(0, row - 1), min(grid_ny, row + 2)):
            base = (int(level[i]) * grid_ny + r) * grid_nx
            for q in range(start[base + max(0, col - 1)], start[base + min(grid_nx - 1, col + 1) + 1]):
                j = order[q]
                dx, dy = x[j] - x[i], y[j] - y[i]
                d = math.sqrt(dx * dx + dy * dy)
                if j == i or d > 0.5 or d < 1e-6:
                    continue
                mine = (wish_x[i] * dx + wish_y[i] * dy) / d
                theirs = -(wish_x[j] * dx + wish_y[j] * dy) / d
                willing = slow_s[j] > EXCHANGE_S and theirs > 0.4 if mode[j] != 1 else slow_s[i] > 2.0 * EXCHANGE_S
                if (
                    willing
                    and mine > 0.5
                    and mine > best_score
                    and not blocked(x[i], y[i], x[j], y[j], raster[cell[i]], walls, wall_start, wall_item)
                ):
                    best, best_score = j, mine
        if best >= 0:
            x[i], x[best] = x[best], x[i]
            y[i], y[best] = y[best], y[i]
            cell[i], cell[best] = cell[best], cell[i]
            slow_s[i] = slow_s[best] = 0.0
            pairs += 1
    return pairs


@njit(cache=True, nogil=True)
def wander(
    rows: I8, subject: U4, draws: U4, cell: I4, place: I4, target_x: F8, target_y: F8, seed: int, spot_start: I8, spots: I4,
    raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, nx: int, cx: F8, cy: F8,
) -> None:  # fmt: skip
    """Give each row a random spot of its place in straight sight of where it stands; the target stays where six draws see none."""
    for i in rows:
        lo, hi = spot_start[place[i]], spot_start[place[i] + 1]
        for _ in range(6):
            u = hash01(seed, subject[i], draws[i])
            draws[i] += 1
            spot = spots[lo + int(u * (hi - lo))]
            if sees(cell[i], spot, raster, cid, links, clearance, spare, nx, 0.2):
                target_x[i] = cx[spot] + 0.3 * (hash01(seed, subject[i], draws[i]) - 0.5)
                target_y[i] = cy[spot] + 0.3 * (hash01(seed, subject[i], draws[i] + 1) - 0.5)
                draws[i] += 2
                break


@njit(cache=True, nogil=True)
def first_vacant(cells: I4, begin: int, cx: F8, cy: F8, at_level: int, x: F8, y: F8, level: U1, mode: U1, gap: float) -> int:
    """The first of `cells`, counted round from `begin`, whose centre is `gap` metres from everybody on the level who is not riding (mode 3); -1 for none."""
    for k in range(len(cells)):
        c = cells[(begin + k) % len(cells)]
        free = True
        for i in range(len(x)):
            if level[i] == at_level and mode[i] != 3 and (x[i] - cx[c]) ** 2 + (y[i] - cy[c]) ** 2 < gap * gap:
                free = False
                break
        if free:
            return int(c)
    return -1


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


@njit(cache=True, nogil=True)
def place_apart(
    wanted: I4, seed: int, spread: int, gap: float, first: I4, raster: I4, cid: I4, links: U1, clearance: F4, x: F8, y: F8, nx: int,
    out_x: F8, out_y: F8, out_cell: I4,
) -> None:  # fmt: skip
    """Put one body near each wanted cell, centres `gap` apart: the nearest cell over links (at most `spread` looked at) that is still free; -1 for none.

    A cell holds one body at most, within a tenth of a cell of its centre, so the gap is kept by looking at the cells around it.
    """
    n = len(raster)
    taken = np.zeros(n, np.bool_)
    seen = np.full(n, -1, np.int32)
    queue = np.empty(spread, np.int32)
    for i in range(len(wanted)):
        out_cell[i] = -1
        queue[0] = wanted[i]
        seen[wanted[i]] = i
        size, at = 1, 0
        while at < size:
            c = queue[at]
            at += 1
            if not taken[c] and clearance[c] >= 0.2:
                taken[c] = True
                out_cell[i] = c
                jitter = 0.5 * (0.4 - gap)
                out_x[i] = x[c] + jitter * (2.0 * hash01(seed, i, 1) - 1.0)
                out_y[i] = y[c] + jitter * (2.0 * hash01(seed, i, 2) - 1.0)
                break
            for d in range(0, 8, 2):
                if size < spread and links[c] & (1 << d):
                    b = cid[raster[c] + DY[d] * nx + DX[d]]
                    if seen[b] != i:
                        seen[b] = i
                        queue[size] = b
                        size += 1


@njit(cache=True, nogil=True)
def count_close(
    x: F8, y: F8, level: U1, room: I4, start: I4, order: I4, grid_x0: float, grid_y0: float, size: float, nx: int, ny: int, gap: float
) -> int:
    """Pairs of the sorted agents whose centres are less than `gap` apart and not parted by a wall (one room, or by an opening)."""
    pairs = 0
    for k in range(len(order)):
        i = order[k]
        col = min(nx - 1, max(0, int((x[i] - grid_x0) / size)))
        row = min(ny - 1, max(0, int((y[i] - grid_y0) / size)))
        for r in range(max(0, row - 1), min(ny, row + 2)):
            base = (int(level[i]) * ny + r) * nx
            for q in range(start[base + max(0, col - 1)], start[base + min(nx - 1, col + 1) + 1]):
                j = order[q]
                if j > i and (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2 < gap * gap and (room[i] == room[j] or room[i] < 0 or room[j] < 0):
                    pairs += 1
    return pairs

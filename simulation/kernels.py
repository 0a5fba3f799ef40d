"""Compiled kernels of the crowd: what people wish, one step of the speed model, and how they get past each other.

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

from simulation.ground_kernels import DX, DY, FAR, WALL_GAP_M, blocked, confine, sees, wall_distance

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
WALL_RANGE_M = 0.08
MAX_PUSH_M = 0.04  # overlaps are resolved by at most this much a step
KEEP_RIGHT = 0.3  # radians that the wish turns right for somebody oncoming close ahead, fading to nothing at SIGHT_M
KEEP_RIGHT_MOST = 0.5
TRAIL = 0.5  # weight of others' trails against the straight way
TRAIL_S = 2.0  # they fade by e in this time
EXCHANGE_S = 0.6
NEAR_CAP = 160  # neighbours looked at, at most; 2 m of sight at 12 people/m2


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

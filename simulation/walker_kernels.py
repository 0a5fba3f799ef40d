"""Compiled kernels of the walkers: sorting into cells, one step of an operational model, limits that keep bodies apart, and who gets on.

Free functions on arrays; read generation t, write t + 1. Every body's step depends only on generation t, and neighbours are summed in the order of the cells:
the result is the same bit for bit for any number of threads. Slow twins stand in `tests/simulation/walker_twins.py`.

Letters: n bodies, k place in the order of the cells, c free cells of the floor, w walls. Some of `ground_kernels` are compiled into these; Numba's cache
does not see that, so who edits that file deletes `simulation/__pycache__/*.nb?`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from simulation.ground_kernels import blocked, crosses, wall_distance

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

CHUNK = 512
STRIPES = 16  # chunks are dealt out in turn, so that a dense part of the ground does not fall to one thread
OVERLAP_M = 0.01  # bodies go into each other by this much at most, past the end of a thin wall too:
WALL_OVERLAP_M = 0.005
NEAR_WALLS = 64


class Cells(NamedTuple):
    """Square cells for neighbours: bodies of cell g at order[start[g]:start[g + 1]], walls near it at wall_item[wall_start[g]:wall_start[g + 1]]."""

    start: Any
    order: Any
    wall_start: Any
    wall_item: Any
    walls: Any
    x0: float
    y0: float
    size: float
    nx: int
    ny: int
    span: int


class Plan(NamedTuple):
    """The floor as `simulation.floor.Floor` has it, and aim: (goals, c)."""

    cid: Any
    x: Any
    y: Any
    pace: Any
    near_start: Any
    near_item: Any
    aim: Any
    x0: float
    y0: float
    cell: float
    nx: int
    ny: int


class State(NamedTuple):
    """Generation t: place, velocity and heading; and what does not change within a step."""

    x: Any
    y: Any
    vx: Any
    vy: Any
    hx: Any
    hy: Any
    speed: Any
    radius: Any
    level: Any
    goal: Any


@njit(cache=True, nogil=True, parallel=True)
def keys(x: F8, y: F8, level: U1, x0: float, y0: float, size: float, nx: int, ny: int, key: I4) -> None:
    """Write each body's cell."""
    for i in prange(len(x)):
        col = min(nx - 1, max(0, int((x[i] - x0) / size)))
        row = min(ny - 1, max(0, int((y[i] - y0) / size)))
        key[i] = (np.int32(level[i]) * ny + row) * nx + col


@njit(cache=True, nogil=True)
def counting_sort(key: I4, start: I4, order: I4) -> None:
    """Write the bodies in the order of their cells, rows ascending within one; start: (cells + 1,) is overwritten."""
    start[:] = 0
    for i in range(len(key)):
        start[key[i] + 1] += 1
    for g in range(len(start) - 1):
        start[g + 1] += start[g]
    # Filled from behind through the ends of the cells, so that no second table is needed.
    for i in range(len(key) - 1, -1, -1):
        g = key[i] + 1
        start[g] -= 1
        order[start[g]] = i
    for g in range(len(start) - 1):
        start[g] = start[g + 1]
    start[len(start) - 1] = len(key)


@njit(cache=True, nogil=True)
def cell_at(px: float, py: float, level: int, old: int, plan: Any, walls: F8) -> Any:
    """The free cell a body stands on: of the cell it is in and the eight around it, the nearest whose centre it sees; `old` where it sees none."""
    col, row = int((px - plan.x0) / plan.cell), int((py - plan.y0) / plan.cell)
    if not (0 <= col < plan.nx and 0 <= row < plan.ny):
        return old
    g = (level * plan.ny + row) * plan.nx + col
    c = plan.cid[g]
    if c == old and c >= 0:
        return c
    if c >= 0 and not blocked(px, py, plan.x[c], plan.y[c], g, walls, plan.near_start, plan.near_item):
        return c
    best, best_d = old, 1e18
    for r in range(max(0, row - 1), min(plan.ny, row + 2)):
        for q in range(max(0, col - 1), min(plan.nx, col + 2)):
            b = plan.cid[(level * plan.ny + r) * plan.nx + q]
            if b >= 0:
                d = (plan.x[b] - px) ** 2 + (plan.y[b] - py) ** 2
                if d < best_d and not blocked(px, py, plan.x[b], plan.y[b], g, walls, plan.near_start, plan.near_item):
                    best, best_d = b, d
    return best


@njit(cache=True, nogil=True)
def limited(
    ux: float, uy: float, px: float, py: float, r: float, found: int, dx: F8, dy: F8, dist: F8, touch: F8, near: int, wall: I4, walls: F8
) -> Any:
    """(ux, uy): the step cut so that no body or wall is entered by more than OVERLAP_M, whatever the others do in the same step.

    A body may use half of the gap to each other body, and all of the gap to each wall, measured along the line to its nearest point. The distance to a
    convex set is at least what it was minus the part of the step along that line, so the limits hold exactly. What would go too far is first slid along
    walls and along the body most in the way; what still does is shortened.
    """
    for _ in range(2):
        for q in range(near):
            d, wx, wy = wall_distance(px, py, walls[wall[q], 0], walls[wall[q], 1], walls[wall[q], 2], walls[wall[q], 3])
            if d > 0.0:
                nx, ny = (wx - px) / d, (wy - py) / d
                over = ux * nx + uy * ny - max(0.0, d - r + WALL_OVERLAP_M)
                if over > 0.0:
                    ux, uy = ux - over * nx, uy - over * ny
    length = math.sqrt(ux * ux + uy * uy)
    if length == 0.0:
        return 0.0, 0.0
    worst, most = -1, 0.0
    for q in range(found):
        if dist[q] - touch[q] < 2.0 * length:
            over = (ux * dx[q] + uy * dy[q]) / dist[q] - max(0.0, 0.5 * (dist[q] - touch[q] + OVERLAP_M))
            if over > most:
                worst, most = q, over
    if worst >= 0:
        ux, uy = ux - most * dx[worst] / dist[worst], uy - most * dy[worst] / dist[worst]
        share = 1.0
        for q in range(found):
            if dist[q] - touch[q] < 2.0 * length:
                along, room = (ux * dx[q] + uy * dy[q]) / dist[q], max(0.0, 0.5 * (dist[q] - touch[q] + OVERLAP_M))
                if along > room:
                    share = min(share, room / along)
        ux, uy = share * ux, share * uy
    share = 1.0
    for q in range(near):
        d, wx, wy = wall_distance(px, py, walls[wall[q], 0], walls[wall[q], 1], walls[wall[q], 2], walls[wall[q], 3])
        if d > 0.0:
            along, room = (ux * (wx - px) + uy * (wy - py)) / d, max(0.0, d - r + WALL_OVERLAP_M)
            if along > room:
                share = min(share, room / along)
    return share * ux, share * uy


@njit(cache=True, nogil=True, parallel=True)
def advance(
    state: State, cells: Cells, plan: Plan, kind: int, numbers: Any, reach: float, headway: float, most_radius: float, cap: int, dt: float, sx: F8, sy: F8,
    cell: I4, next_x: F8, next_y: F8, next_vx: F8, next_vy: F8, next_hx: F8, next_hy: F8,
) -> None:  # fmt: skip
    """One step of a model (see `simulation.models`) for all bodies; writes `next_*` and `cell`.

    reach: gaps beyond it repel nobody; headway: gaps beyond the desired speed times it slow nobody; cap: bodies in sight at most. sx, sy:
    (n,) scratch, places in the order of the cells. What is written is passed as arrays of its own: Numba drops writes to fields of a tuple in a parallel loop.
    """
    order, start, walls = cells.order, cells.start, cells.walls
    n = len(order)
    for k in prange(n):
        sx[k] = state.x[order[k]]
        sy[k] = state.y[order[k]]
    chunks = (n + CHUNK - 1) // CHUNK
    per = (chunks + STRIPES - 1) // STRIPES
    for turn in prange(per * STRIPES):
        chunk = np.int64(turn) // per + STRIPES * (np.int64(turn) % per)
        dx, dy, dist, touch = np.empty(cap), np.empty(cap), np.empty(cap), np.empty(cap)
        who = np.empty(cap, np.int32)
        wall = np.empty(NEAR_WALLS, np.int32)
        for k in range(min(n, chunk * CHUNK), min(n, chunk * CHUNK + CHUNK)):
            i = order[k]
            px, py, r, level = sx[k], sy[k], state.radius[i], np.int64(state.level[i])
            here = cell_at(px, py, level, cell[i], plan, walls)
            cell[i] = here
            v0 = state.speed[i] * plan.pace[here]
            wx = wy = 0.0
            goal = state.goal[i]
            if goal >= 0:
                target = plan.aim[goal, here]
                if target >= 0:
                    wx, wy = plan.x[target] - px, plan.y[target] - py
                    length = math.sqrt(wx * wx + wy * wy)
                    if length > 0.05:
                        wx, wy = wx / length, wy / length
                    else:
                        wx = wy = 0.0
            walks = v0 > 0.0 and (wx != 0.0 or wy != 0.0)
            if not walks and kind != 2:
                next_x[i], next_y[i], next_vx[i], next_vy[i] = px, py, 0.0, 0.0
                next_hx[i], next_hy[i] = state.hx[i], state.hy[i]
                continue
            # Neighbours in sight.
            cut = r + most_radius + max(reach, headway * v0)
            cut2 = cut * cut
            fx, fy = (px - cells.x0) / cells.size, (py - cells.y0) / cells.size
            col, row = min(cells.nx - 1, max(0, int(fx))), min(cells.ny - 1, max(0, int(fy)))
            found = 0
            wide = cut / cells.size
            for q in range(max(0, row - cells.span), min(cells.ny, row + cells.span + 1)):
                off = max(0.0, max(q - fy, fy - (q + 1)))
                if off >= wide and q != row:
                    continue
                half = math.sqrt(max(0.0, wide * wide - off * off))
                base = (level * cells.ny + q) * cells.nx
                first = min(col, max(0, int(math.floor(fx - half))))
                last = max(col, min(cells.nx - 1, int(math.floor(fx + half))))
                for j in range(start[base + first], start[base + last + 1]):
                    ax, ay = sx[j] - px, sy[j] - py
                    d2 = ax * ax + ay * ay
                    if d2 < cut2 and j != k and found < cap:
                        dx[found], dy[found], dist[found] = ax, ay, d2
                        who[found] = order[j]
                        found += 1
            # Walls: which are near, and whom they hide.
            g = (level * cells.ny + row) * cells.nx + col
            near = 0
            if cells.wall_start[g] < cells.wall_start[g + 1]:
                for q in range(cells.wall_start[g], cells.wall_start[g + 1]):
                    w = cells.wall_item[q]
                    d, ax, ay = wall_distance(px, py, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
                    if d < cut and near < NEAR_WALLS:
                        wall[near] = w
                        near += 1
                if near > 0:
                    kept = 0
                    for q in range(found):
                        hidden = False
                        for e in range(near):
                            w = wall[e]
                            if crosses(px, py, px + dx[q], py + dy[q], walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]):
                                hidden = True
                                break
                        if not hidden:
                            dx[kept], dy[kept], dist[kept], who[kept] = dx[q], dy[q], dist[q], who[q]
                            kept += 1
                    found = kept
            for q in range(found):
                dist[q] = max(1e-9, math.sqrt(dist[q]))
                touch[q] = r + state.radius[who[q]]
            if kind == 2:
                mx, my = _social_force(state, i, px, py, r, v0, wx, wy, numbers, dt, found, dx, dy, dist, touch, who, near, wall, walls)
                hx, hy = state.hx[i], state.hy[i]
            else:
                if kind == 0:
                    hx, hy = _repelled(wx, wy, numbers, reach, found, dx, dy, dist, touch)
                else:
                    hx, hy = _anticipating(state, i, wx, wy, numbers, reach, found, dx, dy, dist, touch, who)
                for e in range(near):
                    w = wall[e]
                    d, ax, ay = wall_distance(px, py, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
                    if 0.0 < d < r + 12.0 * numbers[4]:
                        f = numbers[3] * math.exp((r - d) / numbers[4]) / d
                        hx, hy = hx + f * (px - ax), hy + f * (py - ay)
                length = math.sqrt(hx * hx + hy * hy)
                if length > 1e-12:
                    hx, hy = hx / length, hy / length
                else:
                    hx, hy = state.hx[i], state.hy[i]
                if kind == 1:
                    hx, hy = _relaxed(hx, hy, state.hx[i], state.hy[i], wx, wy, min(1.0, dt / numbers[6]))
                gap = headway * v0
                for q in range(found):
                    ahead = dx[q] * hx + dy[q] * hy
                    if ahead >= 0.0 and abs(dx[q] * hy - dy[q] * hx) <= touch[q]:
                        gap = min(gap, dist[q] - touch[q])
                v = min(v0, max(0.0, gap) / headway)
                mx, my = hx * v * dt, hy * v * dt
            # Walls that the step could reach.
            close = 0
            step = math.sqrt(mx * mx + my * my)
            for e in range(near):
                w = wall[e]
                d, ax, ay = wall_distance(px, py, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
                if d < r + step:
                    wall[close] = w
                    close += 1
            mx, my = limited(mx, my, px, py, r, found, dx, dy, dist, touch, close, wall, walls)
            next_x[i], next_y[i] = px + mx, py + my
            next_vx[i], next_vy[i] = mx / dt, my / dt
            next_hx[i], next_hy[i] = hx, hy


@njit(cache=True, nogil=True)
def _repelled(wx: float, wy: float, numbers: Any, reach: float, found: int, dx: F8, dy: F8, dist: F8, touch: F8) -> Any:
    """The wish and the repulsion of people, collision-free speed model."""
    for q in range(found):
        gap = dist[q] - touch[q]
        if gap < reach:
            f = numbers[1] * math.exp(-gap / numbers[2]) / dist[q]
            wx, wy = wx - f * dx[q], wy - f * dy[q]
    return wx, wy


@njit(cache=True, nogil=True)
def _anticipating(
    state: Any, i: int, wx: float, wy: float, numbers: Any, reach: float, found: int, dx: F8, dy: F8, dist: F8, touch: F8, who: I4
) -> Any:
    """The wish and the evasion of people ahead, anticipation velocity model (equations 1-6 of the paper)."""
    hx, hy = wx, wy
    for q in range(found):
        nx, ny = dx[q] / dist[q], dy[q] / dist[q]
        if wx * nx + wy * ny < 0.0 and state.hx[i] * nx + state.hy[i] * ny < 0.0:
            continue
        j = who[q]
        foreseen = dist[q] - touch[q] - ((state.vx[i] - state.vx[j]) * nx + (state.vy[i] - state.vy[j]) * ny) * numbers[5]
        f = numbers[1] * (1.0 + 0.5 * (1.0 - (wx * state.hx[j] + wy * state.hy[j]))) * math.exp(-max(0.0, foreseen) / numbers[2])
        # To the left of the wish, unless the other will be there (or straight ahead).
        side = -wy * (dx[q] + state.vx[j] * numbers[5]) + wx * (dy[q] + state.vy[j] * numbers[5])
        sign = 1.0 if side < -1e-9 else -1.0
        hx, hy = hx - sign * f * wy, hy + sign * f * wx
    return hx, hy


@njit(cache=True, nogil=True)
def _relaxed(hx: float, hy: float, old_x: float, old_y: float, wx: float, wy: float, rate: float) -> Any:
    """The heading a step later: it turns towards the new direction over the reaction time, and at once where only one of both leads on (equation 7)."""
    if (wx * hx + wy * hy) * (wx * old_x + wy * old_y) < 0.0:
        return hx, hy
    ex, ey = old_x + rate * (hx - old_x), old_y + rate * (hy - old_y)
    length = math.sqrt(ex * ex + ey * ey)
    if length < 1e-9:
        return hx, hy
    return ex / length, ey / length


@njit(cache=True, nogil=True)
def _social_force(
    state: Any, i: int, px: float, py: float, r: float, v0: float, wx: float, wy: float, numbers: Any, dt: float, found: int, dx: F8, dy: F8, dist: F8,
    touch: F8, who: I4, near: int, wall: I4, walls: F8,
) -> Any:  # fmt: skip
    """The step under the social forces; velocity first, then place (semi-implicit Euler), no faster than 1.3 times the desired speed (Helbing, Molnár 1995)."""
    vx, vy = state.vx[i], state.vy[i]
    mass = numbers[5]
    ax, ay = (v0 * wx - vx) / numbers[0], (v0 * wy - vy) / numbers[0]
    for q in range(found):
        nx, ny = -dx[q] / dist[q], -dy[q] / dist[q]
        over = touch[q] - dist[q]
        f = numbers[1] * math.exp(min(over, OVERLAP_M) / numbers[2])
        if over > 0.0:
            f += numbers[3] * over
            slip = (state.vx[who[q]] - vx) * -ny + (state.vy[who[q]] - vy) * nx
            ax, ay = ax + numbers[4] * over * slip * -ny / mass, ay + numbers[4] * over * slip * nx / mass
        ax, ay = ax + f * nx / mass, ay + f * ny / mass
    for e in range(near):
        w = wall[e]
        d, qx, qy = wall_distance(px, py, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
        if d > 0.0:
            nx, ny = (px - qx) / d, (py - qy) / d
            over = r - d
            f = numbers[1] * math.exp(min(over, OVERLAP_M) / numbers[2])
            if over > 0.0:
                f += numbers[3] * over
                slip = vx * -ny + vy * nx
                ax, ay = ax - numbers[4] * over * slip * -ny / mass, ay - numbers[4] * over * slip * nx / mass
            ax, ay = ax + f * nx / mass, ay + f * ny / mass
    vx, vy = vx + ax * dt, vy + ay * dt
    v = math.sqrt(vx * vx + vy * vy)
    most = 1.3 * v0
    if v > most:
        vx, vy = vx * most / max(v, 1e-12), vy * most / max(v, 1e-12)
    return vx * dt, vy * dt


@njit(cache=True, nogil=True)
def worst_overlap(state: State, cells: Cells) -> Any:
    """(metres, i, j): the deepest overlap of two bodies, in sight of each other or not; negative is the smallest gap looked at. (-1, -1, -1) where nobody is near."""
    worst, a, b = -1.0, -1, -1
    for k in range(len(cells.order)):
        i = cells.order[k]
        px, py = state.x[i], state.y[i]
        col = min(cells.nx - 1, max(0, int((px - cells.x0) / cells.size)))
        row = min(cells.ny - 1, max(0, int((py - cells.y0) / cells.size)))
        for q in range(max(0, row - cells.span), min(cells.ny, row + cells.span + 1)):
            base = (np.int64(state.level[i]) * cells.ny + q) * cells.nx
            for p in range(cells.start[base + max(0, col - cells.span)], cells.start[base + min(cells.nx - 1, col + cells.span) + 1]):
                j = cells.order[p]
                if j > i:
                    over = state.radius[i] + state.radius[j] - math.sqrt((state.x[j] - px) ** 2 + (state.y[j] - py) ** 2)
                    if over > worst:
                        worst, a, b = over, i, j
    return worst, a, b


@njit(cache=True, nogil=True)
def wall_overlap(state: State, cells: Cells) -> Any:
    """(metres, i, w): how deep a wall goes into a body, at most; (-1, -1, -1) where no wall is near."""
    worst, a, b = -1.0, -1, -1
    for i in range(len(state.x)):
        col = min(cells.nx - 1, max(0, int((state.x[i] - cells.x0) / cells.size)))
        row = min(cells.ny - 1, max(0, int((state.y[i] - cells.y0) / cells.size)))
        g = (np.int64(state.level[i]) * cells.ny + row) * cells.nx + col
        for q in range(cells.wall_start[g], cells.wall_start[g + 1]):
            w = cells.wall_item[q]
            d, _, _ = wall_distance(state.x[i], state.y[i], cells.walls[w, 0], cells.walls[w, 1], cells.walls[w, 2], cells.walls[w, 3])
            if state.radius[i] - d > worst:
                worst, a, b = state.radius[i] - d, i, w
    return worst, a, b


@njit(cache=True, nogil=True)
def mark_progress(x: F8, y: F8, goal: Any, mark_x: F8, mark_y: F8, mark_step: I4, step: int, far: float) -> None:
    """Who stands by choice (goal below 0), or has got on by `far` metres since the last mark, is marked here and now."""
    for i in range(len(x)):
        if goal[i] < 0 or (x[i] - mark_x[i]) ** 2 + (y[i] - mark_y[i]) ** 2 > far * far:
            mark_x[i], mark_y[i], mark_step[i] = x[i], y[i], step


@njit(cache=True, nogil=True)
def at_goal(goal: Any, cell: I4, distance: F4, near_m: float) -> Any:
    """Rows of those whose cell is within `near_m` of their goal, ascending."""
    out = np.empty(len(goal), np.int64)
    count = 0
    for i in range(len(goal)):
        if goal[i] >= 0 and cell[i] >= 0 and distance[goal[i], cell[i]] <= near_m:
            out[count] = i
            count += 1
    return out[:count].copy()


@njit(cache=True, nogil=True)
def place_cells(x: F8, y: F8, level: U1, plan: Any, walls: F8) -> Any:
    """(n,) the free cell of each place; -1 off the ground."""
    out = np.empty(len(x), np.int32)
    for i in range(len(x)):
        out[i] = cell_at(x[i], y[i], np.int64(level[i]), -1, plan, walls)
    return out

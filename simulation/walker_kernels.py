"""Compiled kernels of the walkers: sorting into cells, one step of an operational model, limits that keep bodies apart, and who gets on.

Free functions on arrays; read generation t, write t + 1. Every body's step depends only on generation t, and neighbours are summed in the order of the cells:
the result is the same bit for bit for any number of threads. Slow twins stand in `tests/simulation/walker_twins.py`.

Letters: n bodies, k place in the order of the cells, c free cells of the floor, w walls. `ground_kernels`, `lanes` and `prefetch` are compiled into these;
Numba's cache does not see that, so who edits those files deletes `simulation/__pycache__/*.nb?`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from simulation import lanes
from simulation.ground_kernels import blocked, crosses, wall_distance
from simulation.kernels import hash01
from simulation.prefetch import prefetch

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

CHUNK = 256
RUNS = 4  # rows of cells in sight at most, of cells three quarters of the sight deep or deeper
PAIRS = 1024  # whom the bodies of a block see, at least: 16 bytes each, so that they stay in the nearest cache
OVERLAP_M = 0.01  # bodies go into each other by this much at most, past the end of a thin wall too:
WALL_OVERLAP_M = 0.005
NEAR_WALLS = 256
QUANTA_PER_M = float(1 << 22)  # places of others are whole numbers of a quarter of a micrometre
ROUNDED_M = 2e-6  # gaps are known in single precision
GOAL_CELLS = 2.0  # who leaves at a goal is looked at when so many cells off by the way,
CLOSE_CELLS = 4.5  # and then as close as this to the cell aimed at, from wherever near their own
FAR_M = 1e6  # who is not in sight counts as being so far off
FALL_FROM_M = 0.02  # tables of repulsion begin at an overlap of so much


class Cells(NamedTuple):
    """Where to look for whom, from the corner (x0, y0).

    Neighbours: bodies of cell g at order[start[g]:start[g + 1]]; `cols` x `rows` cells of `wide` x `deep` metres a level, deeper than wide, for what lies in
    a row is looked at eight at a time. Nobody sees further than `sight`. Walls: those near square cell g of `size` metres at
    wall_item[wall_start[g]:wall_start[g + 1]].
    """

    start: Any
    order: Any
    wide: float
    deep: float
    cols: int
    rows: int
    sight: float
    wall_start: Any
    wall_item: Any
    walls: Any
    size: float
    nx: int
    ny: int
    x0: float
    y0: float


class Plan(NamedTuple):
    """The floor as `simulation.floor.Floor` has it, and aim: (goals, c). look: (g,) as `looks` gives it, one word where the cell and its walls would be three;
    paced: whether anywhere people walk at another pace than their own."""

    cid: Any
    look: Any
    x: Any
    y: Any
    pace: Any
    paced: bool
    near_start: Any
    near_item: Any
    aim: Any
    x0: float
    y0: float
    cell: float
    nx: int
    ny: int


class State(NamedTuple):
    """Generation t: place, velocity and heading; and what does not change within a step.

    patience: steps without getting on after which people try other directions, a new one every `second` steps. lean: (n,) added to the unit vector of the way to
    the goal (a group's cohesion); with goal -2 the only wish (a place in a queue); leaning: whether anybody may have one. last_start: nobody starts later. aimed, aim_x, aim_y: (n,) where they walk straight to (no number: nowhere)
    from the cell that they stand on, for the goal `aimed`: remembered, for most stay on their cell from one step to the next.
    """

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
    start_step: Any
    last_start: int
    step: int
    id: Any
    mark_step: Any
    patience: int
    second: int
    leaning: bool
    lean_x: Any
    lean_y: Any
    aimed: Any
    aim_x: Any
    aim_y: Any


class After(NamedTuple):
    """(n,) each, written: generation t + 1, the free cell, and who is so close to where they aim that it may be the goal."""

    x: Any
    y: Any
    vx: Any
    vy: Any
    hx: Any
    hy: Any
    cell: Any
    close: Any


@njit(cache=True, nogil=True)
def keys(x: F8, y: F8, level: U1, x0: float, y0: float, wide: float, deep: float, cols: int, rows: int, key: I4, part: int, parts: int) -> None:
    """Write each body's cell: the `part`th of `parts` of them."""
    per_wide, per_deep = 1.0 / wide, 1.0 / deep
    for i in range(len(x) * part // parts, len(x) * (part + 1) // parts):
        col = min(cols - 1, max(0, int((x[i] - x0) * per_wide)))
        row = min(rows - 1, max(0, int((y[i] - y0) * per_deep)))
        key[i] = (np.int32(level[i]) * rows + row) * cols + col


@njit(cache=True, nogil=True)
def counting_sort(
    key: I4, start: I4, order: I4, x: F8, y: F8, radius: F8, alike: bool, sx: I4, sy: I4, sr: F4, part: int, parts: int
) -> None:  # fmt: skip
    """Write the bodies in the order of their cells, rows ascending within one, and where each cell begins: start (cells + 1,). In that order too: places, in
    quanta, and radii, unless they are alike. Quanta wrap round: what lies between two bodies is right up to 512 m.

    The `part`th of `parts` does so for its share of the cells; it looks at everybody to know how many stand in the cells before.
    """
    cells = len(start) - 1
    low, high = cells * part // parts, cells * (part + 1) // parts
    start[low:high] = 0
    before = 0
    for i in range(len(key)):
        g = key[i]
        if g < low:
            before += 1
        elif g < high:
            start[g] += 1
    for g in range(low, high):
        before += start[g]
        start[g] = before
    # Filled from behind through the ends of the cells, which become their beginnings.
    for i in range(len(key) - 1, -1, -1):
        g = key[i]
        if low <= g < high:
            start[g] -= 1
            k = np.uint64(start[g])
            order[k] = i
            sx[k], sy[k] = np.int32(np.int64(x[i] * QUANTA_PER_M)), np.int32(np.int64(y[i] * QUANTA_PER_M))
            if not alike:
                sr[k] = radius[i]
    if part == parts - 1:
        start[cells] = len(key)


@njit(cache=True, nogil=True)
def take(array: Any, order: I4, out: Any, part: int, parts: int) -> None:
    """Write the rows of an array in an order: the `part`th of `parts` of them."""
    n = len(order)
    for k in range(n * part // parts, n * (part + 1) // parts):
        out[k] = array[np.uint64(order[k])]


@njit(cache=True, nogil=True, error_model="numpy")
def cell_at(
    px: float, py: float, level: int, old: int, cid: I4, cx: F8, cy: F8, near_start: I4, near_item: I4, x0: float, y0: float, size: float, nx: int, ny: int, walls: F8
) -> Any:  # fmt: skip
    """The free cell a body stands on: of the cell it is in and the eight around it, the nearest whose centre it sees; `old` where it sees none."""
    col, row = int((px - x0) / size), int((py - y0) / size)
    if not (0 <= col < nx and 0 <= row < ny):
        return old
    g = (level * ny + row) * nx + col
    c = cid[g]
    if c == old and c >= 0:
        return c
    if c >= 0 and not blocked(px, py, cx[c], cy[c], g, walls, near_start, near_item):
        return c
    best, best_d = old, 1e18
    for r in range(max(0, row - 1), min(ny, row + 2)):
        for q in range(max(0, col - 1), min(nx, col + 2)):
            b = cid[(level * ny + r) * nx + q]
            if b >= 0:
                d = (cx[b] - px) ** 2 + (cy[b] - py) ** 2
                if d < best_d and not blocked(px, py, cx[b], cy[b], g, walls, near_start, near_item):
                    best, best_d = b, d
    return best


@njit(cache=True, nogil=True)
def looks(cid: I4, near_start: I4) -> I4:
    """(g,) the free cell where no wall is near; -2 - cell where one is; -1 where there is no cell."""
    look = np.empty(len(cid), np.int32)
    for g in range(len(cid)):
        look[g] = cid[g] if near_start[g] == near_start[g + 1] or cid[g] < 0 else -2 - cid[g]
    return look


@njit(cache=True, nogil=True, error_model="numpy")
def falloff(gap: float, fall: F8, per_m: float) -> float:
    """The repulsion across a gap, metres, from its table: entry k is for a gap of k / per_m - FALL_FROM_M; straight between entries; the last two are 0."""
    at = min(max(0.0, (gap + FALL_FROM_M) * per_m), len(fall) - 2.0)
    k = int(at)
    return float(fall[k] + (at - k) * (fall[k + 1] - fall[k]))


@njit(cache=True, nogil=True, error_model="numpy")
def limited(
    ux: float, uy: float, r: float, first: int, last: int, dx: F4, dy: F4, dist: F4, touch: F4, wall_first: int, wall_last: int, wx: F8, wy: F8, wd: F8
) -> Any:  # fmt: skip
    """(ux, uy): the step cut so that no body or wall is entered by more than OVERLAP_M, whatever the others do in the same step.

    dx, dy, dist, touch: from `first` up to `last`, way and distance to each body in sight, and the sum of both radii. wx, wy, wd: from `wall_first` up to
    `wall_last`, unit vector and distance to each wall's nearest point. A body may use half of the gap to each other body, and all of the gap to each wall, measured along the line to its nearest point.
    The distance to a convex set is at least what it was minus the part of the step along that line, so the limits hold exactly. What would go too far is
    first slid along walls and along the body most in the way; what still does is shortened.
    """
    length = math.sqrt(ux * ux + uy * uy)
    if length == 0.0:
        return 0.0, 0.0
    walled = False
    for q in range(wall_first, wall_last):
        walled = walled or wd[q] < r + length
    if walled:
        for _ in range(2):
            for q in range(wall_first, wall_last):
                over = ux * wx[q] + uy * wy[q] - max(0.0, wd[q] - r + WALL_OVERLAP_M)
                if over > 0.0:
                    ux, uy = ux - over * wx[q], uy - over * wy[q]
    worst, most = -1, 0.0
    for q in range(first, last):
        room = 0.5 * (dist[q] - touch[q] + (OVERLAP_M - ROUNDED_M))
        if room < length:
            over = (ux * dx[q] + uy * dy[q]) / dist[q] - max(0.0, room)
            if over > most:
                worst, most = q, over
    share = 1.0
    if worst >= 0:
        ux, uy = ux - most * dx[worst] / dist[worst], uy - most * dy[worst] / dist[worst]
        for q in range(first, last):
            room = 0.5 * (dist[q] - touch[q] + (OVERLAP_M - ROUNDED_M))
            if room < length:
                along = (ux * dx[q] + uy * dy[q]) / dist[q]
                if along > max(0.0, room):
                    share = min(share, max(0.0, room) / along)
    if walled:
        for q in range(wall_first, wall_last):
            along, room = ux * wx[q] + uy * wy[q], max(0.0, wd[q] - r + WALL_OVERLAP_M)
            if along > room:
                share = min(share, room / along)
    return share * ux, share * uy


@njit(cache=True, nogil=True, error_model="numpy")
def _wishes(
    state: State, plan: Plan, walls: F8, order: I4, cell: I4, close: Any, begin: int, end: int, at_x: F8, at_y: F8, anew: I4, heads_for: I4,
    wish_x: F8, wish_y: F8, wish_v: F8,
) -> None:  # fmt: skip
    """Write where the bodies from `begin` up to `end` in the order want to go, (x, y) of length 1 or 0, and how fast; their cells, and who is `close`.

    In passes, so that what one body waits for is not in another's way: who has come to another cell; where those aim; in which direction it lies.
    """
    x, y, speed, level_of, goal_of, start_step, now = state.x, state.y, state.speed, state.level, state.goal, state.start_step, state.step
    who_is, mark_step, patience, second, lean_x, lean_y = state.id, state.mark_step, state.patience, state.second, state.lean_x, state.lean_y
    aimed, aim_x, aim_y = state.aimed, state.aim_x, state.aim_y
    cid, look, cx, cy, pace, paced, near_start, near_item, aim = (
        plan.cid, plan.look, plan.x, plan.y, plan.pace, plan.paced, plan.near_start, plan.near_item, plan.aim
    )  # fmt: skip
    x0, y0, raster, nx, ny = plan.x0, plan.y0, plan.cell, plan.nx, plan.ny
    per_raster, cells_of_floor, levels, found = 1.0 / raster, np.int64(aim.shape[1]), len(cid) // (nx * ny), np.uint64(0)
    waits, leaning = now <= state.last_start, state.leaning
    for k in range(begin, end):
        i: Any = np.uint64(order[np.uint64(k)])
        px, py = x[i], y[i]
        at_x[np.uint64(k - begin)], at_y[np.uint64(k - begin)] = px, py
        level: Any = np.int64(level_of[i]) if levels > 1 else np.int64(0)
        here: Any = np.int64(cell[i])
        col, row = int((px - x0) * per_raster), int((py - y0) * per_raster)
        g: Any = np.uint64((level * ny + min(ny - 1, max(0, row))) * nx + min(nx - 1, max(0, col)))
        in_cell: Any = np.int64(look[g])
        if in_cell < 0:
            # Away from walls the cell is the one that they are in, old or new; only here it is looked at what they see.
            in_cell = np.int64(-2) - in_cell
            if in_cell != here:
                in_cell = np.int64(cell_at(px, py, level, here, cid, cx, cy, near_start, near_item, x0, y0, raster, nx, ny, walls))
        goal: Any = np.int64(goal_of[i])
        # What is asked for is far away in memory: for all of them at once.
        anew[found] = i
        if in_cell != here or goal != np.int64(aimed[i]):
            found += np.uint64(1)
            cell[i], aimed[i] = in_cell, goal
            prefetch(aim, max(np.int64(0), goal) * cells_of_floor + in_cell)
        v0 = speed[i]
        if paced:
            v0 = v0 * pace[np.uint64(in_cell)]
        wish_v[np.uint64(k - begin)] = v0
    for q in range(found):
        i = np.uint64(anew[q])
        goal = np.int64(aimed[i])
        target: Any = np.int64(aim[np.uint64(goal), np.uint64(cell[i])]) if goal >= 0 else np.int64(-1)
        heads_for[q] = target
        prefetch(cx, max(np.int64(0), target))
        prefetch(cy, max(np.int64(0), target))
    for q in range(found):
        i, target = np.uint64(anew[q]), np.int64(heads_for[q])
        if target >= 0:
            aim_x[i], aim_y[i] = cx[np.uint64(target)], cy[np.uint64(target)]
        else:
            aim_x[i], aim_y[i] = math.nan, math.nan
    for k in range(begin, end):
        nth = np.uint64(k - begin)
        i, px, py = np.uint64(order[np.uint64(k)]), at_x[nth], at_y[nth]
        wx, wy = aim_x[i] - px, aim_y[i] - py
        length = math.sqrt(wx * wx + wy * wy)
        # No number for who aims nowhere: not above anything.
        inverse = 1.0 / length if length > 0.05 and not (waits and now <= start_step[i]) else 0.0
        at_goal = False
        if length < CLOSE_CELLS * raster:
            goal = np.int64(goal_of[i])
            target = np.int64(aim[np.uint64(goal), np.uint64(cell[i])])
            at_goal = np.int64(aim[np.uint64(goal), np.uint64(target)]) == target
        close[i] = at_goal
        wx, wy = (wx * inverse, wy * inverse) if inverse > 0.0 else (0.0, 0.0)
        if leaning and (lean_x[i] != 0.0 or lean_y[i] != 0.0) and goal_of[i] != -1 and now > start_step[i]:
            wx, wy = wx + lean_x[i], wy + lean_y[i]
            length = math.sqrt(wx * wx + wy * wy)
            inverse = 1.0 / length if length > 1e-6 else 0.0
            wx, wy = wx * inverse, wy * inverse
        if now - mark_step[i] > patience and wish_v[nth] > 0.0 and (wx != 0.0 or wy != 0.0):
            # Two who block each other face to face would stand for ever: each tries now this side, now that.
            turn = 2.4 * (hash01(7, who_is[i], now // second) - 0.5)
            wx, wy = math.cos(turn) * wx - math.sin(turn) * wy, math.sin(turn) * wx + math.cos(turn) * wy
        wish_x[nth], wish_y[nth] = wx, wy


@njit(cache=True, nogil=True, error_model="numpy")
def _windows(
    at_x: F8, at_y: F8, cuts: F8, n: int, x0: float, y0: float, per_wide: float, per_deep: float, per_wall: float, most_col: Any, most_row: Any,
    most_wall_col: Any, most_wall_row: Any, first_col: I4, last_col: I4, first_row: I4, last_row: I4, wall_col: I4, wall_row: I4,
) -> None:  # fmt: skip
    """Write which cells n bodies have in sight, and on which of the walls' cells they stand. Whole numbers of 32 bits only: compiled for many at once.

    Three rows for nearly all, more where cells are less deep than sight.
    """
    none, one = np.int32(0), np.int32(1)
    for k in range(n):
        east, north, cut = at_x[k] - x0, at_y[k] - y0, cuts[k]
        first_col[k] = max(none, np.int32((east - cut) * per_wide))
        last_col[k] = min(most_col, np.int32((east + cut) * per_wide))
        middle = np.int32(north * per_deep)
        first_row[k] = max(none, min(np.int32(middle - one), np.int32((north - cut) * per_deep)))
        last_row[k] = min(most_row, max(np.int32(middle + one), np.int32((north + cut) * per_deep)))
        wall_col[k] = min(most_wall_col, max(none, np.int32(east * per_wall)))
        wall_row[k] = min(most_wall_row, max(none, np.int32(north * per_wall)))


def _stepper(kind: int) -> Any:
    """One step of a model (see `simulation.models`), compiled for its kind."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def advance(
        state: State, cells: Cells, plan: Plan, after: After, numbers: Any, reach: float, headway: float, most_radius: float, alike: bool, cap: int, dt: float,
        fall: F8, per_m: float, sx: I4, sy: I4, sr: F4, part: int, parts: int,
    ) -> None:  # fmt: skip
        """Step the bodies of the `part`th of `parts` runs of chunks; writes their rows of `after`, nobody else's. A run lies together: what one chunk
        has fetched of the floor and of the rows of cells next to it, the next one uses.

        alike: everybody is as wide as the widest. reach: gaps beyond it repel nobody; headway: gaps beyond the desired speed times it slow nobody; cap: bodies in sight at most. fall, per_m: see
        `falloff`. sx, sy, sr: (n,) as `counting_sort` writes them.
        """
        # Fields of tuples are counted references at every use: taken out once. Indices are unsigned, so that none is looked at for being negative.
        order, start, walls, wall_start, wall_item = cells.order, cells.start, cells.walls, cells.wall_start, cells.wall_item
        grid_x0, grid_y0, cols, rows, wall_nx, wall_ny = cells.x0, cells.y0, cells.cols, cells.rows, cells.nx, cells.ny
        per_wide, per_deep, per_wall = 1.0 / cells.wide, 1.0 / cells.deep, 1.0 / cells.size
        vx, vy, old_hx, old_hy = state.vx, state.vy, state.hx, state.hy
        radius, level_of = state.radius, state.level
        next_x, next_y, next_vx, next_vy, next_hx, next_hy, cell, close = (
            after.x,
            after.y,
            after.vx,
            after.vy,
            after.hx,
            after.hy,
            after.cell,
            after.close,
        )
        levels = (len(start) - 1) // (cols * rows)
        n, per_s, per_headway = len(order), 1.0 / dt, 1.0 / max(1e-9, headway)
        pairs = max(PAIRS, cap)
        dx, dy, dist, touch = np.empty(pairs, np.float32), np.empty(pairs, np.float32), np.empty(pairs, np.float32), np.empty(pairs, np.float32)
        fx, fy = np.empty(pairs if kind == 0 else 0, np.float32), np.empty(pairs if kind == 0 else 0, np.float32)
        if alike:
            touch[:] = np.float32(most_radius) + np.float32(most_radius)
        who = np.empty(pairs if kind != 0 else 0, np.int32)
        quantum = lanes.everywhere(1.0 / QUANTA_PER_M)
        none, far = lanes.everywhere(0.0), lanes.everywhere(FAR_M)
        steepness, strength = lanes.everywhere(-1.4426950408889634 / numbers[2]), lanes.everywhere(math.log2(numbers[1]))
        wex, wey, wd = np.empty(2 * NEAR_WALLS), np.empty(2 * NEAR_WALLS), np.empty(2 * NEAR_WALLS)
        wall = np.empty(NEAR_WALLS, np.int32)
        wish_x, wish_y, wish_v = np.empty(CHUNK), np.empty(CHUNK), np.empty(CHUNK)
        at_x, at_y, anew, heads_for = np.empty(CHUNK), np.empty(CHUNK), np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
        turn_x, turn_y, narrowest, cuts, own, free = (
            np.empty(CHUNK),
            np.empty(CHUNK),
            np.empty(CHUNK),
            np.empty(CHUNK),
            np.empty(CHUNK),
            np.empty(CHUNK),
        )
        pair_at, pair_to, wall_at, wall_to = (
            np.empty(CHUNK, np.uint64),
            np.empty(CHUNK, np.uint64),
            np.empty(CHUNK, np.int64),
            np.empty(CHUNK, np.int64),
        )
        first_col, last_col, first_row, last_row, wall_col, wall_row = (
            np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32),
            np.empty(CHUNK, np.int32),
        )  # fmt: skip
        last_cell = np.uint64(len(start) - 1)
        run_at, run_to, runs = np.empty(RUNS * CHUNK, np.int32), np.empty(RUNS * CHUNK, np.int32), np.empty(CHUNK, np.int32)
        listed_at, listed_to = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
        chunks = (n + CHUNK - 1) // CHUNK
        for chunk in range(chunks * part // parts, chunks * (part + 1) // parts):
            begin, end = chunk * CHUNK, min(n, chunk * CHUNK + CHUNK)
            _wishes(state, plan, walls, order, cell, close, begin, end, at_x, at_y, anew, heads_for, wish_x, wish_y, wish_v)
            # Where to look for others and for walls, before anybody is looked at: to find that out takes long, for many at once no longer than for one.
            for k in range(begin, end):
                nth = np.uint64(k - begin)
                r = most_radius if alike else radius[np.uint64(order[np.uint64(k)])]
                own[nth], cuts[nth] = r, r + most_radius + max(reach, headway * wish_v[nth])
            _windows(
                at_x, at_y, cuts, end - begin, grid_x0, grid_y0, per_wide, per_deep, per_wall, np.int32(cols - 1), np.int32(rows - 1), np.int32(wall_nx - 1),
                np.int32(wall_ny - 1), first_col, last_col, first_row, last_row, wall_col, wall_row,
            )  # fmt: skip
            for k in range(begin, end):
                nth = np.uint64(k - begin)
                i: Any = np.uint64(order[np.uint64(k)])
                level = np.int64(level_of[i]) if levels > 1 else np.int64(0)
                if kind != 2 and not (wish_v[nth] > 0.0 and (wish_x[nth] != 0.0 or wish_y[nth] != 0.0)):
                    wish_v[nth] = 0.0
                    runs[nth], listed_at[nth], listed_to[nth] = 0, 0, 0
                    continue
                g: Any = np.uint64((level * wall_ny + np.int64(wall_row[nth])) * wall_nx + np.int64(wall_col[nth]))
                listed_at[nth], listed_to[nth] = wall_start[g], wall_start[g + np.uint64(1)]
                run: Any = nth * np.uint64(RUNS)
                count: Any = np.int64(last_row[nth]) + np.int64(1) - np.int64(first_row[nth])
                runs[nth] = count
                at_row: Any = (level * rows + np.int64(first_row[nth])) * cols
                low, high = np.uint64(at_row + np.int64(first_col[nth])), np.uint64(at_row + np.int64(last_col[nth]) + np.int64(1))
                # All of them, whatever the count: the processor foresees what is always alike.
                for e in range(RUNS):
                    if e < 3 or e < count:
                        run_at[run], run_to[run] = start[low], start[high]
                    run, low, high = run + np.uint64(1), min(low + np.uint64(cols), last_cell), min(high + np.uint64(cols), last_cell)
            # Their steps, as many bodies at once as have room for whom they see: what one waits for, another uses.
            while begin < end:
                stop, free_pair, free_wall = begin, np.uint64(0), 0
                while stop < end and np.int64(free_pair) + cap <= pairs and free_wall <= NEAR_WALLS:
                    nth = np.uint64(stop - chunk * CHUNK)
                    px, py, quanta_x, quanta_y = at_x[nth], at_y[nth], sx[np.uint64(stop)], sy[np.uint64(stop)]
                    stop += 1
                    pair_at[nth], wall_at[nth] = free_pair, free_wall
                    pair_to[nth], wall_to[nth] = free_pair, free_wall
                    if runs[nth] == 0:
                        continue
                    cut = cuts[nth]
                    # Walls that are near.
                    near = free_wall
                    for q in range(listed_at[nth], listed_to[nth]):
                        w = np.uint64(wall_item[np.uint64(q)])
                        d, ax, ay = wall_distance(px, py, walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3])
                        if 0.0 < d < cut and near < free_wall + NEAR_WALLS:
                            wall[near - free_wall], wd[near], wex[near], wey[near] = w, d, (ax - px) / d, (ay - py) / d
                            near += 1
                    # Eight bodies at a time, all of the cells in sight; those in sight are kept.
                    seen: Any = free_pair
                    in_sight, mine = lanes.everywhere(cut * cut), lanes.everywhere(own[nth])
                    run = nth * np.uint64(RUNS)
                    last_run: Any = run + np.uint64(runs[nth])
                    while run < last_run:
                        j, to = np.uint64(run_at[run]), np.uint64(run_to[run])
                        run += np.uint64(1)
                        more: Any = True
                        while more:
                            ax, ay = lanes.mul(lanes.load_minus(sx, j, quanta_x), quantum), lanes.mul(lanes.load_minus(sy, j, quanta_y), quantum)
                            d2 = lanes.add(lanes.mul(ax, ax), lanes.mul(ay, ay))
                            bits = (
                                lanes.bits_less(d2, in_sight)
                                & lanes.bits_less(none, d2)
                                & ((np.uint64(1) << min(np.uint64(8), to - j)) - np.uint64(1))
                            )
                            lanes.store(dx, seen, lanes.chosen_first(ax, bits))
                            lanes.store(dy, seen, lanes.chosen_first(ay, bits))
                            if not alike:
                                lanes.store(touch, seen, lanes.chosen_first(lanes.add(mine, lanes.load(sr, j)), bits))
                            if kind != 0:
                                at: Any = seen
                                for e in range(lanes.WIDTH):
                                    who[at] = j + np.uint64(e)
                                    at += (bits >> np.uint64(e)) & np.uint64(1)
                            seen += lanes.count(bits)
                            j += np.uint64(lanes.WIDTH)
                            more = j < to
                    if near > free_wall:
                        kept: Any = free_pair
                        for q in range(free_pair, seen):
                            hidden = False
                            for e in range(free_wall, near):
                                # All of the wall, and what it hides, lies beyond the line through its nearest point at a right angle to the way there.
                                if dx[q] * wex[e] + dy[q] * wey[e] >= 0.999999 * wd[e]:
                                    w = np.uint64(wall[e - free_wall])
                                    if crosses(px, py, px + dx[q], py + dy[q], walls[w, 0], walls[w, 1], walls[w, 2], walls[w, 3]):
                                        hidden = True
                                        break
                            if not hidden:
                                dx[kept], dy[kept], touch[kept] = dx[q], dy[q], touch[q]
                                if kind != 0:
                                    who[kept] = who[q]
                                kept += np.uint64(1)
                        seen = kept
                    # The last eight is filled up with who is far off.
                    lanes.store(dx, seen, far)
                    lanes.store(dy, seen, none)
                    if not alike:
                        lanes.store(touch, seen, none)
                    pair_to[nth], wall_to[nth] = seen, near
                    free_pair, free_wall = (seen + np.uint64(lanes.WIDTH - 1)) & ~np.uint64(lanes.WIDTH - 1), near
                # Distances, and where each of the others pushes.
                at = np.uint64(0)
                while at < free_pair:
                    ax, ay = lanes.load(dx, at), lanes.load(dy, at)
                    d = lanes.root(lanes.add(lanes.mul(ax, ax), lanes.mul(ay, ay)))
                    lanes.store(dist, at, d)
                    if kind == 0:
                        gap = lanes.sub(d, lanes.load(touch, at))
                        f = lanes.div(lanes.power_of_two(lanes.add(strength, lanes.mul(steepness, gap))), d)
                        lanes.store(fx, at, lanes.mul(f, ax))
                        lanes.store(fy, at, lanes.mul(f, ay))
                    at += np.uint64(lanes.WIDTH)
                # The nearest, and what all of them push together.
                for k in range(begin, stop):
                    nth = np.uint64(k - chunk * CHUNK)
                    push_x, push_y, nearest = none, none, far
                    at, to = pair_at[nth], pair_to[nth]
                    while at < to:
                        nearest = lanes.least(lanes.sub(lanes.load(dist, at), lanes.load(touch, at)), nearest)
                        if kind == 0:
                            push_x, push_y = lanes.add(push_x, lanes.load(fx, at)), lanes.add(push_y, lanes.load(fy, at))
                        at += np.uint64(lanes.WIDTH)
                    narrowest[nth] = lanes.smallest(nearest)
                    if kind == 0:
                        turn_x[nth], turn_y[nth] = wish_x[nth] - lanes.total(push_x), wish_y[nth] - lanes.total(push_y)
                # Headings, into `turn`.
                for k in range(begin, stop):
                    nth = np.uint64(k - chunk * CHUNK)
                    if kind == 2 or wish_v[nth] == 0.0:
                        continue
                    if kind == 1:
                        i = np.uint64(order[np.uint64(k)])
                        seen_first: Any = np.int64(pair_at[nth])
                        seen_last: Any = np.int64(pair_to[nth])
                        hx, hy = _anticipating(
                            i, vx, vy, old_hx, old_hy, wish_x[nth], wish_y[nth], numbers, fall, per_m, seen_first, seen_last, dx, dy, dist, touch, who, order
                        )  # fmt: skip
                    else:
                        hx, hy = turn_x[nth], turn_y[nth]
                    for e in range(wall_at[nth], wall_to[nth]):
                        if wd[e] < own[nth] + 12.0 * numbers[4]:
                            f = numbers[3] * math.exp((own[nth] - wd[e]) / numbers[4])
                            hx, hy = hx - f * wex[e], hy - f * wey[e]
                    length = math.sqrt(hx * hx + hy * hy)
                    if length > 1e-12:
                        inverse = 1.0 / length
                        hx, hy = hx * inverse, hy * inverse
                    else:
                        i = np.uint64(order[np.uint64(k)])
                        hx, hy = old_hx[i], old_hy[i]
                    if kind == 1:
                        hx, hy = _relaxed(hx, hy, old_hx[i], old_hy[i], wish_x[nth], wish_y[nth], min(1.0, dt / numbers[6]))
                    turn_x[nth], turn_y[nth] = hx, hy
                # The strip ahead, as wide as both bodies.
                for k in range(begin, stop):
                    nth = np.uint64(k - chunk * CHUNK)
                    if kind == 2:
                        continue
                    to_x, to_y, nearest = lanes.everywhere(turn_x[nth]), lanes.everywhere(turn_y[nth]), far
                    at, to = pair_at[nth], pair_to[nth]
                    while at < to:
                        ax, ay, both = lanes.load(dx, at), lanes.load(dy, at), lanes.load(touch, at)
                        ahead = lanes.add(lanes.mul(ax, to_x), lanes.mul(ay, to_y))
                        aside = lanes.magnitude(lanes.sub(lanes.mul(ax, to_y), lanes.mul(ay, to_x)))
                        gap = lanes.where_at_most(aside, both, lanes.sub(lanes.load(dist, at), both), far)
                        nearest = lanes.least(lanes.where_at_most(none, ahead, gap, far), nearest)
                        at += np.uint64(lanes.WIDTH)
                    free[nth] = lanes.smallest(nearest)
                for k in range(begin, stop):
                    nth = np.uint64(k - chunk * CHUNK)
                    i, px, py = np.uint64(order[np.uint64(k)]), at_x[nth], at_y[nth]
                    v0, r = wish_v[nth], own[nth]
                    if kind != 2 and v0 == 0.0:
                        next_x[i], next_y[i], next_vx[i], next_vy[i] = px, py, 0.0, 0.0
                        next_hx[i], next_hy[i] = old_hx[i], old_hy[i]
                        continue
                    seen_first, seen_last = np.int64(pair_at[nth]), np.int64(pair_to[nth])
                    near_first: Any = wall_at[nth]
                    near_last: Any = wall_to[nth]
                    if kind == 2:
                        mx, my = _social_force(
                            i, vx, vy, r, v0, wish_x[nth], wish_y[nth], numbers, fall, per_m, dt, seen_first, seen_last, dx, dy, dist, touch, who, order,
                            near_first, near_last, wex, wey, wd,
                        )  # fmt: skip
                        hx, hy, length = old_hx[i], old_hy[i], math.sqrt(mx * mx + my * my)
                    else:
                        hx, hy = turn_x[nth], turn_y[nth]
                        if kind == 0:
                            length = min(v0, max(max(0.0, free[nth] - numbers[5]) * per_headway, max(0.0, free[nth]) * numbers[6])) * dt
                        else:
                            length = min(v0, max(0.0, free[nth]) * per_headway) * dt
                        mx, my = hx * length, hy * length
                    if near_last > near_first or 0.5 * (narrowest[nth] + OVERLAP_M) - ROUNDED_M <= length:
                        mx, my = limited(mx, my, r, seen_first, seen_last, dx, dy, dist, touch, near_first, near_last, wex, wey, wd)
                    next_x[i], next_y[i] = px + mx, py + my
                    next_vx[i], next_vy[i] = mx * per_s, my * per_s
                    next_hx[i], next_hy[i] = hx, hy
                begin = stop

    return advance


@njit(cache=True, nogil=True, error_model="numpy")
def _anticipating(
    i: int, vx: F8, vy: F8, old_hx: F8, old_hy: F8, wx: float, wy: float, numbers: Any, fall: F8, per_m: float, first: int, last: int, dx: F4, dy: F4,
    dist: F4, touch: F4, who: I4, order: I4,
) -> Any:  # fmt: skip
    """The wish and the evasion of people ahead, anticipation velocity model (equations 1-6 of the paper)."""
    hx, hy = wx, wy
    for q in range(first, last):
        nx, ny = dx[q] / dist[q], dy[q] / dist[q]
        if wx * nx + wy * ny < 0.0 and old_hx[i] * nx + old_hy[i] * ny < 0.0:
            continue
        j = order[who[q]]
        foreseen = dist[q] - touch[q] - ((vx[i] - vx[j]) * nx + (vy[i] - vy[j]) * ny) * numbers[5]
        f = (1.0 + 0.5 * (1.0 - (wx * old_hx[j] + wy * old_hy[j]))) * falloff(max(0.0, foreseen), fall, per_m)
        # To the left of the wish, unless the other will be there (or straight ahead).
        side = -wy * (dx[q] + vx[j] * numbers[5]) + wx * (dy[q] + vy[j] * numbers[5])
        sign = 1.0 if side < -1e-9 else -1.0
        hx, hy = hx - sign * f * wy, hy + sign * f * wx
    return hx, hy


@njit(cache=True, nogil=True, error_model="numpy")
def _relaxed(hx: float, hy: float, old_x: float, old_y: float, wx: float, wy: float, rate: float) -> Any:
    """The heading a step later: it turns towards the new direction over the reaction time, and at once where only one of both leads on (equation 7)."""
    if (wx * hx + wy * hy) * (wx * old_x + wy * old_y) < 0.0:
        return hx, hy
    ex, ey = old_x + rate * (hx - old_x), old_y + rate * (hy - old_y)
    length = math.sqrt(ex * ex + ey * ey)
    if length < 1e-9:
        return hx, hy
    return ex / length, ey / length


@njit(cache=True, nogil=True, error_model="numpy")
def _social_force(
    i: int, all_vx: F8, all_vy: F8, r: float, v0: float, wx: float, wy: float, numbers: Any, fall: F8, per_m: float, dt: float, first: int, last: int,
    dx: F4, dy: F4, dist: F4, touch: F4, who: I4, order: I4, wall_first: int, wall_last: int, wex: F8, wey: F8, wd: F8,
) -> Any:  # fmt: skip
    """The step under the social forces; velocity first, then place (semi-implicit Euler), no faster than 1.3 times the desired speed (Helbing, Molnár 1995)."""
    vx, vy = all_vx[i], all_vy[i]
    mass = numbers[5]
    ax, ay = (v0 * wx - vx) / numbers[0], (v0 * wy - vy) / numbers[0]
    for q in range(first, last):
        nx, ny = -dx[q] / dist[q], -dy[q] / dist[q]
        over = touch[q] - dist[q]
        f = falloff(-over, fall, per_m)
        if over > 0.0:
            j = order[who[q]]
            f += numbers[3] * over
            slip = (all_vx[j] - vx) * -ny + (all_vy[j] - vy) * nx
            ax, ay = ax + numbers[4] * over * slip * -ny / mass, ay + numbers[4] * over * slip * nx / mass
        ax, ay = ax + f * nx / mass, ay + f * ny / mass
    for e in range(wall_first, wall_last):
        nx, ny = -wex[e], -wey[e]
        over = r - wd[e]
        f = falloff(-over, fall, per_m)
        if over > 0.0:
            f += numbers[3] * over
            slip = vx * -ny + vy * nx
            ax, ay = ax - numbers[4] * over * slip * -ny / mass, ay - numbers[4] * over * slip * nx / mass
        ax, ay = ax + f * nx / mass, ay + f * ny / mass
    vx, vy = vx + ax * dt, vy + ay * dt
    v = math.sqrt(vx * vx + vy * vy)
    most = 1.3 * v0
    if v > most:
        vx, vy = vx * most / v, vy * most / v
    return vx * dt, vy * dt


STEPPERS = tuple(_stepper(kind) for kind in range(3))
"""By `kind` of the model."""


@njit(cache=True, nogil=True)
def worst_overlap(state: State, cells: Cells) -> Any:
    """(metres, i, j): the deepest overlap of two bodies, in sight of each other or not; negative is the smallest gap looked at. (-1, -1, -1) where nobody is near."""
    worst, a, b = -1.0, -1, -1
    for k in range(len(cells.order)):
        i = cells.order[k]
        px, py = state.x[i], state.y[i]
        first, last = max(0, int((px - cells.sight - cells.x0) / cells.wide)), min(cells.cols - 1, int((px + cells.sight - cells.x0) / cells.wide))
        low, high = max(0, int((py - cells.sight - cells.y0) / cells.deep)), min(cells.rows - 1, int((py + cells.sight - cells.y0) / cells.deep))
        for q in range(low, high + 1):
            base = (np.int64(state.level[i]) * cells.rows + q) * cells.cols
            for p in range(cells.start[base + first], cells.start[base + last + 1]):
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
def mark_progress(x: F8, y: F8, goal: Any, mark_x: F8, mark_y: F8, mark_step: I4, start_step: I4, step: int, far: float) -> None:
    """Who stands by choice (goal below 0, or not started yet), or has got on by `far` metres since the last mark, is marked here and now."""
    for i in range(len(x)):
        if goal[i] < 0 or step <= start_step[i] or (x[i] - mark_x[i]) ** 2 + (y[i] - mark_y[i]) ** 2 > far * far:
            mark_x[i], mark_y[i], mark_step[i] = x[i], y[i], step


@njit(cache=True, nogil=True)
def bound_for_hops(x: F8, y: F8, goal: Any, cell: I4, aim: I4, distance: F4, is_start: Any, cx: F8, cy: F8, within: float) -> Any:
    """(rows, cells, metres) of those who walk straight to where a hop begins (not to a goal there), no further off than `within` metres; rows ascending."""
    n, found = len(x), 0
    rows, cells, gap = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)
    for i in range(n):
        if goal[i] >= 0:
            to = aim[goal[i], cell[i]]
            if to >= 0 and is_start[to] and aim[goal[i], to] == to and distance[goal[i], to] > 0.0:
                d = math.sqrt((x[i] - cx[to]) ** 2 + (y[i] - cy[to]) ** 2)
                if d <= within:
                    rows[found], cells[found], gap[found] = i, to, d
                    found += 1
    return rows[:found], cells[:found], gap[:found]


@njit(cache=True, nogil=True)
def place_cells(x: F8, y: F8, level: U1, plan: Any, walls: F8) -> Any:
    """(n,) the free cell of each place; -1 off the ground."""
    out = np.empty(len(x), np.int32)
    for i in range(len(x)):
        at: Any = np.int64(level[i])
        out[i] = cell_at(
            x[i], y[i], at, -1, plan.cid, plan.x, plan.y, plan.near_start, plan.near_item, plan.x0, plan.y0, plan.cell, plan.nx, plan.ny, walls
        )  # fmt: skip
    return out

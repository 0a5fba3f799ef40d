"""Compiled kernels of the fence watch: who is in which fence, step by step, with margins, waiting times and probability.

Owns no state of its own and validates nothing; `spatial.fence_watch` does both. Compiled without fast-math, but for a minimum that may be taken in any order.
Letters: n rows of people, m rows of a step, f fences, p parts, k edges, w slots.

Why it is fast. A person's *safe circle* is one around them in which nothing can change: no border, no line of a margin runs through it. While they
stay in it a step costs one comparison, however many fences there are.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from spatial.kernels import covers, orientation, segment_squared

B1 = npt.NDArray[np.bool_]
F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
U8 = npt.NDArray[np.uint64]

ENTER: Final = 0
EXIT: Final = 1
CROSS: Final = 2
DWELL: Final = 3

NOWHERE: Final = 255
FAR: Final = 7.0
"""Whitened distance beyond which a Gaussian has no mass left to count (e^-24)."""

PANEL: Final = 4.5
"""Of an integral along an edge, whitened: as long as twelve nodes give it to 1e-11."""

WORTH_M: Final = 2.0
"""In cells larger than this it pays to measure how far a border is, where in smaller ones it is quicker to look again at the next step."""

_SLACK_M: Final = 1e-6
_ASIDE: Final = 1e-150
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


class Raster(NamedTuple):
    """The index of fences: see `spatial.geofence.FenceSet`. part_edge: (p + 1,) first edge of a part in `edge`; fence_part: (f + 1,) where a
    fence's parts begin in `part_of`; ring: (c,) cells to the nearest border, or empty;
    beyond: a cell lists what comes this near to it, margins apart; line: (5, k) edges as x, y, dx, dy, 1/length^2."""

    grid: F8
    shape: I8
    cell_first: I4
    entry: I4
    ring: U1
    part_fence: I4
    part_slab: I8
    part_row: I8
    capsule: F8
    slab_first: I8
    slab_edge: F8
    part_edge: I8
    edge: F8
    part_of: I8
    fence_part: I8
    beyond: float
    line: F8


class Rules(NamedTuple):
    """What each fence asks, (f,) each: metres inwards and outwards, seconds of dwelling and of confirming, least confidence, tags, active, crossing."""

    inwards: F8
    outwards: F8
    dwell: F8
    confirm: F8
    least: F8
    all_of: U8
    none_of: U8
    active: B1
    cross: B1


class People(NamedTuple):
    """State by row of a person, (n,) or (n, w): see `spatial.fence_watch.FenceWatch`."""

    level: U1
    at: F8
    time: F8
    spread: F8
    safe: F8
    due: F8
    epoch: I8
    tags: U8
    held: I4
    fence: I4
    since: F8
    pending: F8
    state: U1


@njit(cache=True, error_model="numpy")
def ring_distance(first: I4, entry: I4, rows: int, columns: int, base: int, out: U1) -> None:
    """Fill out[base:] with each cell's Chebyshev distance, in cells, to the nearest one with a border in it (at most 255). Two passes of a chamfer."""
    for row in range(rows):
        for column in range(columns):
            c = base + row * columns + column
            best = 255
            for e in range(first[c], first[c + 1]):
                if entry[e] & 1:
                    best = 0
            if best > 0:
                if row > 0:
                    for side in range(max(0, column - 1), min(columns, column + 2)):
                        best = min(best, out[c - columns + side - column] + 1)
                if column > 0:
                    best = min(best, out[c - 1] + 1)
            out[c] = best
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            c = base + row * columns + column
            best = int(out[c])
            if row < rows - 1:
                for side in range(max(0, column - 1), min(columns, column + 2)):
                    best = min(best, out[c + columns + side - column] + 1)
            if column < columns - 1:
                best = min(best, out[c + 1] + 1)
            out[c] = best


@njit(cache=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def _squared_to(line: F8, first: int, last: int, px: float, py: float) -> float:
    """Squared distance to the nearest of some edges. The flags and the calls of min and max let it vectorise (a choice by `if` does not: five times slower); it
    is the same in any order, and there are no NaNs."""
    x, y, dx, dy, inverse = line[0, first:last], line[1, first:last], line[2, first:last], line[3, first:last], line[4, first:last]
    best = np.inf
    for k in range(last - first):
        ux = px - x[k]
        uy = py - y[k]
        t = min(max((ux * dx[k] + uy * dy[k]) * inverse[k], 0.0), 1.0)
        ex = ux - t * dx[k]
        ey = uy - t * dy[k]
        best = min(best, ex * ex + ey * ey)
    return best


@njit(cache=True, error_model="numpy", inline="always")
def _zones(
    grid: F8,
    shape: I8,
    cell_first: I4,
    entry: I4,
    ring: U1,
    part_fence: I4,
    part_slab: I8,
    part_row: I8,
    capsule: F8,
    slab_first: I8,
    slab_edge: F8,
    part_edge: I8,
    line: F8,
    beyond: float,
    inward: F8,
    outward: F8,
    level: int,
    px: float,
    py: float,
    zone: I4,
) -> tuple[int, float]:
    """Fences at a point as `fence << 1 | margin`, ascending, into `zone`: plain where it lies as deep as the margin inwards, margin where between the margins.
    Returns how many (-1 where `zone` is too short) and the radius in which that holds."""
    rows = shape[level, 0]
    columns = shape[level, 1]
    cell = grid[level, 2]
    x0, y0 = grid[level, 0], grid[level, 1]
    if rows == 0:
        return 0, np.inf
    gx = (px - x0) / cell
    gy = (py - y0) / cell
    if not (0.0 <= gx < columns and 0.0 <= gy < rows):
        away_x = max(x0 - px, px - x0 - columns * cell)
        away_y = max(y0 - py, py - y0 - rows * cell)
        return 0, max(away_x, away_y)
    row = int(gy)
    column = int(gx)
    c = shape[level, 2] + row * columns + column
    reach = max(0, ring[c] - 1) * cell + beyond
    left = px - x0 - column * cell
    low = py - y0 - row * cell
    clear = reach + min(min(left, cell - left), min(low, cell - low))
    found = 0
    for e in range(cell_first[c], cell_first[c + 1]):
        part = entry[e] >> 1
        fence = part_fence[part]
        margin = 0
        if entry[e] & 1:
            inwards = inward[fence]
            outwards = outward[fence]
            if part_slab[part] < 0:
                r = capsule[part, 4]
                squared = segment_squared(capsule[part, 0], capsule[part, 1], capsule[part, 2], capsule[part, 3], px, py)
                inside = squared <= r * r
                depth = r - np.sqrt(squared)
            else:
                s = part_slab[part] + row - part_row[part]
                inside = covers(slab_edge, slab_first[s], slab_first[s + 1], px, py)
                depth = 0.0
                if beyond > 0.0:
                    depth = np.sqrt(_squared_to(line, part_edge[part], part_edge[part + 1], px, py))
                elif cell > WORTH_M:
                    # What runs through this cell's row is enough: the circle does not leave the cell.
                    squared = np.inf
                    for k in range(slab_first[s], slab_first[s + 1]):
                        squared = min(squared, segment_squared(slab_edge[k, 0], slab_edge[k, 1], slab_edge[k, 2], slab_edge[k, 3], px, py))
                    depth = np.sqrt(squared)
                if not inside:
                    depth = -depth
            clear = min(clear, min(abs(depth - inwards), abs(depth + outwards)))
            deep = inside if inwards == 0.0 else depth >= inwards
            if not deep:
                if outwards == 0.0 or depth <= -outwards:
                    continue
                margin = 1
        if found > 0 and zone[found - 1] >> 1 == fence:
            zone[found - 1] &= ~1 | margin
            continue
        if found == len(zone):
            return -1, 0.0
        zone[found] = fence << 1 | margin
        found += 1
    return found, max(0.0, clear - _SLACK_M)


@njit(cache=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"})
def _round_centre(h: float, t1: float, t2: float) -> float:
    """h times the integral of (1 - e^(-u/2)) / u, u = h^2 + t^2 at most FAR^2, over t1..t2, in panels that twelve nodes settle.

    e^(-q) - 1 of q = u/128 by its series, then doubled six times by (p + 1)^2 - 1 = p (p + 2): nothing cancels where u is small, and it vectorises, which a call of exp does not.
    """
    total = 0.0
    panels = max(1, int(np.ceil((t2 - t1) / PANEL)))
    half = 0.5 * (t2 - t1) / panels
    hh = h * h + 1e-30
    for panel in range(panels):
        middle = t1 + (2 * panel + 1) * half
        for i in range(12):
            t = middle + half * _NODES[i]
            u = hh + t * t
            q = u * (1 / 128)
            p = q * (1 / 120 - q * (1 / 720 - q * (1 / 5040 - q * (1 / 40320 - q / 362880))))
            p = -q * (1.0 - q * (1 / 2 - q * (1 / 6 - q * (1 / 24 - p))))
            p *= p + 2.0
            p *= p + 2.0
            p *= p + 2.0
            p *= p + 2.0
            p *= p + 2.0
            p *= p + 2.0
            total -= _WEIGHTS[i] * p / u
    return h * half * total


@njit(cache=True, error_model="numpy")
def gaussian_mass(edge: F8, first: int, last: int, px: float, py: float, sxx: float, sxy: float, syy: float) -> float:
    """Probability that a Gaussian at (px, py) with covariance (sxx, sxy, syy) lies in the polygon of some edges (outer rings counter-clockwise, holes clockwise).

    Whitened, an edge at distance h from the centre contributes h/2pi times the integral of g(h^2 + t^2) along it, g(u) = (1 - e^(-u/2))/u (Green's theorem on
    the standard normal; g has no pole). Beyond FAR that is the angle under which the centre sees the edge, and all angles together are 2pi times how often the rings
    go round the centre. That is counted, so only what is within FAR is integrated; along a whole line the integral is pi erf(h/sqrt 2), which leaves the shorter rest.
    Absolute error below 1e-9.
    """
    a = np.sqrt(max(sxx, 1e-9))
    b = sxy / a
    c = np.sqrt(max(syy - b * b, 1e-9))
    turns = 0
    less = 0.0
    for k in range(first, last):
        ax = (edge[k, 0] - px) / a
        ay = (edge[k, 1] - py - b * ax) / c
        bx = (edge[k, 2] - px) / a
        by = (edge[k, 3] - py - b * bx) / c
        # A centre on a corner or on an edge's line counts as a little above and to the right of it, for turns and for angles alike.
        if ax == 0.0 and ay == 0.0:
            ax = ay = -_ASIDE
        if bx == 0.0 and by == 0.0:
            bx = by = -_ASIDE
        cross = ax * by - ay * bx
        left = cross > 0.0 or (cross == 0.0 and (ay > by or (ay == by and bx > ax)))
        if ay <= 0.0 < by and left:
            turns += 1
        elif by <= 0.0 < ay and not left:
            turns -= 1
        dx = bx - ax
        dy = by - ay
        squared = dx * dx + dy * dy
        if squared == 0.0 or cross * cross > FAR * FAR * squared:
            continue
        length = np.sqrt(squared)
        h = max(abs(cross) / length, _ASIDE)
        reach = np.sqrt(max(FAR * FAR - h * h, 0.0))
        t1 = (ax * dx + ay * dy) / length
        t2 = t1 + length
        if t1 >= reach or t2 <= -reach:
            continue
        # Angle less mass. No arc tangent of an end that is near the centre: there only the angle from corner to corner is exact.
        rest = np.pi * math.erfc(h / np.sqrt(2.0))
        if t1 > -reach or t2 < reach:
            seen = np.arctan2(abs(cross), ax * bx + ay * by)
            brink = np.arctan(reach / h)
            if t1 <= -reach and t2 > 0.0:
                rest += seen - brink + np.arctan(t1 / h) + _round_centre(h, t2, reach)
            elif t2 >= reach and t1 < 0.0:
                rest += seen - brink - np.arctan(t2 / h) + _round_centre(h, -reach, t1)
            else:
                rest = seen - _round_centre(h, max(t1, -reach), min(t2, reach))
                if t2 > reach:
                    rest -= np.arctan(t2 / h) - brink
                if t1 < -reach:
                    rest += np.arctan(t1 / h) + brink
        less += rest if left else -rest
    return min(1.0, max(0.0, turns - less / (2 * np.pi)))


@njit(cache=True, error_model="numpy")
def _in_fence(raster: Raster, fence: int, px: float, py: float, sxx: float, sxy: float, syy: float) -> float:
    total = 0.0
    for i in range(raster.fence_part[fence], raster.fence_part[fence + 1]):
        part = raster.part_of[i]
        total += gaussian_mass(raster.edge, raster.part_edge[part], raster.part_edge[part + 1], px, py, sxx, sxy, syy)
    return min(1.0, total)


@njit(cache=True, error_model="numpy")
def _meets(edge: F8, first: int, last: int, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether the segment a-b meets one of the edges, ends included, exactly."""
    for k in range(first, last):
        cx, cy, dx, dy = edge[k, 0], edge[k, 1], edge[k, 2], edge[k, 3]
        if max(cx, dx) < min(ax, bx) or min(cx, dx) > max(ax, bx) or max(cy, dy) < min(ay, by) or min(cy, dy) > max(ay, by):
            continue
        c = orientation(ax, ay, bx, by, cx, cy)
        d = orientation(ax, ay, bx, by, dx, dy)
        if (c > 0.0 and d > 0.0) or (c < 0.0 and d < 0.0):
            continue
        a = orientation(cx, cy, dx, dy, ax, ay)
        b = orientation(cx, cy, dx, dy, bx, by)
        if (a > 0.0 and b > 0.0) or (a < 0.0 and b < 0.0):
            continue
        return True
    return False


@njit(cache=True, error_model="numpy")
def _segments_squared(ax: float, ay: float, bx: float, by: float, cx: float, cy: float, dx: float, dy: float) -> float:
    """Squared distance of two segments."""
    c = orientation(ax, ay, bx, by, cx, cy)
    d = orientation(ax, ay, bx, by, dx, dy)
    a = orientation(cx, cy, dx, dy, ax, ay)
    b = orientation(cx, cy, dx, dy, bx, by)
    if c * d < 0.0 and a * b < 0.0:
        return 0.0
    return min(
        min(segment_squared(ax, ay, bx, by, cx, cy), segment_squared(ax, ay, bx, by, dx, dy)),
        min(segment_squared(cx, cy, dx, dy, ax, ay), segment_squared(cx, cy, dx, dy, bx, by)),
    )


@njit(cache=True, error_model="numpy")
def parts_on_path(raster: Raster, level: int, ax: float, ay: float, bx: float, by: float, grow: float, stamp: I8, mark: int, out: I4) -> Any:
    """Parts with an entry in a cell that the path a-b, grown by some metres, may touch: (how many, out), each once; `stamp` (p,) holds no `mark` yet."""
    rows = raster.shape[level, 0]
    columns = raster.shape[level, 1]
    count = 0
    if rows == 0:
        return count, out
    cell = raster.grid[level, 2]
    x0 = raster.grid[level, 0]
    y0 = raster.grid[level, 1]
    near = grow + _SLACK_M
    # In floats first: a path may begin beyond what an integer holds.
    low = int(max(0.0, np.floor((min(ay, by) - near - y0) / cell)))
    high = int(min(rows - 1.0, np.floor((max(ay, by) + near - y0) / cell)))
    for row in range(low, high + 1):
        xa, xb = min(ax, bx), max(ax, bx)
        if abs(by - ay) > 1e-3:
            below = max(min(ay, by), y0 + row * cell - near)
            above = min(max(ay, by), y0 + (row + 1) * cell + near)
            pa = ax + (below - ay) / (by - ay) * (bx - ax)
            pb = ax + (above - ay) / (by - ay) * (bx - ax)
            xa, xb = max(xa, min(pa, pb)), min(xb, max(pa, pb))
        left = int(max(0.0, np.floor((xa - near - x0) / cell)))
        right = int(min(columns - 1.0, np.floor((xb + near - x0) / cell)))
        for column in range(left, right + 1):
            c = raster.shape[level, 2] + row * columns + column
            for e in range(raster.cell_first[c], raster.cell_first[c + 1]):
                part = raster.entry[e] >> 1
                if stamp[part] != mark:
                    stamp[part] = mark
                    if count == len(out):
                        larger = np.empty(2 * len(out), np.int32)
                        larger[:count] = out
                        out = larger
                    out[count] = part
                    count += 1
    return count, out


@njit(cache=True, error_model="numpy")
def path_meets(raster: Raster, part: int, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether the path meets the border of a part (or lies within a capsule's reach)."""
    if raster.part_slab[part] < 0:
        r = raster.capsule[part, 4]
        return bool(
            _segments_squared(ax, ay, bx, by, raster.capsule[part, 0], raster.capsule[part, 1], raster.capsule[part, 2], raster.capsule[part, 3])
            <= r * r
        )
    return _meets(raster.edge, raster.part_edge[part], raster.part_edge[part + 1], ax, ay, bx, by)


@njit(cache=True, error_model="numpy")
def probabilities(raster: Raster, chance: F8, x: F8, y: F8, cov: F8, least: float, offset: I8) -> Any:
    """Fences in which each of m points lies with probability `least` or more: (fence (h,), probability (h,)), ascending; fills offset (m + 1,).

    chance: (m, levels) probability of each level. cov: (m, 3).
    """
    fences = np.empty(256, np.int32)
    values = np.empty(256)
    used = 0
    stamp = np.full(len(raster.part_fence), -1, np.int64)
    parts = np.empty(64, np.int32)
    levels = chance.shape[1]
    offset[0] = 0
    for m in range(len(x)):
        reach = FAR * np.sqrt(max(cov[m, 0], cov[m, 2]))
        start = used
        for level in range(levels):
            if chance[m, level] < least:
                continue
            count, parts = parts_on_path(raster, level, x[m], y[m], x[m], y[m], reach, stamp, m * levels + level, parts)
            parts[:count].sort()
            before = -1
            for i in range(count):
                fence = raster.part_fence[parts[i]]
                if fence == before:
                    continue
                before = fence
                p = chance[m, level] * _in_fence(raster, fence, x[m], y[m], cov[m, 0], cov[m, 1], cov[m, 2])
                if p >= least:
                    if used == len(fences):
                        fences = np.concatenate((fences, np.empty_like(fences)))
                        values = np.concatenate((values, np.empty_like(values)))
                    fences[used] = fence
                    values[used] = p
                    used += 1
        order = np.argsort(fences[start:used], kind="mergesort")
        fences[start:used] = fences[start:used][order]
        values[start:used] = values[start:used][order]
        offset[m + 1] = used
    return fences[:used].copy(), values[:used].copy()


@njit(cache=True, error_model="numpy")
def step(
    raster: Raster,
    rules: Rules,
    people: People,
    begin: int,
    row: I8,
    level: U1,
    x: F8,
    y: F8,
    cov: F8,
    sure: F8,
    tags: U8,
    at: float,
    steady: float,
    epoch: int,
    silent: bool,
    crossing: bool,
    stamp: I8,
    event: Any,
) -> Any:
    """Take rows begin.. of a step. Returns (rows taken, events, buffers): fewer than all where a person has more fences than slots; then grow and go on.

    cov: (m, 3) or (0, 3). sure: (m,) probability that the level is right, or (0,). event: (kind, row, fence, confidence, count) buffers, grown here.
    """
    # Fields taken out once: a tuple's arrays in a loop cost a count of references each time.
    r_grid = raster.grid
    r_shape = raster.shape
    r_cell_first = raster.cell_first
    r_entry = raster.entry
    r_ring = raster.ring
    r_part_fence = raster.part_fence
    r_part_slab = raster.part_slab
    r_part_row = raster.part_row
    r_capsule = raster.capsule
    r_slab_first = raster.slab_first
    r_slab_edge = raster.slab_edge
    r_part_edge = raster.part_edge
    r_line = raster.line
    r_beyond = raster.beyond
    f_inwards = rules.inwards
    f_outwards = rules.outwards
    f_dwell = rules.dwell
    f_confirm = rules.confirm
    f_least = rules.least
    f_all_of = rules.all_of
    f_none_of = rules.none_of
    f_active = rules.active
    f_cross = rules.cross
    p_level = people.level
    p_at = people.at
    p_time = people.time
    p_spread = people.spread
    p_safe = people.safe
    p_due = people.due
    p_epoch = people.epoch
    p_tags = people.tags
    p_held = people.held
    p_fence = people.fence
    p_since = people.since
    p_pending = people.pending
    p_state = people.state
    kind, who, which, confidence, events = event
    width = p_fence.shape[1]
    zone = np.empty(width, np.int32)
    new_fence = np.empty(width, np.int32)
    new_since = np.empty(width)
    new_pending = np.empty(width)
    new_state = np.empty(width, np.uint8)
    parts = np.empty(64, np.int32)
    last_gap = -1.0
    gain = 1.0
    marks = np.int64(0)
    for m in range(begin, len(row)):
        r = row[m]
        here = level[m]
        known = p_level[r] == here and here != NOWHERE
        old_x = p_at[r, 0]
        old_y = p_at[r, 1]
        px = x[m]
        py = y[m]
        if here != NOWHERE:
            spread = 1.0
            if known and steady > 0.0:
                gap = at - p_time[r]
                if gap != last_gap:
                    last_gap = gap
                    gain = -np.expm1(-gap / steady)
                px = old_x + gain * (px - old_x)
                py = old_y + gain * (py - old_y)
                spread = gain
            same = known and not silent and p_epoch[r] == epoch and p_tags[r] == tags[m] and at < p_due[r]
            dx = px - p_safe[r, 0]
            dy = py - p_safe[r, 1]
            if same and dx * dx + dy * dy <= p_safe[r, 2]:
                if len(cov) > 0:
                    # The smoothed position's covariance: errors of different steps are taken as independent.
                    for j in range(3):
                        p_spread[r, j] = (1 - spread) ** 2 * p_spread[r, j] + spread**2 * cov[m, j]
                p_at[r, 0] = px
                p_at[r, 1] = py
                p_time[r] = at
                continue
            zones, clear = _zones(
                r_grid,
                r_shape,
                r_cell_first,
                r_entry,
                r_ring,
                r_part_fence,
                r_part_slab,
                r_part_row,
                r_capsule,
                r_slab_first,
                r_slab_edge,
                r_part_edge,
                r_line,
                r_beyond,
                f_inwards,
                f_outwards,
                here,
                px,
                py,
                zone,
            )
            if zones < 0:
                return m, (kind, who, which, confidence, events)
        else:
            zones = 0
            clear = 0.0
            spread = 1.0
        sxx = 0.0
        sxy = 0.0
        syy = 0.0
        certain = len(cov) == 0
        if not certain:
            sxx = spread**2 * cov[m, 0]
            sxy = spread**2 * cov[m, 1]
            syy = spread**2 * cov[m, 2]
            if known:
                sxx += (1 - spread) ** 2 * p_spread[r, 0]
                sxy += (1 - spread) ** 2 * p_spread[r, 1]
                syy += (1 - spread) ** 2 * p_spread[r, 2]
        trust = sure[m] if len(sure) > 0 else 1.0
        need = events + p_held[r] + 2 * zones + 1
        if need > len(kind):
            size = max(need, 2 * len(kind))
            kind2 = np.empty(size, np.uint8)
            kind2[:events] = kind[:events]
            who2 = np.empty(size, np.int64)
            who2[:events] = who[:events]
            which2 = np.empty(size, np.int32)
            which2[:events] = which[:events]
            confidence2 = np.empty(size, np.float32)
            confidence2[:events] = confidence[:events]
            kind, who, which, confidence = kind2, who2, which2, confidence2
        before = events
        due = np.inf
        restless = False
        held = 0
        i = 0
        j = 0
        slots = p_held[r]
        full = False
        while i < slots or j < zones:
            at_slot = p_fence[r, i] if i < slots else np.int32(2147483647)
            at_zone = zone[j] >> 1 if j < zones else 2147483647
            fence = int(min(at_slot, at_zone))
            out = True
            deep = False
            if at_zone == fence:
                out = False
                deep = zone[j] & 1 == 0
                j += 1
            since = np.inf
            pending = np.inf
            state = np.uint8(0)
            if at_slot == fence:
                since = p_since[r, i]
                pending = p_pending[r, i]
                state = p_state[r, i]
                i += 1
            fits = f_active[fence] and tags[m] & f_all_of[fence] == f_all_of[fence] and tags[m] & f_none_of[fence] == 0
            if not fits:
                out = True
                deep = False
            inside = state & 1 == 1
            if inside == (deep if not inside else not out):
                pending = np.inf
            else:
                moved = inside and not known
                commit = silent or here == NOWHERE or not fits or moved
                sureness = trust
                if not commit:
                    if pending == np.inf:
                        pending = at
                    commit = at - pending >= f_confirm[fence]
                    if not commit:
                        due = min(due, pending + f_confirm[fence])
                if here == NOWHERE or not fits:
                    sureness = 1.0
                elif commit and not certain and not moved:
                    p = trust * _in_fence(raster, fence, px, py, sxx, sxy, syy)
                    sureness = 1.0 - p if inside else p
                if commit and not silent and here != NOWHERE and fits and not moved and sureness < f_least[fence]:
                    commit = False
                    restless = True
                if commit:
                    pending = np.inf
                    if not silent:
                        kind[events] = EXIT if inside else ENTER
                        who[events] = r
                        which[events] = fence
                        confidence[events] = sureness
                        events += 1
                    if inside:
                        state = np.uint8(0)
                    else:
                        state = np.uint8(1)
                        since = at
            if state & 1 == 1 and state & 2 == 0:
                if at - since >= f_dwell[fence]:
                    state |= 2
                    if not silent:
                        kind[events] = DWELL
                        who[events] = r
                        which[events] = fence
                        confidence[events] = trust if certain else trust * _in_fence(raster, fence, px, py, sxx, sxy, syy)
                        events += 1
                else:
                    due = min(due, since + f_dwell[fence])
            if state & 1 == 1 or pending < np.inf:
                if held == width:
                    full = True
                    break
                new_fence[held] = fence
                new_since[held] = since
                new_pending[held] = pending
                new_state[held] = state
                held += 1
        if full:
            return m, (kind, who, which, confidence, before)
        if crossing and known and not silent and (old_x != px or old_y != py):
            marks += 1
            count, parts = parts_on_path(raster, here, old_x, old_y, px, py, 0.0, stamp, int(marks + m), parts)
            parts[:count].sort()
            last = -1
            for k in range(count):
                part = parts[k]
                fence = r_part_fence[part]
                if fence == last or not f_cross[fence] or not f_active[fence]:
                    continue
                if tags[m] & f_all_of[fence] != f_all_of[fence] or tags[m] & f_none_of[fence] != 0:
                    continue
                inside = False
                for h in range(held):
                    inside = inside or (new_fence[h] == fence and new_state[h] & 1 == 1)
                for h in range(p_held[r]):
                    inside = inside or (p_fence[r, h] == fence and p_state[r, h] & 1 == 1)
                if inside:
                    continue
                if path_meets(raster, part, old_x, old_y, px, py):
                    last = fence
                    if events == len(kind):
                        kind = np.concatenate((kind, np.empty_like(kind)))
                        who = np.concatenate((who, np.empty_like(who)))
                        which = np.concatenate((which, np.empty_like(which)))
                        confidence = np.concatenate((confidence, np.empty_like(confidence)))
                    kind[events] = CROSS
                    who[events] = r
                    which[events] = fence
                    confidence[events] = trust
                    events += 1
        p_held[r] = held
        for h in range(held):
            p_fence[r, h] = new_fence[h]
            p_since[r, h] = new_since[h]
            p_pending[r, h] = new_pending[h]
            p_state[r, h] = new_state[h]
        p_level[r] = here
        p_time[r] = at
        p_tags[r] = tags[m]
        p_epoch[r] = epoch
        p_due[r] = due
        if here != NOWHERE:
            p_at[r, 0] = px
            p_at[r, 1] = py
            p_spread[r, 0] = sxx
            p_spread[r, 1] = sxy
            p_spread[r, 2] = syy
            p_safe[r, 0] = px
            p_safe[r, 1] = py
            p_safe[r, 2] = -1.0 if restless else clear * clear
        else:
            p_safe[r, 2] = -1.0
    return len(row), (kind, who, which, confidence, events)

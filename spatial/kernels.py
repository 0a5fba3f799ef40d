"""Compiled kernels of the geofence index: exact tests on arrays, nothing else.

Owns no state and validates nothing; `spatial.geofence` does both. Compiled without fast-math: results are those of IEEE float64.
Letters: c cells, e cell entries, k edges, p parts (a polygon of a multipolygon, or a capsule: a circle, a stretch of a corridor), n points.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

MARGIN_M: Final = 1e-4
"""Cells are classified as if they were this much larger, so that rounding of a point's cell never changes an answer."""

_SPLITTER: Final = 134217729.0  # 2^27 + 1
_ERROR_BOUND: Final = 3.3306690738754716e-16  # (3 + 16 eps) eps, Shewchuk 1997, ccwerrboundA

OUTSIDE: Final = 0
INSIDE: Final = 1
BORDER: Final = 2


@njit(cache=True)
def _orientation_exact(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Sign of the exact determinant by expansion arithmetic (Shewchuk 1997, fig. 8): six products, summed without rounding."""
    left = (ax, -ax, -cx, -ay, ay, cy)
    right = (by, cy, by, bx, cx, bx)
    expansion = np.zeros(12)
    used = 0
    for i in range(6):
        a = left[i]
        b = right[i]
        high = a * b
        t = _SPLITTER * a
        ah = t - (t - a)
        al = a - ah
        t = _SPLITTER * b
        bh = t - (t - b)
        bl = b - bh
        low = al * bl - (((high - ah * bh) - al * bh) - ah * bl)
        for part in (low, high):
            q = part
            for j in range(used):
                e = expansion[j]
                s = q + e
                v = s - q
                expansion[j] = (q - (s - v)) + (e - v)
                q = s
            expansion[used] = q
            used += 1
    for j in range(used - 1, -1, -1):
        if expansion[j] != 0.0:
            return float(expansion[j])
    return 0.0


@njit(cache=True)
def orientation(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Positive where a, b, c turn left, negative where they turn right, zero exactly where they are collinear."""
    left = (ax - cx) * (by - cy)
    right = (ay - cy) * (bx - cx)
    det = left - right
    if left > 0.0:
        if right <= 0.0:
            return det
        total = left + right
    elif left < 0.0:
        if right >= 0.0:
            return det
        total = -left - right
    else:
        # A product that is zero may have been rounded to it only by underflow; metres never get there.
        return det
    if det >= _ERROR_BOUND * total or -det >= _ERROR_BOUND * total:
        return det
    return _orientation_exact(ax, ay, bx, by, cx, cy)


@njit(cache=True)
def along_segment(ax: float, ay: float, bx: float, by: float, px: float, py: float) -> float:
    """Where along a segment (0 to 1) it is nearest to a point."""
    dx = bx - ax
    dy = by - ay
    whole = dx * dx + dy * dy
    if whole == 0.0:
        return 0.0
    return min(1.0, max(0.0, ((px - ax) * dx + (py - ay) * dy) / whole))


@njit(cache=True)
def segment_squared(ax: float, ay: float, bx: float, by: float, px: float, py: float) -> float:
    """Squared distance of a point from a segment; a segment of no length is its point."""
    t = along_segment(ax, ay, bx, by, px, py)
    dx = px - (ax + t * (bx - ax))
    dy = py - (ay + t * (by - ay))
    return dx * dx + dy * dy


@njit(cache=True)
def covers(edge: F8, first: int, last: int, px: float, py: float) -> bool:
    """Ray crossing to the right over edges first..last-1 of one polygon (all rings); true inside and on the border."""
    odd = False
    for k in range(first, last):
        x1 = edge[k, 0]
        y1 = edge[k, 1]
        x2 = edge[k, 2]
        y2 = edge[k, 3]
        if x1 < px and x2 < px:
            continue
        if x2 == px and y2 == py:
            return True
        if y1 == py and y2 == py:
            if min(x1, x2) <= px <= max(x1, x2):
                return True
            continue
        if (y1 > py and y2 <= py) or (y2 > py and y1 <= py):
            side = orientation(x1, y1, x2, y2, px, py)
            if side == 0.0:
                return True
            if (side > 0.0) == (y2 > y1):
                odd = not odd
    return odd


@njit(cache=True)
def _mark_edges(mark: U1, edge: F8, margin: float, x0: float, y0: float, cell: float) -> None:
    """Set BORDER on each cell that an edge may touch, the cell enlarged by a margin. (x0, y0) is the corner of `mark`'s first cell."""
    rows, columns = mark.shape
    for k in range(len(edge)):
        x1, y1, x2, y2 = edge[k, 0] - x0, edge[k, 1] - y0, edge[k, 2] - x0, edge[k, 3] - y0
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        low = max(0, int(np.floor((y1 - margin) / cell)))
        high = min(rows - 1, int(np.floor((y2 + margin) / cell)))
        for row in range(low, high + 1):
            if y2 - y1 <= 2 * margin:
                xa, xb = x1, x2
            else:
                slope = (x2 - x1) / (y2 - y1)
                ya = max(y1, row * cell - margin)
                yb = min(y2, (row + 1) * cell + margin)
                xa = x1 + slope * (ya - y1)
                xb = x1 + slope * (yb - y1)
                # Interpolation may stray by rounding only; keep it between the ends.
                xa = min(max(xa, min(x1, x2)), max(x1, x2))
                xb = min(max(xb, min(x1, x2)), max(x1, x2))
            if xa > xb:
                xa, xb = xb, xa
            left = max(0, int(np.floor((xa - margin) / cell)))
            right = min(columns - 1, int(np.floor((xb + margin) / cell)))
            for column in range(left, right + 1):
                mark[row, column] = BORDER


@njit(cache=True)
def mark_polygon(mark: U1, ring_edge: F8, margin: float, edge: F8, slab_first: I8, slab: int, x0: float, y0: float, cell: float) -> None:
    """Classify the cells of a polygon's window: OUTSIDE, INSIDE (wholly), BORDER (within a margin of an edge). Slab `slab + row` holds the edges of a row."""
    rows, columns = mark.shape
    _mark_edges(mark, ring_edge, margin, x0, y0, cell)
    for row in range(rows):
        known = False
        inside = False
        for column in range(columns):
            if mark[row, column] == BORDER:
                known = False
                continue
            if not known:
                inside = covers(edge, slab_first[slab + row], slab_first[slab + row + 1], x0 + (column + 0.5) * cell, y0 + (row + 0.5) * cell)
                known = True
            if inside:
                mark[row, column] = INSIDE


@njit(cache=True)
def mark_capsule(mark: U1, capsule: F8, margin: float, x0: float, y0: float, cell: float) -> None:
    """Classify the cells of the window of a capsule (x1, y1, x2, y2, r): all within r of a segment, each cell enlarged by a margin."""
    rows, columns = mark.shape
    reach = 0.7072 * cell + margin
    for row in range(rows):
        for column in range(columns):
            away = np.sqrt(segment_squared(capsule[0], capsule[1], capsule[2], capsule[3], x0 + (column + 0.5) * cell, y0 + (row + 0.5) * cell))
            if away + reach < capsule[4]:
                mark[row, column] = INSIDE
            elif away - reach <= capsule[4]:
                mark[row, column] = BORDER


@njit(cache=True)
def split_into_slabs(ring_edge: F8, y0: float, cell: float, rows: int) -> Any:
    """Copy a polygon's edges (k, 4) into its rows: (edges (m, 4), count per row (rows,)). An edge goes to each row that it may touch."""
    count = np.zeros(rows, np.int64)
    for fill in range(2):
        if fill == 1:
            start = np.zeros(rows + 1, np.int64)
            for row in range(rows):
                start[row + 1] = start[row] + count[row]
            out = np.empty((start[rows], 4))
        for k in range(ring_edge.shape[0]):
            y1 = min(ring_edge[k, 1], ring_edge[k, 3]) - y0
            y2 = max(ring_edge[k, 1], ring_edge[k, 3]) - y0
            low = max(0, int(np.floor((y1 - MARGIN_M) / cell)))
            high = min(rows - 1, int(np.floor((y2 + MARGIN_M) / cell)))
            for row in range(low, high + 1):
                if fill == 0:
                    count[row] += 1
                else:
                    out[start[row]] = ring_edge[k]
                    start[row] += 1
    return out, count


@njit(cache=True)
def _covering(
    c: int,
    row: int,
    px: float,
    py: float,
    cell_first: I4,
    entry: I4,
    part_fence: I4,
    part_slab: I8,
    part_row: I8,
    capsule: F8,
    slab_first: I8,
    edge: F8,
    out: I4,
) -> None:
    """Fill `out` with the fences that cover a point of cell c, which is in this row of cells; ascending. What is behind them stays as it is."""
    found = 0
    for e in range(cell_first[c], cell_first[c + 1]):
        part = entry[e] >> 1
        if entry[e] & 1:
            slab = part_slab[part]
            if slab < 0:
                r = capsule[part, 4]
                if segment_squared(capsule[part, 0], capsule[part, 1], capsule[part, 2], capsule[part, 3], px, py) > r * r:
                    continue
            else:
                s = slab + row - part_row[part]
                if not covers(edge, slab_first[s], slab_first[s + 1], px, py):
                    continue
        fence = part_fence[part]
        if found == 0 or out[found - 1] != fence:
            out[found] = fence
            found += 1


@njit(cache=True)
def locate(
    level: U1,
    x_m: npt.NDArray[np.float32],
    y_m: npt.NDArray[np.float32],
    left: int,
    grid: F8,
    shape: I8,
    cell_first: I4,
    entry: I4,
    part_fence: I4,
    part_slab: I8,
    part_row: I8,
    capsule: F8,
    slab_first: I8,
    edge: F8,
    out: I4,
) -> int:
    """Fill `out` (n, width) with the fences that cover each point, ascending, -1 padded. Returns -1, or the first row with a level out of range.

    grid: (levels, 3) corner x, corner y, cell size. shape: (levels, 3) rows, columns, first cell. part_slab: first slab, or -1 for a capsule (p, 5).
    """
    levels = grid.shape[0]
    width = out.shape[1]
    for n in range(level.shape[0]):
        for w in range(width):
            out[n, w] = -1
        here = level[n]
        if here >= levels:
            if here == left:
                continue
            return n
        rows = shape[here, 0]
        columns = shape[here, 1]
        px = np.float64(x_m[n])
        py = np.float64(y_m[n])
        gx = (px - grid[here, 0]) / grid[here, 2]
        gy = (py - grid[here, 1]) / grid[here, 2]
        if not (0.0 <= gx < columns and 0.0 <= gy < rows):
            continue
        row = int(gy)
        c = shape[here, 2] + row * columns + int(gx)
        _covering(c, row, px, py, cell_first, entry, part_fence, part_slab, part_row, capsule, slab_first, edge, out[n])
    return -1


@njit(cache=True)
def relocate(
    row: I4,
    level: U1,
    x_m: npt.NDArray[np.float32],
    y_m: npt.NDArray[np.float32],
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
    edge: F8,
    at_level: U1,
    at_x: npt.NDArray[np.float32],
    at_y: npt.NDArray[np.float32],
    free: npt.NDArray[np.float32],
    index: I4,
    out: I4,
) -> int:
    """`locate` for those of n rows who may have crossed a border since they were last located; returns how many, k.

    at_level, at_x, at_y, free (rows,): where each row was located last, and the square of how far it may go from there without meeting a border (-1: not known); brought
    up to date here. ring: (c,) cells to the nearest border. Fills index (k of n,), ascending, and out (k of n, width). A level that there is not is in no fence.
    """
    levels = grid.shape[0]
    width = out.shape[1]
    k = 0
    for n in range(len(row)):
        r = row[n]
        here = level[n]
        dx = np.float64(x_m[n]) - np.float64(at_x[r])
        dy = np.float64(y_m[n]) - np.float64(at_y[r])
        if here == at_level[r] and dx * dx + dy * dy <= free[r]:
            continue
        index[k] = n
        for w in range(width):
            out[k, w] = -1
        at_level[r] = here
        at_x[r] = x_m[n]
        at_y[r] = y_m[n]
        free[r] = -1.0
        if here < levels:
            cell = grid[here, 2]
            rows = shape[here, 0]
            columns = shape[here, 1]
            px = np.float64(x_m[n])
            py = np.float64(y_m[n])
            gx = (px - grid[here, 0]) / cell
            gy = (py - grid[here, 1]) / cell
            clear = 0.0
            if 0.0 <= gx < columns and 0.0 <= gy < rows:
                at = int(gy)
                column = int(gx)
                c = shape[here, 2] + at * columns + column
                if ring[c] > 0:
                    side = min(min(gx - column, 1.0 - (gx - column)), min(gy - at, 1.0 - (gy - at)))
                    clear = (ring[c] - 1 + max(0.0, side)) * cell
                _covering(c, at, px, py, cell_first, entry, part_fence, part_slab, part_row, capsule, slab_first, edge, out[k])
            elif rows > 0:
                clear = max(max(-gx, gx - columns), max(-gy, gy - rows)) * cell
            else:
                clear = np.inf
            # Less what rounding may have added, here and in the check.
            clear = max(0.0, clear - MARGIN_M)
            free[r] = clear * clear * (1.0 - 1e-6) if clear > 0.0 else -1.0
        k += 1
    return k

"""Compiled kernels of the geofence index: exact tests on arrays, nothing else.

Owns no state and validates nothing; `spatial.geofence` does both. Compiled without fast-math: results are those of IEEE float64.
Letters: c cells, e cell entries, k edges, p parts (a polygon of a multipolygon, or a circle), n points.
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
def _covers(edge: F8, first: int, last: int, px: float, py: float) -> bool:
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
def _mark_edges(mark: U1, edge: F8, first: int, last: int, x0: float, y0: float, cell: float) -> None:
    """Set BORDER on each cell that an edge may touch, the cell enlarged by MARGIN_M. (x0, y0) is the corner of `mark`'s first cell."""
    rows, columns = mark.shape
    for k in range(first, last):
        x1, y1, x2, y2 = edge[k, 0] - x0, edge[k, 1] - y0, edge[k, 2] - x0, edge[k, 3] - y0
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        low = max(0, int(np.floor((y1 - MARGIN_M) / cell)))
        high = min(rows - 1, int(np.floor((y2 + MARGIN_M) / cell)))
        for row in range(low, high + 1):
            if y2 - y1 <= 2 * MARGIN_M:
                xa, xb = x1, x2
            else:
                slope = (x2 - x1) / (y2 - y1)
                ya = max(y1, row * cell - MARGIN_M)
                yb = min(y2, (row + 1) * cell + MARGIN_M)
                xa = x1 + slope * (ya - y1)
                xb = x1 + slope * (yb - y1)
                # Interpolation may stray by rounding only; keep it between the ends.
                xa = min(max(xa, min(x1, x2)), max(x1, x2))
                xb = min(max(xb, min(x1, x2)), max(x1, x2))
            if xa > xb:
                xa, xb = xb, xa
            left = max(0, int(np.floor((xa - MARGIN_M) / cell)))
            right = min(columns - 1, int(np.floor((xb + MARGIN_M) / cell)))
            for column in range(left, right + 1):
                mark[row, column] = BORDER


@njit(cache=True)
def mark_polygon(mark: U1, edge: F8, slab_first: I8, slab: int, x0: float, y0: float, cell: float) -> None:
    """Classify the cells of a polygon's window: OUTSIDE, INSIDE (wholly), BORDER. Slab `slab + row` holds the edges of a row."""
    rows, columns = mark.shape
    for row in range(rows):
        _mark_edges(mark, edge, slab_first[slab + row], slab_first[slab + row + 1], x0, y0, cell)
    for row in range(rows):
        known = False
        inside = False
        for column in range(columns):
            if mark[row, column] == BORDER:
                known = False
                continue
            if not known:
                inside = _covers(edge, slab_first[slab + row], slab_first[slab + row + 1], x0 + (column + 0.5) * cell, y0 + (row + 0.5) * cell)
                known = True
            if inside:
                mark[row, column] = INSIDE


@njit(cache=True)
def mark_circle(mark: U1, cx: float, cy: float, r: float, x0: float, y0: float, cell: float) -> None:
    """Classify the cells of a circle's window, each cell enlarged by MARGIN_M."""
    rows, columns = mark.shape
    for row in range(rows):
        ya = y0 + row * cell - MARGIN_M
        yb = y0 + (row + 1) * cell + MARGIN_M
        far_y = max(abs(ya - cy), abs(yb - cy))
        near_y = 0.0 if ya <= cy <= yb else min(abs(ya - cy), abs(yb - cy))
        for column in range(columns):
            xa = x0 + column * cell - MARGIN_M
            xb = x0 + (column + 1) * cell + MARGIN_M
            far_x = max(abs(xa - cx), abs(xb - cx))
            near_x = 0.0 if xa <= cx <= xb else min(abs(xa - cx), abs(xb - cx))
            if near_x * near_x + near_y * near_y > (r + MARGIN_M) ** 2:
                continue
            reach = r - MARGIN_M
            mark[row, column] = INSIDE if reach > 0 and far_x * far_x + far_y * far_y < reach * reach else BORDER


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
def locate(
    level: U1,
    x_m: npt.NDArray[np.float32],
    y_m: npt.NDArray[np.float32],
    left: int,
    grid: F8,
    shape: I8,
    cell_first: I8,
    entry: I4,
    part_fence: I4,
    part_slab: I8,
    part_row: I8,
    circle: F8,
    slab_first: I8,
    edge: F8,
    out: I4,
) -> int:
    """Fill `out` (n, width) with the fences that cover each point, ascending, -1 padded. Returns -1, or the first row with a level out of range.

    grid: (levels, 3) corner x, corner y, cell size. shape: (levels, 3) rows, columns, first cell. part_slab: first slab, or -1 for a circle.
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
        found = 0
        for e in range(cell_first[c], cell_first[c + 1]):
            part = entry[e] >> 1
            if entry[e] & 1:
                slab = part_slab[part]
                if slab < 0:
                    dx = px - circle[part, 0]
                    dy = py - circle[part, 1]
                    if dx * dx + dy * dy > circle[part, 2] * circle[part, 2]:
                        continue
                else:
                    s = slab + row - part_row[part]
                    if not _covers(edge, slab_first[s], slab_first[s + 1], px, py):
                        continue
            fence = part_fence[part]
            if found == 0 or out[n, found - 1] != fence:
                out[n, found] = fence
                found += 1
    return -1

"""Compiled kernels of the crowd index: a grid of cells a sheet, rebuilt whole, asked in bulk.

Owns no state and validates nothing; `spatial.index` does both. Compiled without fast-math: a distance is the IEEE float64 of its formula.
Letters: n rows, c cells, s sheets, q queries, h hits.

A grid covers the box in which its sheet's crowd stands; whoever stands outside it belongs to the nearest cell of its rim. Cell numbers are
monotone in x and y, so a range of coordinates is a range of cells for them too, and one lost phone does not coarsen the grid for all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from spatial.kernels import along_segment, covers, segment_squared

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

SLACK_M: Final = 1e-6
"""Ranges are this much wider than asked when they are turned into cells, so that rounding loses nobody; the test of a row is exact."""


@njit(cache=True)
def _cell(at: float, corner: float, cell: float, count: int) -> int:
    """The cell of a coordinate, clamped to 0..count-1."""
    place = (at - corner) / cell
    if place < 1.0:
        return 0
    if place >= count:
        return count - 1
    return int(place)


@njit(cache=True)
def fill(sheet: I4, x: F8, y: F8, grid: F8, shape: I8, cells: int) -> Any:
    """Counting sort of rows by cell, ascending within one: (cell_first (c + 1,), row (m,), x (m,), y (m,)). A sheet below 0 is left out.

    grid: (s, 3) corner x, corner y, cell size. shape: (s, 3) rows, columns, first cell.
    """
    first = np.zeros(cells + 1, np.int64)
    place = np.empty(len(sheet), np.int64)
    for n in range(len(sheet)):
        s = sheet[n]
        if s < 0:
            place[n] = -1
            continue
        row = _cell(y[n], grid[s, 1], grid[s, 2], shape[s, 0])
        column = _cell(x[n], grid[s, 0], grid[s, 2], shape[s, 1])
        place[n] = shape[s, 2] + row * shape[s, 1] + column
        first[place[n] + 1] += 1
    for c in range(cells):
        first[c + 1] += first[c]
    free = first[:-1].copy()
    rows = np.empty(first[cells], np.int32)
    xs = np.empty(first[cells])
    ys = np.empty(first[cells])
    for n in range(len(sheet)):
        if place[n] < 0:
            continue
        at = free[place[n]]
        free[place[n]] += 1
        rows[at] = n
        xs[at] = x[n]
        ys[at] = y[n]
    return first, rows, xs, ys


@njit(cache=True)
def _grown(buffer: I8, need: int) -> I8:
    if need <= len(buffer):
        return buffer
    larger = np.empty(max(need, 2 * len(buffer)), np.int64)
    larger[: len(buffer)] = buffer
    return larger


@njit(cache=True)
def _sort(found: I8, start: int, end: int, key: I4, spare: I8) -> None:
    """Sort found[start:end] (distinct) ascending. Few are sorted by counting for each how many are less: no branch, and it vectorises."""
    count = end - start
    if count > len(key):
        found[start:end].sort()
        return
    for i in range(count):
        spare[i] = found[start + i]
        key[i] = found[start + i] >> 32
    for i in range(count):
        mine = key[i]
        rank = np.int32(0)
        for j in range(count):
            rank += np.int32(key[j] < mine)
        found[start + rank] = spare[i]


@njit(cache=True)
def within(grid: F8, shape: I8, first: I8, rows: I4, xs: F8, ys: F8, sheet: I4, x: F8, y: F8, radius: F8, most: int, offset: I8) -> Any:
    """Rows at most radius (q,) away: (row (h,), squared distance (h,)), ascending rows a query; fills offset (q + 1,). Empty above `most` hits, offset[0] = -1.

    A query whose sheet is below 0 answers nothing.
    """
    found = np.empty(max(64, 64 * len(sheet)), np.int64)
    key = np.empty(160, np.int32)
    spare = np.empty(160, np.int64)
    used = 0
    offset[0] = 0
    for q in range(len(sheet)):
        s = sheet[q]
        if s >= 0:
            px = x[q]
            py = y[q]
            r = radius[q]
            r2 = r * r
            corner_x = grid[s, 0]
            corner_y = grid[s, 1]
            cell = grid[s, 2]
            columns = shape[s, 1]
            low = _cell(py - r - SLACK_M, corner_y, cell, shape[s, 0])
            high = _cell(py + r + SLACK_M, corner_y, cell, shape[s, 0])
            start = used
            for row in range(low, high + 1):
                off = 0.0
                if row > 0 and corner_y + row * cell > py:
                    off = corner_y + row * cell - py
                elif row < shape[s, 0] - 1 and corner_y + (row + 1) * cell < py:
                    off = py - corner_y - (row + 1) * cell
                off = max(0.0, off - SLACK_M)
                half = np.sqrt(max(0.0, r2 - off * off)) + SLACK_M
                base = shape[s, 2] + row * columns
                a = first[base + _cell(px - half, corner_x, cell, columns)]
                b = first[base + _cell(px + half, corner_x, cell, columns) + 1]
                found = _grown(found, used + b - a)
                for i in range(a, b):
                    dx = xs[i] - px
                    dy = ys[i] - py
                    # Written always and kept by counting: no branch to mispredict.
                    found[used] = (np.int64(rows[i]) << 32) | i
                    used += dx * dx + dy * dy <= r2
            if used > most:
                offset[0] = -1
                return np.empty(0, np.int32), np.empty(0)
            _sort(found, start, used, key, spare)
        offset[q + 1] = used
    row_out = np.empty(used, np.int32)
    squared = np.empty(used)
    for q in range(len(sheet)):
        for h in range(offset[q], offset[q + 1]):
            i = found[h] & 0xFFFFFFFF
            row_out[h] = found[h] >> 32
            dx = xs[i] - x[q]
            dy = ys[i] - y[q]
            squared[h] = dx * dx + dy * dy
    return row_out, squared


@njit(cache=True)
def _later(d: float, row: int, other_d: float, other_row: int) -> bool:
    return d > other_d or (d == other_d and row > other_row)


@njit(cache=True)
def _offer(heap_d: F8, heap_row: I8, size: int, k: int, d: float, row: int) -> int:
    """Put (d, row) among the k nearest, kept as a heap with the last one on top; returns its size."""
    if size < k:
        at = size
        size += 1
        while at > 0:
            up = (at - 1) // 2
            if not _later(d, row, heap_d[up], heap_row[up]):
                break
            heap_d[at] = heap_d[up]
            heap_row[at] = heap_row[up]
            at = up
    else:
        if not _later(heap_d[0], heap_row[0], d, row):
            return size
        at = 0
        while True:
            down = 2 * at + 1
            if down >= size:
                break
            if down + 1 < size and _later(heap_d[down + 1], heap_row[down + 1], heap_d[down], heap_row[down]):
                down += 1
            if not _later(heap_d[down], heap_row[down], d, row):
                break
            heap_d[at] = heap_d[down]
            heap_row[at] = heap_row[down]
            at = down
    heap_d[at] = d
    heap_row[at] = row
    return size


@njit(cache=True)
def nearest(grid: F8, shape: I8, first: I8, rows: I4, xs: F8, ys: F8, sheet: I4, x: F8, y: F8, k: int, reach: float, offset: I8) -> Any:
    """The k nearest rows not beyond reach, nearest first, ties by row: (row (h,), squared distance (h,)); fills offset (q + 1,)."""
    heap_d = np.empty(k)
    heap_row = np.empty(k, np.int64)
    room = 0
    for q in range(len(sheet)):
        s = sheet[q]
        room += 0 if s < 0 else min(k, first[shape[s, 2] + shape[s, 0] * shape[s, 1]] - first[shape[s, 2]])
    row_out = np.empty(room, np.int32)
    squared = np.empty(room)
    used = 0
    offset[0] = 0
    far = reach * reach
    for q in range(len(sheet)):
        s = sheet[q]
        if s < 0:
            offset[q + 1] = used
            continue
        px = x[q]
        py = y[q]
        cell = grid[s, 2]
        n_rows = shape[s, 0]
        n_columns = shape[s, 1]
        row = _cell(py, grid[s, 1], cell, n_rows)
        column = _cell(px, grid[s, 0], cell, n_columns)
        size = 0
        ring = 0
        while True:
            top, bottom, left, right = row - ring, row + ring, column - ring, column + ring
            for r in range(max(0, top), min(n_rows - 1, bottom) + 1):
                whole = r in (top, bottom)
                base = shape[s, 2] + r * n_columns
                for part in range(1 if whole else 2):
                    if whole:
                        a, b = max(0, left), min(n_columns - 1, right)
                    elif part == 0:
                        a, b = left, left
                    else:
                        a, b = right, right
                    if a < 0 or b >= n_columns or a > b:
                        continue
                    for i in range(first[base + a], first[base + b + 1]):
                        dx = xs[i] - px
                        dy = ys[i] - py
                        d = dx * dx + dy * dy
                        if d <= far and (size < k or d <= heap_d[0]):
                            size = _offer(heap_d, heap_row, size, k, d, rows[i])
            # Nobody outside the block searched so far is nearer than this.
            bound = np.inf
            if left > 0:
                bound = min(bound, px - grid[s, 0] - left * cell)
            if right < n_columns - 1:
                bound = min(bound, grid[s, 0] + (right + 1) * cell - px)
            if top > 0:
                bound = min(bound, py - grid[s, 1] - top * cell)
            if bottom < n_rows - 1:
                bound = min(bound, grid[s, 1] + (bottom + 1) * cell - py)
            bound -= SLACK_M
            if bound == np.inf or bound > reach or (size == k and bound > 0 and heap_d[0] < bound * bound):
                break
            ring += 1
        offset[q + 1] = used + size
        while size > 0:
            size -= 1
            row_out[used + size] = heap_row[0]
            squared[used + size] = heap_d[0]
            d = heap_d[size]
            last = heap_row[size]
            at = 0
            while True:
                down = 2 * at + 1
                if down >= size:
                    break
                if down + 1 < size and _later(heap_d[down + 1], heap_row[down + 1], heap_d[down], heap_row[down]):
                    down += 1
                if not _later(heap_d[down], heap_row[down], d, last):
                    break
                heap_d[at] = heap_d[down]
                heap_row[at] = heap_row[down]
                at = down
            heap_d[at] = d
            heap_row[at] = last
        used = offset[q + 1]
    return row_out[:used].copy(), squared[:used].copy()


@njit(cache=True)
def covered(grid: F8, shape: I8, first: I8, rows: I4, xs: F8, ys: F8, sheet: I4, edge_first: I8, edge: F8, most: int, offset: I8) -> Any:
    """Rows that each polygon covers, border included, ascending: row (h,); fills offset (q + 1,). Polygon q has edges edge_first[q]..edge_first[q + 1] - 1."""
    found = np.empty(1024, np.int64)
    used = 0
    offset[0] = 0
    for q in range(len(sheet)):
        s = sheet[q]
        begin = edge_first[q]
        end = edge_first[q + 1]
        start = used
        if s >= 0 and end > begin:
            x0 = edge[begin:end, 0].min()
            x1 = edge[begin:end, 0].max()
            y0 = edge[begin:end, 1].min()
            y1 = edge[begin:end, 1].max()
            low = _cell(y0 - SLACK_M, grid[s, 1], grid[s, 2], shape[s, 0])
            high = _cell(y1 + SLACK_M, grid[s, 1], grid[s, 2], shape[s, 0])
            left = _cell(x0 - SLACK_M, grid[s, 0], grid[s, 2], shape[s, 1])
            right = _cell(x1 + SLACK_M, grid[s, 0], grid[s, 2], shape[s, 1])
            for row in range(low, high + 1):
                base = shape[s, 2] + row * shape[s, 1]
                for i in range(first[base + left], first[base + right + 1]):
                    inside_box = x0 <= xs[i] <= x1 and y0 <= ys[i] <= y1
                    if inside_box and covers(edge, begin, end, xs[i], ys[i]):
                        found = _grown(found, used + 1)
                        found[used] = rows[i]
                        used += 1
            if used > most:
                offset[0] = -1
                return np.empty(0, np.int32)
            found[start:used].sort()
        offset[q + 1] = used
    return found[:used].astype(np.int32)


@njit(cache=True)
def along(grid: F8, shape: I8, first: I8, rows: I4, xs: F8, ys: F8, sheet: I4, segment: F8, reach: F8, most: int, offset: I8) -> Any:
    """Rows at most reach (q,) from each segment (q, 4), in the order in which it passes them, ties by row: (row (h,), squared distance (h,))."""
    found = np.empty(1024, np.int64)
    used = 0
    offset[0] = 0
    for q in range(len(sheet)):
        s = sheet[q]
        start = used
        if s >= 0:
            ax, ay, bx, by = segment[q, 0], segment[q, 1], segment[q, 2], segment[q, 3]
            r = reach[q]
            low = _cell(min(ay, by) - r - SLACK_M, grid[s, 1], grid[s, 2], shape[s, 0])
            high = _cell(max(ay, by) + r + SLACK_M, grid[s, 1], grid[s, 2], shape[s, 0])
            for row in range(low, high + 1):
                x0, x1 = min(ax, bx), max(ax, bx)
                if abs(by - ay) > 1e-3:
                    # The part of the segment that comes within reach of this row of cells; rows of the rim reach to infinity.
                    below = -np.inf if row == 0 else grid[s, 1] + row * grid[s, 2] - r - SLACK_M
                    above = np.inf if row == shape[s, 0] - 1 else grid[s, 1] + (row + 1) * grid[s, 2] + r + SLACK_M
                    ta = (max(below, min(ay, by)) - ay) / (by - ay)
                    tb = (min(above, max(ay, by)) - ay) / (by - ay)
                    xa, xb = ax + ta * (bx - ax), ax + tb * (bx - ax)
                    x0, x1 = max(x0, min(xa, xb)), min(x1, max(xa, xb))
                base = shape[s, 2] + row * shape[s, 1]
                a = first[base + _cell(x0 - r - SLACK_M, grid[s, 0], grid[s, 2], shape[s, 1])]
                b = first[base + _cell(x1 + r + SLACK_M, grid[s, 0], grid[s, 2], shape[s, 1]) + 1]
                for i in range(a, b):
                    if segment_squared(ax, ay, bx, by, xs[i], ys[i]) <= r * r:
                        found = _grown(found, used + 1)
                        found[used] = (np.int64(rows[i]) << 32) | i
                        used += 1
            if used > most:
                offset[0] = -1
                return np.empty(0, np.int32), np.empty(0)
            found[start:used].sort()
            where = np.empty(used - start)
            for h in range(used - start):
                i = found[start + h] & 0xFFFFFFFF
                where[h] = along_segment(ax, ay, bx, by, xs[i], ys[i])
            found[start:used] = found[start:used][np.argsort(where, kind="mergesort")]
        offset[q + 1] = used
    row_out = np.empty(used, np.int32)
    squared = np.empty(used)
    for q in range(len(sheet)):
        for h in range(offset[q], offset[q + 1]):
            i = found[h] & 0xFFFFFFFF
            row_out[h] = found[h] >> 32
            squared[h] = segment_squared(segment[q, 0], segment[q, 1], segment[q, 2], segment[q, 3], xs[i], ys[i])
    return row_out, squared

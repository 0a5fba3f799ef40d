"""Compiled kernels of the floor: how far open ground reaches, and the field of aims of a goal over all levels.

Free functions on arrays, called by `simulation.floor`. Letters: c free cells (all levels), h hops. Nothing here knows people. Some of `ground_kernels` are
compiled into these; Numba's cache does not see that, so who edits that file deletes `simulation/__pycache__/*.nb?`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from simulation.ground_kernels import DX, DY, sees

F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]


@njit(cache=True, nogil=True)
def open_steps(raster: I4, cid: I4, links: U1, clearance: F4, nx: int, ny: int) -> Any:
    """(c,) for each cell how many steps (king's moves) one can go in any direction over cells with all links and 0.9 m off walls; two passes over the raster."""
    n = len(raster)
    steps = np.zeros(n, np.int32)
    for k in range(n):
        if links[k] == 255 and clearance[k] >= 0.9:
            g = raster[k]
            least = 1 << 20
            for d in range(4, 8):  # west, south-west, south, south-east come earlier
                b = cid[g + DY[d] * nx + DX[d]]
                least = min(least, steps[b] if b >= 0 else 0)
            steps[k] = least + 1
    for k in range(n - 1, -1, -1):
        if steps[k] > 0:
            g = raster[k]
            for d in range(4):
                b = cid[g + DY[d] * nx + DX[d]]
                steps[k] = min(steps[k], (steps[b] if b >= 0 else 0) + 1)
    for k in range(n):
        steps[k] = max(0, steps[k] - 1)
    return steps


@njit(cache=True, nogil=True)
def flood(seeds: I4, raster: I4, cid: I4, links: U1, nx: int, hop_start: I4, hop_end: I4, found: Any) -> None:
    """Mark each cell from which a way leads to the seeds, over links and hops. found: (c,), false before."""
    stack = np.empty(len(raster), np.int32)
    hops_at = np.full(len(raster), -1, np.int32)
    hop_next = np.full(len(hop_end), -1, np.int32)
    for h in range(len(hop_end)):
        hop_next[h] = hops_at[hop_end[h]]
        hops_at[hop_end[h]] = h
    top = 0
    for s in seeds:
        if not found[s]:
            found[s] = True
            stack[top] = s
            top += 1
    while top > 0:
        top -= 1
        a = stack[top]
        for d in range(8):
            if links[a] & (1 << d):
                b = cid[raster[a] + DY[d] * nx + DX[d]]
                if not found[b]:
                    found[b] = True
                    stack[top] = b
                    top += 1
        h = hops_at[a]
        while h >= 0:
            b = hop_start[h]
            if not found[b]:
                found[b] = True
                stack[top] = b
                top += 1
            h = hop_next[h]


@njit(cache=True, nogil=True)
def seen_from(cell: int, cells: I4, raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, nx: int, gap: float) -> Any:
    """(k,) which of these cells of one level a cell sees, over cells at least `gap` metres from walls; itself always."""
    seen = np.empty(len(cells), np.bool_)
    for k in range(len(cells)):
        seen[k] = cells[k] == cell or sees(cell, cells[k], raster, cid, links, clearance, spare, nx, gap)
    return seen


@njit(cache=True, nogil=True)
def solve_aims(
    seeds: I4, raster: I4, cid: I4, links: U1, clearance: F4, spare: I4, load: I4, nx: int, cell: float, hop_start: I4, hop_end: I4, hop_cost: I4,
    ring: int, body: float, aim: I4, distance: F4,
) -> None:  # fmt: skip
    """Write for each cell the furthest cell on its way to the seeds that it sees (itself at a seed and where a hop begins), and metres of the whole way.

    Dijkstra with buckets over links and hops (walking close to a wall costs more), then any-angle smoothing (Nash, Koenig, Tovey 2010, "Lazy Theta*").
    body: nearer to a wall than so many metres nobody aims. ring: a power of two above the dearest step in tenths of a cell.
    """
    n = len(raster)
    cost = np.full(n, -1, np.int32)
    done = np.zeros(n, np.bool_)
    parent = np.full(n, -1, np.int32)
    hopped = np.full(n, -1, np.int32)
    order = np.empty(n, np.int32)
    pool_size = 2 * n + len(seeds) + 64
    pool_node = np.empty(pool_size, np.int32)
    pool_next = np.empty(pool_size, np.int32)
    free = -1
    head = np.full(ring, -1, np.int32)
    hops_at = np.full(n, -1, np.int32)
    hop_next = np.full(len(hop_end), -1, np.int32)
    for h in range(len(hop_end)):
        hop_next[h] = hops_at[hop_end[h]]
        hops_at[hop_end[h]] = h
    settled = used = pending = 0
    for s in seeds:
        if cost[s] != 0:
            cost[s] = 0
            pool_node[used] = s
            pool_next[used] = head[0]
            head[0] = used
            used += 1
            pending += 1
    now = 0
    while pending > 0:
        slot = now & (ring - 1)
        if head[slot] < 0:
            now += 1
            continue
        entry = head[slot]
        head[slot] = pool_next[entry]
        a = pool_node[entry]
        pool_next[entry] = free
        free = entry
        pending -= 1
        if done[a]:
            continue
        done[a] = True
        order[settled] = a
        settled += 1
        g = raster[a]
        h = hops_at[a]
        d = 0
        while d < 8 or h >= 0:
            via = -1
            if d < 8:
                way = d
                d += 1
                if not links[a] & (1 << way):
                    continue
                b = cid[g + DY[way] * nx + DX[way]]
                step = 10 if way % 2 == 0 else 14
                if clearance[b] < body:
                    step *= 4
                elif clearance[b] < 0.5:
                    step = step * 5 // 4
                step *= load[b]
            else:
                via = h
                b = hop_start[h]
                step = hop_cost[h]
                h = hop_next[h]
            if done[b] or not (cost[b] < 0 or now + step < cost[b]):
                continue
            cost[b] = now + step
            parent[b] = a
            hopped[b] = via
            if free >= 0:
                e = free
                free = pool_next[e]
            else:
                if used == pool_size:
                    bigger_node, bigger_next = np.empty(2 * pool_size, np.int32), np.empty(2 * pool_size, np.int32)
                    bigger_node[:used], bigger_next[:used] = pool_node, pool_next
                    pool_node, pool_next = bigger_node, bigger_next
                    pool_size *= 2
                e = used
                used += 1
            pool_node[e] = b
            pool_next[e] = head[(now + step) & (ring - 1)]
            head[(now + step) & (ring - 1)] = e
            pending += 1
    for k in range(n):
        aim[k] = -1
        distance[k] = np.inf
    for k in range(settled):
        a = order[k]
        p = parent[a]
        if p < 0:
            aim[a] = a
            distance[a] = 0.0
            continue
        if hopped[a] >= 0:
            aim[a] = a
            distance[a] = distance[p] + hop_cost[hopped[a]] * 0.1 * cell
            continue
        target = aim[p]
        if target != p and not sees(a, target, raster, cid, links, clearance, spare, nx, body):
            target = p
        aim[a] = target
        ga, gt = raster[a], raster[target]
        dx, dy = float(gt % nx - ga % nx), float(gt // nx - ga // nx)
        distance[a] = distance[target] + cell * math.sqrt(dx * dx + dy * dy)

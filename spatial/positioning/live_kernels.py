"""Compiled kernels of the live filter: one pass over the observations of a tick, a cloud of weighted particles a subject. Slow twins in NumPy are in the tests.

Owns the recursion (move, weigh, look elsewhere, resample, sum up) on arrays; who a subject is, ageing and what is told are `spatial.positioning.live`'s. Letters: a transmitters, c map cells,
f floors, g ground cells, s subjects, p particles a subject, n observations, b blocks of map cells.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]
U8 = npt.NDArray[np.uint64]

LEAST: Any = np.float32(1e-6)
"""What the likelihood of a scan never falls below, as in `grid_filter`."""
JUMP = 1e-4
SCOUTS = 8
"""Particles that look elsewhere at every scan: drawn where the scan and the ways between floors say, with the weight that `grid_filter` lets jump."""
LOOK_EVERY = 3
"""Scans of a subject who is on one floor for each that is compared with the whole venue; the others are compared with the map where the particles are."""
ASTRAY = 0.002
WEIGHED = 32
"""Scans of a subject that are counted: a later one is believed as much as this one."""
BLUR_M = 0.5
BLUR_PER_M = 0.15
LEAST_BLUR_M = 0.45
WANDER_M_S = 1.2
TURN_SD = 0.066
"""rad, how far a walk's turn strays between two scans: as far as the five turns of `grid_filter` mix."""
TURN_MOST = 0.6


class MapArrays(NamedTuple):
    """A radio map and its ground, laid out for the kernels.

    table: (c, a) uint8, scale: (a,): field of transmitter t at map cell c is table[c, t] * scale[t]; norm: (c,). Blocks of 2 x 2 map cells (b), by floor from block_first[f] on: blocks: (a, b) the
    table at one map cell of each, block_norm: (b,), heard: (a, f) whether a floor hears a transmitter at all; prior, jump: (b,). ground_first: (b + 1,), ground: (g,) raster cells of each block.
    Rasters of all floors one after another from base[f], rows[f] x columns[f]: cell_of (map cell or -1), rooms, nearest (the cell of this floor, counted from its base, that is free and nearest).
    corner_m: (f, 2), cell_m: (f,), offset_m, stretch: (f, 2) floor metres = venue metres * stretch + offset.
    """

    table: U1
    scale: F4
    norm: F4
    blocks: U1
    block_norm: F4
    block_first: I4
    heard: U1
    prior: F4
    jump: F4
    ground_first: I4
    ground: I4
    base: I4
    rows: I4
    columns: I4
    cell_of: I4
    rooms: U1
    nearest: I4
    corner_m: F8
    cell_m: F8
    offset_m: F8
    stretch: F8


class Cloud(NamedTuple):
    """Particles, (s, p): x_m, y_m floor metres, turn rad, weight (sums to 1 a subject), floor. live: (s,) whether a subject has particles; unlooked: (s,) scans since one was compared with the whole
    venue; weighed: (s,) scans it was weighed by since it began, at most WEIGHED; chance: (s,) state of its random numbers."""

    x_m: F4
    y_m: F4
    turn: F4
    weight: F4
    floor: U1
    live: U1
    unlooked: U1
    weighed: U1
    chance: U8


class Told(NamedTuple):
    """Answers, a row an observation. known: (n,) 1 where the rest is set. floors: (n, f). xy_m: (n, 2) floor metres, on free ground; cov: (n, 3) xx, xy, yy, m2; turn: (n,)."""

    known: U1
    floor: U1
    floors: F4
    xy_m: F8
    cov: F8
    turn: F8


@numba.njit(cache=True, nogil=True)
def _next(chance: U8, s: int) -> Any:
    """The subject's next 64 random bits (SplitMix64)."""
    chance[s] += np.uint64(0x9E3779B97F4A7C15)
    z = chance[s]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _uniform(chance: U8, s: int) -> float:
    return float(_next(chance, s) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True, nogil=True)
def _normal(bits: Any) -> float:
    """Mean 0, variance 1, within 3.47: the sum of four 16 bit uniform numbers (Irwin, Hall)."""
    mask = np.uint64(0xFFFF)
    total = (bits & mask) + ((bits >> np.uint64(16)) & mask) + ((bits >> np.uint64(32)) & mask) + (bits >> np.uint64(48))
    return (float(total) - 131070.0) * (1.7320508 / 65536.0)


@numba.njit(cache=True, nogil=True)
def _at(maps: Any, f: int, x: float, y: float) -> int:
    """Flat raster cell of a point of floor f, -1 off the raster."""
    column = math.floor((x - maps.corner_m[f, 0]) / maps.cell_m[f])
    row = math.floor((y - maps.corner_m[f, 1]) / maps.cell_m[f])
    if row < 0 or column < 0 or row >= maps.rows[f] or column >= maps.columns[f]:
        return -1
    return int(maps.base[f] + row * maps.columns[f] + column)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _exp(x: Any) -> Any:
    """exp of -14..0 within 3 %, as products alone, so that a loop over it is vectorised."""
    y = np.float32(1.0) + max(x, np.float32(-14.0)) * np.float32(1.0 / 4096.0)
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return y * y


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add(share: Any, row: U1, out: F4) -> None:
    """out += share * row."""
    for b in range(len(out)):
        out[b] += share * np.float32(row[b])


@numba.njit(cache=True, nogil=True, fastmath=True)
def _unlike(cosine: F4, norm: F4, per: Any, blend: Any, loudness: Any, blended: F4) -> None:
    """From cosines to dissimilarities: in place the one that counts within a floor, in `blended` that between floors. per: 1 / length of the scan's vector."""
    one, two = np.float32(1.0), np.float32(2.0)
    for b in range(len(cosine)):
        ratio = norm[b] * per
        dice = one - cosine[b] * (two * ratio / (one + ratio * ratio))
        unlike = one - cosine[b]
        unlike += loudness * (dice - unlike)
        cosine[b] = unlike
        blended[b] = unlike + blend * (dice - unlike)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _likely(steep: Any, near: Any, near_blend: Any, prior: F4, unlike: F4, blended: F4) -> Any:
    """blended becomes the likelihood of a floor's blocks; returns the floor's weight that is in it."""
    total, total_blend = np.float32(0.0), np.float32(0.0)
    for b in range(len(prior)):
        e = _exp(steep * (unlike[b] - near)) + LEAST
        total += prior[b] * e
        total_blend += prior[b] * (_exp(steep * (blended[b] - near_blend)) + LEAST)
        blended[b] = e
    weight = total_blend / max(total, np.float32(1e-12))
    for b in range(len(prior)):
        blended[b] *= weight
    return weight


@numba.njit(cache=True, nogil=True, fastmath=True)
def look(maps: Any, at: I4, q: F4, length: float, sharp: float, blend: float, loudness: float, work: F4, out: F4, weight: F4) -> float:
    """One scan over the whole venue, at one map cell of each block. out: (b,) likelihood, as `grid_filter` has it: within a floor by the cosine, each floor's whole weight by the blend.

    at, q: (k,) transmitters heard and what a unit of the table adds to the cosine; length: of the whole scan's vector. weight: (f,) is set. Returns the least cosine dissimilarity, below which
    no likelihood is counted.
    """
    blocks = maps.block_norm.shape[0]
    for b in range(blocks):
        work[b] = 0.0
    for k in range(len(at)):
        t, share = at[k], q[k]
        for f in range(len(maps.base)):
            if maps.heard[t, f]:
                _add(share, maps.blocks[t, maps.block_first[f] : maps.block_first[f + 1]], work[maps.block_first[f] : maps.block_first[f + 1]])
    _unlike(work, maps.block_norm, np.float32(1.0 / length), np.float32(blend), np.float32(loudness), out)
    near, near_blend = work.min(), out.min()
    for f in range(len(maps.base)):
        part = slice(maps.block_first[f], maps.block_first[f + 1])
        weight[f] = _likely(np.float32(-sharp), near, near_blend, maps.prior[part], work[part], out[part])
    return float(near)


@numba.njit(cache=True, nogil=True, fastmath=True)
def cell_unlike(maps: Any, c: int, at: I4, q: F4, length: float, loudness: float) -> Any:
    """The scan's dissimilarity to one map cell, as it counts within a floor."""
    row = maps.table[c]
    cosine = np.float32(0.0)
    for k in range(len(at)):
        cosine += q[k] * np.float32(row[at[k]])
    ratio = maps.norm[c] / np.float32(length)
    dice = np.float32(1.0) - cosine * (np.float32(2.0) * ratio / (np.float32(1.0) + ratio * ratio))
    cosine = np.float32(1.0) - cosine
    return cosine + np.float32(loudness) * (dice - cosine)


@numba.njit(cache=True, nogil=True)
def _draw(maps: Any, cloud: Any, s: int, p: int, b: int, turn_sd: float) -> None:
    """Put particle p of subject s somewhere on block b."""
    f = 0
    while b >= maps.block_first[f + 1]:
        f += 1
    first = maps.ground_first[b]
    pick = first + int(_uniform(cloud.chance, s) * (maps.ground_first[b + 1] - first))
    flat = maps.ground[pick] - maps.base[f]
    cloud.floor[s, p] = f
    cloud.x_m[s, p] = maps.corner_m[f, 0] + (flat % maps.columns[f] + _uniform(cloud.chance, s)) * maps.cell_m[f]
    cloud.y_m[s, p] = maps.corner_m[f, 1] + (flat // maps.columns[f] + _uniform(cloud.chance, s)) * maps.cell_m[f]
    cloud.turn[s, p] = _normal(_next(cloud.chance, s)) * turn_sd


@numba.njit(cache=True, nogil=True)
def _scatter(maps: Any, cloud: Any, s: int, which: I4, n: int, weight: F4, likely: F4, total: float, mass: float, turn_sd: float) -> None:
    """Particles which[:n] drawn from weight * likely, (b,), whose sum is total: one sample of each n-th of it. Each weighs its share of mass over the likelihood of its block."""
    b, reached = 0, float(weight[0] * likely[0])
    offset = _uniform(cloud.chance, s)
    for i in range(n):
        goal = (i + offset) / n * total
        while reached < goal and b < len(weight) - 1:
            b += 1
            reached += weight[b] * likely[b]
        while weight[b] <= 0 and b > 0:
            b -= 1
        _draw(maps, cloud, s, which[i], b, turn_sd)
        cloud.weight[s, which[i]] = mass / n / likely[b]


@numba.njit(cache=True, nogil=True)
def _lightest(weight: F4, which: I4) -> None:
    """which: numbers of the len(which) lightest particles."""
    for k in range(len(which)):
        best, lightest = 0, np.float32(np.inf)
        for p in range(len(weight)):
            if 0 <= weight[p] < lightest:
                best, lightest = p, weight[p]
        which[k] = best
        weight[best] = np.float32(-1.0)  # chosen


@numba.njit(cache=True, nogil=True)
def _move(maps: Any, cloud: Any, s: int, east: float, north: float, blur: float, turns: bool) -> float:
    """Move every particle by the path's displacement, turned by its own turn; what leaves the ground weighs nothing. Returns the weight that is left."""
    left = 0.0
    for p in range(cloud.x_m.shape[1]):
        if cloud.weight[s, p] <= 0:
            continue
        t = float(cloud.turn[s, p])
        if turns:
            t = min(max(t + _normal(_next(cloud.chance, s)) * TURN_SD, -TURN_MOST), TURN_MOST)
            cloud.turn[s, p] = t
        cosine, sine = 1 - t * t / 2 + t * t * t * t / 24, t - t * t * t / 6
        dx = east * cosine - north * sine + _normal(_next(cloud.chance, s)) * blur
        dy = east * sine + north * cosine + _normal(_next(cloud.chance, s)) * blur
        f = int(cloud.floor[s, p])
        x, y = cloud.x_m[s, p], cloud.y_m[s, p]
        parts = int(math.sqrt(dx * dx + dy * dy) / maps.cell_m[f]) + 1
        at = -1
        for k in range(1, parts + 1):
            at = _at(maps, f, x + dx * k / parts, y + dy * k / parts)
            if at < 0 or maps.cell_of[at] < 0:
                at = -1
                break
        if at < 0:
            cloud.weight[s, p] = 0.0
            continue
        cloud.x_m[s, p] = x + dx
        cloud.y_m[s, p] = y + dy
        left += cloud.weight[s, p]
    return left


@numba.njit(cache=True, nogil=True)
def _weigh(
    maps: Any, cloud: Any, s: int, i: int, at: I4, q: F4, length: float, sharp: float, loudness: float, near: float, weight: F4, known: F4, known_at: I4,
    which: I4,
) -> float:  # fmt: skip
    """Multiply by the scan's likelihood, and let the weights sum to 1; returns their sum before that. near: the least dissimilarity, negative: that of the particles' own cells.

    known: (c,) dissimilarities of map cells as far as known_at: (c,) says i."""
    total, least = 0.0, np.float32(near) if near >= 0 else np.float32(2.0)
    for p in range(cloud.x_m.shape[1]):
        if cloud.weight[s, p] > 0:
            c = maps.cell_of[_at(maps, int(cloud.floor[s, p]), cloud.x_m[s, p], cloud.y_m[s, p])]
            which[p] = c
            if known_at[c] != i:
                known_at[c] = i
                known[c] = cell_unlike(maps, c, at, q, length, loudness)
            least = min(least, known[c])
    steep = np.float32(-sharp)
    for p in range(cloud.x_m.shape[1]):
        w = cloud.weight[s, p]
        if w > 0:
            w *= (_exp(steep * (known[which[p]] - least)) + LEAST) * weight[cloud.floor[s, p]]
            cloud.weight[s, p] = w
            total += w
    if total > 0:
        for p in range(cloud.x_m.shape[1]):
            cloud.weight[s, p] = cloud.weight[s, p] / np.float32(total)
    return total


@numba.njit(cache=True, nogil=True)
def _one_floor(cloud: Any, s: int) -> bool:
    """Whether nearly all the weight is on one floor."""
    astray = 0.0
    for p in range(cloud.x_m.shape[1]):
        if cloud.floor[s, p] != cloud.floor[s, 0]:
            astray += cloud.weight[s, p]
    return min(astray, 1.0 - astray) <= ASTRAY


@numba.njit(cache=True, nogil=True)
def _range_factor(maps: Any, cloud: Any, s: int, x_m: float, y_m: float, range_m: float, sd_m: float, floor: int) -> float:
    """Weigh by a distance to a point (0: a fix), venue metres, floor -1: any. Returns the weight that is left."""
    left = 0.0
    for p in range(cloud.x_m.shape[1]):
        f = int(cloud.floor[s, p])
        dx = (cloud.x_m[s, p] - maps.offset_m[f, 0]) / maps.stretch[f, 0] - x_m
        dy = (cloud.y_m[s, p] - maps.offset_m[f, 1]) / maps.stretch[f, 1] - y_m
        z = (math.sqrt(dx * dx + dy * dy) - range_m) / sd_m
        likely = math.exp(-0.5 * min(z * z, 28.0))
        if floor >= 0 and f != floor:
            likely = 1e-6
        cloud.weight[s, p] *= likely
        left += cloud.weight[s, p]
    return left


@numba.njit(cache=True, nogil=True)
def _gather_at(maps: Any, cloud: Any, s: int, x_m: float, y_m: float, sd_m: float, floor: int, turn_sd: float) -> None:
    """All particles around a point of a floor, venue metres, on free ground."""
    n = cloud.x_m.shape[1]
    cx = x_m * maps.stretch[floor, 0] + maps.offset_m[floor, 0]
    cy = y_m * maps.stretch[floor, 1] + maps.offset_m[floor, 1]
    for p in range(n):
        x = cx + _normal(_next(cloud.chance, s)) * sd_m
        y = cy + _normal(_next(cloud.chance, s)) * sd_m
        _put_on_ground(maps, cloud, s, p, floor, x, y)
        cloud.turn[s, p] = _normal(_next(cloud.chance, s)) * turn_sd
        cloud.weight[s, p] = 1.0 / n
    cloud.live[s] = 1


@numba.njit(cache=True, nogil=True)
def _put_on_ground(maps: Any, cloud: Any, s: int, p: int, f: int, x: float, y: float) -> None:
    row = min(max(math.floor((y - maps.corner_m[f, 1]) / maps.cell_m[f]), 0), maps.rows[f] - 1)
    column = min(max(math.floor((x - maps.corner_m[f, 0]) / maps.cell_m[f]), 0), maps.columns[f] - 1)
    flat = row * maps.columns[f] + column
    near = maps.nearest[maps.base[f] + flat]
    if near != flat or _at(maps, f, x, y) < 0:
        x = maps.corner_m[f, 0] + (near % maps.columns[f] + 0.5) * maps.cell_m[f]
        y = maps.corner_m[f, 1] + (near // maps.columns[f] + 0.5) * maps.cell_m[f]
    cloud.floor[s, p] = f
    cloud.x_m[s, p] = x
    cloud.y_m[s, p] = y


@numba.njit(cache=True, nogil=True)
def _resample(cloud: Any, s: int, scratch: F4, which: I4) -> None:
    """Systematic, where fewer than half the particles count; by the root of the weights, so that those that look elsewhere are not lost at once."""
    n = cloud.x_m.shape[1]
    squares = 0.0
    roots = 0.0
    for p in range(n):
        w = float(cloud.weight[s, p])
        squares += w * w
        roots += math.sqrt(w)
    if squares * n < 2.0:
        return
    offset = _uniform(cloud.chance, s)
    p, reached = 0, math.sqrt(float(cloud.weight[s, 0]))
    for i in range(n):
        goal = (i + offset) / n * roots
        while reached < goal and p < n - 1:
            p += 1
            reached += math.sqrt(float(cloud.weight[s, p]))
        which[i] = p
    total = 0.0
    for i in range(n):
        scratch[0, i] = cloud.x_m[s, which[i]]
        scratch[1, i] = cloud.y_m[s, which[i]]
        scratch[2, i] = cloud.turn[s, which[i]]
        scratch[3, i] = cloud.floor[s, which[i]]
        scratch[4, i] = math.sqrt(float(cloud.weight[s, which[i]]))
        total += scratch[4, i]
    for i in range(n):
        cloud.x_m[s, i] = scratch[0, i]
        cloud.y_m[s, i] = scratch[1, i]
        cloud.turn[s, i] = scratch[2, i]
        cloud.floor[s, i] = np.uint8(scratch[3, i])
        cloud.weight[s, i] = scratch[4, i] / total


@numba.njit(cache=True, nogil=True)
def _sum_up(maps: Any, cloud: Any, s: int, inside_rooms: float, i: int, told: Any) -> None:
    """Floor probabilities, and mean and covariance on the most probable floor; rooms count as much less as fitting found."""
    n = cloud.x_m.shape[1]
    for f in range(len(maps.base)):
        told.floors[i, f] = 0.0
    total = 0.0
    for p in range(n):
        told.floors[i, cloud.floor[s, p]] += cloud.weight[s, p]
        total += cloud.weight[s, p]
    best = 0
    for f in range(len(maps.base)):
        told.floors[i, f] /= total
        if told.floors[i, f] > told.floors[i, best]:
            best = f
    sw = sx = sy = sxx = sxy = syy = st = 0.0
    x0, y0 = maps.corner_m[best, 0], maps.corner_m[best, 1]
    for p in range(n):
        if cloud.floor[s, p] != best or cloud.weight[s, p] <= 0:
            continue
        w = float(cloud.weight[s, p])
        at = _at(maps, best, cloud.x_m[s, p], cloud.y_m[s, p])
        if at >= 0 and maps.rooms[at]:
            w *= inside_rooms
        x, y = cloud.x_m[s, p] - x0, cloud.y_m[s, p] - y0
        sw += w
        sx += w * x
        sy += w * y
        sxx += w * x * x
        sxy += w * x * y
        syy += w * y * y
        st += w * cloud.turn[s, p]
    mx, my = sx / sw, sy / sw
    told.known[i] = 1
    told.floor[i] = best
    told.turn[i] = st / sw
    told.cov[i, 0] = max(sxx / sw - mx * mx, 0.0)
    told.cov[i, 1] = sxy / sw - mx * my
    told.cov[i, 2] = max(syy / sw - my * my, 0.0)
    x, y = x0 + mx, y0 + my
    row = min(max(int(my / maps.cell_m[best]), 0), maps.rows[best] - 1)
    column = min(max(int(mx / maps.cell_m[best]), 0), maps.columns[best] - 1)
    flat = row * maps.columns[best] + column
    near = maps.nearest[maps.base[best] + flat]
    if near != flat:
        x = x0 + (near % maps.columns[best] + 0.5) * maps.cell_m[best]
        y = y0 + (near // maps.columns[best] + 0.5) * maps.cell_m[best]
    told.xy_m[i, 0] = x
    told.xy_m[i, 1] = y


@numba.njit(cache=True, nogil=True)
def step(
    maps: Any, cloud: Any, told: Any, slot: I4, east_m: F8, north_m: F8, gap_s: F8, steady: U1, first: I4, at: I4, strength: F4, length: F4, heard: I4,
    fix_first: I4, fix: F8, sharpness: float, opening: float, blend: float, loudness: float, turn_rad: float, stretch: float, turn_sd: float, inside_rooms: float,
) -> None:  # fmt: skip
    """All observations of a tick, those of one subject in order of time.

    slot: (n,) row of the cloud. east_m, north_m: (n,) path walked since the subject's last observation, gap_s: (n,) time since it, steady: (n,) whether the path has a heading.
    Readings of observation i are first[i]:first[i + 1] of at (transmitter) and strength (powered); length, heard: of its whole vector. fix: rows x, y, range, sd (venue metres), floor of
    observation i are fix_first[i]:fix_first[i + 1]. opening: how much more than later ones a subject's first scan is believed, halving from scan to scan.
    """
    blocks, cells, n = len(maps.block_norm), len(maps.norm), cloud.x_m.shape[1]
    work, likely, weight = np.empty(blocks, np.float32), np.empty(blocks, np.float32), np.empty(len(maps.base), np.float32)
    scratch, which, scouts = np.empty((5, n), np.float32), np.empty(n, np.int32), np.empty(SCOUTS, np.int32)
    everyone = np.arange(n).astype(np.int32)
    known, known_at = np.empty(cells, np.float32), np.full(cells, -1, np.int32)  # likelihoods of map cells, and of which observation they are
    q = np.empty(len(strength), np.float32)
    for i in range(len(slot)):
        for k in range(first[i], first[i + 1]):
            q[k] = strength[k] * maps.scale[at[k]] / length[i]
    cosine, sine = math.cos(turn_rad) * stretch, math.sin(turn_rad) * stretch
    for i in range(len(slot)):
        s = slot[i]
        told.known[i] = 0
        scanned = heard[i] > 0
        left = 0.0
        if cloud.live[s]:
            if steady[i]:
                far = math.sqrt(east_m[i] ** 2 + north_m[i] ** 2) * stretch
                blur = max(math.sqrt(BLUR_M**2 * max(gap_s[i], 0.1) / 2 + (BLUR_PER_M * far) ** 2), LEAST_BLUR_M)
                left = _move(maps, cloud, s, east_m[i] * cosine - north_m[i] * sine, east_m[i] * sine + north_m[i] * cosine, blur, scanned)
            else:
                left = _move(maps, cloud, s, 0.0, 0.0, WANDER_M_S * max(gap_s[i], 0.5), False)
            if left <= 1e-12:
                cloud.live[s] = 0
            else:
                for p in range(n):
                    cloud.weight[s, p] = cloud.weight[s, p] / np.float32(left)
        if scanned:
            heard_at, heard_q = at[first[i] : first[i + 1]], q[first[i] : first[i + 1]]
            sharp = sharpness * (1.0 + opening * 0.5 ** float(cloud.weighed[s])) * heard[i] / (heard[i] + 8.0)
            cloud.weighed[s] = min(int(cloud.weighed[s]) + 1, WEIGHED)
            near = -1.0
            cloud.unlooked[s] += 1
            if not cloud.live[s] or cloud.unlooked[s] >= LOOK_EVERY or not _one_floor(cloud, s):
                near = look(maps, heard_at, heard_q, length[i], sharp, blend, loudness, work, likely, weight)
            else:
                weight[:] = 1.0
            if cloud.live[s] and near >= 0:
                jumped = 0.0
                for b in range(blocks):
                    jumped += maps.jump[b] * likely[b]
                if jumped > 0:
                    _lightest(cloud.weight[s], scouts)
                    _scatter(maps, cloud, s, scouts, SCOUTS, maps.jump, likely, jumped, JUMP * cloud.unlooked[s] * jumped, turn_sd)
                cloud.unlooked[s] = 0
            if (
                cloud.live[s]
                and _weigh(maps, cloud, s, i, heard_at, heard_q, length[i], sharp, loudness, near, weight, known, known_at, which) <= 1e-25
            ):
                cloud.live[s] = 0
            if not cloud.live[s]:
                if near < 0:
                    near = look(maps, heard_at, heard_q, length[i], sharp, blend, loudness, work, likely, weight)
                whole = 0.0
                for b in range(blocks):
                    whole += maps.prior[b] * likely[b]
                if whole > 0:
                    _scatter(maps, cloud, s, everyone, n, maps.prior, likely, whole, 1.0, turn_sd)
                    _weigh(maps, cloud, s, i, heard_at, heard_q, length[i], sharp, loudness, near, weight, known, known_at, which)
                    cloud.live[s], cloud.unlooked[s] = 1, 0
        for k in range(fix_first[i], fix_first[i + 1]):
            floor = int(fix[k, 4])
            total = _range_factor(maps, cloud, s, fix[k, 0], fix[k, 1], fix[k, 2], fix[k, 3], floor) if cloud.live[s] else 0.0
            if total > 1e-5:
                for p in range(n):
                    cloud.weight[s, p] = cloud.weight[s, p] / np.float32(total)
            elif floor >= 0 and fix[k, 2] == 0:
                _gather_at(maps, cloud, s, fix[k, 0], fix[k, 1], fix[k, 3], floor, turn_sd)
            elif cloud.live[s]:
                whole = 0.0
                for p in range(n):
                    whole += cloud.weight[s, p]
                if whole > 0:
                    for p in range(n):
                        cloud.weight[s, p] = cloud.weight[s, p] / np.float32(whole)
                else:
                    cloud.live[s] = 0
        if cloud.live[s]:
            _resample(cloud, s, scratch, which)
            _sum_up(maps, cloud, s, inside_rooms, i, told)


def warm_up() -> None:
    """Compile or load every kernel on a venue of one cell."""
    f4, i4, one = np.float32, np.int32, np.ones(1, np.float32)
    maps = MapArrays(
        np.ones((1, 1), np.uint8), one, one, np.ones((1, 1), np.uint8), one, np.array([0, 1], i4), np.ones((1, 1), np.uint8), one, one, np.array([0, 1], i4), np.zeros(1, i4),
        np.zeros(1, i4), np.ones(1, i4), np.ones(1, i4), np.zeros(1, i4), np.zeros(1, np.uint8), np.zeros(1, i4), np.zeros((1, 2)), np.ones(1), np.zeros((1, 2)), np.ones((1, 2)),
    )  # fmt: skip
    n = SCOUTS + 1
    zeros = np.zeros((1, n), f4)
    cloud = Cloud(
        zeros,
        zeros.copy(),
        zeros.copy(),
        zeros.copy(),
        np.zeros((1, n), np.uint8),
        np.zeros(1, np.uint8),
        np.zeros(1, np.uint8),
        np.zeros(1, np.uint8),
        np.zeros(1, np.uint64),
    )
    told = Told(np.zeros(2, np.uint8), np.zeros(2, np.uint8), np.zeros((2, 1), f4), np.zeros((2, 2)), np.zeros((2, 3)), np.zeros(2))
    step(
        maps, cloud, told, np.zeros(2, i4), np.zeros(2), np.zeros(2), np.ones(2), np.ones(2, np.uint8), np.array([0, 1, 2], i4), np.zeros(2, i4), np.ones(2, f4), np.ones(2, f4),
        np.ones(2, i4), np.array([0, 0, 1], i4), np.array([[0.5, 0.5, 0.0, 1.0, 0.0]]), 25.0, 1.5, 0.2, 0.0, 0.0, 1.0, 0.17, 0.02,
    )  # fmt: skip

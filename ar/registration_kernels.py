"""Compiled kernels of registration: triplet sampling over feature matches, and the free-space test. They validate nothing; `ar.localisation` does.

Letters: m matches, h hypotheses kept, p map points. Chance is a seed: the same seed gives the same answer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]


@njit(cache=True)
def _triad(a: F8, b: F8, c: F8, out: F8) -> bool:
    """Rows of `out` (3, 3): a right-handed frame of the triangle; False where it is nearly a line."""
    x0, x1, x2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    n = np.sqrt(x0 * x0 + x1 * x1 + x2 * x2)
    x0, x1, x2 = x0 / n, x1 / n, x2 / n
    y0, y1, y2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    length = np.sqrt(y0 * y0 + y1 * y1 + y2 * y2)
    d = x0 * y0 + x1 * y1 + x2 * y2
    y0, y1, y2 = y0 - d * x0, y1 - d * x1, y2 - d * x2
    n = np.sqrt(y0 * y0 + y1 * y1 + y2 * y2)
    if n < 0.2 * length:
        return False
    y0, y1, y2 = y0 / n, y1 / n, y2 / n
    out[0, 0], out[0, 1], out[0, 2] = x0, x1, x2
    out[1, 0], out[1, 1], out[1, 2] = y0, y1, y2
    out[2, 0], out[2, 1], out[2, 2] = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
    return True


@njit(cache=True)
def _apart(p: F8, i: int, j: int) -> float:
    x, y, z = p[i, 0] - p[j, 0], p[i, 1] - p[j, 1], p[i, 2] - p[j, 2]
    return float(np.sqrt(x * x + y * y + z * z))


@njit(cache=True)
def sample_poses(
    source: F8,
    source_normal: F8,
    target: F8,
    target_normal: F8,
    tries: int,
    keep: int,
    near: float,
    edge: float,
    prior: F8,
    prior_radius: float,
    seed: int,
) -> tuple[F8, npt.NDArray[np.int64]]:
    """Poses (h, 3, 4) target <- source with their votes (h,), best first, from triplets of matches (m, 3).

    A triplet counts where its edges are at least `edge`, agree in length within 10 % and `near`, and its normals agree within 45 degrees once turned.
    A vote is a match within `near` with normals within 45 degrees. Poses nearer to each other than 4 `near` and 20 degrees are one. With
    `prior_radius` >= 0 the pose's translation must lie that near to `prior` (3,).
    """
    np.random.seed(seed)
    m = len(source)
    best = np.zeros((keep, 3, 4))
    votes = np.zeros(keep, np.int64)
    fs, ft, rot, t = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)
    for _ in range(tries):
        i, j, k = np.random.randint(m), np.random.randint(m), np.random.randint(m)
        if i in (j, k) or j == k:
            continue
        good = True
        for a, b in ((i, j), (j, k), (i, k)):
            s, g = _apart(source, a, b), _apart(target, a, b)
            if s < edge or g < edge or abs(s - g) > near or min(s, g) < 0.9 * max(s, g):
                good = False
                break
        if not good or not _triad(source[i], source[j], source[k], fs) or not _triad(target[i], target[j], target[k], ft):
            continue
        for a in range(3):
            for b in range(3):
                rot[a, b] = ft[0, a] * fs[0, b] + ft[1, a] * fs[1, b] + ft[2, a] * fs[2, b]
        for a in range(3):
            middle = 0.0
            for b in (i, j, k):
                middle += target[b, a] - rot[a, 0] * source[b, 0] - rot[a, 1] * source[b, 1] - rot[a, 2] * source[b, 2]
            t[a] = middle / 3
        if prior_radius >= 0 and (t[0] - prior[0]) ** 2 + (t[1] - prior[1]) ** 2 + (t[2] - prior[2]) ** 2 > prior_radius * prior_radius:
            continue
        for b in (i, j, k):
            dot = 0.0
            for a in range(3):
                turned = rot[a, 0] * source_normal[b, 0] + rot[a, 1] * source_normal[b, 1] + rot[a, 2] * source_normal[b, 2]
                dot += turned * target_normal[b, a]
            if dot < 0.7:
                good = False
        if not good:
            continue
        count = 0
        for b in range(m):
            square, dot = 0.0, 0.0
            for a in range(3):
                off = rot[a, 0] * source[b, 0] + rot[a, 1] * source[b, 1] + rot[a, 2] * source[b, 2] + t[a] - target[b, a]
                square += off * off
            if square < near * near:
                for a in range(3):
                    dot += (rot[a, 0] * source_normal[b, 0] + rot[a, 1] * source_normal[b, 1] + rot[a, 2] * source_normal[b, 2]) * target_normal[b, a]
                if dot > 0.7:
                    count += 1
        if count <= votes[keep - 1]:
            continue
        # One place in the list for one pose: find a like one, and keep the better of the two.
        place = keep - 1
        for h in range(keep):
            if votes[h] == 0:
                break
            moved, trace = 0.0, 0.0
            for a in range(3):
                moved += (best[h, a, 3] - t[a]) ** 2
                for b in range(3):
                    trace += best[h, a, b] * rot[a, b]
            if moved < 16 * near * near and trace > 1 + 2 * 0.94:
                place = -1 if votes[h] >= count else h
                break
        if place < 0:
            continue
        while place > 0 and votes[place - 1] < count:
            votes[place] = votes[place - 1]
            best[place] = best[place - 1]
            place -= 1
        votes[place] = count
        best[place, :, :3] = rot
        best[place, :, 3] = t
    return best, votes


@njit(cache=True)
def seen_through(
    points: F4, normals: F4, pose: F8, depth: F4, fx: float, fy: float, cx: float, cy: float, margin: float, far: float
) -> tuple[int, int, int]:
    """(points in view, of them seen through, of them met) of map points (p, 3) for a camera at `pose` (3, 4) camera <- map with a depth image in metres.

    A point is in view where it faces the camera, projects on a measured pixel and is nearer than `far`; it is seen through where the camera measured more
    than `margin` beyond it, and met where it measured within `margin`.
    """
    rows, columns = depth.shape
    view, through, met = 0, 0, 0
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        cz = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
        if cz < 0.3 or cz > far:
            continue
        px = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
        py = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
        u, v = int(fx * px / cz + cx + 0.5), int(fy * py / cz + cy + 0.5)
        if u < 0 or v < 0 or u >= columns or v >= rows or depth[v, u] <= 0:
            continue
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        facing = 0.0
        for a, c in ((0, px), (1, py), (2, cz)):
            facing -= c * (pose[a, 0] * nx + pose[a, 1] * ny + pose[a, 2] * nz)
        if facing < 0.3 * np.sqrt(px * px + py * py + cz * cz):
            continue
        view += 1
        if depth[v, u] > cz + margin:
            through += 1
        elif depth[v, u] > cz - margin:
            met += 1
    return view, through, met


@njit(cache=True)
def _cube(x: float, y: float, z: float, cell: float) -> tuple[int, int, int]:
    return int(np.floor(x / cell)), int(np.floor(y / cell)), int(np.floor(z / cell))


@njit(cache=True)
def _name(i: int, j: int, k: int) -> int:
    """One number for a cube, up to a million cubes from the origin each way."""
    return (i + 1048576) << 42 | (j + 1048576) << 21 | (k + 1048576)


@njit(cache=True)
def _slot(name: int, mask: int) -> int:
    mixed = name * -7046029254386353131
    return (mixed ^ (mixed >> 32)) & mask


@njit(cache=True)
def hash_cubes(points: F4, cell: float) -> tuple[I8, I8, I4, I4]:
    """Rows of points (p, 3) in the order of their cubes (p,), and a table by open addressing, at most half full: cube, first row, rows."""
    p = len(points)
    names = np.empty(p, np.int64)
    for i in range(p):
        a, b, c = _cube(points[i, 0], points[i, 1], points[i, 2], cell)
        names[i] = _name(a, b, c)
    order = np.argsort(names, kind="mergesort")
    count = 0
    for i in range(p):
        if i == 0 or names[order[i]] != names[order[i - 1]]:
            count += 1
    size = 16
    while size < 2 * count:
        size *= 2
    cubes, first, rows = np.full(size, -1, np.int64), np.zeros(size, np.int32), np.zeros(size, np.int32)
    at = 0
    while at < p:
        name, end = names[order[at]], at
        while end < p and names[order[end]] == name:
            end += 1
        slot = _slot(name, size - 1)
        while cubes[slot] != -1:
            slot = (slot + 1) & (size - 1)
        cubes[slot], first[slot], rows[slot] = name, at, end - at
        at = end
    return order, cubes, first, rows


@njit(cache=True)
def _nearest(x: float, y: float, z: float, within: float, points: F4, cubes: I8, first: I4, rows: I4, cell: float) -> tuple[float, int]:
    """(squared distance, row) of the nearest point within reach; row -1 for none. The point's own cube is looked at first, and no cube that is farther than what was found."""
    i0, j0, k0 = _cube(x - within, y - within, z - within, cell)
    i1, j1, k1 = _cube(x + within, y + within, z + within, cell)
    ic, jc, kc = _cube(x, y, z, cell)
    best, at = _nearest_in(_name(ic, jc, kc), x, y, z, within * within, -1, points, cubes, first, rows)
    for i in range(i0, i1 + 1):
        off = _beyond(x, i, cell)
        across_i = off * off
        if across_i >= best:
            continue
        for j in range(j0, j1 + 1):
            off = _beyond(y, j, cell)
            across_j = across_i + off * off
            if across_j >= best:
                continue
            for k in range(k0, k1 + 1):
                off = _beyond(z, k, cell)
                if across_j + off * off >= best or (i == ic and j == jc and k == kc):
                    continue
                best, at = _nearest_in(_name(i, j, k), x, y, z, best, at, points, cubes, first, rows)
    return best, at


@njit(cache=True)
def _beyond(x: float, i: int, cell: float) -> float:
    """How far x lies outside the i-th cube along an axis, less a hair, so that a point on the border counts."""
    return max(i * cell - x, x - (i + 1) * cell, 0.0) * 0.999999


@njit(cache=True)
def _nearest_in(name: int, x: float, y: float, z: float, best: float, at: int, points: F4, cubes: I8, first: I4, rows: I4) -> tuple[float, int]:
    """(squared distance, row) as `best`, `at`, or of a nearer point of one cube."""
    mask = len(cubes) - 1
    slot = _slot(name, mask)
    while cubes[slot] != -1 and cubes[slot] != name:
        slot = (slot + 1) & mask
    if cubes[slot] == -1:
        return best, at
    for row in range(first[slot], first[slot] + rows[slot]):
        dx, dy, dz = x - points[row, 0], y - points[row, 1], z - points[row, 2]
        square = dx * dx + dy * dy + dz * dz
        if square < best:
            best, at = square, row
    return best, at


@njit(cache=True)
def _outside(x: float, y: float, z: float, within: float, low: F8, high: F8) -> bool:
    """Whether nothing between the corners (3,) can be within reach."""
    below = x < low[0] - within or y < low[1] - within or z < low[2] - within
    return bool(below or x > high[0] + within or y > high[1] + within or z > high[2] + within)


@njit(cache=True)
def nearest_rows(at: F8, within: float, low: F8, high: F8, points: F4, cubes: I8, first: I4, rows: I4, cell: float) -> tuple[F8, I8]:
    """(distance (q,), row (q,)) of the hashed point nearest to each of `at` (q, 3); inf and -1 where none is within reach."""
    q = len(at)
    distance, found = np.full(q, np.inf), np.full(q, -1, np.int64)
    for i in range(q):
        if _outside(at[i, 0], at[i, 1], at[i, 2], within, low, high):
            continue
        square, row = _nearest(at[i, 0], at[i, 1], at[i, 2], within, points, cubes, first, rows, cell)
        if row >= 0:
            distance[i], found[i] = np.sqrt(square), row
    return distance, found


@njit(cache=True)
def fit_step(
    source: F8, source_normals: F8, scale: F8, pose: F8, within: float, tukey: float, low: F8, high: F8,
    points: F4, normals: F4, cubes: I8, first: I4, rows: I4, cell: float,
) -> tuple[F8, F8, int]:  # fmt: skip
    """(matrix (6, 6), right side (6,), points used) of a Gauss-Newton step of point-to-surface distances with Tukey weights: translation, then rotation about the middle of
    the moved source. The surface at a source point (q, 3) is the plane of the nearest hashed point within reach, where that faces the same way within 45 degrees; a point
    `tukey` from it or more has no weight. `scale` (q,): by how much a point is noisier than the best; `tukey`, and the reach where that is shorter, are so much longer for it, its weight 1 / scale^2.
    """
    matrix, right, used = np.zeros((6, 6)), np.zeros(6), 0
    q = len(source)
    middle = np.zeros(3)
    for i in range(q):
        for a in range(3):
            middle[a] += source[i, a] / q
    mx = pose[0, 0] * middle[0] + pose[0, 1] * middle[1] + pose[0, 2] * middle[2] + pose[0, 3]
    my = pose[1, 0] * middle[0] + pose[1, 1] * middle[1] + pose[1, 2] * middle[2] + pose[1, 3]
    mz = pose[2, 0] * middle[0] + pose[2, 1] * middle[1] + pose[2, 2] * middle[2] + pose[2, 3]
    jacobian = np.zeros(6)
    for s in range(q):
        a0, a1, a2 = source[s, 0], source[s, 1], source[s, 2]
        x = pose[0, 0] * a0 + pose[0, 1] * a1 + pose[0, 2] * a2 + pose[0, 3]
        y = pose[1, 0] * a0 + pose[1, 1] * a1 + pose[1, 2] * a2 + pose[1, 3]
        z = pose[2, 0] * a0 + pose[2, 1] * a1 + pose[2, 2] * a2 + pose[2, 3]
        a0, a1, a2 = source_normals[s, 0], source_normals[s, 1], source_normals[s, 2]
        u = pose[0, 0] * a0 + pose[0, 1] * a1 + pose[0, 2] * a2
        v = pose[1, 0] * a0 + pose[1, 1] * a1 + pose[1, 2] * a2
        w = pose[2, 0] * a0 + pose[2, 1] * a1 + pose[2, 2] * a2
        noisier = scale[s]
        reach = max(within, tukey * noisier)
        if _outside(x, y, z, reach, low, high):
            continue
        _, row = _nearest(x, y, z, reach, points, cubes, first, rows, cell)
        if row < 0 or u * normals[row, 0] + v * normals[row, 1] + w * normals[row, 2] <= 0.7:
            continue
        n0, n1, n2 = normals[row, 0], normals[row, 1], normals[row, 2]
        off = (x - points[row, 0]) * n0 + (y - points[row, 1]) * n1 + (z - points[row, 2]) * n2
        if abs(off) >= tukey * noisier:
            continue
        weight = (1 - (off / (tukey * noisier)) ** 2) ** 2 / (noisier * noisier)
        used += 1
        x, y, z = x - mx, y - my, z - mz
        jacobian[0], jacobian[1], jacobian[2] = n0, n1, n2
        jacobian[3], jacobian[4], jacobian[5] = y * n2 - z * n1, z * n0 - x * n2, x * n1 - y * n0
        for a in range(6):
            right[a] -= weight * jacobian[a] * off
            for b in range(6):
                matrix[a, b] += weight * jacobian[a] * jacobian[b]
    return matrix, right, used


@njit(cache=True)
def smoothed(points: F4, normals: F4, within: float, sigma: float, cubes: I8, first: I4, rows: I4, cell: float) -> tuple[F4, F4]:
    """Points and normals (p, 3) on the smooth surface: each point moved along its normal to the Gaussian mean (`sigma`) of those within reach that face the same way
    within 45 degrees, its normal their mean."""
    p, mask = len(points), len(cubes) - 1
    out, out_normals = np.empty((p, 3), np.float32), np.empty((p, 3), np.float32)
    for s in range(p):
        x, y, z = points[s, 0], points[s, 1], points[s, 2]
        u, v, w = normals[s, 0], normals[s, 1], normals[s, 2]
        i0, j0, k0 = _cube(x - within, y - within, z - within, cell)
        i1, j1, k1 = _cube(x + within, y + within, z + within, cell)
        n0, n1, n2, off, weight = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(i0, i1 + 1):
            for j in range(j0, j1 + 1):
                for k in range(k0, k1 + 1):
                    name = _name(i, j, k)
                    slot = _slot(name, mask)
                    while cubes[slot] != -1 and cubes[slot] != name:
                        slot = (slot + 1) & mask
                    if cubes[slot] == -1:
                        continue
                    for row in range(first[slot], first[slot] + rows[slot]):
                        dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
                        square = dx * dx + dy * dy + dz * dz
                        if square < within * within and u * normals[row, 0] + v * normals[row, 1] + w * normals[row, 2] > 0.7:
                            share = np.exp(-square / (2 * sigma * sigma))
                            weight += share
                            off += share * (dx * normals[row, 0] + dy * normals[row, 1] + dz * normals[row, 2])
                            n0 += share * normals[row, 0]
                            n1 += share * normals[row, 1]
                            n2 += share * normals[row, 2]
        length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
        n0, n1, n2 = n0 / length, n1 / length, n2 / length
        along = off / weight
        out[s, 0], out[s, 1], out[s, 2] = x + along * n0, y + along * n1, z + along * n2
        out_normals[s, 0], out_normals[s, 1], out_normals[s, 2] = n0, n1, n2
    return out, out_normals

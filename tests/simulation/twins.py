"""Slow NumPy twins of the crowd's kernels: the same formulas without cells, buffers or early exits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulation import kernels as k

F8 = npt.NDArray[np.float64]


def advance(xy: F8, wish: F8, speed: F8, heading: F8, slow_s: F8, dt: float) -> tuple[F8, F8]:
    """Positions and headings after one step on open ground, of people of one room who stand still for at most a second (no sidestep)."""
    n = len(xy)
    out, turned = xy.copy(), heading.copy()
    for i in range(n):
        away = xy[i] - xy
        d = np.linalg.norm(away, axis=1)
        others = np.flatnonzero((np.arange(n) != i) & (d < k.SIGHT_M))
        push = np.zeros(2)
        for j in others:
            if d[j] < k.BODY_M:
                push += 0.5 * (k.BODY_M - d[j]) * away[j] / d[j]
        if np.linalg.norm(push) > k.MAX_PUSH_M:
            push *= k.MAX_PUSH_M / np.linalg.norm(push)
        step = np.zeros(2)
        if speed[i] > 0 and wish[i].any():
            ahead = [j for j in others if wish[i] @ away[j] < -0.5 * d[j] and speed[j] > 0 and wish[i] @ heading[j] < -0.3]
            turn = -min(k.KEEP_RIGHT_MOST, k.KEEP_RIGHT * sum(1 - d[j] / k.SIGHT_M for j in ahead))
            e = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ wish[i]
            for j in others:
                if d[j] < 1.0:
                    e += k.REPULSION * np.exp((k.BODY_M - max(d[j], k.BODY_M / 2)) / k.REPULSION_RANGE_M) * away[j] / d[j]
            e /= np.linalg.norm(e)
            h = heading[i] + min(1.0, dt / k.RELAX_S) * (e - heading[i])
            h /= np.linalg.norm(h)
            turned[i] = h
            gap = speed[i] * k.TIME_GAP_S
            for j in others:
                to = -away[j]
                if to @ h > 0 and abs(to[0] * h[1] - to[1] * h[0]) < k.BODY_M:
                    gap = min(gap, d[j] - k.BODY_M)
            step = h * min(speed[i], max(0.0, gap) / k.TIME_GAP_S) * dt
        out[i] = xy[i] + step + push
    return out, turned


def crossings(before: F8, after: F8, walls: F8) -> npt.NDArray[np.intp]:
    """Rows whose straight move from `before` to `after` (n, 2) meets any of the walls (w, 4); touching counts."""

    def side(ax: F8, ay: F8, bx: F8, by: F8, px: F8, py: F8) -> F8:
        return (bx - ax) * (py - ay) - (by - ay) * (px - ax)

    px, py, qx, qy = before[:, :1], before[:, 1:], after[:, :1], after[:, 1:]
    ax, ay, bx, by = (walls[None, :, c] for c in range(4))
    meet = (side(ax, ay, bx, by, px, py) * side(ax, ay, bx, by, qx, qy) <= 0) & (side(px, py, qx, qy, ax, ay) * side(px, py, qx, qy, bx, by) <= 0)
    apart = (np.maximum(px, qx) < np.minimum(ax, bx)) | (np.minimum(px, qx) > np.maximum(ax, bx))
    apart |= (np.maximum(py, qy) < np.minimum(ay, by)) | (np.minimum(py, qy) > np.maximum(ay, by))
    return np.flatnonzero((meet & ~apart).any(axis=1))

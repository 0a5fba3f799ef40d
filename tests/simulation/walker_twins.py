"""Slow NumPy twins of the walkers' kernels: the papers' formulas over all pairs, without cells, buffers or early exits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

F8 = npt.NDArray[np.float64]


def _in_sight(xy: F8, i: int, walls: F8) -> npt.NDArray[np.bool_]:
    others = np.arange(len(xy)) != i
    if not len(walls):
        return others
    lines = shapely.linestrings(np.stack([np.broadcast_to(xy[i], xy.shape), xy], axis=1))
    return others & ~shapely.intersects(lines, shapely.union_all(shapely.linestrings(walls.reshape(-1, 2, 2))))


def _nearest_points(p: F8, walls: F8) -> F8:
    a, u = walls[:, :2], walls[:, 2:] - walls[:, :2]
    t = np.clip(((p - a) * u).sum(axis=1) / (u * u).sum(axis=1), 0.0, 1.0)
    return a + t[:, None] * u


def _wall_push(p: F8, r: float, walls: F8, strength: float, range_m: float) -> F8:
    away = p - _nearest_points(p, walls)
    d = np.linalg.norm(away, axis=1)
    return (away / d[:, None] * (strength * np.exp((r - d) / range_m))[:, None]).sum(axis=0)


def collision_free_velocity(xy: F8, wish: F8, speed: F8, radius: F8, walls: F8, numbers: tuple[float, ...]) -> F8:
    """(n, 2) velocities before limits: Tordeux, Chraibi, Seyfried 2016, with walls as in JuPedSim, and the distance people keep."""
    time_gap, strength, range_m, wall_strength, wall_range, stand_off, shuffle = numbers
    out = np.zeros_like(xy)
    for i in range(len(xy)):
        seen = _in_sight(xy, i, walls)
        to = xy[seen] - xy[i]
        d = np.linalg.norm(to, axis=1)
        touch = radius[i] + radius[seen]
        e = wish[i] - (to / d[:, None] * (strength * np.exp((touch - d) / range_m))[:, None]).sum(axis=0)
        e = e + _wall_push(xy[i], radius[i], walls, wall_strength, wall_range)
        e = e / np.linalg.norm(e)
        ahead = (to @ e >= 0.0) & (np.abs(to @ np.array([-e[1], e[0]])) <= touch)
        gap = (d - touch)[ahead].min(initial=1e9)
        out[i] = e * min(speed[i], max(0.0, (gap - stand_off) / time_gap, gap * shuffle))
    return out


def social_acceleration(xy: F8, v: F8, wish: F8, speed: F8, radius: F8, walls: F8, numbers: tuple[float, ...]) -> F8:
    """(n, 2) accelerations of bodies that do not touch: Helbing, Farkas, Vicsek 2000."""
    relaxation, strength, range_m, _, _, mass = numbers[:6]
    out = (speed[:, None] * wish - v) / relaxation
    for i in range(len(xy)):
        seen = _in_sight(xy, i, walls)
        away = xy[i] - xy[seen]
        d = np.linalg.norm(away, axis=1)
        out[i] += (away / d[:, None] * (strength / mass * np.exp((radius[i] + radius[seen] - d) / range_m))[:, None]).sum(axis=0)
        out[i] += _wall_push(xy[i], radius[i], walls, strength / mass, range_m)
    return out

"""Walks made by arithmetic in the malls' trace format: a phone with steps, a heading and Wi-Fi by the log-distance law, on a floor of 60 x 40 m with a block in the middle."""

from __future__ import annotations

import numpy as np

from spatial.positioning.ground import Floor
from spatial.positioning.model import Prepared, prepare
from spatial.positioning.observations import F8
from spatial.positioning.walk_files import parse_walk

START_MS = 1_574_000_000_000
WIDE, HIGH = 60, 40
POINTS = np.array([[3.0, 3.0], [57.0, 3.0], [57.0, 37.0], [3.0, 37.0]])


def floor(name: str = "F1", ordinal: int = 0) -> Floor:
    free = np.ones((HIGH, WIDE), np.bool_)
    free[12:28, 15:45] = False
    return Floor(name, ordinal, (0.0, 0.0), 1.0, free, np.zeros_like(free), (0.0, 0.0), (1.0, 1.0), np.zeros((0, 2)))


def transmitters(seed: int = 5, n: int = 24) -> F8:
    """(n, 3): x, y, ordinal."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(0, WIDE, n), rng.uniform(0, HIGH, n), rng.integers(0, 2, n)])


def trace(
    legs: F8, *, ordinal: int = 0, seed: int = 0, turn_rad: float = 0.0, wifi: bool = True, waypoints: bool = True, speed: float = 1.2
) -> bytes:
    """A walk along the points `legs` (m, 2) at constant speed; the phone believes north to lie `turn_rad` off."""
    rng = np.random.default_rng(seed)
    lengths = np.hypot(*np.diff(legs, axis=0).T)
    ends = np.r_[0.0, np.cumsum(lengths)] / speed
    lines: list[tuple[float, str]] = []
    for t in np.arange(0.0, ends[-1], 0.05):
        leg = min(int(np.searchsorted(ends, t, side="right")) - 1, len(lengths) - 1)
        east, north = (legs[leg + 1] - legs[leg]) / lengths[leg]
        yaw = np.arctan2(north, east) - np.pi / 2 - turn_rad  # device y axis along the walk
        up = 9.81 + 3.0 * np.sin(2 * np.pi * speed / 0.65 * t) + rng.normal(0, 0.1)
        lines.append((t, f"TYPE_ACCELEROMETER\t0.0\t0.0\t{up:.4f}\t3"))
        lines.append((t, f"TYPE_ROTATION_VECTOR\t0.0\t0.0\t{np.sin(yaw / 2) * np.sign(np.cos(yaw / 2)):.6f}\t3"))
    if wifi:
        places = transmitters()
        for t in np.arange(1.5, ends[-1], 2.0):
            x, y = (np.interp(t - 0.5, ends, legs[:, k]) for k in range(2))
            far = np.sqrt((places[:, 0] - x) ** 2 + (places[:, 1] - y) ** 2 + 4.0)
            rssi = -35 - 25 * np.log10(far) - 15 * np.abs(places[:, 2] - ordinal) + rng.normal(0, 3, len(places))
            lines += [
                (t, f"TYPE_WIFI\tnet\t00:11:22:33:{i:02x}:10\t{int(v)}\t2412\t{START_MS + int((t - 0.5) * 1000)}")
                for i, v in enumerate(rssi)
                if v > -92
            ]
    if waypoints:
        lines += [(float(t), f"TYPE_WAYPOINT\t{x:.4f}\t{y:.4f}") for t, (x, y) in zip(ends, legs, strict=True)]
    lines.sort(key=lambda line: line[0])
    return "".join(f"{START_MS + round(t * 1000)}\t{text}\n" for t, text in lines).encode()


def survey(n: int = 10, ordinal: int = 0, seed: int = 100) -> list[tuple[Prepared, str | None, F8]]:
    """`n` surveyed walks around the block on one floor."""
    out: list[tuple[Prepared, str | None, F8]] = []
    for i in range(n):
        rng = np.random.default_rng(seed + i)
        legs = np.roll(POINTS, i % 4, axis=0) + rng.uniform(-2.5, 2.5, (4, 2))
        legs = np.clip(legs[:: -1 if i % 2 else 1], 1.0, [WIDE - 1.0, HIGH - 1.0])
        walk = parse_walk(trace(legs, ordinal=ordinal, seed=seed + i), name=f"w{ordinal}{i:02d}")
        out.append((prepare(walk), f"F{ordinal + 1}", walk.waypoints))
    return out

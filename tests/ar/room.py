"""A made-up room and the depth camera in it: boxes, seen by casting a ray a pixel."""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from ar.clouds import Camera
from ar.maps import MapBuilder, SpatialMap
from ar.pose import Poses

CAMERA: Final = Camera(220.0, 220.0, 120.0, 90.0)
ROWS, COLUMNS = 180, 240
SIZE_M: Final = (4.2, 3.1, 2.5)


def _boxes(seed: int) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]]:
    """Middles (3,), half edges (3,) and turns about z of what stands in the room, in metres and radians."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(14):
        half = chance.uniform(0.08, 0.35, 3)
        middle = np.array([*(chance.uniform(0.4, side - 0.4) for side in SIZE_M[:2]), half[2] if chance.random() < 0.6 else chance.uniform(0.6, 2.2)])
        found.append((middle, half, float(chance.uniform(0, math.pi / 2))))
    return found


def looking(at: tuple[float, float, float], towards: tuple[float, float, float]) -> Poses:
    """A camera (x right, y down, z ahead) at a point of the room, which looks at another."""
    ahead = np.subtract(towards, at) / np.linalg.norm(np.subtract(towards, at))
    right = np.cross(ahead, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    matrix[:3, 3] = at
    return Poses.from_matrix(matrix)


def depth_of(pose: Poses, *, seed: int = 1, noise_m: float = 0.002) -> npt.NDArray[np.float32]:
    """Depth image (ROWS, COLUMNS) in metres of the room that `seed` furnishes."""
    v, u = np.mgrid[:ROWS, :COLUMNS]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u, float)], axis=-1).reshape(-1, 3)
    m = pose.matrix()[0]
    way, start = rays @ m[:3, :3].T, m[:3, 3]
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(way > 0, (np.array(SIZE_M) - start) / way, -start / way)
        best = walls.min(axis=1)
        for middle, half, turn in _boxes(seed):
            c, s = math.cos(turn), math.sin(turn)
            back = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
            w, o = way @ back.T, back @ (start - middle)
            near, far = np.minimum((-half - o) / w, (half - o) / w).max(axis=1), np.maximum((-half - o) / w, (half - o) / w).min(axis=1)
            best = np.where((near < far) & (near > 0.05) & (near < best), near, best)
    noisy = best + np.random.default_rng(seed + 1).normal(0, noise_m, len(best))
    return noisy.reshape(ROWS, COLUMNS).astype(np.float32)


@functools.cache
def built_map() -> SpatialMap:
    """The map of the room, built once a process for all who ask in it."""
    builder = MapBuilder(far_m=6.0)
    for pose in mapping_poses():
        builder.add_frame(depth_of(pose), CAMERA, pose)
    return builder.build()


def mapping_poses() -> list[Poses]:
    """Around the room, from its middle and from its corners."""
    middle = (2.1, 1.5, 1.4)
    around = [looking(middle, (2.1 + math.cos(a), 1.5 + math.sin(a), 1.1)) for a in np.linspace(0, 2 * math.pi, 10, endpoint=False)]
    return around + [looking((x, y, 1.7), (4.2 - x, 3.1 - y, 0.8)) for x in (0.3, 3.9) for y in (0.3, 2.8)]

"""Point clouds made ready for registration: checks, back-projection, thinning, normals, features. The one module that imports Open3D.

Owns what a cloud must be to be used; knows nothing of maps or poses. Open3D is imported on first use, so that everything else of `ar` runs
where one of its system libraries is missing.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput, Unavailable

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

MIN_POINTS: Final = 500
MAX_POINTS: Final = 5_000_000
"""A fragment outside these is refused: too few points fit anywhere, too many belong into a map build."""
MAX_EXTENT_M: Final = 2_000.0

FEATURE_STEP: Final = 2.5
"""Feature points lie this many voxels apart."""
FEATURE_RADIUS: Final = 17.5
"""The radius of a feature in voxels: 0.35 m at 0.02 m. At 0.25 m two thirds as many matches were true on 7-Scenes frames."""
_KEPT: Final = 0.5
"""The most bent half of the feature points is kept: flat wall looks like flat wall."""


def open3d() -> Any:
    """The module open3d. Raises Unavailable naming what to install: libusb comes with the package `libusb-package`, the rest from the system."""
    try:
        spec = importlib.util.find_spec("libusb_package")
        if spec is not None:
            ctypes.CDLL(str(importlib.import_module("libusb_package").get_library_path()), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"localisation needs Open3D, which does not load here ({error}): install the package libusb-package for libusb-1.0.so.0, and from the "
            "system libGL.so.1, libEGL.so.1, libX11.so.6, libudev.so.1 where the message names one of them; everything else of ar runs without"
        ) from error


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera without distortion: focal lengths and centre in pixels; x right, y down, z ahead."""

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not (1 < self.fx < 1e5 and 1 < self.fy < 1e5 and abs(self.cx) < 1e5 and abs(self.cy) < 1e5):
            raise InvalidInput(f"camera fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy}: must be finite pixels, focal lengths above 1")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A thinned cloud: `points`, `normals` (n, 3) a voxel apart, and features (f, 33) at `feature_points`, `feature_normals` (f, 3)."""

    points: F4
    normals: F4
    feature_points: F4
    feature_normals: F4
    features: F4


def checked_points(points: npt.ArrayLike, *, what: str = "fragment", most: int = MAX_POINTS) -> F8:
    """Points (n, 3) as float64. Raises InvalidInput for a wrong shape, NaN, too few or too many points, or an extent beyond MAX_EXTENT_M."""
    p = np.asarray(points, np.float64)
    if p.ndim != 2 or p.shape[1] != 3:
        raise InvalidInput(f"{what} of shape {p.shape}: must be (n, 3) in metres")
    if not MIN_POINTS <= len(p) <= most:
        raise InvalidInput(f"{what} of {len(p)} points: must be {MIN_POINTS} to {most}; gather more, or thin it")
    if not np.isfinite(p).all():
        raise InvalidInput(f"{what}: {int((~np.isfinite(p).all(axis=1)).sum())} points hold NaN or infinity; drop them at their source")
    extent = float(np.ptp(p, axis=0).max())
    if not 0 < extent <= MAX_EXTENT_M:
        raise InvalidInput(f"{what} is {extent:.3g} m across: must be above 0 and at most {MAX_EXTENT_M:g} m; is the unit metres?")
    return p


def checked_depth(depth_m: npt.ArrayLike) -> F4:
    """A depth image (rows, columns) in metres, 0 where nothing was measured. Raises InvalidInput."""
    d = np.asarray(depth_m)
    if d.ndim != 2 or d.dtype.kind != "f" or not 16 <= min(d.shape) <= max(d.shape) <= 8192:
        raise InvalidInput(f"depth image of shape {d.shape}, type {d.dtype}: must be (rows, columns) of floats in metres, 16 to 8192 a side")
    if not np.isfinite(d).all() or float(d.min()) < 0:
        raise InvalidInput("depth image holds NaN, infinity or negative depth: write 0 where nothing was measured")
    if float(d.max()) > 200:
        raise InvalidInput(f"depth image reaches {float(d.max()):.6g}: must be metres; divide millimetres by 1000")
    return np.ascontiguousarray(d, np.float32)


def back_project(depth_m: F4, camera: Camera, *, stride: int, near_m: float, far_m: float) -> F8:
    """Points (n, 3) in the camera's frame of every `stride`-th pixel measured between `near_m` and `far_m`."""
    z = depth_m[::stride, ::stride]
    v, u = np.nonzero((z > near_m) & (z < far_m))
    d = z[v, u].astype(np.float64)
    return np.stack([(u * stride - camera.cx) / camera.fx * d, (v * stride - camera.cy) / camera.fy * d, d], axis=1)


def thin(points: F8, voxel_m: float, *, normals: F8 | None = None, viewpoint: npt.ArrayLike = (0.0, 0.0, 0.0), wide: float = 4.0) -> tuple[F8, F8]:
    """(points, normals), one a voxel: means. Normals not given are fitted within `wide` voxels and turned towards `viewpoint`."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    if normals is not None:
        cloud.normals = o3d.utility.Vector3dVector(normals)
    cloud = cloud.voxel_down_sample(voxel_m)
    if normals is None:
        cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(wide * voxel_m, 30))
        cloud.orient_normals_towards_camera_location(np.asarray(viewpoint, np.float64))
    else:
        cloud.normalize_normals()
    return np.array(cloud.points), np.array(cloud.normals)


def prepare(points: F8, normals: F8, voxel_m: float, *, most_features: int | None = None) -> Prepared:
    """Features of a thinned cloud: FPFH (Rusu 2009) as the square roots of its shares, at the most bent half of points 2.5 voxels apart."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    coarse = cloud.voxel_down_sample(FEATURE_STEP * voxel_m)
    coarse.normalize_normals()
    at, facing = np.array(coarse.points), np.array(coarse.normals)
    bent = _bend(at, facing, 3 * FEATURE_STEP * voxel_m)
    count = int(len(at) * _KEPT) if most_features is None else min(int(len(at) * _KEPT), most_features)
    kept = np.sort(np.argsort(-bent, kind="stable")[:count])
    reach = o3d.geometry.KDTreeSearchParamHybrid(FEATURE_RADIUS * voxel_m, 200)
    found = o3d.pipelines.registration.compute_fpfh_feature(coarse, reach, kept.tolist())
    raw = np.asarray(found.data).T.astype(np.float32)
    shares = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9))
    return Prepared(points.astype(np.float32), normals.astype(np.float32), at[kept].astype(np.float32), facing[kept].astype(np.float32), shares)


def _bend(at: F8, facing: F8, radius: float) -> F8:
    """How far normals around a point disagree, 0 (flat) to 1, (n,); 0 where fewer than eight neighbours say so."""
    from scipy.spatial import cKDTree

    tree = cKDTree(at)
    distance, rows = tree.query(at, k=min(24, len(at)), distance_upper_bound=radius)
    known = np.isfinite(distance)
    padded = np.vstack([facing, np.zeros(3)])
    count = known.sum(axis=1)
    mean = padded[np.where(known, rows, len(at))].sum(axis=1) / np.maximum(count, 1)[:, None]
    return np.where(count < 8, 0.0, 1 - np.linalg.norm(mean, axis=1))

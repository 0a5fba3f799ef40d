"""The map that cameras are localised in: thinned points with normals and features, cut into cubes (tiles) that are loaded on demand.

Owns building, tiling and the bytes of a tile. Knows nothing of queries (`ar.localisation`). A tile's version is the hash of its content.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ar.clouds import F4, F8, MAX_POINTS, Camera, Prepared, back_project, checked_depth, checked_points, prepare, thin
from ar.pose import Poses
from ar.surface_grid import SurfaceGrid, smooth_surface
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound

TileKey = tuple[int, int, int]

VOXEL_M: Final = 0.02
TILE_M: Final = 8.0
MAX_LOADED: Final = 64
"""Tiles held with their trees at once; the least lately used goes first."""
MAX_MAP_POINTS: Final = 50_000_000
FINE: Final = 0.5
"""The surface that poses are fitted to in the end is thinned to this part of a voxel: of 7-Scenes frames the error is halved (docs/ar.md)."""
_MAGIC: Final = b"ESPMAP2\0"


COARSE_CELL: Final = 3.0
SURFACE_CELL: Final = 1.5
"""Cubes of the two grids in voxels: the reaches of the search are 2 to 7, of the last fit half a voxel to one."""


def coarse_grid(cloud: Prepared, voxel_m: float) -> SurfaceGrid:
    return SurfaceGrid(cloud.points, cloud.normals, COARSE_CELL * voxel_m)


class _TileHead(msgspec.Struct):
    key: TileKey
    voxel_m: float
    points: int
    features: int
    surface: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A cube of the map: its points a voxel apart with their features, to find a pose by, and its `surface`, finer, to fit one to."""

    key: TileKey
    voxel_m: float
    cloud: Prepared
    grid: SurfaceGrid = field(repr=False)
    surface: SurfaceGrid = field(repr=False)

    @classmethod
    def of(cls, key: TileKey, voxel_m: float, cloud: Prepared, surface: F4, surface_normals: F4) -> Tile:
        """`surface`, `surface_normals` (s, 3), about FINE of a voxel apart."""
        return cls(key, voxel_m, cloud, coarse_grid(cloud, voxel_m), SurfaceGrid(surface, surface_normals, SURFACE_CELL * voxel_m))

    def to_bytes(self) -> bytes:
        """Head, columns, and the SHA-256 of both."""
        c, fine = self.cloud, self.surface
        head = msgspec.msgpack.encode(_TileHead(self.key, self.voxel_m, len(c.points), len(c.feature_points), len(fine.points)))
        parts = (c.points, c.normals, c.feature_points, c.feature_normals, c.features, fine.points, fine.normals)
        columns = b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in parts)
        body = _MAGIC + len(head).to_bytes(4, "little") + head + columns
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Tile:
        """Read what `to_bytes` wrote. Raises InvalidInput where magic, length or hash do not fit."""
        body, digest = data[:-32], data[-32:]
        if len(data) < 64 or body[:8] != _MAGIC:
            raise InvalidInput(f"map tile of {len(data)} bytes: is none; it must begin with {_MAGIC!r}")
        if hashlib.sha256(body).digest() != digest:
            raise InvalidInput("map tile: the content differs from its hash; fetch it again")
        size = int.from_bytes(body[8:12], "little")
        head = msgspec.msgpack.decode(body[12 : 12 + size], type=_TileHead)
        shapes = [
            (head.points, 3),
            (head.points, 3),
            (head.features, 3),
            (head.features, 3),
            (head.features, 33),
            (head.surface, 3),
            (head.surface, 3),
        ]
        if len(body) != 12 + size + 4 * sum(a * b for a, b in shapes):
            raise InvalidInput("map tile: its length does not fit its head")
        columns, at = [], 12 + size
        for rows, width in shapes:
            columns.append(np.frombuffer(body, "<f4", rows * width, at).reshape(rows, width))
            at += 4 * rows * width
        return cls.of(head.key, head.voxel_m, Prepared(*columns[:5]), columns[5], columns[6])

    def version(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return self.to_bytes()[-32:].hex()


class SpatialMap:
    """Tiles by key. `load` fetches one that is known but not held; at most `max_loaded` are held."""

    def __init__(
        self,
        keys: Iterable[TileKey],
        load: Callable[[TileKey], Tile],
        *,
        voxel_m: float = VOXEL_M,
        tile_m: float = TILE_M,
        max_loaded: int = MAX_LOADED,
    ):
        self.keys = frozenset(keys)
        self.voxel_m = voxel_m
        self.tile_m = tile_m
        self._load = load
        self._max = max_loaded
        self._held: OrderedDict[TileKey, Tile] = OrderedDict()

    def tile(self, key: TileKey) -> Tile:
        """A tile, loaded where it is not held. Raises NotFound for a key that the map does not have."""
        if key not in self.keys:
            raise NotFound(f"tile {key}: not in this map of {len(self.keys)}")
        if key not in self._held:
            self._held[key] = self._load(key)
            while len(self._held) > self._max:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def around(self, key: TileKey) -> list[TileKey]:
        """The tile and those of its 26 neighbours that are there."""
        steps = (-1, 0, 1)
        near = ((key[0] + i, key[1] + j, key[2] + k) for i in steps for j in steps for k in steps)
        return sorted(k for k in near if k in self.keys)

    def near(self, at: F8, radius_m: float) -> list[TileKey]:
        """Tiles that a ball around `at` (3,) touches."""
        low, high = (np.floor((at + s * radius_m) / self.tile_m).astype(int) for s in (-1, 1))
        return sorted(k for k in self.keys if all(low[i] <= k[i] <= high[i] for i in range(3)))


class MapBuilder:
    """Gathers posed frames and clouds, then builds tiles. Points are averaged a voxel, as a truncated distance field would near a surface."""

    def __init__(
        self, *, voxel_m: float = VOXEL_M, tile_m: float = TILE_M, near_m: float = 0.3, far_m: float = 3.5, max_points: int = MAX_MAP_POINTS
    ):
        if not 0.005 <= voxel_m <= 1.0 or not 20 * voxel_m <= tile_m <= 1000:
            raise InvalidInput(f"voxel of {voxel_m} m, tile of {tile_m} m: must be 0.005 to 1 m, and 20 voxels to 1000 m")
        self.voxel_m, self.tile_m, self.near_m, self.far_m = voxel_m, tile_m, near_m, far_m
        self._max = max_points
        self._points: list[F8] = []
        self._normals: list[F8] = []
        self._count = 0

    def add_frame(self, depth_m: npt.ArrayLike, camera: Camera, pose: Poses) -> int:
        """Add a depth frame taken from `pose` (T_map_camera). Returns points added. Raises InvalidInput, or LimitExceeded at `max_points`."""
        points = back_project(checked_depth(depth_m), camera, stride=2, near_m=self.near_m, far_m=self.far_m)
        return self.add_cloud(points, pose)

    def add_cloud(self, points: npt.ArrayLike, pose: Poses, *, viewpoint: npt.ArrayLike = (0.0, 0.0, 0.0)) -> int:
        """Add a cloud seen from `viewpoint`, both in the frame that `pose` (T_map_cloud) places."""
        if len(pose) != 1:
            raise InvalidInput(f"{len(pose)} poses for one cloud: must be 1")
        p, n = thin(checked_points(points, most=MAX_POINTS), FINE * self.voxel_m / 2, viewpoint=viewpoint, wide=12.0)
        if self._count + len(p) > self._max:
            raise LimitExceeded(f"map of {self._count} points: at most {self._max}; build it in parts")
        self._points.append(pose.apply(p))
        self._normals.append(Poses(np.zeros((1, 3)), pose.rotation).apply(n))
        self._count += len(p)
        return len(p)

    def build(self) -> SpatialMap:
        """A map with all tiles held. Raises InvalidInput where nothing was added."""
        if not self._points:
            raise InvalidInput("map of no frames: add at least one")
        fine, fine_normals = thin(np.concatenate(self._points), FINE * self.voxel_m, normals=np.concatenate(self._normals))
        points, normals = thin(fine, self.voxel_m, normals=fine_normals)
        surface, surface_normals = smooth_surface(fine, fine_normals, FINE * self.voxel_m)
        whole = prepare(points, normals, self.voxel_m)
        cells = np.floor(whole.points / self.tile_m).astype(np.int64)
        surface_cells = np.floor(surface / self.tile_m).astype(np.int64)
        feature_cells = np.floor(whole.feature_points / self.tile_m).astype(np.int64)
        tiles: dict[TileKey, Tile] = {}
        for cell in np.unique(cells, axis=0):
            key = (int(cell[0]), int(cell[1]), int(cell[2]))
            a, b, c = ((of == cell).all(axis=1) for of in (cells, feature_cells, surface_cells))
            part = Prepared(whole.points[a], whole.normals[a], whole.feature_points[b], whole.feature_normals[b], whole.features[b])
            tiles[key] = Tile.of(key, self.voxel_m, part, surface[c], surface_normals[c])
        return SpatialMap(tiles, tiles.__getitem__, voxel_m=self.voxel_m, tile_m=self.tile_m, max_loaded=max(MAX_LOADED, len(tiles)))

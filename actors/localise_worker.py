"""The worker's side of localisation: a `Job` into an `Answer`, with the maps that it holds. Runs in a process of its own, which alone loads Open3D and the registration's kernels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec
import numpy as np

from actors.localiser import Answer, Job
from actors.map_shelf import newest_map, open_map
from ar.clouds import Camera, open3d
from ar.localisation import Located, Prior, localise_cloud, localise_frame
from ar.maps import SpatialMap
from esplanade.storage.blobs import Blobs, open_blobs

MAX_HELD: Final = 4
"""Maps that a worker holds, each with at most `ar.maps.MAX_LOADED` tiles; the least lately used goes first."""

_held: OrderedDict[tuple[str, str], SpatialMap] = OrderedDict()
_holding = threading.Lock()
"""Tests work in threads; a worker has one at a time."""


def _map(blobs: Blobs, version: str) -> SpatialMap:
    key = (blobs.where, version)
    if key not in _held:
        _held[key] = open_map(blobs, version)
        if len(_held) > MAX_HELD:
            _held.popitem(last=False)
    _held.move_to_end(key)
    return _held[key]


def locate(data: bytes) -> bytes:
    """An `Answer` to a `Job`, both as MessagePack. Raises InvalidInput, NotFound; Unavailable where Open3D does not load."""
    job = msgspec.msgpack.decode(data, type=Job)
    query, blobs = job.query, open_blobs(job.blobs)
    version = newest_map(blobs, query.tenant, query.venue, query.level)
    open3d()
    prior = None if query.near_m is None else Prior(query.near_m, query.within_m)
    with _holding:
        where = _map(blobs, version)
        if query.camera is not None and query.depth_mm:
            depth = np.frombuffer(query.depth_mm, "<u2").reshape(query.rows, query.columns).astype(np.float32) / 1000
            found = localise_frame(where, depth, Camera(*query.camera), prior=prior, seed=query.seed)
        else:
            points = np.frombuffer(query.points_mm, "<i2").reshape(-1, 3).astype(np.float64) / 1000
            found = localise_cloud(where, points, prior=prior, seed=query.seed)
    if not isinstance(found, Located):
        return msgspec.msgpack.encode(Answer(known=False, version=version, chance=found.chance, reason=found.reason))
    x, y, z = (float(v) for v in found.pose.translation_m[0])
    a, b, c, d = (float(v) for v in found.pose.rotation[0])
    covariance = () if found.pose.covariance is None else tuple(float(v) for v in found.pose.covariance[0].ravel())
    answer = Answer(known=True, version=version, chance=found.chance, position_m=(x, y, z), rotation=(a, b, c, d), covariance=covariance)
    return msgspec.msgpack.encode(answer)

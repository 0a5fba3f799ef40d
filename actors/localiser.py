"""Localisation served: a query into the pose of a camera in a venue's map, worked out in a process of its own (`actors.localise_worker`), with a queue, a limit and a deadline (`Localiser`).

Owns the query's form. What a pose is worth is judged by `ar.localisation`. An answer is a pose or "not known" with the reason, never a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec

from esplanade.core.errors import InvalidInput, LimitExceeded, Unavailable

AT_ONCE: Final = 2
"""Queries of one gateway worked on at once: each is a core for up to a second."""
MAX_WAITING: Final = 32
DEADLINE_S: Final = 20.0
"""From asking to answer, the wait included; the first query of a worker loads Open3D and the map, some seconds."""
MAX_PIXELS: Final = 1280 * 1024
MAX_QUERY_POINTS: Final = 300_000


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a camera saw: `depth_mm` (rows, columns) u2 with `camera` (fx, fy, cx, cy in pixels), or `points_mm` (n, 3) i2 in its own frame; both little-endian.

    `near_m`: where it is, within `within_m`, in the venue's frame, where that is known. Chance is a `seed`.
    """

    tenant: str
    venue: str
    level: int
    depth_mm: bytes = b""
    rows: int = 0
    columns: int = 0
    camera: tuple[float, float, float, float] | None = None
    points_mm: bytes = b""
    near_m: tuple[float, float, float] | None = None
    within_m: float = 2.0
    seed: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`known`: `position_m`, `rotation` (unit quaternion x, y, z, w), `covariance` (36,) row by row, translation then rotation, are the camera's pose in the venue's frame.
    Else `reason` says why not. `version`: of the map."""

    known: bool
    version: str
    chance: float
    reason: str = ""
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    covariance: tuple[float, ...] = ()


class Job(msgspec.Struct, frozen=True):
    blobs: str
    query: Query


class Work(Protocol):
    """Runs a function of this project, "module:name", of bytes to bytes, in another process. Raises what it raised, and Unavailable past the deadline."""

    def __call__(self, function: str, data: bytes, *, deadline_s: float) -> Awaitable[bytes]: ...


class Localiser:
    """The queue before the workers. `blobs`: where the blob store is, which the workers see too (`open_blobs`). Belongs to one event loop."""

    def __init__(self, work: Work, blobs: str) -> None:
        self._work = work
        self._blobs = blobs
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def locate(self, query: Query, *, deadline_s: float = DEADLINE_S) -> Answer:
        """Raises InvalidInput for what is no query, NotFound without a map, LimitExceeded while MAX_WAITING wait, Unavailable past the deadline or where a worker died."""
        check_query(query)
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded(f"{self._waiting} queries wait to be localised: at most {MAX_WAITING}; send it again in a second")
        ends = asyncio.get_running_loop().time() + deadline_s
        self._waiting += 1
        try:
            async with asyncio.timeout_at(ends):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable(f"localisation: no worker was free within {deadline_s:g} s; send it again") from None
        finally:
            self._waiting -= 1
        try:
            left = max(0.1, ends - asyncio.get_running_loop().time())
            found = await self._work("actors.localise_worker:locate", msgspec.msgpack.encode(Job(self._blobs, query)), deadline_s=left)
        finally:
            self._turns.release()
        return msgspec.msgpack.decode(found, type=Answer)


def check_query(query: Query) -> None:
    """Raises InvalidInput naming what does not fit."""
    if bool(query.depth_mm) == bool(query.points_mm):
        raise InvalidInput(
            f"query of {len(query.depth_mm)} bytes of depth and {len(query.points_mm)} of points: give a depth image with its camera, or points"
        )
    if query.depth_mm:
        pixels = query.rows * query.columns
        if query.camera is None or query.rows < 16 or query.columns < 16 or pixels > MAX_PIXELS or len(query.depth_mm) != 2 * pixels:
            raise InvalidInput(
                f"depth image of {query.rows} x {query.columns}, {len(query.depth_mm)} bytes, camera {query.camera}: must be rows x columns of u2 millimetres, "
                f"16 a side to {MAX_PIXELS} pixels, with fx, fy, cx, cy"
            )
    elif len(query.points_mm) % 6 or len(query.points_mm) > 6 * MAX_QUERY_POINTS:
        raise InvalidInput(f"points of {len(query.points_mm)} bytes: must be (n, 3) i2 millimetres, n at most {MAX_QUERY_POINTS}")

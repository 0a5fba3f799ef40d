"""`GET /v1/venues/{tenant}/{venue}/packs/{place}`: a place's anchors, map tiles, scenes and their assets in one file (`ar.pack`), for clients that work without a network.

Owns what belongs to a place, and the files for as long as somebody may be reading them; the file's form is `ar.pack`. A pack is made for who asks: anchors that they may not see are not in it.
A place is a circle on a level, `LEVEL,X,Y,RADIUS_M`. The same content is the same file, so that a download that broke off goes on where it was (ETag, If-Range).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from ar.anchor_records import MAX_RADIUS_M, Held
from esplanade.core.errors import Fault, InvalidInput, LimitExceeded, NotFound
from esplanade.storage.blobs import Blobs
from gateway import frames as f
from gateway.assets import holds_asset
from gateway.rest import SEQ, Caller, Desk
from gateway.scene_routes import load_scene, scene_snapshot

if TYPE_CHECKING:
    from ar.maps import SpatialMap
    from ar.scene import Scene

MAX_SCENES: Final = 16
MAX_ANCHORS: Final = 1_000
MAX_FILE_BYTES: Final = 256 * 2**20
AT_ONCE: Final = 2
"""Packs made at once by one process: each is in memory until it is written."""
KEPT_S: Final = 3_600.0
"""A file that nobody has asked for since goes when the next pack is made."""
_ASSET: Final = re.compile(r"[0-9a-f]{64}")

Scenes = Annotated[list[str] | None, Query(max_length=MAX_SCENES, description="Names of scenes that come along.")]


@dataclass(frozen=True, slots=True)
class Place:
    """A circle on a level, metres."""

    level: int
    x_m: float
    y_m: float
    radius_m: float

    @classmethod
    def of(cls, text: str) -> Place:
        """Raises InvalidInput."""
        try:
            level, x, y, radius = text.split(",")
            place = cls(int(level), float(x), float(y), float(radius))
        except ValueError:
            raise InvalidInput(f"place {text[:80]!r}: must be LEVEL,X,Y,RADIUS_M, such as 0,12.5,40,25") from None
        if place.level < 0 or not 0 < place.radius_m <= MAX_RADIUS_M or not (abs(place.x_m) < 1e6 and abs(place.y_m) < 1e6):
            raise InvalidInput(f"place {text[:80]!r}: level from 0, x and y within 1000 km, radius above 0 and at most {MAX_RADIUS_M:g} m")
        return place


def pack_routes(desk: Desk, blobs: Blobs) -> APIRouter:
    """The path."""
    router = APIRouter(prefix="/v1/venues", tags=["assets"])
    making = asyncio.Semaphore(AT_ONCE)

    @router.get("/{tenant}/{venue}/packs/{place}")
    async def pack(tenant: str, venue: str, place: str, request: Request, scene: Scenes = None) -> Response:
        """The pack of a place, whole or a range of it (RFC 9110, section 14). Its ETag is the SHA-256 by which the file is named."""
        caller = desk.caller(request, tenant)
        desk.check(caller, "GET /v1/venues/{tenant}/{venue}/packs/{place}")
        circle, names = Place.of(place), sorted(set(scene or ()))
        if making.locked():
            raise LimitExceeded(f"{AT_ONCE} packs are being made: ask again in a moment")
        async with making:
            held = await _anchors(desk, caller, venue, circle)
            scenes = [(name, await scene_snapshot(desk, caller, venue, name)) for name in names]
            path = await asyncio.to_thread(_made, blobs, tenant, venue, circle, held, scenes)
        headers = {"ETag": f'"{path.stem}"', "Cache-Control": "private, no-cache", "Content-Disposition": f'attachment; filename="{venue}.pack"'}
        if f'"{path.stem}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    return router


async def _anchors(desk: Desk, caller: Caller, venue: str, place: Place) -> list[Held]:
    near = f.AnchorsNear(seq=SEQ, venue=venue, level=place.level, x=place.x_m, y=place.y_m, radius_m=place.radius_m, k=MAX_ANCHORS)
    reply = await desk.reply(caller, near)
    if not isinstance(reply, f.AnchorsAre):
        raise Fault(f"anchors_near was answered with {type(reply).__name__}")
    found = reply.anchors
    if len(found) == MAX_ANCHORS:
        raise LimitExceeded(f"place of {MAX_ANCHORS} anchors or more within {place.radius_m:g} m: ask for smaller ones")
    return sorted(found, key=lambda held: held.anchor.id)


def _made(blobs: Blobs, tenant: str, venue: str, place: Place, held: list[Held], snapshots: list[tuple[str, bytes]]) -> Path:
    """The file of a pack of all this, its map and its assets. Blocking; the first one loads compiled kernels."""
    from actors.map_shelf import newest_map, open_map
    from ar.anchors import AnchorBook
    from ar.pack import write_pack

    book = AnchorBook()
    for one in held:
        book.adopt(one)
    scenes = [(name, load_scene(venue, name, data)) for name, data in snapshots]
    try:
        tiles: SpatialMap | None = _around(open_map(blobs, newest_map(blobs, tenant, venue, place.level)), place)
    except NotFound:
        tiles = None
    names = {name for _, scene in scenes for name in _assets(scene)} | {one.anchor.fragment.hex() for one in held if one.anchor.fragment}
    assets = [blobs.get(name) for name in sorted(names) if holds_asset(blobs, tenant, name)]
    data = write_pack(venue, made_ms=0, anchors=book, tiles=tiles, scenes=scenes, assets=assets)
    if len(data) > MAX_FILE_BYTES:
        raise LimitExceeded(f"pack of {len(data)} bytes: at most {MAX_FILE_BYTES}; ask for a smaller place")
    return _kept(blobs.folder / "packs", data)


def _around(whole: SpatialMap, place: Place) -> SpatialMap | None:
    """Tiles of the map that the circle touches, at any height."""
    from ar.maps import SpatialMap

    low, high = ([int((at + sign * place.radius_m) // whole.tile_m) for at in (place.x_m, place.y_m)] for sign in (-1, 1))
    keys = [key for key in whole.keys if low[0] <= key[0] <= high[0] and low[1] <= key[1] <= high[1]]
    return SpatialMap(keys, whole.tile, voxel_m=whole.voxel_m, tile_m=whole.tile_m) if keys else None


def _assets(scene: Scene) -> Iterator[str]:
    """Whatever reads like the SHA-256 of an asset in the properties of a scene."""
    for node in scene.nodes():
        yield from _hashes(list(scene.properties(node).values()))


def _hashes(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if _ASSET.fullmatch(value):
            yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _hashes(one)
    elif isinstance(value, dict):
        yield from _hashes(list(value.values()))


def _kept(folder: Path, data: bytes) -> Path:
    """The file of these bytes; those that nobody has asked for within KEPT_S go."""
    folder.mkdir(parents=True, exist_ok=True)
    since = time.time() - KEPT_S
    for file in folder.iterdir():
        try:
            if file.stat().st_mtime < since:
                file.unlink()
        except FileNotFoundError:  # another process did
            continue
    path = folder / f"{hashlib.sha256(data).hexdigest()}.pack"
    if path.is_file():
        os.utime(path)
        return path
    new = folder / f".{path.name}.{secrets.token_hex(6)}"
    try:
        new.write_bytes(data)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return path

"""`GET /v1/venues/{tenant}/{venue}/scenes/{scene}.gltf`: a scene as it is now, as glTF 2.0, for viewers and editors that know nothing of us."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from esplanade.core.errors import Fault, LimitExceeded, NotFound
from gateway import frames as f
from gateway.rest import SEQ, Caller, Desk

if TYPE_CHECKING:
    from ar.scene import Scene

MAX_SCENE_BYTES: Final = 256 * 2**20


def scene_routes(desk: Desk) -> APIRouter:
    """The path."""
    router = APIRouter(prefix="/v1/venues", tags=["assets"])

    @router.get("/{tenant}/{venue}/scenes/{scene}.gltf")
    async def gltf(tenant: str, venue: str, scene: str, request: Request) -> Response:
        """A scene as glTF 2.0. Its meshes stay in the assets that its nodes name in their extras (`asset`, `mesh`)."""
        caller = desk.caller(request, tenant)
        desk.check(caller, "GET /v1/venues/{tenant}/{venue}/scenes/{scene}.gltf")
        snapshot = await scene_snapshot(desk, caller, venue, scene)
        data = await asyncio.to_thread(_exported, venue, scene, snapshot)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Content-Disposition": f'attachment; filename="{scene}.gltf"'}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="model/gltf+json", headers=headers)

    return router


async def scene_snapshot(desk: Desk, caller: Caller, venue: str, name: str) -> bytes:
    """The snapshot of a scene. Raises LimitExceeded above MAX_SCENE_BYTES."""
    data, whole = bytearray(), False
    while not whole:
        sync = f.SceneSync(seq=SEQ, venue=venue, scene=name, snapshot=True, at=len(data))
        part = await desk.reply(caller, sync)
        if not isinstance(part, f.SceneDelta):
            raise Fault(f"scene_sync was answered with {type(part).__name__}")
        data += part.ops
        whole = part.whole
        if len(data) > MAX_SCENE_BYTES:
            raise LimitExceeded(f"scene {name!r} of over {MAX_SCENE_BYTES} bytes: too large to be sent whole")
    return bytes(data)


def _exported(venue: str, name: str, snapshot: bytes) -> bytes:
    from ar.gltf import export_gltf

    return export_gltf(load_scene(venue, name, snapshot))


def load_scene(venue: str, name: str, snapshot: bytes) -> Scene:
    """To be read. Raises NotFound for one that nobody has ever put anything into."""
    from ar.scene import Scene  # with compiled kernels, which the API loads when first asked for a scene

    scene = Scene.load("reader", snapshot)
    if not scene.ack().seen:
        raise NotFound(f"scene {name!r} of venue {venue!r}: nothing is in it")
    return scene

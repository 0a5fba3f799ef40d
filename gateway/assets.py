"""`/v1/assets`: what scenes and anchors refer to by its SHA-256 (models, textures, sounds), kept for good under an address that never means anything else.

Owns who may have which: an asset is a tenant's that put it there, or that put the same there. The bytes are the blob store's, where equal ones of two tenants lie once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from esplanade.core.errors import LimitExceeded, NotFound, Unauthenticated
from esplanade.storage.blob_layout import check_digest
from esplanade.storage.blobs import Blobs
from gateway.auth import Identity
from gateway.permissions import Resource
from gateway.rest import body_of

MAX_ASSET_BYTES: Final = 64 * 2**20
AT_ONCE: Final = 4
"""Uploads held in memory at once, by one process; beyond, a client is told to come back."""
FOR_GOOD: Final = "private, max-age=31536000, immutable"
"""Private: who may read it is the token's matter, which a shared cache does not ask."""
_INERT: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "Content-Disposition": "attachment"}
"""An asset that is a page runs nowhere as ours."""

Asking = Callable[[Request, Resource], Identity | None]


def asset_routes(blobs: Blobs, asking: Asking) -> APIRouter:
    """The paths. `asking`: whose token a request bears, where its role may have the resource; None without a token."""
    router = APIRouter(prefix="/v1/assets", tags=["assets"])
    uploads = asyncio.Semaphore(AT_ONCE)

    def tenant_of(request: Request, resource: Resource) -> str:
        identity = asking(request, resource)
        if identity is None:
            raise Unauthenticated(f"{request.url.path}: send Authorization: Bearer <token>")
        return identity.tenant

    @router.put("/{sha256}", status_code=201)
    async def put(sha256: str, request: Request) -> Response:
        """Keep the body, whose SHA-256 the address must be. Put again, it is the same."""
        tenant = tenant_of(request, "PUT /v1/assets/{sha256}")
        check_digest(sha256)
        if uploads.locked():
            raise LimitExceeded(f"{AT_ONCE} assets are being uploaded: send it again in a moment")
        async with uploads:
            data = await body_of(request, MAX_ASSET_BYTES)
            await asyncio.to_thread(_keep, blobs, tenant, sha256, data)
        return Response(status_code=201, headers={"Location": f"/v1/assets/{sha256}", "ETag": f'"{sha256}"'})

    @router.get("/{sha256}")
    async def get(sha256: str, request: Request) -> Response:
        """The bytes, whole or a range of them (RFC 9110, section 14); they never change."""
        tenant = tenant_of(request, "GET /v1/assets/{sha256}")
        headers = {"ETag": f'"{sha256}"', "Cache-Control": FOR_GOOD, **_INERT}
        path = await asyncio.to_thread(_file, blobs, tenant, sha256)
        if f'"{sha256}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    return router


def _keep(blobs: Blobs, tenant: str, sha256: str, data: bytes) -> None:
    blobs.put(data, expected=sha256)
    blobs.point(_head(tenant, sha256), sha256)


def _file(blobs: Blobs, tenant: str, sha256: str) -> Path:
    """The file of an asset that a tenant has put there. Blocking. Raises NotFound, InvalidInput for what is no SHA-256."""
    check_digest(sha256)
    try:
        blobs.head(_head(tenant, sha256))
        return blobs.path(sha256)
    except NotFound:
        raise NotFound(f"asset {sha256}: there is none; put it there first") from None


def holds_asset(blobs: Blobs, tenant: str, sha256: str) -> bool:
    """Whether a tenant has put an asset there. Blocking. Raises InvalidInput for what is no SHA-256."""
    try:
        _file(blobs, tenant, sha256)
    except NotFound:
        return False
    return True


def _head(tenant: str, sha256: str) -> str:
    return f"assets/{tenant}/{sha256[:2]}/{sha256}"

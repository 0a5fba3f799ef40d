"""Frames about anchors and scenes into commands. Pure: who asks and the time are arguments."""

from __future__ import annotations

from typing import assert_never

import msgspec

from actors import messages as m
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import Address, check_name
from gateway import frames as f
from gateway.auth import Identity

ArFrame = (
    f.HostAnchor | f.ResolveAnchors | f.AnchorsNear | f.ObserveAnchor | f.RemoveAnchors | f.CarryAnchors | f.GetAnchorGraph | f.RefineAnchors | f.SceneSync | f.SceneApply
)  # fmt: skip


def ar_command(frame: ArFrame, identity: Identity, client: str, now_ms: int) -> m.Command:
    """What a frame about anchors or scenes asks of its entity. Raises InvalidInput."""
    who, staff = identity.subject, identity.role == "operator"
    match frame:
        case f.HostAnchor():
            return m.HostAnchors(anchors=(frame.anchor,), owner=who, staff=staff, now_ms=now_ms)
        case f.ResolveAnchors():
            return m.ResolveAnchors(ids=frame.ids, subject=who, staff=staff, now_ms=now_ms)
        case f.AnchorsNear():
            place = (frame.level, frame.x, frame.y)
            near = m.NearAnchors(radius_m=frame.radius_m, k=frame.k, subject=who, staff=staff, tags=frame.tags, own=frame.own, now_ms=now_ms)
            if frame.beside is not None and place == (None, None, None):
                return msgspec.structs.replace(near, beside=frame.beside)
            if frame.beside is None and frame.level is not None and frame.x is not None and frame.y is not None:
                return msgspec.structs.replace(near, level=frame.level, x_m=frame.x, y_m=frame.y)
            raise InvalidInput(f"anchors near level, x, y = {place}, beside {frame.beside!r}: give all three, or an anchor")
        case f.ObserveAnchor():
            return m.ObserveAnchors(seen=(frame.seen,), subject=who, staff=staff, now_ms=now_ms)
        case f.RemoveAnchors():
            return m.RemoveAnchors(ids=frame.ids, subject=who, staff=staff)
        case f.CarryAnchors():
            return m.CarryAnchors(carrier=frame.carrier, level=frame.level, position_m=frame.position_m, rotation=frame.rotation)
        case f.GetAnchorGraph():
            return m.GetAnchorGraph()
        case f.RefineAnchors():
            return m.RefineAnchors(refined=frame.refined)
        case f.SceneSync():
            return m.SyncScene(seen=frame.seen, client=client, now_ms=now_ms, snapshot=frame.snapshot, at=frame.at)
        case f.SceneApply():
            return m.EditScene(ops=frame.ops, author=client, subject=who, staff=staff, now_ms=now_ms)
        case _:
            assert_never(frame)


def ar_address(frame: ArFrame, tenant: str) -> Address:
    """The entity that answers it. Raises InvalidInput for a scene whose name cannot be one."""
    if isinstance(frame, f.SceneSync | f.SceneApply):
        return scene_address(tenant, frame.venue, frame.scene)
    return Address("anchors", tenant, frame.venue)


def scene_address(tenant: str, venue: str, scene: str) -> Address:
    """Raises InvalidInput for a scene whose name cannot be one."""
    return Address("scene", tenant, check_name(f"{venue}:{check_name(scene, 'scene')}", "scene"))

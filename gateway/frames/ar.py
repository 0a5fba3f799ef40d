"""Frames about anchors, scenes, and where a camera is."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from actors.messages import Refined
from ar.anchor_records import MAX_RADIUS_M, Anchor, AnchorId, Held, Metres, Observed, Tags
from gateway.frames.base import Coordinate, Frame, Id, LevelIndex, Seq


class HostAnchor(Frame, frozen=True, kw_only=True, tag="host_anchor"):
    """Keep an anchor for me under an id of my making; under an id of mine that is here: its next version. Answered with AnchorsAre."""

    seq: Seq
    venue: Id
    anchor: Anchor


class ResolveAnchors(Frame, frozen=True, kw_only=True, tag="resolve_anchors"):
    """ids: (n, 16) bytes, n up to 1,000. Answered with AnchorsAre: those that are here and that I may see, in their order."""

    seq: Seq
    venue: Id
    ids: bytes


class AnchorsNear(Frame, frozen=True, kw_only=True, tag="anchors_near"):
    """The `k` nearest anchors within `radius_m` of a point of a level (`level`, `x`, `y`), or of the anchor `beside`: nearest first. Answered with AnchorsAre."""

    seq: Seq
    venue: Id
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None
    beside: AnchorId | None = None
    radius_m: Annotated[float, msgspec.Meta(gt=0, le=MAX_RADIUS_M)] = 20.0
    k: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 20
    tags: Tags = ()
    own: bool = False


class ObserveAnchor(Frame, frozen=True, kw_only=True, tag="observe_anchor"):
    """Where I saw an anchor: in the venue's frame, or from another anchor. Answered with AnchorsAre: the anchor with its quality now."""

    seq: Seq
    venue: Id
    seen: Observed


class RemoveAnchors(Frame, frozen=True, kw_only=True, tag="remove_anchors"):
    """ids: (n, 16) bytes of anchors of mine, n up to 1,000; staff removes any. Answered with Done."""

    seq: Seq
    venue: Id
    ids: bytes


class CarryAnchors(Frame, frozen=True, kw_only=True, tag="carry_anchors"):
    """Operators and feeds: where the thing that moves, `carrier`, is now; anchors on it go with it. Answered with Done."""

    seq: Seq
    venue: Id
    carrier: Id
    level: LevelIndex
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


class GetAnchorGraph(Frame, frozen=True, kw_only=True, tag="get_anchor_graph"):
    """Operators: anchors that were observed, and the observations, to refine them. Answered with AnchorGraph."""

    seq: Seq
    venue: Id


class RefineAnchors(Frame, frozen=True, kw_only=True, tag="refine_anchors"):
    """Operators: refined poses, each found from a version of its anchor. One with another version by now stays. Answered with AnchorsAre: those that moved."""

    seq: Seq
    venue: Id
    refined: Annotated[tuple[Refined, ...], msgspec.Meta(max_length=2_000)]


class SceneSync(Frame, frozen=True, kw_only=True, tag="scene_sync"):
    """What my replica lacks; `seen`: its version vector, by client. Answered with SceneDelta. `snapshot`: instead the bytes of the whole scene, from byte `at` on."""

    seq: Seq
    venue: Id
    scene: Id
    seen: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=200)], Annotated[int, msgspec.Meta(ge=0, lt=2**53)]], msgspec.Meta(max_length=10_000)
    ] = msgspec.field(default_factory=dict)
    snapshot: bool = False
    at: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0


class SceneApply(Frame, frozen=True, kw_only=True, tag="scene_apply"):
    """Operations of mine (`ar/scene_ops.py`), made under the client name `<my subject>:<my client>`. All or none. Answered with SceneApplied: durable."""

    seq: Seq
    venue: Id
    scene: Id
    ops: bytes


class Localise(Frame, frozen=True, kw_only=True, tag="localise"):
    """Where is this camera? `depth`: (rows, columns) u2 millimetres with `camera` fx, fy, cx, cy in pixels; or `points`: (n, 3) i2 millimetres in its own frame.

    `near`: it is within `within_m` of there, in the venue's frame. Answered with Localised or NotLocalised.
    """

    seq: Seq
    venue: Id
    level: LevelIndex
    depth: bytes = b""
    rows: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    columns: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    camera: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    points: bytes = b""
    near: tuple[Coordinate, Coordinate, Coordinate] | None = None
    within_m: Annotated[float, msgspec.Meta(gt=0, le=100)] = 2.0


class ScenePresence(Frame, frozen=True, kw_only=True, tag="scene_presence"):
    """I look at a scene from here: pose (7,) f4, position in metres and unit quaternion x, y, z, w, in the venue frame. Answered with Done."""

    seq: Seq
    venue: Id
    scene: Id
    level: LevelIndex
    pose: Annotated[bytes, msgspec.Meta(min_length=28, max_length=28)]


class AnchorsAre(Frame, frozen=True, kw_only=True, tag="anchors_are"):
    seq: Seq
    anchors: tuple[Held, ...]


class AnchorGraph(Frame, frozen=True, kw_only=True, tag="anchor_graph"):
    """Every observation is between two of the anchors, or of one of them in the venue's frame."""

    seq: Seq
    anchors: tuple[Held, ...]
    seen: tuple[Observed, ...]


class AnchorsChanged(Frame, frozen=True, kw_only=True, tag="anchors_changed"):
    """To readers of venue/<v>/anchors: ids (n, 16) bytes of anchors to resolve anew, or to forget."""

    venue: str
    what: Literal["hosted", "moved", "removed", "expired"]
    ids: bytes


class SceneDelta(Frame, frozen=True, kw_only=True, tag="scene_delta"):
    """Operations that the replica lacked, causes first; or bytes of a snapshot, where that was asked for. `whole` is false where there are more: sync again."""

    seq: Seq
    ops: bytes
    whole: bool


class SceneApplied(Frame, frozen=True, kw_only=True, tag="scene_applied"):
    """Operations applied, and how many were known before. Durable."""

    seq: Seq
    applied: int
    known: int


class SceneEdits(Frame, frozen=True, kw_only=True, tag="scene_edits"):
    """To readers of venue/<v>/scene/<s>: operations that took effect, in order; one's own come back too."""

    venue: str
    scene: str
    author: str
    ops: bytes


class Present(msgspec.Struct, frozen=True):
    """Who looks at a scene, and from where: pose (7,) f4."""

    client: str
    level: int
    pose: bytes


class PresenceIs(Frame, frozen=True, kw_only=True, tag="presence_is"):
    """To readers of venue/<v>/presence/<s>: all who said within the last seconds where they are."""

    venue: str
    scene: str
    present: tuple[Present, ...]


class Localised(Frame, frozen=True, kw_only=True, tag="localised"):
    """The camera's pose (x right, y down, z ahead) in the venue's frame: `rotation` unit quaternion x, y, z, w; `covariance` (6, 6) f4, translation in metres, then rotation in
    radians; `chance` of being right; `map`: its version; `geopose`: the same as OGC GeoPose 1.0 Basic-Quaternion."""

    seq: Seq
    venue: str
    level: int
    position_m: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    covariance: bytes
    chance: float
    map: str
    geopose: dict[str, dict[str, float]]


class NotLocalised(Frame, frozen=True, kw_only=True, tag="not_localised"):
    """It is not known, and why. `chance` of the best pose that came up, which is not told."""

    seq: Seq
    venue: str
    level: int
    reason: str
    chance: float
    map: str

"""What an anchor is, what is said of it and what is held of it, as commands, events and answers carry it; and its checks. `ar.anchors` keeps and finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

import msgspec
import numpy as np

from ar.pose import F8, Poses
from esplanade.core.errors import InvalidInput

ID_BYTES: Final = 16
HASH_BYTES: Final = 32
MAX_RADIUS_M: Final = 200.0
MAX_LEVELS: Final = 255
TRUST: Final = 2.0
"""Observations that the host's own estimate of quality counts for."""
DEFAULT_SIGMA_M: Final = 0.05
DEFAULT_SIGMA_RAD: Final = float(np.deg2rad(2.0))
TRIANGLE: Final = 21
"""Numbers of a covariance: the upper triangle, row by row."""
AnchorId = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Metres = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Tags = Annotated[tuple[Tag, ...], msgspec.Meta(max_length=16)]
Access = Literal["everyone", "owner", "staff"]
ACCESS: Final[tuple[Access, ...]] = get_args(Access)
"""Who may find and resolve an anchor; its owner and staff always may."""


class Anchor(msgspec.Struct, frozen=True, omit_defaults=True):
    """What its host says of an anchor. `rotation`: unit quaternion x, y, z, w. `covariance`: (21,) upper triangle of (6, 6), translation then rotation, or empty.

    `fragment`: SHA-256 of the descriptors or the piece of point cloud by which it is recognised, or empty. `payload`: the host's own, such as the name of a scene.
    """

    id: AnchorId
    level: Annotated[int, msgspec.Meta(ge=0, lt=MAX_LEVELS)]
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    covariance: Annotated[tuple[float, ...], msgspec.Meta(max_length=TRIANGLE)] = ()
    quality: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    tags: Tags = ()
    expires_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    access: Access = "everyone"
    fragment: Annotated[bytes, msgspec.Meta(max_length=HASH_BYTES)] = b""
    carrier: Annotated[str, msgspec.Meta(max_length=128)] = ""
    payload: Annotated[bytes, msgspec.Meta(max_length=1024)] = b""


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """An anchor as it is held: `anchor.position_m` and `rotation` in the venue frame, on a carrier too. `version` counts what its owner changed and refinements."""

    anchor: Anchor
    owner: int
    version: int
    quality: float
    agreed: int = 0
    disputed: int = 0
    distance_m: float = 0.0

    def after(self, agreed: int, disputed: int) -> Held:
        """With so many observations more."""
        agreed, disputed = self.agreed + agreed, self.disputed + disputed
        return msgspec.structs.replace(self, agreed=agreed, disputed=disputed, quality=_rated(self.anchor.quality, agreed, disputed))

    def at(self, pose: Poses) -> Held:
        """Its next version, at a refined pose."""
        (x, y, z), (qx, qy, qz, qw) = pose.translation_m[0].tolist(), pose.rotation[0].tolist()
        moved = msgspec.structs.replace(self.anchor, position_m=(x, y, z), rotation=(qx, qy, qz, qw))
        return msgspec.structs.replace(self, anchor=moved, version=self.version + 1)


def _rated(quality: float, agreed: float, disputed: float) -> float:
    return (TRUST * quality + agreed) / (TRUST + agreed + disputed)


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody saw anchor `id` at a pose: of the frame of anchor `seen_from`, or of the venue. `sigma_m`, `sigma_rad`: one standard deviation of what was seen."""

    id: AnchorId
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    sigma_m: Annotated[float, msgspec.Meta(gt=0, le=10)] = DEFAULT_SIGMA_M
    sigma_rad: Annotated[float, msgspec.Meta(gt=0, le=4)] = DEFAULT_SIGMA_RAD
    seen_from: Annotated[bytes, msgspec.Meta(max_length=ID_BYTES)] = b""


@dataclass(frozen=True, slots=True)
class Seeker:
    """Who asks, and for what: `tags` that an anchor must all have, and whether it must be theirs."""

    subject: int
    staff: bool = False
    tags: tuple[str, ...] = ()
    own: bool = False


EVERYTHING: Final = Seeker(0, staff=True)


def check_anchor(anchor: Anchor, levels: int) -> None:
    """Raises InvalidInput naming what is wrong with an anchor whose fields have passed their types."""
    name = anchor.id.hex()
    if anchor.level >= levels:
        raise InvalidInput(f"anchor {name} on level {anchor.level}: the venue has levels 0 to {levels - 1}")
    if len(anchor.covariance) not in (0, TRIANGLE):
        raise InvalidInput(
            f"anchor {name}: covariance of {len(anchor.covariance)} numbers: must be {TRIANGLE}, the upper triangle of (6, 6), or none"
        )
    if len(anchor.fragment) not in (0, HASH_BYTES):
        raise InvalidInput(f"anchor {name}: fragment of {len(anchor.fragment)} bytes: must be a SHA-256 of {HASH_BYTES}, or empty")
    if len(set(anchor.tags)) != len(anchor.tags):
        raise InvalidInput(f"anchor {name}: a tag stands twice in {anchor.tags}")
    Poses.of(anchor.position_m, anchor.rotation, full_covariance(anchor.covariance) if anchor.covariance else None)


def check_anchors(anchors: Sequence[Anchor], levels: int) -> None:
    """`check_anchor` of each; the poses of all at once, which is some times quicker. Raises InvalidInput naming the first that is wrong."""
    plain = [a for a in anchors if a.level < levels and not a.covariance and len(a.fragment) in (0, HASH_BYTES) and len(set(a.tags)) == len(a.tags)]
    if len(plain) == len(anchors) > 1:
        try:
            Poses.of([a.position_m for a in anchors], [a.rotation for a in anchors])
        except InvalidInput:
            pass  # found again below, with its name
        else:
            return
    for anchor in anchors:
        check_anchor(anchor, levels)


def full_covariance(triangle: Sequence[float]) -> F8:
    """(6, 6) of its upper triangle, row by row."""
    out = np.zeros((6, 6))
    out[np.triu_indices(6)] = triangle
    return out + np.triu(out, 1).T

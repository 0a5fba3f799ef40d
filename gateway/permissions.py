"""Who may do what: fourteen permissions, the roles that hold them, and what each frame, topic and HTTP resource needs. The only place where this is said.

`permits` is asked by the session for frames and topics and by the API for its resources. docs/permissions.md is written from these tables:
`python -m gateway.permissions`, and a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from gateway import frames as f

Role = Literal["guest", "shopper", "feed", "operator", "engineer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Permission = Literal[
    "venue.read",
    "presence.tell",
    "wallet.use",
    "wallets.read",
    "money.adjust",
    "money.issue",
    "books.read",
    "venue.write",
    "sensors.write",
    "content.write",
    "counts.read",
    "dots.read",
    "source.drive",
    "profile.read",
]
WHAT: Final[Mapping[Permission, str]] = {
    "venue.read": "the venue, its stores, offers, clock and public counts",
    "presence.tell": "say where oneself is",
    "wallet.use": "one's own wallet: pay, send, read",
    "wallets.read": "wallets of others and tills",
    "money.adjust": "hold, post, void and refund for others",
    "money.issue": "credit wallets from outside",
    "books.read": "the tenant's books and payment figures",
    "venue.write": "what is in force in the venue: offers, items for sale, drawn zones, closed ways; people's reasons, refined anchors and assets",
    "sensors.write": "parking bays, gates, and what is known of people",
    "content.write": "anchors and scenes",
    "counts.read": "counts of zones, and small counts",
    "dots.read": "people as dots, under pseudonyms",
    "source.drive": "drive a venue's clock; positions and payments of many",
    "profile.read": "what the tenant's actors cost",
}

Topic = Literal["dots", "density", "zone", "stats", "offers", "parking", "clock", "payments", "anchors", "scene", "presence"]
Resource = Literal[
    "GET /v1/venues",
    "GET /v1/venues/{tenant}/{venue}",
    "GET /v1/profile",
    "/v1/webhooks",
    "/v1/users",
    "GET /v1/scenarios",
    "/v1/runs",
    "GET /v1/assets/{sha256}",
    "PUT /v1/assets/{sha256}",
    "GET /v1/venues/{tenant}/{venue}/packs/{place}",
    "GET /v1/venues/{tenant}/{venue}/scenes/{scene}.gltf",
]

_SHOPPER: Final[frozenset[Permission]] = frozenset({"venue.read", "presence.tell", "wallet.use", "content.write"})

GRANTED: Final[Mapping[Role, frozenset[Permission]]] = {
    "guest": _SHOPPER,
    "shopper": _SHOPPER,
    "feed": frozenset({"venue.read", "sensors.write", "source.drive", "money.issue"}),
    "operator": frozenset(
        {
            "venue.read",
            "venue.write",
            "sensors.write",
            "content.write",
            "counts.read",
            "dots.read",
            "books.read",
            "wallets.read",
            "money.adjust",
            "money.issue",
            "profile.read",
        }
    ),
    "engineer": frozenset({"venue.read", "counts.read", "books.read", "profile.read"}),
}

_SESSION: Final[frozenset[Permission]] = frozenset()

NEEDS: Final[Mapping[type, frozenset[Permission]]] = {
    f.Hello: _SESSION,
    f.Renew: _SESSION,
    f.Ping: _SESSION,
    f.Ack: _SESSION,
    f.Subscribe: _SESSION,  # and what its topic needs
    f.Unsubscribe: _SESSION,
    f.Saw: _SESSION,
    f.GetMembers: _SESSION,  # of a topic that it reads; who, is told to staff and a scene's editors (`gateway.presence`)
    f.GetOffers: frozenset({"venue.read"}),
    f.FindStores: frozenset({"venue.read"}),
    f.Search: frozenset({"venue.read"}),
    f.GetClock: frozenset({"venue.read"}),
    f.GetItem: frozenset({"venue.read"}),
    f.GetRoute: frozenset({"venue.read"}),
    f.GetIsochrone: frozenset({"venue.read"}),
    f.GetDistances: frozenset({"venue.read"}),
    f.GetAccess: frozenset({"venue.read"}),
    f.ResolveAnchors: frozenset({"venue.read"}),
    f.AnchorsNear: frozenset({"venue.read"}),
    f.SceneSync: frozenset({"venue.read"}),
    f.Localise: frozenset({"venue.read"}),
    f.WalkIn: frozenset({"presence.tell"}),
    f.Move: frozenset({"presence.tell"}),
    f.Leave: frozenset({"presence.tell"}),
    f.Observe: frozenset({"presence.tell"}),
    f.GetConsent: frozenset({"presence.tell"}),
    f.GiveConsent: frozenset({"presence.tell"}),
    f.WithdrawConsent: frozenset({"presence.tell"}),
    f.Pay: frozenset({"wallet.use"}),
    f.Buy: frozenset({"wallet.use"}),
    f.GetBalance: frozenset({"wallet.use"}),
    f.Transfer: frozenset({"wallet.use"}),
    f.GetStatement: frozenset({"wallet.use", "wallets.read"}),  # whose: checked against the subject
    f.GetTill: frozenset({"wallets.read"}),
    f.Refund: frozenset({"money.adjust"}),
    f.Grant: frozenset({"money.adjust"}),
    f.Hold: frozenset({"money.adjust"}),
    f.Post: frozenset({"money.adjust"}),
    f.Void: frozenset({"money.adjust"}),
    f.TopUps: frozenset({"money.issue"}),
    f.Payments: frozenset({"source.drive"}),
    f.GetBooks: frozenset({"books.read"}),
    f.CreateOffer: frozenset({"venue.write"}),
    f.EndOffer: frozenset({"venue.write"}),
    f.PutItem: frozenset({"venue.write"}),
    f.SetAccess: frozenset({"venue.write"}),
    f.DrawZone: frozenset({"venue.write"}),
    f.EraseZone: frozenset({"venue.write"}),
    f.Recount: frozenset({"venue.write"}),
    f.EditVenue: frozenset({"venue.write"}),
    f.UndoEdit: frozenset({"venue.write"}),
    f.RedoEdit: frozenset({"venue.write"}),
    f.GetEdits: frozenset({"venue.write"}),
    f.GetAnchorGraph: frozenset({"venue.write"}),
    f.RefineAnchors: frozenset({"venue.write"}),
    f.CarryAnchors: frozenset({"venue.write", "source.drive"}),
    f.Explain: frozenset({"presence.tell", "venue.write"}),  # whose: checked against the subject
    f.SetBays: frozenset({"sensors.write"}),
    f.SetTraits: frozenset({"sensors.write"}),
    f.CountGates: frozenset({"sensors.write"}),
    f.HostAnchor: frozenset({"content.write"}),
    f.RemoveAnchors: frozenset({"content.write"}),
    f.SceneApply: frozenset({"content.write"}),
    f.ScenePresence: frozenset({"content.write"}),
    f.ObserveAnchor: frozenset({"content.write", "source.drive"}),
    f.GetZone: frozenset({"counts.read"}),
    f.GetZones: frozenset({"counts.read"}),
    f.Measure: frozenset({"counts.read"}),
    f.GetHeat: frozenset({"counts.read"}),
    f.CompareParking: frozenset({"counts.read"}),
    f.OpenSource: frozenset({"source.drive"}),
    f.CloseSource: frozenset({"source.drive"}),
    f.Columns: frozenset({"source.drive"}),
    f.Watermark: frozenset({"source.drive"}),
}
"""Frame -> permissions any of which is enough; none: every session may."""

TOPIC_NEEDS: Final[Mapping[Topic, Permission]] = {
    "dots": "dots.read",
    "density": "venue.read",
    "stats": "venue.read",
    "offers": "venue.read",
    "parking": "venue.read",
    "clock": "venue.read",
    "zone": "counts.read",
    "anchors": "venue.read",
    "scene": "venue.read",
    "presence": "venue.read",
    "payments": "books.read",
}

RESOURCE_NEEDS: Final[Mapping[Resource, Permission]] = {
    "GET /v1/venues": "venue.read",
    "GET /v1/venues/{tenant}/{venue}": "venue.read",
    "GET /v1/profile": "profile.read",
    "/v1/webhooks": "venue.write",  # and all below it, and /v1/sources
    "/v1/users": "wallets.read",  # of others; everyone has their own
    "GET /v1/scenarios": "profile.read",
    "/v1/runs": "venue.write",  # and to begin one
    "GET /v1/assets/{sha256}": "venue.read",
    "PUT /v1/assets/{sha256}": "venue.write",
    "GET /v1/venues/{tenant}/{venue}/packs/{place}": "venue.read",
    "GET /v1/venues/{tenant}/{venue}/scenes/{scene}.gltf": "venue.read",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What an API key is confined to, within its role. permissions: None for all of the role's; venue: a festival or mall; unit: a stand in it."""

    permissions: frozenset[Permission] | None = None
    venue: str | None = None
    unit: str | None = None


_ANY_UNIT: Final[frozenset[type]] = frozenset({f.Post, f.Void})
"""What names no stand, and yet is open to a stand's key: a hold is named by its own key, which only who made it has."""

SECOND_FACTOR_ABOVE: Final = 100_000
"""Minor units: an operator who gives back, or credits in one frame, more than this must have shown a second factor within SECOND_FACTOR_S."""
SECOND_FACTOR_S: Final = 900.0


def holds(role: Role, permission: Permission) -> bool:
    return permission in GRANTED[role]


def permits(role: Role, operation: type | Resource, topic: Topic | None = None, scope: Scope | None = None) -> bool:
    """Whether a role may send this kind of frame (for Subscribe: and read the topic), or ask for this resource. What is in no table nobody may.

    Ask `Identity.may` wherever there is an identity: it brings the scope of an API key along.
    """
    granted = GRANTED[role]
    if scope is not None and scope.permissions is not None:
        granted &= scope.permissions
    if isinstance(operation, str):
        return RESOURCE_NEEDS[operation] in granted
    needs = NEEDS.get(operation)
    if needs is None or (needs and not needs & granted):
        return False
    return topic is None or TOPIC_NEEDS[topic] in granted


def frames_of(role: Role) -> frozenset[type]:
    """The kinds of frames that `permits` the role without a scope, whatever they name; for Subscribe the topic counts too."""
    return _FRAMES_OF[role]


def outside(scope: Scope, frame: f.ClientFrame, topic_venue: str | None = None) -> str | None:
    """Why a frame is not within the venue and stand of a key; None where it is. `topic_venue`: of the topic that Subscribe names, if it is of a venue."""
    kind = type(frame)
    if scope.venue is None or (not NEEDS[kind] and kind not in (f.Hello, f.Subscribe)):
        return None
    venue = topic_venue if isinstance(frame, f.Subscribe) else getattr(frame, "venue", None)
    if venue != scope.venue and not (isinstance(frame, f.Hello) and venue is None):
        return f"this key is confined to venue {scope.venue}: name it"
    if scope.unit is None or NEEDS[kind] <= {"venue.read"} or kind in _ANY_UNIT or getattr(frame, "unit", None) == scope.unit:
        return None
    return f"this key is confined to stand {scope.unit}: only frames that name it are for it"


def needs_second_factor(role: Role, frame: f.ClientFrame) -> bool:
    """Whether what an operator asks for is so grave that a stolen password must not be enough."""
    if role != "operator":
        return False
    if isinstance(frame, f.Refund):
        return frame.amount > SECOND_FACTOR_ABOVE
    if isinstance(frame, f.TopUps) and len(frame.amount) % 4 == 0:
        return sum(int.from_bytes(frame.amount[i : i + 4], "little") for i in range(0, len(frame.amount), 4)) > SECOND_FACTOR_ABOVE
    return False


_FRAMES_OF: Final[Mapping[Role, frozenset[type]]] = {role: frozenset(kind for kind in NEEDS if permits(role, kind)) for role in ROLES}


def matrix() -> str:
    """The tables, as docs/permissions.md has them."""
    head = "| permission | " + " | ".join(ROLES) + " | what | frames, topics, resources |\n| --- |" + " :-: |" * len(ROLES) + " --- | --- |\n"
    rows = []
    for permission in get_args(Permission):
        frames = [f"`{kind.__struct_config__.tag}`" for kind, needs in NEEDS.items() if permission in needs]  # type: ignore[attr-defined]
        topics = [f"`.../{topic}`" if topic != "payments" else "`payments`" for topic, need in TOPIC_NEEDS.items() if need == permission]
        resources = [f"`{resource}`" for resource, need in RESOURCE_NEEDS.items() if need == permission]
        marks = " | ".join("x" if holds(role, permission) else " " for role in ROLES)
        rows.append(f"| `{permission}` | {marks} | {WHAT[permission]} | {' '.join([*frames, *topics, *resources])} |")
    everyone = " ".join(f"`{kind.__struct_config__.tag}`" for kind, needs in NEEDS.items() if not needs)  # type: ignore[attr-defined]
    return head + "\n".join(rows) + f"\n\nEvery session may send {everyone}.\n"


if __name__ == "__main__":
    print(matrix(), end="")

"""Topics and what is published on them, from shards to gateways (carried by `esplanade.storage.broker`, on the channel `channel(tenant, topic)`).

Durable topics have an (epoch, offset) assigned in PostgreSQL and can be read again (`esplanade.storage.outbox`); ephemeral topics carry the newest state only.

topic                       kind       body
venue/<venue>/pushes        durable    PushBatch, one a tick that made pushes
venue/<venue>/offers        durable    OfferChanged
venue/<venue>/parking       durable    ParkingChanged
venue/<venue>/anchors       durable    AnchorsChanged
venue/<venue>/scene/<scene> durable    SceneChanged
venue/<venue>/presence/<scene>  ephemeral  Presence, as clients say it (gateways publish it, no shard)
venue/<venue>/clock         ephemeral  TickClosed, every tick; Rewind after a restart of the position host
venue/<venue>/stats         ephemeral  VenueStats, 1 Hz
venue/<venue>/dots/<level>  ephemeral  Dots, at the rate asked for by `System.watch`
venue/<venue>/density/<level>  ephemeral  Density, likewise
venue/<venue>/zone/<zone>   ephemeral  ZoneCounts, likewise, of a zone (drawn or of the document) or unit
payments                    ephemeral  PaymentStats, 1 Hz and shard
consents                    durable    ConsentTold: somebody gave or took back their consent (gateways alone read it)
members                     ephemeral  Roll and RollCall, between gateways: who reads a topic (`gateway.presence`)
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from spatial.offers import Offer

CONSENTS: Final = "consents"
"""The tenant's topic of consents given and taken back."""


class _Body(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class PushBatch(_Body, frozen=True, kw_only=True, tag="pushes"):
    """Pushes of one tick: row i pushes offers[offer[i]] to subject[i]. offer: (n,) u2, subject: (n,) u4, little-endian; ordered by (offer, subject)."""

    venue: str
    tick: int
    offers: tuple[Offer, ...]
    offer: bytes
    subject: bytes


class OfferChanged(_Body, frozen=True, kw_only=True, tag="offer"):
    venue: str
    offer: Offer
    ended: bool


class ParkingChanged(_Body, frozen=True, kw_only=True, tag="parking"):
    venue: str
    total: int
    free: int


class TickClosed(_Body, frozen=True, kw_only=True, tag="closed"):
    """The tick's consequences are durable."""

    venue: str
    tick: int
    epoch: int
    late_rows: int


class Rewind(_Body, frozen=True, kw_only=True, tag="rewind"):
    """The position host restarted: sources send every row after `tick` again."""

    venue: str
    tick: int
    epoch: int


class VenueStats(_Body, frozen=True, kw_only=True, tag="stats"):
    """`inside` by level (index as in Venue.levels); pushes, entries and exits since the venue opened; tick_ms: time the last tick's close took."""

    venue: str
    tick: int
    inside: tuple[int, ...]
    pushes: int
    entries: int
    exits: int
    dwells: int
    tick_ms: float
    zones: dict[str, int]  # occupancy of the 50 fullest zones and units, by id


class Dots(_Body, frozen=True, kw_only=True, tag="dots"):
    """People on one level, under pseudonyms that rotate. pseudonym: (n,) u4; x, y: (n,) f4, metres, venue frame; radius: (n,) u1, `PositionColumns.radius_dm`, or nothing."""

    venue: str
    level: int
    tick: int
    pseudonym: bytes
    x: bytes
    y: bytes
    radius: bytes = b""


class Density(_Body, frozen=True, kw_only=True, tag="density"):
    """People by square cell of one level: count (rows, cols) u2, row 0 at y0; cells with fewer than 3 people read 0 for shoppers (gateway blanks them)."""

    venue: str
    level: int
    tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    count: bytes


class ZoneCounts(_Body, frozen=True, kw_only=True, tag="zone"):
    """A zone or unit as of `tick`: who is inside, what happened since the venue opened (a drawn zone: since it was drawn), its ground."""

    venue: str
    zone: str
    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    crossed: int
    stayed_s: float
    ground_m2: float


class PaymentStats(_Body, frozen=True, kw_only=True, tag="payments"):
    """Since the tenant opened, by the shard that says so: accepted and refused payments and their volume by currency."""

    shard: str
    payments: int
    refused: int
    volume: dict[str, int]


class AnchorsChanged(_Body, frozen=True, kw_only=True, tag="anchors"):
    """ids (n, 16) bytes: read them again to see them as they are now; who may not see one learns its id alone."""

    venue: str
    what: Literal["hosted", "moved", "removed", "expired"]
    ids: bytes


class SceneChanged(_Body, frozen=True, kw_only=True, tag="scene"):
    """Operations (`ar.scene_ops`) that took effect in a scene."""

    venue: str
    scene: str
    author: str
    ops: bytes


class Presence(_Body, frozen=True, kw_only=True, tag="presence"):
    """Somebody looks at a scene: pose (7,) f4, position in metres and unit quaternion x, y, z, w, in the venue frame."""

    venue: str
    scene: str
    client: str
    level: int
    pose: bytes


class ConsentTold(_Body, frozen=True, kw_only=True, tag="consent"):
    """`changes`: of this person's consent; the higher is the newer."""

    subject: int
    given: bool
    changes: int


class RollCall(_Body, frozen=True, kw_only=True, tag="roll_call"):
    """`gateway` wants to know who reads `topic`, wherever they are connected."""

    gateway: str
    topic: str


class RollMember(msgspec.Struct, frozen=True, array_like=True):
    client: str
    role: str


class Roll(_Body, frozen=True, kw_only=True, tag="roll"):
    """Who reads `topic` at `gateway`: how many, and the first of them."""

    gateway: str
    topic: str
    count: int
    members: tuple[RollMember, ...]


Body = (
    PushBatch
    | OfferChanged
    | ParkingChanged
    | TickClosed
    | Rewind
    | VenueStats
    | Dots
    | Density
    | ZoneCounts
    | PaymentStats
    | AnchorsChanged
    | SceneChanged
    | Presence
    | ConsentTold
    | RollCall
    | Roll
)


class Publication(msgspec.Struct, frozen=True):
    """What travels on a channel. offset is 0 on ephemeral topics."""

    topic: str
    epoch: int
    offset: int
    body: bytes  # msgpack of Body


def channel(tenant: str, topic: str) -> str:
    return f"esp:{tenant}:{topic}"

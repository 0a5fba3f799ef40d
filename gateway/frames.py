"""Wire frames of `esplanade.v1`: two closed unions, one decoder each. docs/protocol.md describes them for other languages.

A frame is a map with the key "op". Subprotocol `esplanade.v1.msgpack` (binary messages) or `esplanade.v1.json` (text messages, bytes as base64).
Requests carry `seq`, counted up by the client; the answer (or Error) carries the same `seq`. A message may hold one frame or an array of at most
MAX_BATCH frames, both ways. Unknown fields are ignored, an unknown `op` is refused by name. Schemas change by addition only.
Byte columns are little-endian: u1, u2, u4, f4 as said; money is integer minor units.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from actors.messages import BayChange, Currency, GateCount, Key, LiveEdit, Money, Refined, Store
from ar.anchors import MAX_RADIUS_M, Anchor, AnchorId, Held, Metres, Observed, Tags
from gateway.distance_frames import Distances as Distances
from gateway.distance_frames import GetDistances as GetDistances
from gateway.filters import Where
from gateway.observe_frames import Gnss as Gnss
from gateway.observe_frames import Located as Located
from gateway.observe_frames import Observe as Observe
from gateway.observe_frames import Range as Range
from gateway.presence_frames import GetMembers as GetMembers
from gateway.presence_frames import Member as Member
from gateway.presence_frames import Members as Members
from gateway.presence_frames import MembersChanged as MembersChanged
from spatial.drawn_zones import DrawnZone
from spatial.measures import Band
from spatial.offers import Offer
from spatial.profiles import By, Rule, Way
from spatial.routes import Reason

SUBPROTOCOLS = ("esplanade.v1.msgpack", "esplanade.v1.json")
MAX_BATCH = 256
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""A message of a feed or operator; `MAX_GUEST_MESSAGE_BYTES` holds for everyone else."""
MAX_GUEST_MESSAGE_BYTES = 16 * 1024

Seq = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Subject = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Tick = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
LevelIndex = Annotated[int, msgspec.Meta(ge=0, le=254)]
StaleMs = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
"""How old an answer may be, where the reader does not mind: 0, as new as it can be."""
Coordinate = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class Place(msgspec.Struct, frozen=True):
    """A position in a durable topic: resume after it."""

    epoch: int
    offset: int


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", omit_defaults=True):
    pass


# --- client to server -------------------------------------------------------------------------------------------------


class Hello(_Frame, frozen=True, kw_only=True, tag="hello"):
    """First frame. With `token`, or as a guest of the tenant `guest_of`. `client` is the device's own id (idempotency of `seq` within it).

    `resume`: the last place seen in `venue/<venue>/pushes` of `venue`; pushes since then are sent again, or Welcome says `resumed: false`.
    """

    client: Id
    token: str | None = None
    guest_of: Id | None = None
    venue: Id | None = None
    resume: Place | None = None


class Ping(_Frame, frozen=True, kw_only=True, tag="ping"):
    seq: Seq


class WalkIn(_Frame, frozen=True, kw_only=True, tag="walk_in"):
    """Digital walk-in by QR: `location` is an entrance code such as north_entrance."""

    seq: Seq
    venue: Id
    location: Id
    key: Key | None = None


class Move(_Frame, frozen=True, kw_only=True, tag="move"):
    """My position (the subject is the token's). `tick` only from sources of a driven venue. Answered with Taken only if `ack`."""

    seq: Seq
    venue: Id
    level: LevelIndex
    x: Coordinate
    y: Coordinate
    tick: Tick | None = None
    ack: bool = False


class Leave(_Frame, frozen=True, kw_only=True, tag="leave"):
    """I have left the venue."""

    seq: Seq
    venue: Id
    tick: Tick | None = None


class Ack(_Frame, frozen=True, kw_only=True, tag="ack"):
    """Pushes that reached the user; others are sent again."""

    pushes: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_BATCH)]


class Pay(_Frame, frozen=True, kw_only=True, tag="pay"):
    """Pay at the till of a unit from my wallet. `key`: 128 bits made by the client, the same for every retry. Answered with Paid or Error."""

    seq: Seq
    venue: Id
    key: Key
    unit: Id
    amount: Money
    currency: Currency
    tick: Tick | None = None


class GetBalance(_Frame, frozen=True, kw_only=True, tag="balance"):
    seq: Seq
    stale_ms: StaleMs = 0


class Transfer(_Frame, frozen=True, kw_only=True, tag="transfer"):
    """From my wallet to that of `to`. `key` as in Pay. Answered with Paid once it has left for good, or Error: it arrives a moment later, or comes back."""

    seq: Seq
    key: Key
    to: Subject
    amount: Money
    currency: Currency


class StatementPlace(msgspec.Struct, frozen=True):
    """Where a page of a statement ended."""

    position: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    version: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    row: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]
    balance: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class GetStatement(_Frame, frozen=True, kw_only=True, tag="statement"):
    """The movements of my wallet (of `subject`'s, for operators) in one currency, oldest first, a page of `limit`; `after`: `next` of the page before. Answered with Statement."""

    seq: Seq
    currency: Currency
    subject: Subject | None = None
    after: StatementPlace | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class View(msgspec.Struct, frozen=True):
    """A rectangle of a level, metres, venue frame: its lower edges counted in, its upper ones not."""

    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate


Policy = Literal["disconnect", "keep_latest", "drop_oldest"]


class Subscribe(_Frame, frozen=True, kw_only=True, tag="subscribe"):
    """Topics: venue/<v>/dots/<level> (operators), venue/<v>/density/<level>, venue/<v>/stats, venue/<v>/offers, venue/<v>/parking, venue/<v>/clock,
    payments (operators). `rate_hz` bounds ephemeral topics (default 2, at most 10). A session's pushes come without subscribing.

    `view`: of dots, this rectangle only, as DotsView, in at most `bytes_per_s`; again with another view to look elsewhere.
    `resume`: of offers and parking, what came after this place is sent first, or Subscribed says `resumed: false`.
    `where`: only publications that pass these tests (`gateway.filters`). `policy`: what becomes of those that a slow reader cannot take.
    """

    seq: Seq
    topic: Id
    rate_hz: Annotated[float, msgspec.Meta(ge=0.1, le=10)] | None = None
    view: View | None = None
    bytes_per_s: Annotated[int, msgspec.Meta(ge=500, le=100_000_000)] | None = None
    resume: Place | None = None
    where: Where | None = None
    policy: Policy | None = None


class Unsubscribe(_Frame, frozen=True, kw_only=True, tag="unsubscribe"):
    seq: Seq
    topic: Id


class Saw(_Frame, frozen=True, kw_only=True, tag="saw"):
    """I have drawn DotsView `number` of this topic. Who says so is never more than a few frames behind. Not answered."""

    topic: Id
    number: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Renew(_Frame, frozen=True, kw_only=True, tag="renew"):
    """Go on with this token, which is for the same person, tenant, role and source. Answered with Done."""

    seq: Seq
    token: str


class GetOffers(_Frame, frozen=True, kw_only=True, tag="get_offers"):
    seq: Seq
    venue: Id
    stale_ms: StaleMs = 0


class FindStores(_Frame, frozen=True, kw_only=True, tag="find_stores"):
    seq: Seq
    venue: Id
    level: LevelIndex
    x: Coordinate
    y: Coordinate
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class Search(_Frame, frozen=True, kw_only=True, tag="search"):
    """Stores by words, typos forgiven. `level`, `x`, `y` together: where I am."""

    seq: Seq
    venue: Id
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class Spot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place to start from or go to: the id of a unit or amenity or code of an entrance, or a point; as a goal also the nearest of a category."""

    place: Id | None = None
    category: Id | None = None
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None


class GetRoute(_Frame, frozen=True, kw_only=True, tag="route"):
    """A way from `start` (left out: where I was last seen) to `goal`, as walked by `profile`, with its rule for some `ways` replaced; `avoid_crowds`: by the seconds that it takes through who is there now. Answered with Route or NoRoute."""

    seq: Seq
    venue: Id
    goal: Spot
    start: Spot | None = None
    profile: Id = "walking"
    ways: dict[Way, Rule] = {}
    by: By = "fastest"
    avoid_crowds: bool = False


class GetIsochrone(_Frame, frozen=True, kw_only=True, tag="isochrone"):
    """What is reached from `start` within `within_s`; `cell_m`: how finely. Answered with Isochrone or NoRoute."""

    seq: Seq
    venue: Id
    within_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    start: Spot | None = None
    profile: Id = "walking"
    ways: dict[Way, Rule] = {}
    cell_m: Annotated[float, msgspec.Meta(ge=2, le=50)] = 4.0


class GetAccess(_Frame, frozen=True, kw_only=True, tag="get_access"):
    """What is closed now. Answered with Access."""

    seq: Seq
    venue: Id


class SetAccess(_Frame, frozen=True, kw_only=True, tag="set_access"):
    """Operators: close and open connectors, openings and units (all their openings), by id. All or none. Answered with Access."""

    seq: Seq
    venue: Id
    close: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()
    open: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()
    key: Key | None = None


class DrawZone(_Frame, frozen=True, kw_only=True, tag="draw_zone"):
    """Operators: watch a zone from the next tick on; one of the same id is drawn anew."""

    seq: Seq
    venue: Id
    zone: DrawnZone
    key: Key | None = None


class EraseZone(_Frame, frozen=True, kw_only=True, tag="erase_zone"):
    seq: Seq
    venue: Id
    zone: Id
    key: Key | None = None


class Box(msgspec.Struct, frozen=True):
    """A rectangle of a level."""

    level: LevelIndex
    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate


class GetZones(_Frame, frozen=True, kw_only=True, tag="get_zones"):
    """Operators: the zones drawn; with `box` those whose ground meets it."""

    seq: Seq
    venue: Id
    box: Box | None = None


class SetTraits(_Frame, frozen=True, kw_only=True, tag="set_traits"):
    """Operators and feeds: what n people are: subject (n,) u4 each once, segments (n,) u8 bits, and the language they speak ("": unknown). Answered with Done."""

    seq: Seq
    venue: Id
    subject: bytes
    segments: bytes
    language: Annotated[str, msgspec.Meta(pattern="^([a-z]{2,8})?$")] = ""
    key: Key | None = None


class Explain(_Frame, frozen=True, kw_only=True, tag="explain"):
    """Why an offer was or was not pushed to me; operators: to `subject`. Answered with Explained."""

    seq: Seq
    venue: Id
    offer: Id
    subject: Subject | None = None


class Measure(_Frame, frozen=True, kw_only=True, tag="measure"):
    """Operators: density, service, flow and stays of a zone or unit now; `voronoi`: the Voronoi density too. Answered with Measures."""

    seq: Seq
    venue: Id
    zone: Id
    voronoi: bool = False


class GetHeat(_Frame, frozen=True, kw_only=True, tag="get_heat"):
    """Operators: where people have spent their time on a level. Answered with Heat."""

    seq: Seq
    venue: Id
    level: LevelIndex


class CountGates(_Frame, frozen=True, kw_only=True, tag="count_gates"):
    """Operators and feeds: totals of car park gates. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    counts: Annotated[tuple[GateCount, ...], msgspec.Meta(max_length=1_000)]
    key: Key | None = None


class CompareParking(_Frame, frozen=True, kw_only=True, tag="compare_parking"):
    """Operators: bays against gates; `moving_at_most` cars between them are no disagreement. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    moving_at_most: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class Recount(_Frame, frozen=True, kw_only=True, tag="recount"):
    """Operators: take what the bays say, and `moving` cars that are in none, as what is inside. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    moving: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    key: Key | None = None


class EditVenue(_Frame, frozen=True, kw_only=True, tag="edit_venue"):
    """Operators: open, close, move or re-label a unit of the map; from the next tick on. Answered with Edited."""

    seq: Seq
    venue: Id
    edit: LiveEdit
    key: Key | None = None


class UndoEdit(_Frame, frozen=True, kw_only=True, tag="undo_edit"):
    seq: Seq
    venue: Id
    key: Key | None = None


class RedoEdit(_Frame, frozen=True, kw_only=True, tag="redo_edit"):
    seq: Seq
    venue: Id
    key: Key | None = None


class GetEdits(_Frame, frozen=True, kw_only=True, tag="get_edits"):
    seq: Seq
    venue: Id


class GetZone(_Frame, frozen=True, kw_only=True, tag="get_zone"):
    """Operators: occupancy of a unit or zone by id."""

    seq: Seq
    venue: Id
    zone: Id
    stale_ms: StaleMs = 0


class GetClock(_Frame, frozen=True, kw_only=True, tag="get_clock"):
    seq: Seq
    venue: Id


class CreateOffer(_Frame, frozen=True, kw_only=True, tag="create_offer"):
    """Operators."""

    seq: Seq
    venue: Id
    offer: Offer
    key: Key | None = None


class EndOffer(_Frame, frozen=True, kw_only=True, tag="end_offer"):
    seq: Seq
    venue: Id
    offer: Id
    tick: Tick
    key: Key | None = None


class SetBays(_Frame, frozen=True, kw_only=True, tag="set_bays"):
    """Operators and feeds: parking bay sensors."""

    seq: Seq
    venue: Id
    bays: Annotated[tuple[BayChange, ...], msgspec.Meta(max_length=10_000)]
    key: Key | None = None


# anchors and scenes


class HostAnchor(_Frame, frozen=True, kw_only=True, tag="host_anchor"):
    """Keep an anchor for me under an id of my making; under an id of mine that is here: its next version. Answered with AnchorsAre."""

    seq: Seq
    venue: Id
    anchor: Anchor


class ResolveAnchors(_Frame, frozen=True, kw_only=True, tag="resolve_anchors"):
    """ids: (n, 16) bytes, n up to 1,000. Answered with AnchorsAre: those that are here and that I may see, in their order."""

    seq: Seq
    venue: Id
    ids: bytes


class AnchorsNear(_Frame, frozen=True, kw_only=True, tag="anchors_near"):
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


class ObserveAnchor(_Frame, frozen=True, kw_only=True, tag="observe_anchor"):
    """Where I saw an anchor: in the venue's frame, or from another anchor. Answered with AnchorsAre: the anchor with its quality now."""

    seq: Seq
    venue: Id
    seen: Observed


class RemoveAnchors(_Frame, frozen=True, kw_only=True, tag="remove_anchors"):
    """ids: (n, 16) bytes of anchors of mine, n up to 1,000; staff removes any. Answered with Done."""

    seq: Seq
    venue: Id
    ids: bytes


class CarryAnchors(_Frame, frozen=True, kw_only=True, tag="carry_anchors"):
    """Operators and feeds: where the thing that moves, `carrier`, is now; anchors on it go with it. Answered with Done."""

    seq: Seq
    venue: Id
    carrier: Id
    level: LevelIndex
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


class GetAnchorGraph(_Frame, frozen=True, kw_only=True, tag="get_anchor_graph"):
    """Operators: anchors that were observed, and the observations, to refine them. Answered with AnchorGraph."""

    seq: Seq
    venue: Id


class RefineAnchors(_Frame, frozen=True, kw_only=True, tag="refine_anchors"):
    """Operators: refined poses, each found from a version of its anchor. One with another version by now stays. Answered with AnchorsAre: those that moved."""

    seq: Seq
    venue: Id
    refined: Annotated[tuple[Refined, ...], msgspec.Meta(max_length=2_000)]


class SceneSync(_Frame, frozen=True, kw_only=True, tag="scene_sync"):
    """What my replica lacks; `seen`: its version vector, by client. Answered with SceneDelta."""

    seq: Seq
    venue: Id
    scene: Id
    seen: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=200)], Annotated[int, msgspec.Meta(ge=0, lt=2**53)]], msgspec.Meta(max_length=10_000)
    ] = {}


class SceneApply(_Frame, frozen=True, kw_only=True, tag="scene_apply"):
    """Operations of mine (`ar/scene_ops.py`), made under the client name `<my subject>:<my client>`. All or none. Answered with SceneApplied: durable."""

    seq: Seq
    venue: Id
    scene: Id
    ops: bytes


class Localise(_Frame, frozen=True, kw_only=True, tag="localise"):
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


class ScenePresence(_Frame, frozen=True, kw_only=True, tag="scene_presence"):
    """I look at a scene from here: pose (7,) f4, position in metres and unit quaternion x, y, z, w, in the venue frame. Answered with Done."""

    seq: Seq
    venue: Id
    scene: Id
    level: LevelIndex
    pose: Annotated[bytes, msgspec.Meta(min_length=28, max_length=28)]


class Refund(_Frame, frozen=True, kw_only=True, tag="refund"):
    """Operators: give back `amount` of what the row with key `original` moved; `subject`: whose wallet it was; `venue`: that of the till, if one was paid. Answered with Paid."""

    seq: Seq
    key: Key
    subject: Subject
    original: Key
    amount: Money
    currency: Currency
    venue: Id | None = None


class Hold(_Frame, frozen=True, kw_only=True, tag="hold"):
    """Operators: reserve `amount` of `subject`'s wallet for the till of `unit` until `expires_ms` (since 1970). Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    unit: Id
    amount: Money
    currency: Currency
    expires_ms: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Post(_Frame, frozen=True, kw_only=True, tag="post"):
    """Operators: take what was held under the key `hold`: the whole (0), or a part, and release the rest. Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    hold: Key
    currency: Currency
    amount: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0


class Void(_Frame, frozen=True, kw_only=True, tag="void"):
    """Operators: release what was held under the key `hold`. Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    hold: Key
    currency: Currency


class GetTill(_Frame, frozen=True, kw_only=True, tag="get_till"):
    """Operators: what the till of a unit holds, over all ledgers. Answered with Till."""

    seq: Seq
    venue: Id
    unit: Id


class PutItem(_Frame, frozen=True, kw_only=True, tag="put_item"):
    """Operators: `limit` units, each sold for `amount` to the till of `unit` in `venue`, or without these each a reward of `amount` to a wallet. Answered with Done.

    `each`: what one person may have, 0 for any; `closes_ms`: no more from then on (since 1970), 0 for never. Sent again, it changes these two and `limit`.
    """

    seq: Seq
    item: Id
    amount: Money
    currency: Currency
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    venue: Id | None = None
    unit: Id | None = None
    each: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    closes_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


class GetItem(_Frame, frozen=True, kw_only=True, tag="get_item"):
    """What it costs and how many are left. Answered with Item."""

    seq: Seq
    item: Id


class Buy(_Frame, frozen=True, kw_only=True, tag="buy"):
    """Units of an item, paid from my wallet: both or neither. Answered with Bought."""

    seq: Seq
    item: Id
    key: Key
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1


class Grant(_Frame, frozen=True, kw_only=True, tag="grant"):
    """Operators: one unit of a reward to `subject`'s wallet. Answered with Bought."""

    seq: Seq
    item: Id
    key: Key
    subject: Subject


class GetBooks(_Frame, frozen=True, kw_only=True, tag="get_books"):
    """Operators: the tenant's books, summed over its ledgers."""

    seq: Seq
    stale_ms: StaleMs = 0


# feeds (simulator, positioning gateways): they speak for many subjects, by columns


class OpenSource(_Frame, frozen=True, kw_only=True, tag="open_source"):
    """This connection's token names a source; the venue becomes driven by it from `first_tick`. Answered with ClockState."""

    seq: Seq
    venue: Id
    source: Id
    first_tick: Tick


class CloseSource(_Frame, frozen=True, kw_only=True, tag="close_source"):
    seq: Seq
    venue: Id
    source: Id


class Columns(_Frame, frozen=True, kw_only=True, tag="columns"):
    """Positions of n subjects at one tick: subject (n,) u4, level (n,) u1 (255: has left), x, y (n,) f4. Answered with Taken."""

    seq: Seq
    venue: Id
    source: Id
    tick: Tick
    subject: bytes
    level: bytes
    x: bytes
    y: bytes


class Watermark(_Frame, frozen=True, kw_only=True, tag="watermark"):
    """`rows` rows of `source` belong to `tick` (by Columns, and by Move and Leave of its clients), and none will come for earlier ticks. Not answered."""

    venue: Id
    source: Id
    tick: Tick
    rows: int


class TopUps(_Frame, frozen=True, kw_only=True, tag="top_ups"):
    """Feeds and operators: n credits: key (n, 16) bytes, subject (n,) u4, amount (n,) u4. Answered with Settled."""

    seq: Seq
    tick: Tick
    key: bytes
    subject: bytes
    amount: bytes
    currency: Currency


class Payments(_Frame, frozen=True, kw_only=True, tag="payments"):
    """Feeds: n payments of many subjects: key (n, 16) bytes, subject (n,) u4, unit (n,) u2 (index into the venue's units), amount (n,) u4."""

    seq: Seq
    venue: Id
    tick: Tick
    key: bytes
    subject: bytes
    unit: bytes
    amount: bytes
    currency: Currency


ClientFrame = (
    Hello | Ping | WalkIn | Move | Leave | Observe | Ack | Pay | GetBalance
    | Transfer | GetStatement | Refund | Hold | Post | Void | GetTill | PutItem | GetItem | Buy | Grant
    | Subscribe | Unsubscribe | Saw | Renew | GetOffers | FindStores | Search | GetRoute | GetIsochrone | GetAccess | SetAccess | DrawZone | EraseZone | GetZones | SetTraits | Explain
    | Measure | GetHeat | CountGates | CompareParking | Recount | EditVenue | UndoEdit | RedoEdit | GetEdits | GetZone | GetClock
    | HostAnchor | ResolveAnchors | AnchorsNear | ObserveAnchor | RemoveAnchors | CarryAnchors | GetAnchorGraph | RefineAnchors | SceneSync | SceneApply | ScenePresence
    | GetMembers | Localise | GetDistances
    | CreateOffer | EndOffer | SetBays | GetBooks | OpenSource | CloseSource | Columns | Watermark | TopUps | Payments
)  # fmt: skip


# --- server to client -------------------------------------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True):
    message_bytes: int
    frames_per_s: float
    subscriptions: int


class Welcome(_Frame, frozen=True, kw_only=True, tag="welcome"):
    """`token` is given to guests: present it at the next hello to stay the same person. `now_ms`: the server's clock, for skew. `expires_ms`: when the token ends: `renew` before."""

    session: str
    subject: int
    tenant: str
    role: str
    now_ms: int
    heartbeat_s: float
    limits: Limits
    resumed: bool = False
    token: str | None = None
    expires_ms: int | None = None


class Pong(_Frame, frozen=True, kw_only=True, tag="pong"):
    seq: Seq
    now_ms: int


class Taken(_Frame, frozen=True, kw_only=True, tag="taken"):
    """The rows are in the position host's arrays; Closed says when the tick's consequences are durable."""

    seq: Seq


class Done(_Frame, frozen=True, kw_only=True, tag="done"):
    """Accepted and durable."""

    seq: Seq


class WalkedIn(_Frame, frozen=True, kw_only=True, tag="walked_in"):
    seq: Seq
    venue: str
    venue_name: str
    level: int
    x: float
    y: float
    stores: tuple[Store, ...]


class Stores(_Frame, frozen=True, kw_only=True, tag="stores"):
    seq: Seq
    stores: tuple[Store, ...]


class WalkLeg(msgspec.Struct, frozen=True, tag="walk"):
    """Straight lines through n points of a level: x, y (n,) f4."""

    level: int
    x: bytes
    y: bytes
    metres: float
    seconds: float


class RideLeg(msgspec.Struct, frozen=True, tag="ride"):
    """A connector taken from a level to another; `seconds` includes `wait_s`."""

    connector: str
    way: Way
    from_level: int
    to_level: int
    wait_s: float
    seconds: float


class Route(_Frame, frozen=True, kw_only=True, tag="route_is"):
    """`metres` walked, `seconds` in all, legs in order, and the same in words. `goal`: the place that was found, where it has an id."""

    seq: Seq
    metres: float
    seconds: float
    legs: tuple[WalkLeg | RideLeg, ...]
    words: tuple[str, ...]
    goal: str | None = None


class NoRoute(_Frame, frozen=True, kw_only=True, tag="no_route"):
    """There is no way, and why."""

    seq: Seq
    reason: Reason
    message: str


class Isochrone(_Frame, frozen=True, kw_only=True, tag="isochrone_is"):
    """Cells reached: level (n,) u1, x, y (n,) f4 of their middles, seconds (n,) f4; `places`: seconds to each place reached, by id."""

    seq: Seq
    cell_m: float
    level: bytes
    x: bytes
    y: bytes
    seconds: bytes
    places: dict[str, float]


class Access(_Frame, frozen=True, kw_only=True, tag="access"):
    """Ids of connectors, openings and units that are closed, ascending."""

    seq: Seq
    venue: str
    closed: tuple[str, ...]


class Explained(_Frame, frozen=True, kw_only=True, tag="explained"):
    """`outcome` is stable, `message` for people; `pushes` made so far, the last at `tick`."""

    seq: Seq
    offer: str
    subject: int
    outcome: str
    message: str
    pushes: int
    tick: int | None = None


class Measures(_Frame, frozen=True, kw_only=True, tag="measures"):
    """As of `tick`. `service`, `waiting`: Fruin's band for people who walk and who stand. Flow and stays are those of drawn zones."""

    seq: Seq
    zone: str
    tick: int
    inside: int
    ground_m2: float
    density_per_m2: float
    service: Band
    waiting: Band
    mean_stay_s: float
    voronoi_per_m2: float | None = None
    entries_per_min: float | None = None
    exits_per_min: float | None = None
    stays_s: tuple[int, ...] = ()
    stays: tuple[int, ...] = ()


class Heat(_Frame, frozen=True, kw_only=True, tag="heat"):
    """person_s (rows, cols) f4, row 0 at y0; counted since `since_tick`."""

    seq: Seq
    venue: str
    level: int
    tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    person_s: bytes
    since_tick: int | None = None


class ParkingCompared(_Frame, frozen=True, kw_only=True, tag="parking_compared"):
    """`taken`: by bays; `inside`: by gates; `drift`: how many cars the gates say more (below 0: fewer) than moving cars explain."""

    seq: Seq
    venue: str
    total: int
    taken: int
    inside: int
    drift: int


class Edited(_Frame, frozen=True, kw_only=True, tag="edited"):
    """`edit`: made, taken back or done again; `digest`: of the venue document now; `done`: what can be taken back, oldest first; `undone`: how many can be done again."""

    seq: Seq
    venue: str
    digest: str
    done: tuple[LiveEdit, ...]
    undone: int
    edit: LiveEdit | None = None


class ZoneList(_Frame, frozen=True, kw_only=True, tag="zone_list"):
    seq: Seq
    zones: tuple[DrawnZone, ...]


class OfferList(_Frame, frozen=True, kw_only=True, tag="offer_list"):
    seq: Seq
    offers: tuple[Offer, ...]


class ZoneState(_Frame, frozen=True, kw_only=True, tag="zone_state"):
    seq: Seq
    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    stayed_s: float
    crossed: int = 0
    ground_m2: float = 0.0


class ClockState(_Frame, frozen=True, kw_only=True, tag="clock_state"):
    seq: Seq
    tick: int
    epoch: int
    driven: bool
    late_rows: int
    late_ticks: int


class Push(_Frame, frozen=True, kw_only=True, tag="push"):
    """An offer for me. `id` removes duplicates; ack it. `kind`: NEW_OFFER for flash sales, NEARBY otherwise. `place`: where to resume."""

    id: str
    kind: Literal["NEW_OFFER", "NEARBY"]
    venue: str
    offer: str
    unit: str
    title: str
    text: str
    tick: int
    place: Place


class PushColumns(_Frame, frozen=True, kw_only=True, tag="push_columns"):
    """To a feed: pushes of one tick for the subjects it speaks for (it opened the source): row i pushes offers[offer[i]] to subject[i]; offer (n,) u2, subject (n,) u4."""

    venue: str
    tick: int
    offers: tuple[str, ...]
    offer: bytes
    subject: bytes
    place: Place


class Closed(_Frame, frozen=True, kw_only=True, tag="closed"):
    """To subscribers of venue/<v>/clock: all up to `tick` is durable."""

    venue: str
    tick: int
    epoch: int
    late_rows: int


class Rewind(_Frame, frozen=True, kw_only=True, tag="rewind"):
    """To sources: the position host restarted; send every row after `tick` again, then go on."""

    venue: str
    tick: int
    epoch: int


class Paid(_Frame, frozen=True, kw_only=True, tag="paid"):
    seq: Seq
    key: Key
    balance: int


class Settled(_Frame, frozen=True, kw_only=True, tag="settled"):
    """One byte a row: 0 settled, else 1 + index into `codes`."""

    seq: Seq
    result: bytes
    codes: tuple[str, ...]


class Balance(_Frame, frozen=True, kw_only=True, tag="balance_is"):
    """What can be spent, and what is held beside it, by currency."""

    seq: Seq
    balances: dict[str, int]
    held: dict[str, int] = {}


class StatementLine(msgspec.Struct, frozen=True):
    """One movement: `amount` is positive where the wallet was credited, `balance` after it; `other`: the kind of account on the other side, `number`: which.

    what: payment, top_up, move, post, refund, send, receive, came_back.
    """

    what: str
    key: bytes
    amount: int
    balance: int
    other: str
    number: int


class Statement(_Frame, frozen=True, kw_only=True, tag="statement_is"):
    """`next`: where the next page begins; absent on the last."""

    seq: Seq
    subject: int
    currency: str
    opening: int
    closing: int
    lines: tuple[StatementLine, ...]
    next: StatementPlace | None = None


class Till(_Frame, frozen=True, kw_only=True, tag="till_is"):
    seq: Seq
    venue: str
    unit: str
    balances: dict[str, int]


class Item(_Frame, frozen=True, kw_only=True, tag="item_is"):
    """`left` units may still be had; `under_way`: units whose money is moving just now. `venue` and `unit` (index into the venue's units) of a sale alone."""

    seq: Seq
    item: str
    amount: int
    currency: str
    limit: int
    left: int
    under_way: int
    each: int
    closes_ms: int
    venue: str | None = None
    unit: int | None = None


class Bought(_Frame, frozen=True, kw_only=True, tag="bought"):
    """The units are theirs and the money has moved, durably; `balance`: what the wallet can spend then."""

    seq: Seq
    item: str
    key: Key
    count: int
    balance: int


class Books(_Frame, frozen=True, kw_only=True, tag="books"):
    seq: Seq
    accounts: int
    total: dict[str, int]
    wallets: dict[str, int]
    tills: dict[str, int]
    outside: dict[str, int]
    payments: int
    top_ups: int


class Subscribed(_Frame, frozen=True, kw_only=True, tag="subscribed"):
    """`place`: of a durable topic; what follows comes after it. `resumed`: that is the place asked for; else ask for the state anew, what was missed cannot be had."""

    seq: Seq
    topic: str
    place: Place | None = None
    resumed: bool = False


class Dots(_Frame, frozen=True, kw_only=True, tag="dots"):
    """Operators: people on a level: pseudonym (n,) u4, x, y (n,) f4."""

    venue: str
    level: int
    tick: int
    pseudonym: bytes
    x: bytes
    y: bytes


class DotsView(_Frame, frozen=True, kw_only=True, tag="dots_view"):
    """Operators: what changed in the rectangle looked at: who came or moved: pseudonym (n,) u4, x, y (n,) u2, steps of `step_m` from `x0_m`, `y0_m`;
    who left: (m,) u4. `whole`: forget whom you held. Clusters of people too many to be told, all of them each time: middle x, y and count (k,) u2."""

    venue: str
    level: int
    tick: int
    number: int
    x0_m: float
    y0_m: float
    step_m: float
    pseudonym: bytes
    x: bytes
    y: bytes
    left: bytes = b""
    whole: bool = False
    cluster_m: float = 0.0
    cluster_x: bytes = b""
    cluster_y: bytes = b""
    cluster_count: bytes = b""


class Density(_Frame, frozen=True, kw_only=True, tag="density"):
    """count (rows, cols) u2, row 0 at y0; for shoppers, cells with fewer than 3 people read 0."""

    venue: str
    level: int
    tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    count: bytes


class Zone(_Frame, frozen=True, kw_only=True, tag="zone"):
    """To subscribers of venue/<v>/zone/<zone>. `service`: Fruin's band of walkways for `density_per_m2`."""

    venue: str
    zone: str
    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    crossed: int
    stayed_s: float
    density_per_m2: float
    service: Band


class Stats(_Frame, frozen=True, kw_only=True, tag="stats"):
    venue: str
    tick: int
    inside: tuple[int, ...]
    pushes: int
    entries: int
    exits: int
    dwells: int
    tick_ms: float
    zones: dict[str, int]


class PaymentStats(_Frame, frozen=True, kw_only=True, tag="payment_stats"):
    """Summed over the tenant's shards."""

    payments: int
    refused: int
    volume: dict[str, int]


class OfferState(_Frame, frozen=True, kw_only=True, tag="offer_state"):
    """`place`: where to resume."""

    venue: str
    offer: Offer
    ended: bool
    place: Place | None = None


class Parking(_Frame, frozen=True, kw_only=True, tag="parking"):
    """`place`: where to resume; not in answers."""

    venue: str
    total: int
    free: int
    seq: Seq | None = None
    place: Place | None = None


class AnchorsAre(_Frame, frozen=True, kw_only=True, tag="anchors_are"):
    seq: Seq
    anchors: tuple[Held, ...]


class AnchorGraph(_Frame, frozen=True, kw_only=True, tag="anchor_graph"):
    """Every observation is between two of the anchors, or of one of them in the venue's frame."""

    seq: Seq
    anchors: tuple[Held, ...]
    seen: tuple[Observed, ...]


class AnchorsChanged(_Frame, frozen=True, kw_only=True, tag="anchors_changed"):
    """To readers of venue/<v>/anchors: ids (n, 16) bytes of anchors to resolve anew, or to forget."""

    venue: str
    what: Literal["hosted", "moved", "removed", "expired"]
    ids: bytes


class SceneDelta(_Frame, frozen=True, kw_only=True, tag="scene_delta"):
    """Operations that the replica lacked, causes first. `whole` is false where there are more: sync again."""

    seq: Seq
    ops: bytes
    whole: bool


class SceneApplied(_Frame, frozen=True, kw_only=True, tag="scene_applied"):
    """Operations applied, and how many were known before. Durable."""

    seq: Seq
    applied: int
    known: int


class SceneEdits(_Frame, frozen=True, kw_only=True, tag="scene_edits"):
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


class PresenceIs(_Frame, frozen=True, kw_only=True, tag="presence_is"):
    """To readers of venue/<v>/presence/<s>: all who said within the last seconds where they are."""

    venue: str
    scene: str
    present: tuple[Present, ...]


class Skipped(_Frame, frozen=True, kw_only=True, tag="skipped"):
    """`count` publications of a topic were left out, oldest first, because this reader could not take them."""

    topic: str
    count: int


class Localised(_Frame, frozen=True, kw_only=True, tag="localised"):
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


class NotLocalised(_Frame, frozen=True, kw_only=True, tag="not_localised"):
    """It is not known, and why. `chance` of the best pose that came up, which is not told."""

    seq: Seq
    venue: str
    level: int
    reason: str
    chance: float
    map: str


class Error(_Frame, frozen=True, kw_only=True, tag="error"):
    """`seq`: the request refused, if it was one. `retryable`: the same request, with the same key, may succeed later."""

    code: str
    message: str
    retryable: bool = False
    seq: Seq | None = None


class Bye(_Frame, frozen=True, kw_only=True, tag="bye"):
    """The server closes after this. The WebSocket close code says the same (docs/protocol.md)."""

    code: str
    message: str
    reconnect: bool
    retry_after_s: float = 0.0


ServerFrame = (
    Located | Welcome | Pong | Taken | Done | WalkedIn | Stores | Route | NoRoute | Isochrone | Access | Explained | Measures | Heat | ParkingCompared | Edited | ZoneList | OfferList | ZoneState | ClockState | Push | PushColumns | Closed | Rewind | Paid | Settled
    | Balance | Statement | Till | Item | Bought | Books | Subscribed | Dots | DotsView | Density | Zone | Stats | PaymentStats | OfferState | Parking
    | AnchorsAre | AnchorGraph | AnchorsChanged | SceneDelta | SceneApplied | SceneEdits | PresenceIs | Members | MembersChanged | Skipped | Localised | NotLocalised | Distances | Error | Bye
)  # fmt: skip

"""What gateways and tools ask of entities: commands in, replies out. One closed union each, encoded with msgpack.

A command goes to one address; a reply is `Done`-like data, a `Rejected` (the behaviour refused; nothing changed) or a fault
raised as an EsplanadeError by `System.ask`. Money is integer minor units with a currency. Columns are little-endian bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ar.anchor_records import MAX_RADIUS_M, Anchor, AnchorId, Held, Metres, Observed, Tags
from spatial.offers import Offer
from spatial.venue_edits import CloseUnit, MoveUnit, OpenUnit, Relabel
from spatial.zone_shapes import DrawnZone

Money = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
Key = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]  # a client-made 128-bit id


class _Tagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


# --- every entity that sets reminders ---------------------------------------------------------------------------------


class Remind(_Tagged, frozen=True, kw_only=True, tag="remind"):
    """A reminder is due (`actors.reminders`): it was set for `due_ms`; `count`: how many times a periodic one was due by `now_ms`. Sent by the shard alone; its reply goes nowhere."""

    name: str
    payload: bytes
    due_ms: int
    count: int
    now_ms: int


# --- session/<tenant>/<subject> ---------------------------------------------------------------------------------------


class ScanQr(_Tagged, frozen=True, kw_only=True, tag="scan_qr"):
    """A walk-in through a QR: `location` is an entrance code of `venue`. Journals SCAN_QR; replies WalkedIn."""

    venue: str
    location: str


class SetConsent(_Tagged, frozen=True, kw_only=True, tag="set_consent"):
    """The person agrees that it is known where they are, having been shown `text` (its version), or takes that back ("" then). Journals what is new; replies Consent."""

    given: bool
    text: str = ""


class GetConsent(_Tagged, frozen=True, kw_only=True, tag="get_consent"):
    """Replies Consent."""


# --- mall/<tenant>/<venue>, festival/<tenant>/<venue> -----------------------------------------------------------------


class CreateOffer(_Tagged, frozen=True, kw_only=True, tag="create_offer"):
    """Takes effect at the tick after it is durable, or at `offer.starts_tick` if later. Replies Done."""

    offer: Offer


class EndOffer(_Tagged, frozen=True, kw_only=True, tag="end_offer"):
    offer_id: str
    tick: int


class GetOffers(_Tagged, frozen=True, kw_only=True, tag="get_offers"):
    """Replies Offers: those not ended at `tick` (all, where None)."""

    tick: int | None = None


class BayChange(msgspec.Struct, frozen=True):
    unit_id: str
    occupied: bool


class SetBays(_Tagged, frozen=True, kw_only=True, tag="set_bays"):
    """Parking bay sensors. Unknown units are rejected, the others of the batch too (all or none). Replies Parking."""

    bays: Annotated[tuple[BayChange, ...], msgspec.Meta(max_length=10_000)]


class GetParking(_Tagged, frozen=True, kw_only=True, tag="get_parking"):
    pass


class FindStores(_Tagged, frozen=True, kw_only=True, tag="find_stores"):
    """The k stores nearest to a point: by straight distance on its level. Replies Stores."""

    level: int
    x_m: float
    y_m: float
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class SearchStores(_Tagged, frozen=True, kw_only=True, tag="search_stores"):
    """The k stores that answer best to words, typos forgiven (`spatial.search`). `level`: where I am, with the point; -1: nowhere. Replies Stores."""

    text: str
    level: int = -1
    x_m: float = 0.0
    y_m: float = 0.0
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class SetAccess(_Tagged, frozen=True, kw_only=True, tag="set_access"):
    """Close and open connectors, openings and units. Unknown ids are rejected, the others with them (all or none). Replies Access."""

    close: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


class DrawZone(_Tagged, frozen=True, kw_only=True, tag="draw_zone"):
    """Watch this zone from the next tick on; one of the same id is drawn anew, and counts from nothing. Replies Done."""

    zone: DrawnZone


class EraseZone(_Tagged, frozen=True, kw_only=True, tag="erase_zone"):
    """Watch it no more. Replies Done."""

    zone_id: str


class GetZones(_Tagged, frozen=True, kw_only=True, tag="get_zones"):
    """Drawn zones by id; with `box` (x0, y0, x1, y1; metres) those of `level` whose ground meets it. Replies Zones."""

    level: int = 0
    box: tuple[float, float, float, float] | None = None


class SetTraits(_Tagged, frozen=True, kw_only=True, tag="set_traits"):
    """What n people are beside where they are, from the next tick on: subject (n,) u4 each once, segments (n,) u8 bits, the language they speak ("": unknown). Replies Done."""

    subject: bytes
    segments: bytes
    language: str = ""


class Explain(_Tagged, frozen=True, kw_only=True, tag="explain"):
    """Why an offer was or was not pushed to somebody, as things stand. Replies Explanation."""

    offer_id: str
    subject: int


class Measure(_Tagged, frozen=True, kw_only=True, tag="measure"):
    """What a zone or unit is like now. `voronoi`: also the Voronoi density, of at most 300 people around. Replies Measures."""

    zone_id: str
    voronoi: bool = False


class GetHeat(_Tagged, frozen=True, kw_only=True, tag="get_heat"):
    """Replies Heat: person-seconds by cell of a level."""

    level: int


class GateCount(msgspec.Struct, frozen=True):
    """Cars through a gate since it was put up: totals; `sequence` counts the gate's reports."""

    gate: str
    sequence: int
    entered: int
    left: int


class CountGates(_Tagged, frozen=True, kw_only=True, tag="count_gates"):
    """Reports of gates, in any order; one no newer than the last of its gate changes nothing. Totals that went down refuse all. Replies ParkingCompared."""

    counts: Annotated[tuple[GateCount, ...], msgspec.Meta(max_length=1_000)]


class Recount(_Tagged, frozen=True, kw_only=True, tag="recount"):
    """Take what the bays say, and `moving` cars that are in none, as what is inside. Replies ParkingCompared."""

    moving: int = 0


class CompareParking(_Tagged, frozen=True, kw_only=True, tag="compare_parking"):
    """Bays against gates; `moving_at_most` cars between them are no disagreement. Replies ParkingCompared."""

    moving_at_most: int = 0


LiveEdit = CloseUnit | OpenUnit | MoveUnit | Relabel
"""Edits of a venue that runs: they leave every unit in its place of the document. All others are an import."""


class EditVenue(_Tagged, frozen=True, kw_only=True, tag="edit_venue"):
    """Change the map; it holds from the next tick on. What had been taken back can no longer be done again. Replies Edited."""

    edit: LiveEdit


class UndoEdit(_Tagged, frozen=True, kw_only=True, tag="undo_edit"):
    """Take the last edit back. Replies Edited."""


class RedoEdit(_Tagged, frozen=True, kw_only=True, tag="redo_edit"):
    """Do the last edit that was taken back again. Replies Edited."""


class GetEdits(_Tagged, frozen=True, kw_only=True, tag="get_edits"):
    """Replies Edited, without an edit."""


class GetAccess(_Tagged, frozen=True, kw_only=True, tag="get_access"):
    """Replies Access. `subject`: tell also where this one was last seen; None: nobody. `crowding`: tell also where people are."""

    subject: int | None = None
    crowding: bool = False


# --- zone/<tenant>/<venue>:<zone> -------------------------------------------------------------------------------------


class GetZone(_Tagged, frozen=True, kw_only=True, tag="get_zone"):
    """Replies ZoneState as of the last durable tick."""


# --- ledger/<tenant>/<0..LEDGERS-1> -----------------------------------------------------------------------------------


class TopUps(_Tagged, frozen=True, kw_only=True, tag="top_ups"):
    """n credits to wallets from the outside account: key (n, 16) bytes, subject (n,) u4, amount (n,) u4. Replies Settled.

    `ordered_ms`: the caller's time (ms since 1970) where the keys are UUIDv7; a key that is older than what the ledger has forgotten is then refused, one
    that is more than a minute ahead of that time too. 0: the keys are opaque, and known as long as the ledger remembers them.
    """

    tick: int
    key: bytes
    subject: bytes
    amount: bytes
    currency: Currency
    ordered_ms: int = 0


class Payments(_Tagged, frozen=True, kw_only=True, tag="payments"):
    """n payments, wallet to till: key (n, 16) bytes, subject (n,) u4, unit (n,) u2 (index into Venue.units), amount (n,) u4.

    Each row is settled or refused by itself. Replies Settled. A single payment is a batch of one.
    """

    tick: int
    venue: str
    key: bytes
    subject: bytes
    unit: bytes
    amount: bytes
    currency: Currency
    ordered_ms: int = 0


class Transfers(_Tagged, frozen=True, kw_only=True, tag="transfers"):
    """n rows between any accounts of this ledger: moves, holds, posts, voids, refunds; see docs/money.md. Replies Settled.

    op (n,) u1, key (n, 16) bytes, debit and credit (n,) u8 accounts (`actors.ledger_codes`: kind << 60 | number, 0 in posts, voids and refunds), amount (n,) i8,
    reference (n, 16) bytes (the key of the hold or the original), expires (n,) i8 on `clock`. Empty op, reference or expires: all 0. Tills are those of `venue`.
    Before the rows, holds of `clock` (a venue: its ticks; "": milliseconds since 1970) that expire at `now` or earlier are released; a batch of no rows does only that.
    `ordered_ms`: see TopUps.
    """

    clock: str = ""
    now: int = 0
    venue: str = ""
    currency: Currency
    op: bytes = b""
    key: bytes = b""
    debit: bytes = b""
    credit: bytes = b""
    amount: bytes = b""
    reference: bytes = b""
    expires: bytes = b""
    ordered_ms: int = 0


class SendTransfers(_Tagged, frozen=True, kw_only=True, tag="send_transfers"):
    """n moves from wallets here to wallets of any ledger: key (n, 16) bytes, subject and to (n,) u4, amount (n,) i8. Replies Settled.

    A row to a wallet of another ledger that is settled has left the sender for good and is under way: it arrives, or comes back (`actors.saga`).
    """

    currency: Currency
    key: bytes
    subject: bytes
    to: bytes
    amount: bytes
    ordered_ms: int = 0


class GetUnderWay(_Tagged, frozen=True, kw_only=True, tag="get_under_way"):
    """Transfers to other ledgers that are not finished, the oldest of each. Replies UnderWay."""


class ReceiveTransfers(_Tagged, frozen=True, kw_only=True, tag="receive_transfers"):
    """From ledger `source`: sequence (n,) u8, key (n, 16) bytes, subject (sender) and to (n,) u4, amount (n,) i8. Replies Received.

    `through`: the source has finished every sequence up to it and will not ask about them again.
    """

    source: int
    through: int
    currency: Currency
    sequence: bytes
    key: bytes
    subject: bytes
    to: bytes
    amount: bytes


class FinishTransfers(_Tagged, frozen=True, kw_only=True, tag="finish_transfers"):
    """What became of transfers in `currency` to ledger `peer`: sequence (n,) u8, outcome (n,) u1 as in Received. What was refused goes back to the sender. Replies Done."""

    peer: int
    currency: Currency
    sequence: bytes
    outcome: bytes


class SetAccounts(_Tagged, frozen=True, kw_only=True, tag="set_accounts"):
    """Sets n accounts: account (n,) u8, frozen (n,) u1, move_cap and day_cap (n,) i8 (0: none). Makes accounts that are not there; all or none. Replies Done."""

    currency: Currency
    venue: str = ""
    account: bytes
    frozen: bytes
    move_cap: bytes
    day_cap: bytes


class CloseDay(_Tagged, frozen=True, kw_only=True, tag="close_day"):
    """Closes the open day, which must be `day`, and opens `next_day` (later). The day closed last may be closed again. Replies DayClosing."""

    day: int
    next_day: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class GetAccount(_Tagged, frozen=True, kw_only=True, tag="get_account"):
    """Replies Accounts: the account by currency; `account` as in Transfers, tills of `venue`."""

    account: int
    venue: str = ""


class GetBalance(_Tagged, frozen=True, kw_only=True, tag="get_balance"):
    subject: int


class GetBooks(_Tagged, frozen=True, kw_only=True, tag="get_books"):
    """Replies Books: sums over this ledger entity's accounts."""


# --- allotment/<tenant>/<id> ------------------------------------------------------------------------------------------


class OpenAllotment(_Tagged, frozen=True, kw_only=True, tag="open_allotment"):
    """So many units, `amount` each: a sale, paid to the till of `unit` in `venue`, or without a venue a reward, paid from outside to wallets. Replies Done.

    `each`: units one subject may take, 0 for any. `closes_ms`: when no take begins any more (ms since 1970), 0 for never. Sent again it may change these two and `limit`.
    """

    venue: str = ""
    unit: str = ""
    currency: Currency
    amount: Money
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    each: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    closes_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


class Takes(_Tagged, frozen=True, kw_only=True, tag="takes"):
    """Reserve for n subjects: key (n, 16) bytes, subject (n,) u4, count (n,) u2 units. Replies Taken; a reserved take is under way until a courier has brought it to its end.

    `reward`: what the caller takes this for; a sale is not to be had as a reward, nor a reward for sale.
    """

    now_ms: int
    key: bytes
    subject: bytes
    count: bytes
    reward: bool = False


class DecideTakes(_Tagged, frozen=True, kw_only=True, tag="decide_takes"):
    """From couriers: key (n, 16) bytes; what (n,) u1: 1 money is held, 2 it has moved, 3 it was refused, 4 the hold is gone. What does not follow from a take's state is ignored. Replies Decided."""

    key: bytes
    what: bytes


class GetOpenTakes(_Tagged, frozen=True, kw_only=True, tag="get_open_takes"):
    """The oldest takes under way, or with `key` (n, 16) those of them that are known. Replies OpenTakes."""

    key: bytes = b""


class GetAllotment(_Tagged, frozen=True, kw_only=True, tag="get_allotment"):
    """Replies AllotmentState."""


# --- anchors/<tenant>/<venue> -----------------------------------------------------------------------------------------


class HostAnchors(_Tagged, frozen=True, kw_only=True, tag="host_anchors"):
    """New anchors, or the next versions of ones that `owner` has hosted (staff: of any). All or none. Replies Anchors: as they are held now."""

    anchors: Annotated[tuple[Anchor, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    owner: int
    staff: bool = False
    now_ms: int


class ResolveAnchors(_Tagged, frozen=True, kw_only=True, tag="resolve_anchors"):
    """ids (n, 16) bytes, n up to 1,000. Replies Anchors: those that are here and that `subject` may see, in their order."""

    ids: bytes
    subject: int
    staff: bool = False
    now_ms: int


class NearAnchors(_Tagged, frozen=True, kw_only=True, tag="near_anchors"):
    """The k nearest anchors that `subject` may see within a radius of a point of a level, or of the anchor `beside` (itself left out). Replies Anchors, nearest first.

    `tags`: those that have all of them. `own`: only the subject's.
    """

    level: int = 0
    x_m: float = 0.0
    y_m: float = 0.0
    beside: bytes = b""
    radius_m: Annotated[float, msgspec.Meta(gt=0, le=MAX_RADIUS_M)]
    k: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    subject: int
    staff: bool = False
    tags: Tags = ()
    own: bool = False
    now_ms: int


class ObserveAnchors(_Tagged, frozen=True, kw_only=True, tag="observe_anchors"):
    """Where `subject` saw anchors that they may see. All or none. Replies Anchors with the quality now."""

    seen: Annotated[tuple[Observed, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    subject: int
    staff: bool = False
    now_ms: int


class RemoveAnchors(_Tagged, frozen=True, kw_only=True, tag="remove_anchors"):
    """ids (n, 16) bytes of anchors of `subject` (staff: of any). Those that are not here are removed already. Replies Done."""

    ids: bytes
    subject: int
    staff: bool = False


class CarryAnchors(_Tagged, frozen=True, kw_only=True, tag="carry_anchors"):
    """Where the thing that moves, `carrier`, is now: with it, every anchor on it. Replies Done."""

    carrier: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    level: Annotated[int, msgspec.Meta(ge=0, le=254)]
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


class GetAnchorGraph(_Tagged, frozen=True, kw_only=True, tag="get_anchor_graph"):
    """Anchors with observations, and these, for a refinement (`ar.anchor_refinement`). Replies AnchorGraph."""


class Refined(msgspec.Struct, frozen=True):
    """A pose for the anchor `id`, found from version `version` of it."""

    id: AnchorId
    version: int
    position_m: tuple[Metres, Metres, Metres]
    rotation: tuple[float, float, float, float]


class RefineAnchors(_Tagged, frozen=True, kw_only=True, tag="refine_anchors"):
    """Poses of a refined pose graph. An anchor that has another version by now, or stands on something that moves, stays. Replies Anchors: those that moved."""

    refined: Annotated[tuple[Refined, ...], msgspec.Meta(max_length=2_000)]


# --- scene/<tenant>/<venue>:<scene> -----------------------------------------------------------------------------------


class EditScene(_Tagged, frozen=True, kw_only=True, tag="edit_scene"):
    """Operations (`ar.scene_ops`) of the client `author`, whose subject is `subject`. All or none; those known already count for nothing. Replies SceneEdits.

    The first edit of a scene that has none is for staff.
    """

    ops: bytes
    author: str
    subject: int
    staff: bool = False
    now_ms: int


class SyncScene(_Tagged, frozen=True, kw_only=True, tag="sync_scene"):
    """What a replica at the version vector `seen` lacks: a page of it. Replies SceneDelta. `client`: whose it is, `now_ms`: when, for what may be forgotten.

    `snapshot`: instead, the bytes of the whole from byte `at` on: a page of them.
    """

    seen: dict[str, int]
    client: str = ""
    now_ms: int = 0
    snapshot: bool = False
    at: Annotated[int, msgspec.Meta(ge=0)] = 0


Command = (
    ScanQr | SetConsent | GetConsent | CreateOffer | EndOffer | GetOffers | SetBays | GetParking | FindStores | SearchStores | SetAccess | GetAccess | DrawZone | EraseZone | GetZones | SetTraits | Explain
    | EditVenue | UndoEdit | RedoEdit | GetEdits
    | Measure | GetHeat | CountGates | Recount | CompareParking | GetZone
    | TopUps | Payments | GetBalance | GetBooks
    | Transfers | SendTransfers | GetUnderWay | ReceiveTransfers | FinishTransfers | SetAccounts | CloseDay | GetAccount
    | OpenAllotment | Takes | DecideTakes | GetOpenTakes | GetAllotment
    | HostAnchors | ResolveAnchors | NearAnchors | ObserveAnchors | RemoveAnchors | CarryAnchors | GetAnchorGraph | RefineAnchors | EditScene | SyncScene
    | Remind
)  # fmt: skip

# --- replies ----------------------------------------------------------------------------------------------------------


class Done(_Tagged, frozen=True, kw_only=True, tag="done"):
    pass


class Rejected(_Tagged, frozen=True, kw_only=True, tag="rejected"):
    """The behaviour refused and nothing changed. `code` is stable, `message` names the value, the rule and the remedy."""

    code: str
    message: str


class Store(msgspec.Struct, frozen=True):
    unit_id: str
    name: str
    category: str
    level: int
    x_m: float
    y_m: float
    distance_m: float
    offers: tuple[str, ...] = ()


class Stores(_Tagged, frozen=True, kw_only=True, tag="stores"):
    stores: tuple[Store, ...]


class WalkedIn(_Tagged, frozen=True, kw_only=True, tag="walked_in"):
    """Where the walk-in put the shopper, and what is near."""

    venue: str
    venue_name: str
    level: int
    x_m: float
    y_m: float
    stores: tuple[Store, ...]


class Consent(_Tagged, frozen=True, kw_only=True, tag="consent"):
    """`given` for `text`, its version (""  where it is not given). `changes`: how many times it was given or taken back; the higher is the newer."""

    given: bool
    text: str
    changes: int


class Spotted(msgspec.Struct, frozen=True):
    """Where a subject was last seen: `tick` of that row, level index, metres in the venue frame."""

    tick: int
    level: int
    x_m: float
    y_m: float


class Crowded(msgspec.Struct, frozen=True):
    """How many people are in each cell of a level: count (rows, cols) u2, row 0 at the south; corner of the first cell, metres."""

    level: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    count: bytes


class Access(_Tagged, frozen=True, kw_only=True, tag="access"):
    """Ids closed now, ascending. `spotted`: of the subject asked for, if present. `crowding`: of levels with people, where asked for."""

    closed: tuple[str, ...]
    spotted: Spotted | None = None
    crowding: tuple[Crowded, ...] = ()


class Explanation(_Tagged, frozen=True, kw_only=True, tag="explanation"):
    """`outcome`: stable, see docs/protocol.md; `message`: for people; `pushes` so far, the last at `tick` (-1: none)."""

    outcome: str
    message: str
    pushes: int
    tick: int


class Measures(_Tagged, frozen=True, kw_only=True, tag="measures"):
    """As of `tick`. ground_m2: 0 for a line. entries_per_min, exits_per_min: over the last minute (of a line: forward, backward); stays: finished ones from each of `stays_s` up to the next. These of drawn zones alone."""

    tick: int
    inside: int
    ground_m2: float
    mean_stay_s: float
    voronoi_per_m2: float | None = None
    entries_per_min: float | None = None
    exits_per_min: float | None = None
    stays_s: tuple[int, ...] = ()
    stays: tuple[int, ...] = ()


class Heat(_Tagged, frozen=True, kw_only=True, tag="heat"):
    """Person-seconds (rows, cols) f4 by square cell of a level, row 0 at y0, counted since `since_tick` (-1: not yet)."""

    tick: int
    since_tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    person_s: bytes


class ParkingCompared(_Tagged, frozen=True, kw_only=True, tag="parking_compared"):
    """`taken`: by bays; `inside`: cars by gates; `drift`: by how many they disagree beyond what moving cars explain (above 0: the gates say more)."""

    total: int
    taken: int
    inside: int
    drift: int


class Edited(_Tagged, frozen=True, kw_only=True, tag="edited"):
    """The edit made or taken back; the newest document (zlib) and its digest, empty where nothing was edited; edits that can be taken back, oldest first, and how many can be done again."""

    edit: LiveEdit | None
    digest: str
    document: bytes
    done: tuple[LiveEdit, ...]
    undone: int


class Zones(_Tagged, frozen=True, kw_only=True, tag="zones"):
    zones: tuple[DrawnZone, ...]


class Offers(_Tagged, frozen=True, kw_only=True, tag="offers"):
    offers: tuple[Offer, ...]


class Parking(_Tagged, frozen=True, kw_only=True, tag="parking"):
    total: int
    free: int


class ZoneState(_Tagged, frozen=True, kw_only=True, tag="zone_state"):
    """Who is where: people inside now, and since the venue opened (the zone was drawn): entries, exits, dwells, the seconds all who left had stayed, how many hurried
    through a drawn zone between two positions; its ground."""

    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    stayed_s: float
    crossed: int = 0
    ground_m2: float = 0.0


class Settled(_Tagged, frozen=True, kw_only=True, tag="settled"):
    """One code a row: 0 settled, otherwise 1 + index into `codes`. A repeated key with the same parameters answers as the first time."""

    result: bytes
    codes: tuple[str, ...]
    balance: bytes  # (n,) i8 little-endian: what the wallet can spend after each row


class Batch(msgspec.Struct, frozen=True):
    """Transfers under way to one ledger in one currency; columns as in ReceiveTransfers."""

    peer: int
    through: int
    currency: str
    sequence: bytes
    key: bytes
    subject: bytes
    to: bytes
    amount: bytes


class UnderWay(_Tagged, frozen=True, kw_only=True, tag="under_way"):
    batches: tuple[Batch, ...]


class Received(_Tagged, frozen=True, kw_only=True, tag="received"):
    """outcome (n,) u1: 0 credited, RECEIVED_BEFORE long finished, otherwise 1 + index into `codes`: refused for good."""

    outcome: bytes
    codes: tuple[str, ...]


class AccountState(msgspec.Struct, frozen=True):
    """In minor units. `balance` includes what is `held`; `spent`: debited or held on the open day; a cap of 0 is none."""

    balance: int
    held: int
    frozen: bool
    move_cap: int
    day_cap: int
    spent: int


class Accounts(_Tagged, frozen=True, kw_only=True, tag="accounts"):
    accounts: dict[str, AccountState]


class DayClosing(_Tagged, frozen=True, kw_only=True, tag="day_closing"):
    """Balances at the close of `day` by kind of account ('wallets', 'tills', 'outside', 'transit', 'held') and currency; `rows`: settled since the close before.

    `digest`: BLAKE2b-128 of every account's code and balance, in the ledger's order.
    """

    day: int
    next_day: int
    rows: int
    balances: dict[str, dict[str, int]]
    digest: bytes


class Balance(_Tagged, frozen=True, kw_only=True, tag="balance"):
    """What can be spent, by currency, and what is held beside it (0 left out)."""

    balances: dict[str, int]
    held: dict[str, int] = {}


class Books(_Tagged, frozen=True, kw_only=True, tag="books"):
    """By currency: the sum over all accounts (zero, always), over wallets, over tills, over the outside account; accepted payments and top-ups."""

    accounts: int
    total: dict[str, int]
    wallets: dict[str, int]
    tills: dict[str, int]
    outside: dict[str, int]
    payments: int
    top_ups: int
    transit: dict[str, int] = {}
    held: dict[str, int] = {}
    day: int = 0


class Taken(_Tagged, frozen=True, kw_only=True, tag="taken"):
    """state (n,) u1: 1 reserved, 2 money is held, 3 done, 0 refused: then result (n,) u1 is 1 + index into `codes`. A known key answers with what became of it."""

    state: bytes
    result: bytes
    codes: tuple[str, ...]


class Decided(_Tagged, frozen=True, kw_only=True, tag="decided"):
    """state (n,) u1 as in Taken, as it is now; 0 too for a take that is not known (any more)."""

    state: bytes


class OpenTakes(_Tagged, frozen=True, kw_only=True, tag="open_takes"):
    """Terms of the allotment (`unit`: index into Venue.units) and n takes: key (n, 16) bytes, subject (n,) u4, count (n,) u2, begun_ms (n,) i8, state (n,) u1."""

    venue: str
    unit: int
    currency: str
    amount: int
    key: bytes
    subject: bytes
    count: bytes
    begun_ms: bytes
    state: bytes


class AllotmentState(_Tagged, frozen=True, kw_only=True, tag="allotment_state"):
    """`left` units may still be taken; `under_way`: units of takes that are not at their end. `venue` "": a reward."""

    venue: str
    unit: int
    currency: str
    amount: int
    limit: int
    each: int
    closes_ms: int
    left: int
    under_way: int


class Anchors(_Tagged, frozen=True, kw_only=True, tag="anchors"):
    anchors: tuple[Held, ...]


class AnchorGraph(_Tagged, frozen=True, kw_only=True, tag="anchor_graph"):
    """At most 2,000 anchors; every observation is between two of them, or of one from the venue."""

    anchors: tuple[Held, ...]
    seen: tuple[Observed, ...]


class SceneEdits(_Tagged, frozen=True, kw_only=True, tag="scene_edits"):
    """Operations applied, and how many were known already."""

    applied: int
    known: int


class SceneDelta(_Tagged, frozen=True, kw_only=True, tag="scene_delta"):
    """Operations, causes first, or bytes of a snapshot. `whole`: nothing is missing beyond them; else ask again."""

    ops: bytes
    whole: bool


Reply = (
    Done | Rejected | Stores | WalkedIn | Consent | Access | Zones | Explanation | Measures | Heat | ParkingCompared | Edited | Offers | Parking | ZoneState | Settled | Balance | Books
    | UnderWay | Received | Accounts | DayClosing
    | Taken | Decided | OpenTakes | AllotmentState
    | Anchors | AnchorGraph | SceneEdits | SceneDelta
)  # fmt: skip

TAKE_CODES = (
    "count_must_be_positive", "closed", "sold_out", "exceeds_each", "exists_with_different_subject", "exists_with_different_count", "too_many_under_way",
)  # fmt: skip
"""What Taken may say: i means TAKE_CODES[i - 1]. Codes are told by name: numbers may change."""

RECEIVED_BEFORE = 255
"""Outcome in Received of a transfer that its source has finished already."""

LEDGERS = 8
"""Ledger entities of a tenant; a wallet lives in `ledger/<tenant>/<subject % LEDGERS>`, a till has a sub-account in each."""

"""What gateways and tools ask of entities: commands in, replies out. One closed union each, encoded with msgpack.

A command goes to one address; a reply is `Done`-like data, a `Rejected` (the behaviour refused; nothing changed) or a fault
raised as an EsplanadeError by `System.ask`. Money is integer minor units with a currency. Columns are little-endian bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ar.anchors import MAX_RADIUS_M, Anchor, AnchorId, Held, Metres, Observed, Tags
from spatial.offers import Offer

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
    """What a replica at the version vector `seen` lacks: a page of it. Replies SceneDelta."""

    seen: dict[str, int]


Command = (
    ScanQr | CreateOffer | EndOffer | GetOffers | SetBays | GetParking | FindStores | SearchStores | GetZone
    | TopUps | Payments | GetBalance | GetBooks
    | Transfers | SendTransfers | GetUnderWay | ReceiveTransfers | FinishTransfers | SetAccounts | CloseDay | GetAccount
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


class Offers(_Tagged, frozen=True, kw_only=True, tag="offers"):
    offers: tuple[Offer, ...]


class Parking(_Tagged, frozen=True, kw_only=True, tag="parking"):
    total: int
    free: int


class ZoneState(_Tagged, frozen=True, kw_only=True, tag="zone_state"):
    """Who is where: people inside now, and since the venue opened: entries, exits, dwells, and the seconds all who left had stayed."""

    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    stayed_s: float


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
    """Operations, causes first. `whole`: nothing is missing beyond them; else ask again."""

    ops: bytes
    whole: bool


Reply = (
    Done | Rejected | Stores | WalkedIn | Offers | Parking | ZoneState | Settled | Balance | Books
    | UnderWay | Received | Accounts | DayClosing
    | Anchors | AnchorGraph | SceneEdits | SceneDelta
)  # fmt: skip

RECEIVED_BEFORE = 255
"""Outcome in Received of a transfer that its source has finished already."""

LEDGERS = 8
"""Ledger entities of a tenant; a wallet lives in `ledger/<tenant>/<subject % LEDGERS>`, a till has a sub-account in each."""

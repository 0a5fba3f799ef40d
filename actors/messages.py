"""What gateways and tools ask of entities: commands in, replies out. One closed union each, encoded with msgpack.

A command goes to one address; a reply is `Done`-like data, a `Rejected` (the behaviour refused; nothing changed) or a fault
raised as an EsplanadeError by `System.ask`. Money is integer minor units with a currency. Columns are little-endian bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from spatial.offers import Offer

Money = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
Key = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]  # a client-made 128-bit id


class _Tagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


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


# --- zone/<tenant>/<venue>:<zone> -------------------------------------------------------------------------------------


class GetZone(_Tagged, frozen=True, kw_only=True, tag="get_zone"):
    """Replies ZoneState as of the last durable tick."""


# --- ledger/<tenant>/<0..LEDGERS-1> -----------------------------------------------------------------------------------


class TopUps(_Tagged, frozen=True, kw_only=True, tag="top_ups"):
    """n credits to wallets from the outside account: key (n, 16) bytes, subject (n,) u4, amount (n,) u4. Replies Settled."""

    tick: int
    key: bytes
    subject: bytes
    amount: bytes
    currency: Currency


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


class GetBalance(_Tagged, frozen=True, kw_only=True, tag="get_balance"):
    subject: int


class GetBooks(_Tagged, frozen=True, kw_only=True, tag="get_books"):
    """Replies Books: sums over this ledger entity's accounts."""


Command = (
    ScanQr | CreateOffer | EndOffer | GetOffers | SetBays | GetParking | FindStores | GetZone
    | TopUps | Payments | GetBalance | GetBooks
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
    balance: bytes  # (n,) i8 little-endian: the wallet's balance after each row


class Balance(_Tagged, frozen=True, kw_only=True, tag="balance"):
    balances: dict[str, int]


class Books(_Tagged, frozen=True, kw_only=True, tag="books"):
    """By currency: the sum over all accounts (zero, always), over wallets, over tills, over the outside account; accepted payments and top-ups."""

    accounts: int
    total: dict[str, int]
    wallets: dict[str, int]
    tills: dict[str, int]
    outside: dict[str, int]
    payments: int
    top_ups: int


Reply = Done | Rejected | Stores | WalkedIn | Offers | Parking | ZoneState | Settled | Balance | Books

LEDGERS = 8
"""Ledger entities of a tenant; a wallet lives in `ledger/<tenant>/<subject % LEDGERS>`, a till has a sub-account in each."""

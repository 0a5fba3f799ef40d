"""Stored events: one struct for each declared type name, and the one place where bytes become events.

Owns names, layouts and upcasting. An event says what happened and is never refused; what may happen is decided elsewhere. Schemas change by addition:
a changed meaning gets a new name (`..._v2`), and an entry in `_UPCAST` turns the old one into the new on reading. Columns are little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, get_args, get_type_hints

import msgspec

from actors.messages import BayChange, GateCount, LiveEdit
from ar.anchor_records import Anchor, Observed
from esplanade.core.errors import Fault
from esplanade.storage.sealing import ERASED_BYTES, SubjectSeal
from spatial.offers import Offer
from spatial.zone_shapes import DrawnZone


class _Personal:
    """Marks a field that says something about a person beyond its number."""


PERSONAL: Final = _Personal()
"""`Annotated[str, PERSONAL]`: in events of a personal entity (PERSONAL_KINDS) the field is stored sealed with the subject's key (`seal_event`)."""

PERSONAL_KINDS: Final = frozenset({"session"})
"""Kinds of entities that are about one subject, whose number is their id."""


class _Body(msgspec.Struct, frozen=True, array_like=True):
    pass


# --- every entity -----------------------------------------------------------------------------------------------------


class Answered(_Body, frozen=True):
    """A connection's command had its effect and got this reply (msgpack of Reply); the same (client, sequence) gets it again.

    Of entities about a person, sealed; elsewhere the command's last event carries it (`Event.reply`), and this is only read.
    """

    client: str
    sequence: int
    reply: Annotated[bytes, PERSONAL]


class ReminderSet(_Body, frozen=True):
    """The entity wants to be woken at `due_ms` (since 1970), and every `period_ms` after it where that is not 0."""

    name: str
    due_ms: int
    period_ms: int
    payload: bytes


class ReminderDropped(_Body, frozen=True):
    name: str


class ReminderFired(_Body, frozen=True):
    """The reminder for `due_ms` has had its turn, whose events stand before this one. `next_ms`: when it is due again; 0: it is over."""

    name: str
    due_ms: int
    next_ms: int


# --- mall, festival ---------------------------------------------------------------------------------------------------


class OfferCreated(_Body, frozen=True):
    tick: int
    offer: Offer


class OfferEnded(_Body, frozen=True):
    offer_id: str
    tick: int


class BaysChanged(_Body, frozen=True):
    bays: tuple[BayChange, ...]


class AccessChanged(_Body, frozen=True):
    """Connectors, openings and units closed and opened, by id."""

    closed: tuple[str, ...]
    opened: tuple[str, ...]


class ZoneDrawn(_Body, frozen=True):
    tick: int
    zone: DrawnZone


class ZoneErased(_Body, frozen=True):
    tick: int
    zone_id: str


class VenueEdited(_Body, frozen=True):
    """The map changed from the document with digest `before` to `document` (zlib, its digest `digest`). act: do, undo, redo. other: the packed document to come back to."""

    tick: int
    act: str
    edit: LiveEdit
    before: str
    digest: str
    document: bytes
    other: bytes


class GatesCounted(_Body, frozen=True):
    """Newer totals of gates, and the cars inside by all gates after them."""

    counts: tuple[GateCount, ...]
    inside: int


class CarsRecounted(_Body, frozen=True):
    """`inside` was taken over from the bays."""

    inside: int


class TraitsSet(_Body, frozen=True):
    """n people: subject (n,) u4, segments (n,) u8, and the language they speak ("": unknown)."""

    subject: bytes
    segments: bytes
    language: str


# --- session ----------------------------------------------------------------------------------------------------------


class QrScanned(_Body, frozen=True):
    """SCAN_QR: the subject walked in digitally at an entrance."""

    venue: Annotated[str, PERSONAL]
    location: Annotated[str, PERSONAL]


class ConsentChanged(_Body, frozen=True):
    """The person agreed that it is known where they are, having been shown `text` (its version), or took that back."""

    given: bool
    text: Annotated[str, PERSONAL]


# --- ledger -----------------------------------------------------------------------------------------------------------


class ToppedUp(_Body, frozen=True):
    """n credits from the outside account: key (n, 16) bytes, subject (n,) u4, amount (n,) u4."""

    tick: int
    currency: str
    key: bytes
    subject: bytes
    amount: bytes
    ordered: bool = False


class Paid(_Body, frozen=True):
    """n settled payments, wallet to till: key (n, 16) bytes, subject (n,) u4, unit (n,) u2 (index into Venue.units), amount (n,) u4."""

    tick: int
    venue: str
    currency: str
    key: bytes
    subject: bytes
    unit: bytes
    amount: bytes
    ordered: bool = False


class Transferred(_Body, frozen=True):
    """n rows that took effect, columns as in the command Transfers; posts, voids and refunds have their accounts and amounts filled in. Empty columns: all 0."""

    clock: str
    now: int
    venue: str
    currency: str
    op: bytes
    key: bytes
    debit: bytes
    credit: bytes
    amount: bytes
    reference: bytes
    expires: bytes
    ordered: bool


class HoldsExpired(_Body, frozen=True):
    """n holds of `clock` released because they expired at `now` or earlier: key (n, 16) bytes of the holds."""

    clock: str
    now: int
    key: bytes


class TransfersSent(_Body, frozen=True):
    """n moves from wallets here: key (n, 16) bytes, subject and to (n,) u4, amount (n,) i8. To a wallet of another ledger: into transit, numbered in order."""

    currency: str
    key: bytes
    subject: bytes
    to: bytes
    amount: bytes
    ordered: bool


class TransfersReceived(_Body, frozen=True):
    """n transfers of another ledger, decided for good: columns as in the command; outcome (n,) u1: 0 credited, else the code by which it was refused."""

    source: int
    through: int
    currency: str
    sequence: bytes
    key: bytes
    subject: bytes
    to: bytes
    amount: bytes
    outcome: bytes


class TransfersFinished(_Body, frozen=True):
    """n transfers sent to ledger `peer` are finished: sequence (n,) u8, outcome (n,) u1; what was refused (not 0) is with its sender again.

    key (n, 16) bytes, subject (n,) u4 and amount (n,) i8: as they were sent.
    """

    peer: int
    currency: str
    sequence: bytes
    outcome: bytes
    key: bytes
    subject: bytes
    amount: bytes


class AccountsSet(_Body, frozen=True):
    """n accounts' rules: account (n,) u8, frozen (n,) u1, move_cap and day_cap (n,) i8."""

    venue: str
    currency: str
    account: bytes
    frozen: bytes
    move_cap: bytes
    day_cap: bytes


class DayClosed(_Body, frozen=True):
    """The open day `day` ended and `next_day` began. Balances of n accounts carried forward: code (n,) u8 as in the ledger, balance (n,) i8; names of their codes."""

    day: int
    next_day: int
    currencies: tuple[str, ...]
    venues: tuple[str, ...]
    code: bytes
    balance: bytes


# --- position host ----------------------------------------------------------------------------------------------------


class VenueBound(_Body, frozen=True):
    """The host reads fences by their place in this version of the venue's document; another digest starts membership anew, unless the units, zones and levels are the same in the same order (`numbering`, empty
    where not known)."""

    digest: str
    numbering: str = ""


class SourceOpened(_Body, frozen=True):
    source: str
    first_tick: int


class SourceClosed(_Body, frozen=True):
    """After the close of `tick`. `silent`: the host closed it, because it had said nothing for too long."""

    source: str
    tick: int
    silent: bool


class OffersAdopted(_Body, frozen=True):
    """From the close of `tick` on, the pushes follow these offers (new, or with another end)."""

    tick: int
    offers: tuple[Offer, ...]


class TraitsAdopted(_Body, frozen=True):
    """From the close of `tick` on, people have these traits: subject (n,) u4, segments (n,) u8, spoken (n,) u2 into `languages`."""

    tick: int
    subject: bytes
    segments: bytes
    languages: tuple[str, ...]
    spoken: bytes


class ZonesAdopted(_Body, frozen=True):
    """From the close of `tick` on, these drawn zones are watched (anew where known), and those erased no more."""

    tick: int
    drawn: tuple[DrawnZone, ...]
    erased: tuple[str, ...]


class ZonesCrossed(_Body, frozen=True):
    """What happened at drawn zones at `tick`, row i at zones[zone[i]]: kind (n,) u1 (0 enter, 1 exit, 2 cross, 3 dwell; at a line 4 forward, 5 backward), zone (n,) u2, subject (n,) u4, confidence (n,) f4; by (zone, subject, kind)."""

    tick: int
    zones: tuple[str, ...]
    kind: bytes
    zone: bytes
    subject: bytes
    confidence: bytes


class ZonesPending(_Body, frozen=True):
    """With a checkpoint: changes at drawn zones that are not confirmed yet: zone (n,) u2 (of `zones`), subject (n,) u4, since (n,) u8, the tick at which each began to hold."""

    tick: int
    zones: tuple[str, ...]
    zone: bytes
    subject: bytes
    since: bytes


class Transitions(_Body, frozen=True):
    """Who crossed a fence at `tick`: subject (n,) u4, fence (n,) u2 (units, then zones, then levels, as in the venue), entered (n,) u1; by (subject, fence)."""

    tick: int
    subject: bytes
    fence: bytes
    entered: bytes


class Dwelt(_Body, frozen=True):
    """Who has now been in a unit or zone for the dwell time: subject (n,) u4, fence (n,) u2; by (subject, fence)."""

    tick: int
    subject: bytes
    fence: bytes


class Pushed(_Body, frozen=True):
    """Row i: offers[offer[i]] was pushed to subject[i]: offer (n,) u2, subject (n,) u4; by (offer, subject)."""

    tick: int
    offers: tuple[str, ...]
    offer: bytes
    subject: bytes


class Seen(_Body, frozen=True):
    """Checkpoint: last observations made in (previous checkpoint, tick]: subject (n,) u4, level (n,) u1 (255: has left), x, y (n,) f4, ago (n,) u2 ticks."""

    tick: int
    subject: bytes
    level: bytes
    x: bytes
    y: bytes
    ago: bytes


class Late(_Body, frozen=True):
    """Counted at the close of `tick`: rows that came after their tick had closed, and ticks closed by the deadline."""

    tick: int
    rows: int
    ticks: int


# --- allotment --------------------------------------------------------------------------------------------------------


class AllotmentOpened(_Body, frozen=True):
    """Or its limits changed. `unit`: index into Venue.units; `venue` "": a reward."""

    venue: str
    unit: int
    currency: str
    amount: int
    limit: int
    each: int
    closes_ms: int


class TakesBegun(_Body, frozen=True):
    """n takes reserved: key (n, 16) bytes, subject (n,) u4, count (n,) u2."""

    now_ms: int
    key: bytes
    subject: bytes
    count: bytes


class TakesDecided(_Body, frozen=True):
    """key (n, 16) bytes; what (n,) u1: 1 money is held, TAKE_DONE it has moved, 3 it was refused, 4 the hold was gone: the units are back."""

    key: bytes
    what: bytes


TAKE_DONE: Final = 2


# --- anchors ----------------------------------------------------------------------------------------------------------


class AnchorsHosted(_Body, frozen=True):
    owner: int
    anchors: tuple[Anchor, ...]


class AnchorsRemoved(_Body, frozen=True):
    """ids (n, 16) bytes. `expired`: their time was over."""

    ids: bytes
    expired: bool


class AnchorsObserved(_Body, frozen=True):
    """n observations by `subject`; agreed (n,) u1: whether each says where its anchor was held to be."""

    subject: int
    seen: tuple[Observed, ...]
    agreed: bytes


class AnchorsCarried(_Body, frozen=True):
    carrier: str
    level: int
    position_m: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


class AnchorsRefined(_Body, frozen=True):
    """n anchors were moved to refined poses: ids (n, 16) bytes, position (n, 3) and rotation (n, 4) f8."""

    ids: bytes
    position: bytes
    rotation: bytes


# --- scene ------------------------------------------------------------------------------------------------------------


class SceneEdited(_Body, frozen=True):
    """Operations that took effect (`ar.scene_ops`), at `now_ms` since 1970 by the clock that judged them."""

    author: str
    now_ms: int
    ops: bytes


EventBody = (
    Answered | ReminderSet | ReminderDropped | ReminderFired | OfferCreated | OfferEnded | BaysChanged | AccessChanged | ZoneDrawn | ZoneErased | TraitsSet | GatesCounted | CarsRecounted | VenueEdited | QrScanned | ConsentChanged | ToppedUp | Paid
    | Transferred | HoldsExpired | TransfersSent | TransfersReceived | TransfersFinished | AccountsSet | DayClosed
    | AnchorsHosted | AnchorsRemoved | AnchorsObserved | AnchorsCarried | AnchorsRefined | SceneEdited
    | VenueBound | SourceOpened | SourceClosed | TraitsAdopted | ZonesAdopted | ZonesCrossed | ZonesPending | OffersAdopted | Transitions | Dwelt | Pushed | Seen | Late
    | AllotmentOpened | TakesBegun | TakesDecided
)  # fmt: skip

TYPES: Final[dict[str, type[EventBody]]] = {
    "answered.v1": Answered,
    "reminder_set.v1": ReminderSet,
    "reminder_dropped.v1": ReminderDropped,
    "reminder_fired.v1": ReminderFired,
    "offer_created.v1": OfferCreated,
    "offer_ended.v1": OfferEnded,
    "bays_changed.v1": BaysChanged,
    "access_changed.v1": AccessChanged,
    "zone_drawn.v1": ZoneDrawn,
    "zone_erased.v1": ZoneErased,
    "traits_set.v1": TraitsSet,
    "venue_edited.v1": VenueEdited,
    "gates_counted.v1": GatesCounted,
    "cars_recounted.v1": CarsRecounted,
    "scan_qr.v1": QrScanned,
    "consent_changed.v1": ConsentChanged,
    "topped_up.v1": ToppedUp,
    "paid.v1": Paid,
    "transferred.v1": Transferred,
    "holds_expired.v1": HoldsExpired,
    "transfers_sent.v1": TransfersSent,
    "transfers_received.v1": TransfersReceived,
    "transfers_finished.v1": TransfersFinished,
    "accounts_set.v1": AccountsSet,
    "day_closed.v1": DayClosed,
    "anchors_hosted.v1": AnchorsHosted,
    "anchors_removed.v1": AnchorsRemoved,
    "anchors_observed.v1": AnchorsObserved,
    "anchors_carried.v1": AnchorsCarried,
    "anchors_refined.v1": AnchorsRefined,
    "scene_edited.v1": SceneEdited,
    "venue_bound.v1": VenueBound,
    "source_opened.v1": SourceOpened,
    "source_closed.v1": SourceClosed,
    "offers_adopted.v1": OffersAdopted,
    "traits_adopted.v1": TraitsAdopted,
    "zones_adopted.v1": ZonesAdopted,
    "zones_crossed.v1": ZonesCrossed,
    "zones_pending.v1": ZonesPending,
    "transitions.v1": Transitions,
    "dwelt.v1": Dwelt,
    "pushed.v1": Pushed,
    "seen.v1": Seen,
    "late.v1": Late,
    "allotment_opened.v1": AllotmentOpened,
    "takes_begun.v1": TakesBegun,
    "takes_decided.v1": TakesDecided,
}
EVENT_NAMES: Final = {struct: name for name, struct in TYPES.items()}
"""Type names by struct."""
encode_body: Final[Callable[[EventBody], bytes]] = msgspec.msgpack.Encoder().encode
_DECODERS: Final = {name: msgspec.msgpack.Decoder(struct) for name, struct in TYPES.items()}
_UPCAST: Final[dict[str, Callable[[bytes], EventBody]]] = {}  # former type names; none yet


def encode_event(body: EventBody) -> tuple[str, bytes]:
    """(type name, msgpack)."""
    return EVENT_NAMES[type(body)], encode_body(body)


def decode_event(type_name: str, body: bytes) -> EventBody:
    """The event, in its present form. Raises Fault for a type this version does not know or bytes that are not of it."""
    upcast = _UPCAST.get(type_name)
    if upcast is not None:
        return upcast(body)
    decoder = _DECODERS.get(type_name)
    if decoder is None:
        raise Fault(f"stored event of type {type_name!r}: this version knows {sorted(TYPES)}; run a version that knows it")
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise Fault(f"stored event of type {type_name!r} with {len(body)} bytes: {error}; the journal is damaged or the type changed") from error


# --- what is personal -------------------------------------------------------------------------------------------------


def _personal_fields(name: str, struct: type[EventBody]) -> tuple[tuple[str, bool, str], ...]:
    hints = get_type_hints(struct, include_extras=True)
    marked = [field for field in struct.__struct_fields__ if PERSONAL in get_args(hints[field])]
    return tuple((field, get_args(hints[field])[0] is str, f"{name}.{field}") for field in marked)


_PERSONAL_FIELDS: Final = {struct: fields for name, struct in TYPES.items() if (fields := _personal_fields(name, struct))}
"""By struct: (field, whether it is text, the name it is bound to)."""


def seal_event(body: EventBody, seal: SubjectSeal) -> EventBody:
    """The event as it is stored: its personal fields sealed."""
    fields = _PERSONAL_FIELDS.get(type(body))
    if fields is None:
        return body
    sealed = {name: seal.seal_text(place, getattr(body, name)) if text else seal.seal(place, getattr(body, name)) for name, text, place in fields}
    return msgspec.structs.replace(body, **sealed)


def open_event(body: EventBody, seal: SubjectSeal) -> EventBody:
    """The event as it happened; personal fields of an erased subject read as ERASED_TEXT or ERASED_BYTES."""
    fields = _PERSONAL_FIELDS.get(type(body))
    if fields is None:
        return body
    opened = {name: seal.open_text(place, getattr(body, name)) if text else seal.open(place, getattr(body, name)) for name, text, place in fields}
    return msgspec.structs.replace(body, **opened)


def open_reply(reply: bytes, seal: SubjectSeal) -> bytes | None:
    """A remembered answer of a personal entity; None where its subject is erased."""
    opened = seal.open("answered.v1.reply", reply)
    return None if opened == ERASED_BYTES else opened

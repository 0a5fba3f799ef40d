"""Stored events as domain facts, for hashing a run: what happened, to whom, at which tick. Without wall times, tenants, versions, acks or connections.

Owns the translation from events to facts and nothing of how they are sorted or hashed (`scenarios`). A column event gives a fact for each of its rows. What
is bookkeeping (answers, sources, checkpoints, bound documents) is no fact; `late.v1` is none either, but voids the hash: see `late_of`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from actors.events import (
    TAKE_DONE,
    AccessChanged,
    AccountsSet,
    AllotmentOpened,
    AnchorsCarried,
    AnchorsHosted,
    AnchorsObserved,
    AnchorsRefined,
    AnchorsRemoved,
    Answered,
    BaysChanged,
    CarsRecounted,
    ConsentChanged,
    DayClosed,
    Dwelt,
    EventBody,
    GatesCounted,
    HoldsExpired,
    Late,
    OfferCreated,
    OfferEnded,
    OffersAdopted,
    Paid,
    Pushed,
    QrScanned,
    ReminderDropped,
    ReminderFired,
    ReminderSet,
    SceneEdited,
    Seen,
    SourceClosed,
    SourceOpened,
    TakesBegun,
    TakesDecided,
    ToppedUp,
    TraitsAdopted,
    TraitsSet,
    Transferred,
    TransfersFinished,
    TransfersReceived,
    TransfersSent,
    Transitions,
    VenueBound,
    VenueEdited,
    ZoneDrawn,
    ZoneErased,
    ZonesAdopted,
    ZonesCrossed,
    ZonesPending,
    decode_event,
)
from ar.scene_ops import decode
from esplanade.core.ids import Address
from esplanade.storage.journal import Event
from spatial.zone_shapes import ZONE_KINDS

NO_TICK: Final = -1
"""Tick of facts that belong to no venue tick: a QR scan, a change of offers or bays."""


class Fact(NamedTuple):
    """`entity`: 'kind/id' without the tenant. `body`: fields joined by spaces, in a fixed order."""

    tick: int
    entity: str
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class FactColumns:
    """n facts of one type: tick (n,) int64, subject (n,) uint32 and what else the type says, (n, c) int64; `place`: the venue, offer ids or currency they refer to.

    pushed.v1: offer (index into `names`). transitions.v1: fence, entered. dwelt.v1: fence. paid.v1: unit, amount, key high, key low. topped_up.v1: amount, key high, key low.
    """

    type: str
    place: str
    names: tuple[str, ...]
    tick: npt.NDArray[np.int64]
    subject: npt.NDArray[np.uint32]
    values: npt.NDArray[np.int64]


def columns_of(event: Event) -> FactColumns | None:
    """The facts of a column event in columns, some hundred times quicker than one by one; None for other events."""
    if event.type not in _COLUMNS:
        return None
    venue = Address.parse(event.entity).id
    body = decode_event(event.type, event.body)
    match body:
        case Pushed():
            return _columns(event.type, venue, body.offers, body.tick, body.subject, _u2(body.offer))
        case Transitions():
            return _columns(event.type, venue, (), body.tick, body.subject, _u2(body.fence), np.frombuffer(body.entered, np.uint8))
        case Dwelt():
            return _columns(event.type, venue, (), body.tick, body.subject, _u2(body.fence))
        case Paid():
            return _columns(event.type, body.venue, (body.currency,), body.tick, body.subject, _u2(body.unit), _u4(body.amount), *_keys(body.key))
        case ToppedUp():
            return _columns(event.type, "", (body.currency,), body.tick, body.subject, _u4(body.amount), *_keys(body.key))
        case _:
            return None


_COLUMNS: Final = frozenset({"pushed.v1", "transitions.v1", "dwelt.v1", "paid.v1", "topped_up.v1"})


def _u2(data: bytes) -> npt.NDArray[np.uint16]:
    return np.frombuffer(data, "<u2")


def _u4(data: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(data, "<u4")


def _keys(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    pairs = np.frombuffer(data, ">i8").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _columns(
    type_name: str, place: str, names: tuple[str, ...], tick: int, subject: bytes, *values: npt.NDArray[np.uint16 | np.uint32 | np.uint8 | np.int64]
) -> FactColumns:
    who = _u4(subject)
    stacked = np.stack([value.astype(np.int64) for value in values], axis=1)
    return FactColumns(type_name, place, names, np.full(len(who), tick, np.int64), who, stacked)


def facts_of(event: Event) -> list[Fact]:
    """The facts that one stored event tells, in its own order; an empty list for bookkeeping."""
    address = Address.parse(event.entity)
    body: EventBody = decode_event(event.type, event.body)
    entity = f"{address.kind}/{address.id}"
    match body:
        case Pushed() | Transitions() | Dwelt():
            return _of_crowd(event.type, address.id, body)
        case Paid():
            rows = zip(_u4(body.subject).tolist(), _u2(body.unit).tolist(), _u4(body.amount).tolist(), _hex(body.key), strict=True)
            return [Fact(body.tick, f"wallet/{s}", event.type, f"{body.venue} {u} {a} {body.currency} {k}") for s, u, a, k in rows]
        case ToppedUp():
            credits = zip(_u4(body.subject).tolist(), _u4(body.amount).tolist(), _hex(body.key), strict=True)
            return [Fact(body.tick, f"wallet/{s}", event.type, f"{a} {body.currency} {k}") for s, a, k in credits]
        case Transferred() | HoldsExpired() | TransfersSent() | TransfersReceived() | TransfersFinished():
            return [Fact(NO_TICK, entity, event.type, key) for key in _hex(body.key)]
        case SceneEdited():  # operations carry stamps of wall time: who edited, and how much, is the fact
            return [Fact(NO_TICK, entity, event.type, f"{body.author} {len(decode(body.ops))}")]
        case AnchorsHosted():
            return [Fact(NO_TICK, entity, event.type, f"{body.owner} {one.id.hex()} {one.level} {one.position_m}") for one in body.anchors]
        case AnchorsRemoved() | AnchorsRefined():
            return [Fact(NO_TICK, entity, event.type, key) for key in _hex(body.ids)]
        case AnchorsObserved():
            told = zip(body.seen, body.agreed, strict=True)
            return [Fact(NO_TICK, entity, event.type, f"{body.subject} {one.id.hex()} {agreed}") for one, agreed in told]
        case AnchorsCarried():
            return [Fact(NO_TICK, entity, event.type, f"{body.carrier} {body.level} {body.position_m} {body.rotation}")]
        case AccountsSet() | DayClosed():
            return [Fact(NO_TICK, entity, event.type, hashlib.blake2b(event.body, digest_size=16).hexdigest())]
        case QrScanned():
            return [Fact(NO_TICK, entity, event.type, f"{body.venue} {body.location}")]
        case ConsentChanged():  # its text is sealed, differently each time
            return [Fact(NO_TICK, entity, event.type, f"{body.given}")]
        case OfferCreated():
            offer = body.offer
            terms = f"{offer.id} {offer.unit_id} {offer.audience} {offer.starts_tick} {offer.ends_tick} {offer.cooldown_ticks} {offer.cap}"
            return [Fact(NO_TICK, entity, event.type, terms)]
        case OfferEnded():
            return [Fact(NO_TICK, entity, event.type, f"{body.offer_id} {body.tick}")]
        case BaysChanged():
            return [Fact(NO_TICK, entity, event.type, f"{bay.unit_id} {int(bay.occupied)}") for bay in body.bays]
        case AllotmentOpened():
            terms = f"{body.venue} {body.unit} {body.currency} {body.amount} {body.limit} {body.each} {body.closes_ms}"
            return [Fact(NO_TICK, entity, event.type, terms)]
        case TakesDecided():
            return [Fact(NO_TICK, entity, event.type, key) for key, what in zip(_hex(body.key), body.what, strict=True) if what == TAKE_DONE]
        case AccessChanged():
            return [Fact(NO_TICK, entity, event.type, f"{name} {int(name in body.closed)}") for name in (*body.closed, *body.opened)]
        case GatesCounted():
            return [Fact(NO_TICK, entity, event.type, f"{one.gate} {one.sequence} {one.entered} {one.left}") for one in body.counts]
        case VenueEdited():
            return [Fact(NO_TICK, entity, event.type, f"{body.act} {body.before} {body.digest}")]
        case CarsRecounted():
            return [Fact(NO_TICK, entity, event.type, f"{body.inside}")]
        case TraitsSet():
            return [Fact(NO_TICK, entity, event.type, hashlib.blake2b(event.body, digest_size=16).hexdigest())]
        case ZoneDrawn():
            terms = hashlib.blake2b(msgspec.json.encode(body.zone, order="sorted"), digest_size=16).hexdigest()
            return [Fact(NO_TICK, entity, event.type, f"{body.zone.id} {terms}")]
        case ZoneErased():
            return [Fact(NO_TICK, entity, event.type, body.zone_id)]
        case ZonesCrossed():
            happened = zip(body.kind, _u2(body.zone).tolist(), _u4(body.subject).tolist(), strict=True)
            return [Fact(body.tick, f"subject/{s}", event.type, f"{address.id} {body.zones[z]} {ZONE_KINDS[k]}") for k, z, s in happened]
        case ReminderSet() | ReminderDropped() | ReminderFired() | TakesBegun():
            return []
        case (
            Answered()
            | VenueBound()
            | SourceOpened()
            | SourceClosed()
            | OffersAdopted()
            | TraitsAdopted()
            | ZonesAdopted()
            | ZonesPending()
            | Seen()
            | Late()
        ):
            return []
        case _:
            assert_never(body)


def _hex(keys: bytes) -> list[str]:
    text = keys.hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def _of_crowd(type_name: str, venue: str, body: Pushed | Transitions | Dwelt) -> list[Fact]:
    subjects = _u4(body.subject).tolist()
    match body:
        case Pushed():
            return [
                Fact(body.tick, f"subject/{s}", type_name, f"{venue} {body.offers[o]}") for s, o in zip(subjects, _u2(body.offer).tolist(), strict=True)
            ]  # fmt: skip
        case Transitions():
            crossed = zip(subjects, _u2(body.fence).tolist(), body.entered, strict=True)
            return [Fact(body.tick, f"subject/{s}", type_name, f"{venue} {f} {e}") for s, f, e in crossed]
        case Dwelt():
            return [Fact(body.tick, f"subject/{s}", type_name, f"{venue} {f}") for s, f in zip(subjects, _u2(body.fence).tolist(), strict=True)]


def late_of(events: Iterable[Event]) -> tuple[int, int]:
    """(rows, ticks) that came late, summed over events: anything but (0, 0) voids the run's hash."""
    rows = ticks = 0
    for event in events:
        if event.type == "late.v1":
            body = decode_event(event.type, event.body)
            if isinstance(body, Late):
                rows, ticks = rows + body.rows, ticks + body.ticks
    return rows, ticks

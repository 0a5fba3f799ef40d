"""A mall: its stores, their offers, its parking, what of it is closed, the zones drawn in it. `mall/<tenant>/<venue>`.

Owns which offers exist and which bays are taken, what is closed to people, and which zones are drawn. It never decides who is pushed what: that follows from positions, in the position host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import shapely

from actors import offer_book
from actors.behaviour import Context, Decision, not_understood, venue_pinned
from actors.events import AccessChanged, BaysChanged, EventBody, OfferCreated, OfferEnded, TraitsSet, ZoneDrawn, ZoneErased
from actors.messages import (
    Access,
    BayChange,
    Command,
    CreateOffer,
    Done,
    DrawZone,
    EndOffer,
    EraseZone,
    Explain,
    Explanation,
    FindStores,
    GetAccess,
    GetOffers,
    GetParking,
    GetZones,
    Parking,
    Rejected,
    SearchStores,
    SetAccess,
    SetBays,
    SetTraits,
    Stores,
    Zones,
)
from actors.offer_book import OfferBook
from actors.topics import ParkingChanged
from actors.traits import LANGUAGE_CHARS, MAX_TRAITS, SavedTraits, Traits
from actors.venue_book import VenueBook
from esplanade.core.errors import Fault, InvalidInput
from esplanade.core.ids import Address
from spatial.drawn_zones import MAX_ACCURACIES, MAX_ZONES, DrawnZone, check_zone, outline
from spatial.offers import Offer


@dataclass(slots=True)
class MallState:
    """`occupied`: bays taken; every other bay is free. `closed`: connectors, openings and units that nobody passes. `zones`: drawn ones by id; `standing` grows when they change."""

    book: OfferBook = field(default_factory=OfferBook)
    occupied: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    traits: Traits = field(default_factory=Traits)
    zones: dict[str, DrawnZone] = field(default_factory=dict)
    standing: int = 0


class _Saved(msgspec.Struct, array_like=True):
    offers: list[Offer]
    revision: int
    occupied: list[str]
    closed: list[str] = []
    zones: list[DrawnZone] = []
    standing: int = 0
    traits: SavedTraits = SavedTraits()


class Mall:
    """Behaviour of a mall; `Festival` is one without parking."""

    parking = True

    def initial(self) -> MallState:
        return MallState()

    def venue_of(self, address: Address, command: Command) -> str | None:
        return venue_pinned(address)

    def decide(self, state: MallState, command: Command, context: Context) -> Decision | Rejected:
        venue = context.venue
        if venue is None:
            raise Fault(f"{context.address}: a turn without its venue's document; the shard loads it before the turn")
        match command:
            case CreateOffer():
                return offer_book.decide_create(state.book, command, context, venue)
            case EndOffer():
                return offer_book.decide_end(state.book, command, venue)
            case GetOffers():
                return offer_book.list_offers(state.book, command)
            case FindStores():
                if command.level >= len(venue.venue.levels):
                    return Rejected(
                        code="level_not_found", message=f"level {command.level}: venue {venue.venue.id} has levels 0 to {len(venue.venue.levels) - 1}"
                    )
                running = state.book.running(context.tick)
                return Decision((), Stores(stores=venue.nearest_stores(command.level, command.x_m, command.y_m, command.k, running)))
            case SearchStores():
                return Decision((), Stores(stores=venue.search_stores(command, state.book.running(context.tick))))
            case SetBays() if self.parking:
                return self._set_bays(state, command.bays, venue)
            case GetParking() if self.parking:
                return Decision((), Parking(total=len(venue.bays), free=len(venue.bays) - len(state.occupied)))
            case SetAccess():
                return _set_access(state, command, venue)
            case DrawZone():
                return _draw(state, command, venue, context.tick)
            case EraseZone():
                if command.zone_id not in state.zones:
                    return Rejected(
                        code="zone_not_found",
                        message=f"zone {command.zone_id!r}: none of this id is drawn in {venue.venue.id}; see GetZones for those that are",
                    )
                return Decision((ZoneErased(context.tick, command.zone_id),), Done())
            case SetTraits():
                return _set_traits(state, command, venue)
            case Explain():
                if command.offer_id not in state.book.offers:
                    return Rejected(
                        code="offer_not_found",
                        message=f"offer {command.offer_id!r} is not in venue {venue.venue.id}; see GetOffers for those that are",
                    )
                told = context.crowd.explain(command.offer_id, command.subject) if context.crowd is not None else None
                said = f"{command.offer_id} to {command.subject}: the offer is not followed yet; it is from the next tick on"
                return Decision((), told or Explanation(outcome="off", message=said, pushes=0, tick=-1))
            case GetZones():
                return Decision((), Zones(zones=_zones_in(state, command)))
            case GetAccess():
                spotted = context.crowd.spotted(command.subject) if context.crowd is not None and command.subject is not None else None
                return Decision((), Access(closed=tuple(sorted(state.closed)), spotted=spotted))
            case _:
                return not_understood(command, context)

    def _set_bays(self, state: MallState, bays: tuple[BayChange, ...], venue: VenueBook) -> Decision | Rejected:
        unknown = sorted({bay.unit_id for bay in bays} - venue.bays)
        if unknown:
            return Rejected(
                code="bay_not_found",
                message=f"units {unknown[:5]} ({len(unknown)} in all) are no parking bays of {venue.venue.id}; none of the batch was taken",
            )
        after = set(state.occupied)
        for bay in bays:
            (after.add if bay.occupied else after.discard)(bay.unit_id)
        reply = Parking(total=len(venue.bays), free=len(venue.bays) - len(after))
        if after == state.occupied:
            return Decision((), reply)
        changes = tuple(BayChange(unit_id, unit_id in after) for unit_id in sorted(after ^ state.occupied))
        changed = ParkingChanged(venue=venue.venue.id, total=reply.total, free=reply.free)
        return Decision((BaysChanged(changes),), reply, ((f"venue/{venue.venue.id}/parking", changed),))

    def apply(self, state: MallState, event: EventBody) -> MallState:
        match event:
            case OfferCreated() | OfferEnded():
                state.book.apply(event)
            case BaysChanged():
                for bay in event.bays:
                    (state.occupied.add if bay.occupied else state.occupied.discard)(bay.unit_id)
            case AccessChanged():
                state.closed = state.closed.union(event.closed).difference(event.opened)
                state.standing += 1
            case TraitsSet():
                state.traits.set(np.frombuffer(event.subject, "<u4"), np.frombuffer(event.segments, "<u8"), event.language)
                state.standing += 1
            case ZoneDrawn():
                state.zones[event.zone.id] = event.zone
                state.standing += 1
            case ZoneErased():
                del state.zones[event.zone_id]
                state.standing += 1
            case _:
                raise Fault(f"a mall has no event {type(event).__name__}; the journal mixes entities")
        return state

    def save(self, state: MallState) -> bytes:
        offers = [state.book.offers[offer_id] for offer_id in sorted(state.book.offers)]
        return msgspec.msgpack.encode(
            _Saved(
                offers,
                state.book.revision,
                sorted(state.occupied),
                sorted(state.closed),
                [state.zones[i] for i in sorted(state.zones)],
                state.standing,
                state.traits.save(),
            )
        )

    def load(self, data: bytes) -> MallState:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        return MallState(
            OfferBook({offer.id: offer for offer in saved.offers}, saved.revision),
            set(saved.occupied),
            set(saved.closed),
            Traits.load(saved.traits),
            {zone.id: zone for zone in saved.zones},
            saved.standing,
        )


def _set_traits(state: MallState, command: SetTraits, venue: VenueBook) -> Decision | Rejected:
    n = len(command.subject) // 4
    if len(command.subject) != 4 * n or len(command.segments) != 8 * n or len(command.language) > LANGUAGE_CHARS:
        return Rejected(
            code="invalid_traits",
            message=f"traits: subject of {len(command.subject)} bytes, segments of {len(command.segments)}, language {command.language[:40]!r}; n rows need 4n and 8n bytes, a language at most {LANGUAGE_CHARS} letters",
        )
    subject = np.frombuffer(command.subject, "<u4")
    if len(np.unique(subject)) != n:
        return Rejected(code="invalid_traits", message=f"traits: {n} rows of {len(np.unique(subject))} subjects; name each once")
    if len(state.traits) + n - state.traits.known(subject) > MAX_TRAITS:
        return Rejected(code="too_many_traits", message=f"venue {venue.venue.id} knows traits of {len(state.traits)} people; at most {MAX_TRAITS}")
    return Decision((TraitsSet(command.subject, command.segments, command.language),) if n else (), Done())


def _draw(state: MallState, command: DrawZone, venue: VenueBook, tick: int) -> Decision | Rejected:
    try:
        zone = check_zone(command.zone, venue.venue)
    except InvalidInput as error:
        return Rejected(code="invalid_zone", message=error.message)
    others = [other for other in state.zones.values() if other.id != zone.id]
    if len(others) >= MAX_ZONES:
        return Rejected(code="too_many_zones", message=f"venue {venue.venue.id} has {len(others)} drawn zones; at most {MAX_ZONES}, erase some")
    accuracies = {other.accuracy_m for other in others} | {zone.accuracy_m}
    if len(accuracies) > MAX_ACCURACIES:
        return Rejected(
            code="invalid_zone",
            message=f"zone {zone.id}: accuracy {zone.accuracy_m} m would be the {len(accuracies)}th of this venue; at most {MAX_ACCURACIES}, use one of {sorted(accuracies - {zone.accuracy_m})}",
        )
    return Decision(() if state.zones.get(zone.id) == zone else (ZoneDrawn(tick, zone),), Done())


def _zones_in(state: MallState, command: GetZones) -> tuple[DrawnZone, ...]:
    zones = [state.zones[zone_id] for zone_id in sorted(state.zones)]
    if command.box is not None:
        box = shapely.box(*command.box)
        zones = [zone for zone in zones if zone.level == command.level and outline(zone).intersects(box)]
    return tuple(zones)


def _set_access(state: MallState, command: SetAccess, venue: VenueBook) -> Decision | Rejected:
    unknown = sorted({*command.close, *command.open} - venue.closable - state.closed)
    if unknown:
        return Rejected(
            code="place_not_found",
            message=f"{unknown[:5]} ({len(unknown)} in all): venue {venue.venue.id} has no connector, opening or unit with openings of this id; nothing was changed",
        )
    both = sorted(set(command.close) & set(command.open))
    if both:
        return Rejected(code="closed_and_opened", message=f"{both[:5]} are to be closed and opened at once; name each once")
    closed, opened = tuple(sorted(set(command.close) - state.closed)), tuple(sorted(set(command.open) & state.closed))
    reply = Access(closed=tuple(sorted(state.closed.union(closed).difference(opened))))
    return Decision((AccessChanged(closed, opened),) if closed or opened else (), reply)

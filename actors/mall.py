"""A mall: its stores, their offers, its parking, what of it is closed, the zones drawn in it. `mall/<tenant>/<venue>`.

Owns which offers exist and which bays are taken, what is closed to people, which zones are drawn, and the edits of its map. It never decides who is pushed what: that follows from positions, in the position host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from actors import edit_book, offer_book
from actors.behaviour import Context, Decision, not_understood, venue_pinned
from actors.edit_book import EditBook, Step
from actors.events import (
    AccessChanged,
    BaysChanged,
    CarsRecounted,
    EventBody,
    GatesCounted,
    OfferCreated,
    OfferEnded,
    TraitsSet,
    VenueEdited,
    ZoneDrawn,
    ZoneErased,
)
from actors.messages import (
    Access,
    BayChange,
    Command,
    CompareParking,
    CountGates,
    CreateOffer,
    Done,
    DrawZone,
    EditVenue,
    EndOffer,
    EraseZone,
    Explain,
    Explanation,
    FindStores,
    GateCount,
    GetAccess,
    GetEdits,
    GetHeat,
    GetOffers,
    GetParking,
    GetZones,
    Measure,
    Parking,
    ParkingCompared,
    Recount,
    RedoEdit,
    Rejected,
    SearchStores,
    SetAccess,
    SetBays,
    SetTraits,
    Stores,
    UndoEdit,
    Zones,
)
from actors.offer_book import OfferBook
from actors.topics import ParkingChanged
from actors.traits import LANGUAGE_CHARS, MAX_TRAITS, SavedTraits, Traits
from actors.venue_book import VenueBook
from esplanade.core.errors import Fault, InvalidInput
from esplanade.core.ids import Address
from spatial import parking
from spatial.drawn_zones import MAX_ACCURACIES, MAX_ZONES, check_zone
from spatial.offers import Offer
from spatial.zone_board import ZoneBoard
from spatial.zone_shapes import DrawnZone

MAX_GATES: Final = 256


@dataclass(slots=True)
class MallState:
    """`occupied`: bays taken; every other bay is free. `closed`: connectors, openings and units that nobody passes. `board`: the zones drawn; `standing` grows with each change that the position host follows."""

    book: OfferBook = field(default_factory=OfferBook)
    occupied: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    traits: Traits = field(default_factory=Traits)
    board: ZoneBoard = field(default_factory=ZoneBoard)
    standing: int = 0
    gates: dict[str, GateCount] = field(default_factory=dict)
    cars: int = 0
    edits: EditBook = field(default_factory=EditBook)

    @property
    def zones(self) -> dict[str, DrawnZone]:
        """Drawn ones, by id."""
        return self.board.zones


class _Saved(msgspec.Struct, array_like=True):
    offers: list[Offer]
    revision: int
    occupied: list[str]
    closed: list[str] = []
    zones: list[DrawnZone] = []
    standing: int = 0
    traits: SavedTraits = SavedTraits()
    gates: list[GateCount] = []
    cars: int = 0
    edits: tuple[bytes, tuple[str, ...], list[Step], list[Step]] = (b"", (), [], [])


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
            case EditVenue() | UndoEdit() | RedoEdit():
                return edit_book.decide(state.edits, command, venue, context.tick)
            case GetEdits():
                return Decision((), edit_book.told(state.edits, None))
            case Measure():
                measured = context.crowd.measure(command.zone_id, voronoi=command.voronoi) if context.crowd is not None else None
                if measured is None:
                    return Rejected(
                        code="zone_not_found", message=f"zone {command.zone_id!r}: venue {venue.venue.id} has no unit or zone with this id (yet)"
                    )
                return Decision((), measured)
            case GetHeat():
                if command.level >= len(venue.venue.levels) or context.crowd is None:
                    return Rejected(
                        code="level_not_found",
                        message=f"level {command.level}: venue {venue.venue.id} has levels 0 to {len(venue.venue.levels) - 1}, and nobody was seen there yet",
                    )
                return Decision((), context.crowd.heat(command.level))
            case CountGates() if self.parking:
                return _count_gates(state, command, venue)
            case Recount() if self.parking:
                car_park = _car_park(state, venue)
                changed = car_park.recount(moving=command.moving)
                return Decision((CarsRecounted(car_park.inside),) if changed else (), _compared(car_park, venue, command.moving))
            case CompareParking() if self.parking:
                return Decision((), _compared(_car_park(state, venue), venue, command.moving_at_most))
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
                found = tuple(state.zones[i] for i in sorted(state.zones)) if command.box is None else state.board.in_box(command.level, command.box)
                return Decision((), Zones(zones=found))
            case GetAccess():
                spotted = context.crowd.spotted(command.subject) if context.crowd is not None and command.subject is not None else None
                crowding = context.crowd.crowding() if context.crowd is not None and command.crowding else ()
                return Decision((), Access(closed=tuple(sorted(state.closed)), spotted=spotted, crowding=crowding))
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
            case VenueEdited():
                state.edits.apply(event)
                state.standing += 1
            case GatesCounted():
                state.gates.update((count.gate, count) for count in event.counts)
                state.cars = event.inside
            case CarsRecounted():
                state.cars = event.inside
            case TraitsSet():
                state.traits.set(np.frombuffer(event.subject, "<u4"), np.frombuffer(event.segments, "<u8"), event.language)
                state.standing += 1
            case ZoneDrawn():
                state.board.draw(event.zone)
                state.standing += 1
            case ZoneErased():
                state.board.erase(event.zone_id)
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
                [state.gates[gate] for gate in sorted(state.gates)],
                state.cars,
                (state.edits.document, state.edits.digests, state.edits.done, state.edits.undone),
            )
        )

    def load(self, data: bytes) -> MallState:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        board = ZoneBoard()
        for zone in saved.zones:
            board.draw(zone)
        return MallState(
            OfferBook({offer.id: offer for offer in saved.offers}, saved.revision),
            set(saved.occupied),
            set(saved.closed),
            Traits.load(saved.traits),
            board,
            saved.standing,
            {count.gate: count for count in saved.gates},
            saved.cars,
            EditBook(*saved.edits),
        )


def _car_park(state: MallState, venue: VenueBook) -> parking.Parking:
    """Both counts as they stand. A bay that no sensor calls taken is free."""
    car_park = parking.Parking(sorted(venue.bays), inside=0)
    car_park.read(parking.BayReading(bay, 0, bay in state.occupied) for bay in venue.bays)
    car_park.recount(moving=state.cars - car_park.taken)
    return car_park


def _count_gates(state: MallState, command: CountGates, venue: VenueBook) -> Decision | Rejected:
    held, inside = dict(state.gates), state.cars
    for count in command.counts:
        last = held.get(count.gate, GateCount(count.gate, -1, 0, 0))
        if count.sequence <= last.sequence:
            continue
        if count.entered < last.entered or count.left < last.left:
            return Rejected(
                code="count_went_down",
                message=f"gate {count.gate!r}, report {count.sequence}: {count.entered} entered and {count.left} left, after {last.entered} and {last.left}; a gate's totals never go down, none of the batch was taken",
            )
        inside += (count.entered - last.entered) - (count.left - last.left)
        held[count.gate] = count
    if len(held) > MAX_GATES:
        return Rejected(code="too_many_gates", message=f"venue {venue.venue.id}: {len(held)} gates; at most {MAX_GATES}")
    newer = tuple(held[gate] for gate in sorted(held) if held[gate] != state.gates.get(gate))
    after = MallState(occupied=state.occupied, cars=inside)
    return Decision((GatesCounted(newer, inside),) if newer else (), _compared(_car_park(after, venue), venue, 0))


def _compared(car_park: parking.Parking, venue: VenueBook, moving_at_most: int) -> ParkingCompared:
    found = car_park.compare(moving_at_most=moving_at_most)
    return ParkingCompared(total=len(venue.bays), taken=found.taken, inside=found.inside, drift=found.drift)


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

"""Answers frames about a venue itself: its stores, ways, zones, measures, offers, parking and map."""

from __future__ import annotations

import zlib
from typing import Final, assert_never

from actors import messages as m
from esplanade.core.errors import Forbidden, InvalidInput, NotFound
from gateway import frames as f
from gateway.asking import Asker, Caller
from gateway.venues import VenueCache
from gateway.wayfinding import Wayfinder
from spatial.measures import band_of
from spatial.offers import check_offer
from spatial.routes import At

PUBLISHED_TIMES: Final = 4
"""Times that an edited document is put into the catalogue, while other edits overtake it."""

PlaceAct = (
    f.SetAccess | f.DrawZone | f.EraseZone | f.SetTraits | f.EditVenue | f.UndoEdit | f.RedoEdit | f.CountGates | f.Recount | f.CreateOffer | f.EndOffer | f.SetBays
)  # fmt: skip
PlaceQuestion = (
    f.FindStores | f.Search | f.GetRoute | f.GetIsochrone | f.GetDistances | f.GetAccess | f.Explain | f.Measure | f.GetHeat | f.GetEdits | f.CompareParking | f.GetZones
)  # fmt: skip


class PlaceDesk:
    """Where the venue's own entity is asked, and the walking graph."""

    def __init__(self, asker: Asker, venues: VenueCache) -> None:
        self._asker = asker
        self._venues = venues
        self._ways = Wayfinder(venues)

    async def answer(self, caller: Caller, frame: PlaceAct | PlaceQuestion) -> f.ServerFrame:
        """Raises what the system raises, and `Refused` for a rejection."""
        match frame:
            case f.FindStores():
                return await self._stores(caller, frame)
            case f.Search():
                return await self._search(caller, frame)
            case f.GetRoute() | f.GetIsochrone() | f.GetDistances():
                return await self._way(caller, frame)
            case f.GetAccess() | f.SetAccess():
                return await self._access(caller, frame)
            case f.DrawZone() | f.EraseZone():
                return await self._draw(caller, frame)
            case f.GetZones():
                return await self._zones(caller, frame)
            case f.SetTraits():
                return await self._traits(caller, frame)
            case f.Explain():
                return await self._explain(caller, frame)
            case f.Measure() | f.GetHeat():
                return await self._measure(caller, frame)
            case f.EditVenue() | f.UndoEdit() | f.RedoEdit() | f.GetEdits():
                return await self._edit(caller, frame)
            case f.CountGates() | f.CompareParking() | f.Recount():
                return await self._car_park(caller, frame)
            case f.CreateOffer() | f.EndOffer():
                return await self._change_offer(caller, frame)
            case f.SetBays():
                return await self._bays(caller, frame)
            case _:
                assert_never(frame)

    def stop(self) -> None:
        self._ways.stop()

    async def _stores(self, caller: Caller, frame: f.FindStores) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        facts.check_level(frame.level)
        command = m.FindStores(level=frame.level, x_m=frame.x, y_m=frame.y, k=frame.k)
        return f.Stores(seq=frame.seq, stores=(await self._asker.ask(caller, facts.address, command, m.Stores)).stores)

    async def _search(self, caller: Caller, frame: f.Search) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        where = (frame.level, frame.x, frame.y)
        command = m.SearchStores(text=frame.text, k=frame.k)
        if frame.level is not None and frame.x is not None and frame.y is not None:
            facts.check_level(frame.level)
            command = m.SearchStores(text=frame.text, level=frame.level, x_m=frame.x, y_m=frame.y, k=frame.k)
        elif any(part is not None for part in where):
            raise InvalidInput(f"search with level, x, y = {where}: give all three, or none")
        return f.Stores(seq=frame.seq, stores=(await self._asker.ask(caller, facts.address, command, m.Stores)).stores)

    async def _way(self, caller: Caller, frame: f.GetRoute | f.GetIsochrone | f.GetDistances) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        mine = caller.identity.subject if not isinstance(frame, f.GetDistances) and frame.start is None else None
        crowding = isinstance(frame, f.GetRoute) and frame.avoid_crowds
        now = await self._asker.ask(caller, facts.address, m.GetAccess(subject=mine, crowding=crowding), m.Access)
        here = None if now.spotted is None else At(now.spotted.level, now.spotted.x_m, now.spotted.y_m)
        closed = frozenset(now.closed)
        match frame:
            case f.GetRoute():
                return await self._ways.route(facts, frame, here, closed, now.crowding)
            case f.GetIsochrone():
                return await self._ways.isochrone(facts, frame, here, closed)
            case f.GetDistances():
                return await self._ways.distances(facts, frame, closed)
            case _:
                assert_never(frame)

    async def _access(self, caller: Caller, frame: f.GetAccess | f.SetAccess) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        if isinstance(frame, f.GetAccess):
            now = await self._asker.ask(caller, facts.address, m.GetAccess(), m.Access)
        else:
            command = m.SetAccess(close=frame.close, open=frame.open)
            now = await self._asker.ask(caller, facts.address, command, m.Access, frame.seq, frame.key)
        return f.Access(seq=frame.seq, venue=frame.venue, closed=now.closed)

    async def _draw(self, caller: Caller, frame: f.DrawZone | f.EraseZone) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        command: m.Command = m.DrawZone(zone=frame.zone) if isinstance(frame, f.DrawZone) else m.EraseZone(zone_id=frame.zone)
        await self._asker.ask(caller, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _zones(self, caller: Caller, frame: f.GetZones) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        box = frame.box
        command = m.GetZones() if box is None else m.GetZones(level=box.level, box=(box.x0, box.y0, box.x1, box.y1))
        return f.ZoneList(seq=frame.seq, zones=(await self._asker.ask(caller, facts.address, command, m.Zones)).zones)

    async def _traits(self, caller: Caller, frame: f.SetTraits) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        command = m.SetTraits(subject=frame.subject, segments=frame.segments, language=frame.language)
        await self._asker.ask(caller, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _explain(self, caller: Caller, frame: f.Explain) -> f.ServerFrame:
        mine = caller.identity.subject
        subject = mine if frame.subject is None else frame.subject
        if subject != mine and caller.identity.role != "operator":
            raise Forbidden(f"explain for subject {subject}: role {caller.identity.role} is told of itself alone; leave `subject` out")
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        told = await self._asker.ask(caller, facts.address, m.Explain(offer_id=frame.offer, subject=subject), m.Explanation)
        return f.Explained(
            seq=frame.seq, offer=frame.offer, subject=subject, outcome=told.outcome, message=told.message, pushes=told.pushes,
            tick=None if told.tick < 0 else told.tick,
        )  # fmt: skip

    async def _measure(self, caller: Caller, frame: f.Measure | f.GetHeat) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        if isinstance(frame, f.GetHeat):
            facts.check_level(frame.level)
            heat = await self._asker.ask(caller, facts.address, m.GetHeat(level=frame.level), m.Heat)
            return f.Heat(
                seq=frame.seq, venue=frame.venue, level=frame.level, tick=heat.tick, x0_m=heat.x0_m, y0_m=heat.y0_m, cell_m=heat.cell_m, cols=heat.cols,
                rows=heat.rows, person_s=heat.person_s, since_tick=None if heat.since_tick < 0 else heat.since_tick,
            )  # fmt: skip
        told = await self._asker.ask(caller, facts.address, m.Measure(zone_id=frame.zone, voronoi=frame.voronoi), m.Measures)
        density = told.inside / told.ground_m2 if told.ground_m2 else 0.0
        return f.Measures(
            seq=frame.seq, zone=frame.zone, tick=told.tick, inside=told.inside, ground_m2=told.ground_m2, density_per_m2=density, service=band_of(density),
            waiting=band_of(density, waiting=True), mean_stay_s=told.mean_stay_s, voronoi_per_m2=told.voronoi_per_m2, entries_per_min=told.entries_per_min,
            exits_per_min=told.exits_per_min, stays_s=told.stays_s, stays=told.stays,
        )  # fmt: skip

    async def _car_park(self, caller: Caller, frame: f.CountGates | f.CompareParking | f.Recount) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        match frame:
            case f.CountGates():
                told = await self._asker.ask(caller, facts.address, m.CountGates(counts=frame.counts), m.ParkingCompared, frame.seq, frame.key)
            case f.Recount():
                told = await self._asker.ask(caller, facts.address, m.Recount(moving=frame.moving), m.ParkingCompared, frame.seq, frame.key)
            case f.CompareParking():
                told = await self._asker.ask(caller, facts.address, m.CompareParking(moving_at_most=frame.moving_at_most), m.ParkingCompared)
            case _:
                assert_never(frame)
        return f.ParkingCompared(seq=frame.seq, venue=frame.venue, total=told.total, taken=told.taken, inside=told.inside, drift=told.drift)

    async def _edit(self, caller: Caller, frame: f.EditVenue | f.UndoEdit | f.RedoEdit | f.GetEdits) -> f.ServerFrame:
        """The mall journals the edit and its host follows by itself; the catalogue, which all others read, gets the document once it is durable."""
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        match frame:
            case f.EditVenue():
                told = await self._asker.ask(caller, facts.address, m.EditVenue(edit=frame.edit), m.Edited, frame.seq, frame.key)
            case f.UndoEdit():
                told = await self._asker.ask(caller, facts.address, m.UndoEdit(), m.Edited, frame.seq, frame.key)
            case f.RedoEdit():
                told = await self._asker.ask(caller, facts.address, m.RedoEdit(), m.Edited, frame.seq, frame.key)
            case f.GetEdits():
                told = await self._asker.ask(caller, facts.address, m.GetEdits(), m.Edited)
                return f.Edited(seq=frame.seq, venue=frame.venue, digest=told.digest or facts.digest, done=told.done, undone=told.undone)
            case _:
                assert_never(frame)
        document = told.document
        for _ in range(PUBLISHED_TIMES):
            await self._venues.publish(facts.tenant, zlib.decompress(document))
            newest = await self._asker.ask(caller, facts.address, m.GetEdits(), m.Edited)
            if newest.document == document:
                break
            document = newest.document  # another operator's edit came meanwhile: the later document is to stay
        return f.Edited(seq=frame.seq, venue=frame.venue, digest=told.digest, edit=told.edit, done=told.done, undone=told.undone)

    async def _change_offer(self, caller: Caller, frame: f.CreateOffer | f.EndOffer) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        command: m.Command
        if isinstance(frame, f.CreateOffer):
            check_offer(frame.offer)
            if frame.offer.unit_id not in facts.units:
                raise NotFound(f"offer {frame.offer.id}: venue {frame.venue} has no unit {frame.offer.unit_id!r}")
            command = m.CreateOffer(offer=frame.offer)
        else:
            command = m.EndOffer(offer_id=frame.offer, tick=frame.tick)
        await self._asker.ask(caller, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _bays(self, caller: Caller, frame: f.SetBays) -> f.ServerFrame:
        facts = await self._venues.get(caller.identity.tenant, frame.venue)
        reply = await self._asker.ask(caller, facts.address, m.SetBays(bays=frame.bays), m.Parking, frame.seq, frame.key)
        return f.Parking(seq=frame.seq, venue=frame.venue, total=reply.total, free=reply.free)

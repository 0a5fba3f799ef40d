"""The map edited while the venue runs: from the next tick on, taken back and done again, and nothing known about people starts anew, through deaths too."""

from __future__ import annotations

import hashlib
import random
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from actors import edit_book
from actors.behaviour import Decision
from actors.edit_book import MAX_STEPS, EditBook
from actors.events import EventBody, Pushed, VenueEdited, encode_event
from actors.messages import (
    CreateOffer,
    Edited,
    EditVenue,
    GetEdits,
    GetZone,
    LiveEdit,
    RedoEdit,
    Rejected,
    SearchStores,
    Stores,
    UndoEdit,
    ZoneState,
)
from actors.positions import HostSettings, PositionHost
from actors.traits import Traits
from actors.venue_book import VenueBook
from esplanade.core.ids import Address
from spatial.offers import Offer, Within
from spatial.venue_edits import CloseUnit, MoveUnit, OpenUnit, Relabel
from spatial.zone_shapes import DrawnZone
from tests.actors.parkside import document, rows
from tests.actors.stage import Stage, stage
from tests.actors.test_positions_oracle import BOOK, OFFERS, crowd, feed

MALL = Address("mall", "demo", "parkside")


@dataclass
class Standing:
    zones: dict[str, DrawnZone] = field(default_factory=dict)
    traits: Traits = field(default_factory=Traits)
    closed: frozenset[str] = frozenset()
    edits: EditBook = field(default_factory=EditBook)
    standing: int = 0

    def edit(self, edit: LiveEdit) -> None:
        decision = edit_book.decide(self.edits, EditVenue(edit=edit), BOOK, 0)
        assert isinstance(decision, Decision), decision
        [event] = decision.events
        assert isinstance(event, VenueEdited)
        self.edits.apply(event)
        self.standing += 1


def make_host(standing: Standing, book: VenueBook = BOOK) -> PositionHost:
    return PositionHost(book, lambda: (1, OFFERS), epoch=1, pseudonym_key=bytes(64), settings=HostSettings(dwell_ticks=7), standing=standing)


@pytest.mark.parametrize("seed", range(4))
def test_crashes_around_edits_change_nothing_whichever_document_the_catalogue_has_by_then(seed: int) -> None:
    """Shops move over one another (more fences overlap than before) and back; the restarted host is given the old document or the new one."""
    chance = random.Random(seed)
    recorded = crowd(500 + seed, 200, 30)
    edits: dict[int, LiveEdit] = {
        40: MoveUnit(unit_id="shop-01", dx_m=-9.0, dy_m=-2.0), 80: Relabel(unit_id="shop-02", occupant="Tea"), 120: MoveUnit(unit_id="shop-01", dx_m=9.0, dy_m=2.0),
    }  # fmt: skip

    def run(crashes: frozenset[int]) -> tuple[list[EventBody], PositionHost]:
        standing = Standing()
        host = make_host(standing)
        durable = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
        tick, edited = 0, set[int]()
        left = set(crashes)
        while tick < len(recorded):
            if tick in edits and tick not in edited:
                edited.add(tick)
                standing.edit(edits[tick])
            durable += feed(host, tick, recorded[tick])
            tick += 1
            if tick in left:
                left.remove(tick)
                book = BOOK
                if standing.edits.document and chance.random() < 0.5:
                    book = VenueBook.read(zlib.decompress(standing.edits.document))
                host = make_host(standing, book)
                for event in durable:
                    host.apply(event)
                durable += host.start(0.0).events
                tick = host.poll(0.0).publish[0][1].tick + 1  # type: ignore[union-attr]
        return durable, host

    whole, without = run(frozenset())
    crashed, host = run(frozenset(chance.sample(range(20, 190), 4)))
    facts = [[encode_event(e) for e in events if type(e).__name__ in ("Transitions", "Dwelt", "Pushed", "Seen")] for events in (whole, crashed)]
    assert facts[0] == facts[1]
    assert host.crowd.save() == without.crowd.save()
    assert any(isinstance(e, Pushed) for e in whole)
    assert host.book.digest == without.book.digest != BOOK.digest


async def edit(at: Stage, command: EditVenue | UndoEdit | RedoEdit) -> Edited:
    told = await at.system.ask(MALL, command)
    assert isinstance(told, Edited), told
    assert hashlib.sha256(zlib.decompress(told.document)).hexdigest() == told.digest
    return told


async def zone(at: Stage, zone_id: str) -> ZoneState:
    state = await at.system.ask(Address("zone", "demo", f"parkside:{zone_id}"), GetZone())
    assert isinstance(state, ZoneState), state
    return state


async def test_a_shop_moves_is_renamed_and_comes_back_while_people_are_in_it() -> None:
    async with stage() as at:
        await at.system.ask(MALL, CreateOffer(offer=Offer(id="o", unit_id="shop-00", title="t", audience=Within(radius_m=4.0))))
        heard = await at.listen("venue/parkside/pushes")
        inside = rows((5, 0, 7.0, 21.0), (6, 0, 35.0, 10.0))
        await at.system.take("demo", "parkside", inside, source=None, tick=None)
        await at.poll(0.1)
        assert ((await zone(at, "shop-00")).inside, len(await heard.all())) == (1, 1)
        moved = await edit(at, EditVenue(edit=MoveUnit(unit_id="shop-00", dx_m=28.0, dy_m=-12.0)))
        assert moved.done == (MoveUnit(unit_id="shop-00", dx_m=28.0, dy_m=-12.0),)
        await at.system.take("demo", "parkside", inside, source=None, tick=None)
        await at.poll(0.1)
        state = await zone(at, "shop-00")
        assert (state.inside, state.entries, state.exits) == (1, 2, 1), "the other one is in it now"
        assert [np.frombuffer(body.subject, "<u4").tolist() for _, body in await heard.all()] == [[6]], "and it is the other's offer"
        await edit(at, EditVenue(edit=Relabel(unit_id="shop-00", occupant="Quetzal")))
        await at.poll(0.1)
        found = await at.system.ask(MALL, SearchStores(text="quetzal"))
        assert isinstance(found, Stores)
        assert [store.unit_id for store in found.stores] == ["shop-00"]
        await at.restart()
        await at.poll(0.1)
        await edit(at, UndoEdit())
        back = await edit(at, UndoEdit())
        assert (back.done, back.undone) == ((), 2)
        await at.system.take("demo", "parkside", inside, source=None, tick=None)
        await at.poll(0.1)
        state = await zone(at, "shop-00")
        assert (state.inside, state.entries, state.exits) == (1, 3, 2)
        assert await heard.all() == [], "who was pushed to once is not pushed to again"
        again = await edit(at, RedoEdit())
        assert again.edit == MoveUnit(unit_id="shop-00", dx_m=28.0, dy_m=-12.0)
        assert again.digest == moved.digest
        listed = await at.system.ask(MALL, GetEdits())
        assert isinstance(listed, Edited)
        assert (len(listed.done), listed.undone) == (1, 1)


async def test_edits_that_cannot_be_say_why() -> None:
    async with stage() as at:
        for command, code in (
            (EditVenue(edit=CloseUnit(unit_id="attic")), "invalid_edit"),
            (EditVenue(edit=OpenUnit(unit_id="shop-00")), "invalid_edit"),
            (UndoEdit(), "nothing_to_undo"),
            (RedoEdit(), "nothing_to_redo"),
        ):
            refused = await at.system.ask(MALL, command)
            assert isinstance(refused, Rejected)
            assert refused.code == code


def test_a_history_has_a_limit_and_another_import_begins_a_new_one() -> None:
    standing = Standing()
    for i in range(MAX_STEPS + 3):
        standing.edit(Relabel(unit_id="shop-00", name=f"Name {i}"))
    assert len(standing.edits.done) == MAX_STEPS
    other = VenueBook.read(document().replace(b'"name":"Parkside"', b'"name":"Parkside II"'))
    refused = edit_book.decide(standing.edits, UndoEdit(), other, 0)
    assert isinstance(refused, Rejected)
    decision = edit_book.decide(standing.edits, EditVenue(edit=Relabel(unit_id="shop-00", name="New")), other, 0)
    assert isinstance(decision, Decision)
    [event] = decision.events
    assert isinstance(event, VenueEdited)
    assert VenueBook.read(zlib.decompress(event.document)).venue.name == "Parkside II"
    standing.edits.apply(event)
    assert len(standing.edits.done) == 1
    imported = make_host(standing, BOOK)
    imported.start(0.0)
    imported.open_source("s", 0, 0.0)
    feed_one = rows((1, 0, 1.0, 1.0))
    imported.take(feed_one, "s", 0, 0.0)
    imported.watermark("s", 0, 1, 0.0)
    imported.close(0.0)
    assert imported.book.digest == BOOK.digest, "edits of another document are not this one's"

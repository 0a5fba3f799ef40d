"""Mall, festival, session and zone as given, when, then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.behaviour import Context, Decision
from actors.events import TYPES, AccessChanged, BaysChanged, OfferCreated, OfferEnded, QrScanned, decode_event, encode_event
from actors.festival import Festival
from actors.mall import Mall, MallState
from actors.messages import (
    Access,
    BayChange,
    Command,
    CountGates,
    CreateOffer,
    Done,
    DrawZone,
    EndOffer,
    EraseZone,
    GateCount,
    GetOffers,
    GetParking,
    GetZone,
    Offers,
    Parking,
    Rejected,
    ScanQr,
    SetAccess,
    SetBays,
    SetTraits,
    WalkedIn,
)
from actors.session import Session
from actors.topics import OfferChanged, ParkingChanged
from actors.venue_book import VenueBook
from actors.zone import Zone
from esplanade.core.errors import Fault
from esplanade.core.ids import Address
from spatial.offers import MAX_OFFERS, Inside, Offer, Terms, Within
from spatial.zone_shapes import Circle, DrawnZone, Open
from tests.actors.parkside import document, u4

BOOK = VenueBook.read(document())
CONTEXT = Context(address=Address("mall", "demo", "parkside"), venue=BOOK, tick=50)
TEA = Offer(id="tea", unit_id="shop-00", title="Tea", audience=Within(radius_m=5.0), ends_tick=100)


def when(mall: Mall, state: MallState, command: Command) -> Decision:
    decision = mall.decide(state, command, CONTEXT)
    assert isinstance(decision, Decision), decision
    for event in decision.events:
        state = mall.apply(state, event)
    return decision


def refused(mall: Mall, state: MallState, command: Command) -> str:
    decision = mall.decide(state, command, CONTEXT)
    assert isinstance(decision, Rejected)
    return decision.code


def test_an_offer_is_created_told_and_listed() -> None:
    mall, state = Mall(), MallState()
    decision = when(mall, state, CreateOffer(offer=TEA))
    assert decision.events == (OfferCreated(50, TEA),)
    assert decision.outbox == (("venue/parkside/offers", OfferChanged(venue="parkside", offer=TEA, ended=False)),)
    assert when(mall, state, GetOffers()).reply == Offers(offers=(TEA,))
    assert when(mall, state, GetOffers(tick=100)).reply == Offers(offers=())


def test_the_same_offer_again_is_done_already_and_another_with_its_id_is_refused() -> None:
    mall, state = Mall(), MallState()
    when(mall, state, CreateOffer(offer=TEA))
    assert when(mall, state, CreateOffer(offer=TEA)) == Decision((), Done())
    other = Offer(id="tea", unit_id="shop-01", title="Tea", audience=Inside())
    assert refused(mall, state, CreateOffer(offer=other)) == "offer_exists"


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        (Offer(id="x", unit_id="attic", title="x", audience=Inside()), "unit_not_found"),
        (Offer(id="x", unit_id="shop-00", title="x", audience=Within(radius_m=0.1)), "invalid_offer"),
        (Offer(id="x", unit_id="shop-00", title="x", audience=Inside(), starts_tick=9, ends_tick=9), "invalid_offer"),
        (Offer(id="/", unit_id="shop-00", title="x", audience=Inside()), "invalid_offer"),
    ],
)
def test_an_offer_that_cannot_be_is_refused(offer: Offer, code: str) -> None:
    assert refused(Mall(), MallState(), CreateOffer(offer=offer)) == code


def test_a_venue_has_a_limit_of_running_offers_and_ended_ones_do_not_count() -> None:
    mall, state = Mall(), MallState()
    for i in range(MAX_OFFERS):
        state = mall.apply(state, OfferCreated(0, Offer(id=f"o{i}", unit_id="shop-00", title="o", audience=Inside())))
    assert refused(mall, state, CreateOffer(offer=TEA)) == "too_many_offers"
    when(mall, state, EndOffer(offer_id="o0", tick=50))
    assert when(mall, state, CreateOffer(offer=TEA)).reply == Done()


def test_ending_an_offer_brings_its_end_forward_and_never_back() -> None:
    mall, state = Mall(), MallState()
    when(mall, state, CreateOffer(offer=TEA))
    decision = when(mall, state, EndOffer(offer_id="tea", tick=60))
    assert decision.events == (OfferEnded("tea", 60),)
    assert when(mall, state, EndOffer(offer_id="tea", tick=80)) == Decision((), Done())
    assert state.book.offers["tea"].ends_tick == 60
    assert refused(mall, state, EndOffer(offer_id="coffee", tick=1)) == "offer_not_found"


def test_bays_change_all_or_none() -> None:
    mall, state = Mall(), MallState()
    decision = when(mall, state, SetBays(bays=(BayChange("bay-0", True),)))
    assert decision.events == (BaysChanged((BayChange("bay-0", True),)),)
    assert decision.outbox == (("venue/parkside/parking", ParkingChanged(venue="parkside", total=2, free=1)),)
    assert refused(mall, state, SetBays(bays=(BayChange("bay-1", True), BayChange("shop-00", True)))) == "bay_not_found"
    assert when(mall, state, GetParking()).reply == Parking(total=2, free=1)
    assert when(mall, state, SetBays(bays=(BayChange("bay-0", True),))).events == ()


def test_a_festival_has_offers_and_no_parking() -> None:
    festival, state = Festival(), MallState()
    assert when(festival, state, CreateOffer(offer=TEA)).reply == Done()
    assert refused(festival, state, GetParking()) == "not_understood"


def test_a_mall_saved_and_loaded_is_the_same() -> None:
    mall, state = Mall(), MallState()
    when(mall, state, CreateOffer(offer=TEA))
    when(mall, state, SetBays(bays=(BayChange("bay-1", True),)))
    when(mall, state, SetAccess(close=("shop-00", "door-01")))
    when(mall, state, DrawZone(zone=DrawnZone(id="round", name="Round", level=1, shape=Circle(5.0, 5.0, 2.0))))
    when(mall, state, SetTraits(subject=u4(7, 3), segments=(5).to_bytes(8, "little") * 2, language="de"))
    when(mall, state, CountGates(counts=(GateCount("north", 3, 9, 4),)))
    loaded = mall.load(mall.save(state))
    assert loaded == state
    assert mall.save(loaded) == mall.save(state)


def test_what_is_closed_opens_again_and_what_is_not_there_closes_nothing() -> None:
    mall, state = Mall(), MallState()
    assert when(mall, state, SetAccess(close=("shop-00", "door-01"))).events == (AccessChanged(("door-01", "shop-00"), ()),)
    assert when(mall, state, SetAccess(close=("shop-00",))).events == ()
    assert when(mall, state, SetAccess(open=("shop-00",))).reply == Access(closed=("door-01",))
    assert refused(mall, state, SetAccess(close=("bay-0",))) == "place_not_found"
    assert refused(mall, state, SetAccess(close=("door-02",), open=("door-02",))) == "closed_and_opened"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (DrawZone(zone=DrawnZone(id="z", name="Z", level=7, shape=Circle(5.0, 5.0, 2.0))), "invalid_zone"),
        (EraseZone(zone_id="z"), "zone_not_found"),
        (SetTraits(subject=u4(1, 2), segments=bytes(8)), "invalid_traits"),
        (SetTraits(subject=u4(1, 1), segments=bytes(16)), "invalid_traits"),
        (CountGates(counts=(GateCount("n", 1, 5, 0), GateCount("n", 2, 4, 0))), "count_went_down"),
        (CreateOffer(offer=Offer(id="x", unit_id="shop-00", title="x", audience=Inside(), terms=Terms(quiet=(Open(9.0, 1.0),)))), "invalid"),
    ],
)
def test_what_breaks_a_rule_changes_nothing(command: Command, code: str) -> None:
    mall, state = Mall(), MallState()
    assert refused(mall, state, command).startswith(code)
    assert state == MallState()


def test_a_walk_in_tells_where_and_what_is_near() -> None:
    context = replace(CONTEXT, address=Address("session", "demo", "7"))
    decision = Session().decide(Session().initial(), ScanQr(venue="parkside", location="upper_entrance"), context)
    assert isinstance(decision, Decision)
    assert decision.events == (QrScanned("parkside", "upper_entrance"),)
    reply = decision.reply
    assert isinstance(reply, WalkedIn)
    assert (reply.level, reply.x_m, reply.y_m) == (1, 5.0, 5.0)
    assert [store.unit_id for store in reply.stores] == ["shop-10", "shop-11", "shop-12"]


def test_a_zone_without_its_host_is_a_fault_of_ours() -> None:
    with pytest.raises(Fault):
        Zone().decide(None, GetZone(), replace(CONTEXT, address=Address("zone", "demo", "parkside:front")))


def test_stored_events_have_declared_names_and_unknown_ones_are_faults() -> None:
    event = OfferEnded("tea", 3)
    name, body = encode_event(event)
    assert name == "offer_ended.v1"
    assert decode_event(name, body) == event
    assert all(name.rpartition(".v")[2].isdigit() for name in TYPES)
    with pytest.raises(Fault):
        decode_event("offer_vanished.v1", body)
    with pytest.raises(Fault):
        decode_event("offer_ended.v1", b"\xc1")

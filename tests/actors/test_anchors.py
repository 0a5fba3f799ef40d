"""Anchors of a venue as given, when, then; and through a shard that is killed."""

from __future__ import annotations

from typing import Any

import pytest

from actors.anchors import Anchors
from actors.behaviour import Context, Decision
from actors.events import AnchorsHosted, AnchorsRemoved
from actors.messages import (
    AnchorGraph,
    CarryAnchors,
    Command,
    Done,
    GetAnchorGraph,
    GetOffers,
    HostAnchors,
    NearAnchors,
    ObserveAnchors,
    RefineAnchors,
    Refined,
    Rejected,
    RemoveAnchors,
    ResolveAnchors,
)
from actors.messages import Anchors as AnchorsReply
from actors.system import Key
from actors.topics import AnchorsChanged
from actors.venue_book import VenueBook
from ar.anchor_records import Anchor, Held, Observed
from ar.anchors import AnchorBook
from esplanade.core.ids import Address
from tests.actors.parkside import document
from tests.actors.stage import stage

NOW = 1_700_000_000_000
ADDRESS = Address("anchors", "demo", "parkside")
CONTEXT = Context(address=ADDRESS, venue=VenueBook.read(document()))


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def anchor(i: int, x: float = 0.0, **more: Any) -> Anchor:
    return Anchor(**({"id": name(i), "level": 0, "position_m": (x, 0.0, 1.5)} | more))


def host(*anchors: Anchor, owner: int = 7, staff: bool = False, now_ms: int = NOW) -> HostAnchors:
    return HostAnchors(anchors=anchors, owner=owner, staff=staff, now_ms=now_ms)


def near(x: float, subject: int = 7, **more: Any) -> NearAnchors:
    return NearAnchors(**({"x_m": x, "radius_m": 20.0, "k": 20, "subject": subject, "now_ms": NOW} | more))


def when(state: AnchorBook, command: Command) -> Decision:
    before = state.save()
    decision = Anchors().decide(state, command, CONTEXT)
    assert isinstance(decision, Decision), decision
    assert state.save() == before, "decide leaves the state as it finds it"
    for event in decision.events:
        state = Anchors().apply(state, event)
    return decision


def refused(state: AnchorBook, command: Command) -> str:
    before = state.save()
    decision = Anchors().decide(state, command, CONTEXT)
    assert isinstance(decision, Rejected)
    assert state.save() == before
    return decision.code


def held(decision: Decision) -> tuple[Held, ...]:
    assert isinstance(decision.reply, AnchorsReply)
    return decision.reply.anchors


def test_what_hosting_answers_is_what_resolving_finds_then() -> None:
    state = AnchorBook()
    for command in (
        host(anchor(1, rotation=(0.0, 0.0, -0.6, -0.8), tags=("b", "a")), anchor(2, 3.0, carrier="float")),
        host(anchor(1, 5.0)),
        host(anchor(2, 4.0, carrier="float", access="owner")),
    ):
        told = held(when(state, command))
        ids = b"".join(one.id for one in command.anchors)
        assert told == held(when(state, ResolveAnchors(ids=ids, subject=7, now_ms=NOW)))
    assert [one.version for one in told] == [2]


def test_hosting_is_told_to_the_venues_readers_by_id() -> None:
    decision = when(AnchorBook(), host(anchor(1), anchor(2)))
    assert decision.outbox == (("venue/parkside/anchors", AnchorsChanged(venue="parkside", what="hosted", ids=name(1) + name(2))),)


def test_another_ones_anchor_is_neither_replaced_nor_removed_but_by_staff_whose_it_then_stays() -> None:
    state = AnchorBook()
    when(state, host(anchor(1)))
    assert refused(state, host(anchor(1, 9.0), owner=8)) == "anchor_not_yours"
    assert refused(state, RemoveAnchors(ids=name(1), subject=8)) == "anchor_not_yours"
    [changed] = held(when(state, host(anchor(1, 9.0), owner=8, staff=True)))
    assert (changed.owner, changed.version) == (7, 2)
    assert when(state, RemoveAnchors(ids=name(1) + name(5), subject=8, staff=True)).events == (AnchorsRemoved(name(1), False),)
    assert when(state, RemoveAnchors(ids=name(1), subject=8)) == Decision((), Done())


def test_a_private_anchor_is_neither_near_nor_resolved_nor_observed_by_others() -> None:
    state = AnchorBook()
    when(state, host(anchor(1, access="owner"), anchor(2, 1.0, access="staff"), anchor(3, 2.0)))
    assert [one.anchor.id for one in held(when(state, near(0.0, 8)))] == [name(3)]
    assert [one.anchor.id for one in held(when(state, near(0.0, 8, staff=True)))] == [name(1), name(2), name(3)]
    assert held(when(state, ResolveAnchors(ids=name(1), subject=8, now_ms=NOW))) == ()
    assert refused(state, ObserveAnchors(seen=(Observed(id=name(1), position_m=(0.0, 0.0, 1.5)),), subject=8, now_ms=NOW)) == "anchor_not_found"
    assert refused(state, near(0.0, 8, beside=name(1))) == "anchor_not_found"
    assert [one.anchor.id for one in held(when(state, near(0.0, 7, beside=name(1))))] == [name(2), name(3)]


def test_what_observing_answers_is_the_quality_that_is_held_then() -> None:
    state = AnchorBook()
    when(state, host(anchor(1), anchor(2, 3.0)))
    seen = (
        Observed(id=name(2), position_m=(3.01, 0.0, 1.5)),
        Observed(id=name(2), position_m=(3.0, 0.0, 0.0), seen_from=name(1)),
        Observed(id=name(2), position_m=(0.0, 3.0, 0.0), seen_from=name(1)),
    )
    told = held(when(state, ObserveAnchors(seen=seen, subject=8, now_ms=NOW)))
    assert [(one.agreed, one.disputed) for one in told] == [(1, 0), (2, 0), (2, 1)]
    assert told[-1] == state.held(name(2))


def test_what_has_expired_leaves_with_the_next_that_is_hosted_and_is_told() -> None:
    state = AnchorBook()
    when(state, host(anchor(1, expires_ms=NOW + 10), anchor(2, expires_ms=NOW + 20)))
    decision = when(state, host(anchor(3), now_ms=NOW + 10))
    assert decision.events == (AnchorsRemoved(name(1), True), AnchorsHosted(7, (anchor(3),)))
    assert [topic[1].what for topic in decision.outbox if isinstance(topic[1], AnchorsChanged)] == ["expired", "hosted"]
    assert len(state) == 2
    assert len(when(state, host(anchor(2, expires_ms=NOW + 99), now_ms=NOW + 30)).events) == 1, "its host has renewed it just now"


def test_a_refined_pose_is_taken_once_and_not_over_a_newer_version() -> None:
    state = AnchorBook()
    when(state, host(anchor(1), anchor(2, carrier="float")))
    turn = (0.0, 0.0, 0.0, 1.0)
    refine = RefineAnchors(
        refined=(Refined(name(1), 1, (0.5, 0.0, 1.5), turn), Refined(name(2), 1, (0.5, 0.0, 1.5), turn), Refined(name(9), 1, (0.0, 0.0, 0.0), turn))
    )
    decision = when(state, refine)
    [moved] = held(decision)
    assert (moved, moved.version, moved.anchor.position_m) == (state.held(name(1)), 2, (0.5, 0.0, 1.5))
    assert decision.outbox == (("venue/parkside/anchors", AnchorsChanged(venue="parkside", what="moved", ids=name(1))),)
    assert when(state, refine) == Decision((), AnchorsReply(anchors=()))


def test_what_was_observed_is_given_out_for_refinement() -> None:
    state = AnchorBook()
    when(state, host(anchor(1), anchor(2, 3.0)))
    seen = Observed(id=name(2), position_m=(3.0, 0.0, 0.0), seen_from=name(1))
    when(state, ObserveAnchors(seen=(seen,), subject=8, now_ms=NOW))
    assert when(state, GetAnchorGraph()).reply == AnchorGraph(anchors=(state.held(name(1)), state.held(name(2))), seen=(seen,))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (host(anchor(1, level=9)), "invalid_anchor"),
        (host(anchor(1, expires_ms=NOW)), "invalid_anchor"),
        (host(anchor(1), anchor(1, 2.0)), "invalid_anchor"),
        (host(anchor(1, rotation=(0.0, 0.0, 0.0, 2.0))), "invalid_anchor"),
        (ResolveAnchors(ids=b"short", subject=7, now_ms=NOW), "invalid_anchor"),
        (ResolveAnchors(ids=bytes(16 * 1001), subject=7, now_ms=NOW), "invalid_anchor"),
        (CarryAnchors(carrier="float", level=9, position_m=(0.0, 0.0, 0.0)), "invalid_anchor"),
        (CarryAnchors(carrier="float", level=0, position_m=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0, 0.0)), "invalid_anchor"),
        (near(0.0, beside=name(4)), "anchor_not_found"),
        (GetOffers(), "not_understood"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(command: Command, code: str) -> None:
    assert refused(AnchorBook(), command) == code


async def test_anchors_outlive_their_shard_and_an_observation_sent_twice_counts_once() -> None:
    async with stage() as at:
        await at.system.ask(ADDRESS, host(anchor(1), anchor(2, 3.0)), key=Key("7:phone", 1))
        observe = ObserveAnchors(seen=(Observed(id=name(1), position_m=(0.0, 0.0, 1.5)),), subject=8, now_ms=NOW)
        first = await at.system.ask(ADDRESS, observe, key=Key("8:phone", 1))
        await at.system.ask(ADDRESS, CarryAnchors(carrier="float", level=1, position_m=(1.0, 2.0, 0.0)))
        await at.restart()
        await at.settle()
        assert await at.system.ask(ADDRESS, observe, key=Key("8:phone", 1)) == first
        reply = await at.system.ask(ADDRESS, near(0.0))
        assert isinstance(reply, AnchorsReply)
        assert [(one.anchor.id, one.agreed) for one in reply.anchors] == [(name(1), 1), (name(2), 0)]

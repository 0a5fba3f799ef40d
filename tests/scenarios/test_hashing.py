"""The hash of a run: the same for the same facts in whatever batches, order and time; another for any other fact; void with late rows."""

from __future__ import annotations

import struct

import pytest

from actors.events import BaysChanged, Dwelt, EventBody, Late, OfferCreated, Paid, Pushed, Seen, SourceOpened, ToppedUp, Transitions, encode_event
from actors.messages import BayChange
from esplanade.core.clock import ManualClock
from esplanade.core.ids import Address, partition_of
from esplanade.storage.journal import Append, Event
from esplanade.storage.memory import MemoryJournal, MemoryStore
from scenarios.hashing import RunHash, Told, facts_of, read_journal
from spatial.offers import Inside, Offer

HOST = Address("positions", "run-1", "v")
LEDGER = Address("ledger", "run-1", "3")


def u4(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u2(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def key(n: int) -> bytes:
    return bytes([n]) * 16


def paid(tick: int, *people: int, amount: int = 500) -> Paid:
    return Paid(tick, "v", "EUR", b"".join(map(key, people)), u4(*people), u2(*(0 for _ in people)), u4(*(amount for _ in people)))


EVENTS: list[tuple[Address, EventBody]] = [
    (HOST, Transitions(5, u4(1, 2), u2(0, 1), b"\1\0")),
    (HOST, Dwelt(6, u4(1), u2(0))),
    (HOST, Pushed(6, ("a", "b"), u2(0, 1, 1), u4(1, 1, 2))),
    (LEDGER, ToppedUp(1, "EUR", key(9), u4(3), u4(1000))),
    (LEDGER, paid(6, 3, 4, 5)),
    (Address("mall", "run-1", "v"), OfferCreated(0, Offer(id="a", unit_id="u", title="t", audience=Inside()))),
    (Address("mall", "run-1", "v"), BaysChanged((BayChange("b1", True), BayChange("b2", False)))),
]


def hashed(events: list[tuple[Address, EventBody]]) -> RunHash:
    versions: dict[Address, int] = {}
    told = []
    for address, body in events:
        versions[address] = versions.get(address, 0) + 1
        told.append(Told(address, versions[address], body))
    return facts_of(told, first_tick=1, last_tick=10).digest()


def test_the_order_of_partitions_and_the_tenants_name_do_not_show() -> None:
    other = [(Address(a.kind, "run-2", a.id), body) for a, body in reversed(EVENTS)]
    assert hashed(EVENTS) == hashed(other)


def test_payments_in_other_batches_hash_the_same() -> None:
    apart = [*EVENTS[:4], (LEDGER, paid(6, 5)), (LEDGER, paid(6, 4, 3)), *EVENTS[5:]]
    assert hashed(EVENTS) == hashed(apart)


def test_what_is_no_fact_of_the_venue_does_not_show() -> None:
    more: list[tuple[Address, EventBody]] = [
        *EVENTS,
        (HOST, SourceOpened("crowd", 1)),
        (HOST, Seen(5, u4(1), b"\0", u4(0), u4(0), u2(0))),
        (HOST, Transitions(11, u4(1), u2(0), b"\1")),
        (Address("mall", "run-1", "v"), BaysChanged((BayChange("b1", True),))),
    ]
    assert hashed(EVENTS) == hashed(more)


@pytest.mark.parametrize(
    "change",
    [
        (HOST, Transitions(5, u4(1, 2), u2(0, 1), b"\1\1")),
        (HOST, Transitions(4, u4(1, 2), u2(0, 1), b"\1\0")),
        (HOST, Transitions(5, u4(1, 258), u2(0, 1), b"\1\0")),
    ],
)
def test_another_crossing_gives_another_hash(change: tuple[Address, EventBody]) -> None:
    assert hashed([change, *EVENTS[1:]]).hex != hashed(EVENTS).hex


def test_another_push_payment_offer_or_bay_gives_another_hash() -> None:
    changes: list[tuple[int, tuple[Address, EventBody]]] = [
        (2, (HOST, Pushed(6, ("a", "b"), u2(0, 0, 1), u4(1, 2, 1)))),
        (4, (LEDGER, paid(6, 3, 4, 5, amount=501))),
        (5, (EVENTS[5][0], OfferCreated(0, Offer(id="a", unit_id="u", title="other", audience=Inside())))),
        (6, (EVENTS[6][0], BaysChanged((BayChange("b1", True), BayChange("b2", True))))),
    ]
    told = {hashed([*EVENTS[:i], change, *EVENTS[i + 1 :]]).hex for i, change in changes}
    assert len(told | {hashed(EVENTS).hex}) == 5


def test_late_rows_void_the_hash_and_say_so() -> None:
    assert hashed(EVENTS).void is None
    late = hashed([*EVENTS, (HOST, Late(7, 3, 0))])
    assert late.void is not None
    assert "3 rows" in late.void


async def _written(batches: list[list[tuple[Address, EventBody]]], *, start_ms: int) -> RunHash:
    clock = ManualClock(unix_ms=start_ms)
    journal = MemoryJournal(MemoryStore(clock))
    partitions = sorted({partition_of(address) for batch in batches for address, _ in batch})
    leases = {lease.partition: lease.epoch for lease in await journal.acquire(partitions, "a", ttl_ms=3_600_000)}
    versions: dict[Address, int] = {}
    positions: dict[int, int] = {}
    for batch in batches:
        clock.advance(0.5)
        events: dict[int, list[Event]] = {}
        for address, body in batch:
            versions[address] = versions.get(address, 0) + 1
            events.setdefault(partition_of(address), []).append(Event(str(address), versions[address], *encode_event(body)))
        for partition, some in events.items():
            positions[partition] = positions.get(partition, 0) + 1
            await journal.flush([Append("run-1", partition, leases[partition], positions[partition], some)])
    facts = facts_of([], first_tick=1, last_tick=10)
    async for told in read_journal(journal, "run-1"):
        facts.add(told)
    return facts.digest()


async def test_other_segments_and_wall_times_in_the_journal_hash_the_same() -> None:
    whole = await _written([EVENTS], start_ms=1_700_000_000_000)
    apart = await _written([[event] for event in reversed(EVENTS)], start_ms=1_800_000_000_000)
    assert whole == apart == hashed(EVENTS)
    assert whole.facts > 0

"""What a shard promises: nothing leaves before it is durable, nothing happens twice, one writer a partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from actors.behaviour import Context, Decision
from actors.ledger import Ledger
from actors.ledger_state import LedgerState
from actors.messages import (
    Balance,
    Books,
    Command,
    CreateOffer,
    Done,
    EndOffer,
    FindStores,
    GetBalance,
    GetBooks,
    GetOffers,
    GetZone,
    Offers,
    Payments,
    Rejected,
    Reply,
    ScanQr,
    SearchStores,
    Settled,
    Stores,
    TopUps,
    WalkedIn,
    ZoneState,
)
from actors.positions import CHECKPOINT_TICKS, HostSettings
from actors.requests import Ask, Refused, Replied, expect
from actors.shard import ShardSettings
from actors.system import Key
from actors.topics import OfferChanged, PushBatch, Rewind, TickClosed
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound, Unavailable
from esplanade.core.ids import PARTITIONS, Address, partition_of
from esplanade.storage.journal import Append, Lease, Segment, Snapshot
from esplanade.storage.memory import MemoryJournal
from esplanade.storage.segment_codec import decode_events
from spatial.offers import Offer, Within
from tests.actors.parkside import from_i8, from_u4, keys, named, rows, u2, u4
from tests.actors.stage import Stage, stage

LEDGER = Address("ledger", "demo", "0")
MALL = Address("mall", "demo", "parkside")
SUBJECT = 8  # of ledger 0
OFFER = Offer(id="tea", unit_id="shop-00", title="Tea", audience=Within(radius_m=5.0))


def top_up(key: int, amount: int, subject: int = SUBJECT) -> TopUps:
    return TopUps(tick=1, key=keys(key), subject=u4(subject), amount=u4(amount), currency="EUR")


def pay(key: int, amount: int, subject: int = SUBJECT, unit: int = 0) -> Payments:
    return Payments(tick=1, venue="parkside", key=keys(key), subject=u4(subject), unit=u2(unit), amount=u4(amount), currency="EUR")


def codes(reply: Reply) -> list[str]:
    assert isinstance(reply, Settled), reply
    return named(reply.codes, reply.result)


async def balance(at: Stage, subject: int = SUBJECT) -> int:
    reply = await at.system.ask(LEDGER, GetBalance(subject=subject))
    assert isinstance(reply, Balance)
    return reply.balances.get("EUR", 0)


async def fund(at: Stage) -> None:
    """100 in the wallet, and the venue's document at hand."""
    await at.system.ask(LEDGER, top_up(1, 100))
    assert codes(await at.system.ask(LEDGER, pay(99, 101))) == ["exceeds_balance"]


async def total(at: Stage) -> int:
    reply = await at.system.ask(LEDGER, GetBooks())
    assert isinstance(reply, Books)
    return reply.total.get("EUR", 0)


async def test_ten_concurrent_debits_of_30_on_100_accept_exactly_three() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        replies = await asyncio.gather(*(at.system.ask(LEDGER, pay(100 + i, 30)) for i in range(10)))
        results = [codes(reply)[0] for reply in replies]
        assert results.count("settled") == 3
        assert results.count("exceeds_balance") == 7
        assert await balance(at) == 10


async def test_a_reply_waits_until_its_flush_has_landed() -> None:
    async with stage() as at:
        await fund(at)
        gate = asyncio.Event()

        async def hold(_: Sequence[Append]) -> None:
            await gate.wait()

        at.journals[0].before_commit = hold
        paying = asyncio.create_task(at.system.ask(LEDGER, pay(2, 30)))
        await at.settle()
        reading = asyncio.create_task(at.system.ask(LEDGER, GetBalance(subject=SUBJECT)))
        refusing = asyncio.create_task(at.system.ask(LEDGER, pay(3, 1000)))
        await at.settle()
        assert not paying.done()
        assert not reading.done(), "a read saw the debit, so it waits for it"
        assert not refusing.done(), "so does a refusal"
        gate.set()
        assert codes(await paying) == ["settled"]
        assert (await reading) == Balance(balances={"EUR": 70})
        assert codes(await refusing) == ["exceeds_balance"]


async def test_turns_go_on_while_a_flush_is_under_way_and_share_the_next() -> None:
    async with stage() as at:
        await fund(at)
        gate = asyncio.Event()

        async def hold(_: Sequence[Append]) -> None:
            await gate.wait()

        at.journals[0].before_commit = hold
        before = at.journals[0].flushes
        asked = [asyncio.create_task(at.system.ask(LEDGER, pay(10, 1)))]
        await at.settle()
        asked += [asyncio.create_task(at.system.ask(LEDGER, pay(11 + i, 1))) for i in range(20)]
        await at.settle()
        gate.set()
        assert all(codes(reply) == ["settled"] for reply in await asyncio.gather(*asked))
        assert at.journals[0].flushes - before == 2


@pytest.mark.parametrize("where", ["before_commit", "after_commit"])
async def test_a_failed_flush_is_unknown_and_a_retry_with_the_same_key_has_one_effect(where: str) -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        at.journals[0].fail_next_flush("before_commit" if where == "before_commit" else "after_commit")
        with pytest.raises(Unavailable):
            await at.system.ask(LEDGER, pay(2, 30))
        assert await balance(at) == (100 if where == "before_commit" else 70)
        assert codes(await at.system.ask(LEDGER, pay(2, 30))) == ["settled"]
        assert codes(await at.system.ask(LEDGER, pay(2, 30))) == ["settled"]
        assert await balance(at) == 70
        assert await total(at) == 0


async def test_what_gathered_on_top_of_a_failed_flush_is_unknown_too() -> None:
    async with stage() as at:
        await fund(at)
        gate = asyncio.Event()

        async def hold(_: Sequence[Append]) -> None:
            await gate.wait()

        at.journals[0].before_commit = hold
        at.journals[0].fail_next_flush("before_commit")
        first = asyncio.create_task(at.system.ask(LEDGER, pay(2, 60)))
        await at.settle()
        second = asyncio.create_task(at.system.ask(LEDGER, pay(3, 30)))
        await at.settle()
        gate.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert await balance(at) == 100


async def test_a_command_repeated_with_its_key_has_one_effect_after_a_restart_too() -> None:
    async with stage() as at:
        session, key = Address("session", "demo", "77"), Key("phone", 5)
        scan = ScanQr(venue="parkside", location="north_entrance")
        first = await at.system.ask(session, scan, key=key)
        assert isinstance(first, WalkedIn)
        assert await at.system.ask(session, scan, key=key) == first
        await at.restart()
        assert await at.system.ask(session, scan, key=key) == first
        log = [segment for segments in at.store.logs.values() for segment in segments]
        assert [event.type for segment in log for event in segment.events].count("scan_qr.v1") == 1
        again = await at.system.ask(session, scan, key=Key("phone", 6))
        assert again == first
        assert sum(event.type == "scan_qr.v1" for segments in at.store.logs.values() for s in segments for event in s.events) == 2


async def test_answers_of_one_frame_leave_by_what_became_of_their_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ledgers in three logs: one breaks in the middle of the frame, one is taken over anew before the flush, the third is as if it had come alone."""
    async with stage() as at:
        shard = at.system.shards[0]
        broken, taken, well = (Address("ledger", "demo", str(number)) for number in range(3))
        assert len({partition_of(address) for address in (broken, taken, well)}) == 3
        for number, address in enumerate((broken, taken, well)):
            await at.system.ask(address, top_up(100 + number, 10, subject=number))
        decide = Ledger.decide

        def breaking(self: Ledger, state: LedgerState, command: Command, context: Context) -> Decision | Rejected:
            if isinstance(command, TopUps) and command.key == keys(3):
                raise ZeroDivisionError("as the test asked")
            return decide(self, state, command, context)

        monkeypatch.setattr(Ledger, "decide", breaking)
        gate = asyncio.Event()

        async def hold(appends: Sequence[Append]) -> None:
            await gate.wait()

        at.journals[0].before_commit = hold
        first = asyncio.create_task(shard.answer([Ask(well, top_up(1, 5, subject=2))]))  # its flush is under way, so the frame gathers
        await at.settle()
        asks = [
            (broken, top_up(2, 5, subject=0)),
            (taken, top_up(4, 5, subject=1)),
            (broken, top_up(3, 5, subject=0)),
            (well, top_up(5, 5, subject=2)),
        ]
        frame = asyncio.create_task(shard.answer([Ask(address, command) for address, command in asks]))
        await at.settle()
        assert not frame.done()
        await MemoryJournal(at.store).acquire([partition_of(taken)], "another", ttl_ms=1_000)
        await shard.take([partition_of(taken)])
        await at.settle()
        assert not frame.done(), "the answer of the third waits for its flush"
        gate.set()
        answers = await frame
        assert isinstance((await first)[0], Replied)
        assert [answer.code if isinstance(answer, Refused) else codes(expect(answer, Replied).reply) for answer in answers] == [
            "unavailable", "unavailable", "fault", ["settled"]
        ]  # fmt: skip
        for number, address, amount in ((0, broken, 10), (1, taken, 10), (2, well, 20)):
            reply = await at.system.ask(address, GetBalance(subject=number))
            assert isinstance(reply, Balance)
            assert reply.balances == {"EUR": amount}


async def test_answers_that_were_stored_as_events_of_their_own_are_still_remembered() -> None:
    """Two segments of format 1, as they were written before answers stood in the command's last event."""
    place = ("demo", partition_of(MALL))
    written = (
        "019294b26d616c6c2f64656d6f2f7061726b7369646501b06f666665725f637265617465642e7631c47e92ff8aa26964a3746561a7756e69745f6964a773686f702d3030a57469746c65a3546561"
        "a474657874a0a861756469656e636581a474797065a6696e73696465ab7374617274735f7469636b00a9656e64735f7469636bcf0020000000000000ae636f6f6c646f776e5f7469636b73cd1770"
        "a363617001a5666c617368c294b26d616c6c2f64656d6f2f7061726b7369646502ab616e7377657265642e7631c41193a474696c6c01c40881a174a4646f6e65",
        "019294b26d616c6c2f64656d6f2f7061726b7369646503ae6f666665725f656e6465642e7631c40692a37465610394b26d616c6c2f64656d6f2f7061726b7369646504ab616e7377657265642e76"
        "31c41193a474696c6c03c40881a174a4646f6e65",
    )
    async with stage() as at:
        for position, (body, crc) in enumerate(zip(map(bytes.fromhex, written), (2080864217, 1448240293), strict=True), 1):
            at.store.logs.setdefault(place, []).append(Segment(*place, position, 1, 0, decode_events(*place, position, body, crc)))
        for sequence in (1, 3):
            assert await at.system.ask(MALL, CreateOffer(offer=OFFER), key=Key("till", sequence)) == Done()
        assert len(at.store.logs[place]) == 2, "both were done before: nothing is appended"
        assert await at.system.ask(MALL, GetOffers(tick=10)) == Offers(offers=())
        assert await at.system.ask(MALL, CreateOffer(offer=msgspec.structs.replace(OFFER, id="coffee")), key=Key("till", 4)) == Done()
        [event] = at.store.logs[place][-1].events
        assert (event.version, event.type, event.client, event.sequence) == (5, "offer_created.v1", "till", 4)
        await at.restart()
        assert await at.system.ask(MALL, CreateOffer(offer=OFFER), key=Key("till", 4)) == Done()
        assert [event.version for segment in at.store.logs[place] for event in segment.events] == [1, 2, 3, 4, 5]


async def test_payments_are_not_repeated_after_a_restart() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        await at.system.ask(LEDGER, pay(2, 30))
        await at.restart()
        reply = await at.system.ask(LEDGER, pay(2, 30))
        assert codes(reply) == ["settled"]
        assert isinstance(reply, Settled)
        assert from_i8(reply.balance) == [70]
        assert await balance(at) == 70


async def test_an_unknown_entrance_is_rejected_with_the_codes_there_are() -> None:
    async with stage() as at:
        reply = await at.system.ask(Address("session", "demo", "1"), ScanQr(venue="parkside", location="cellar"))
        assert isinstance(reply, Rejected)
        assert reply.code == "entrance_not_found"
        assert "north_entrance" in reply.message


async def test_an_unknown_venue_or_kind_is_not_found() -> None:
    async with stage() as at:
        with pytest.raises(NotFound):
            await at.system.ask(Address("session", "demo", "1"), ScanQr(venue="nowhere", location="x"))
        with pytest.raises(NotFound):
            await at.system.clock("demo", "nowhere")
        with pytest.raises(NotFound):
            await at.system.ask(Address("castle", "demo", "1"), GetBooks())


async def test_a_fenced_shard_answers_nothing_for_the_partition() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        old = at.system.shards[0]
        thief = at._make(0)
        await thief.start(background=False)
        with pytest.raises(Unavailable):
            await at.system.ask(LEDGER, pay(2, 30))
        await at.settle()
        with pytest.raises(Unavailable):
            await at.system.ask(LEDGER, GetBalance(subject=SUBJECT))
        assert old.profile().leases_lost > 0
        at.system.shards[0] = thief
        assert await balance(at) == 100
        await old.stop()


async def test_a_shard_that_cannot_renew_stops_answering_when_its_leases_run_out() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        at.clock.advance(at.settings.lease_ttl_ms / 1000 + 0.1)
        with pytest.raises(Unavailable):
            await at.system.ask(LEDGER, GetBalance(subject=SUBJECT))
        await at.system.shards[0].renew()
        assert await balance(at) == 100


async def test_a_snapshot_and_the_segments_after_it_give_the_same_state() -> None:
    async with stage(settings=ShardSettings(snapshot_segments=3)) as at:
        for i in range(8):
            await at.system.ask(LEDGER, top_up(i, 10))
        await at.settle()
        assert at.store.snapshots
        await at.restart()
        assert await balance(at) == 80
        assert codes(await at.system.ask(LEDGER, top_up(3, 10))) == ["settled"]
        assert await balance(at) == 80


async def test_what_has_come_to_rest_is_kept_once_for_its_next_owner() -> None:
    async with stage() as at:
        count = 9_000
        many = TopUps(tick=0, key=keys(*range(1, count + 1)), subject=u4(*[SUBJECT] * count), amount=u4(*[1] * count), currency="EUR")
        await at.system.ask(LEDGER, many)
        await at.poll(2.0)
        assert not at.store.snapshots
        await at.poll(1.5)
        [kept] = at.store.snapshots.values()
        assert kept.position == 1
        await at.system.shards[0].renew()
        await at.poll(5.0)
        assert at.system.shards[0].profile().snapshots == 1
        await at.system.ask(LEDGER, top_up(count + 1, 1))
        await at.restart()
        assert await balance(at) == count + 1


async def test_a_full_mailbox_refuses_and_says_retry() -> None:
    async with stage(settings=ShardSettings(max_mailbox=2)) as at:
        asked = [asyncio.create_task(at.system.ask(LEDGER, top_up(i, 10))) for i in range(5)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, LimitExceeded) for result in results) == 3
        assert sum(isinstance(result, Settled) for result in results) == 2


async def test_entities_have_a_limit() -> None:
    async with stage(settings=ShardSettings(max_entities=2)) as at:
        for i in range(2):
            await at.system.ask(Address("session", "demo", str(i)), ScanQr(venue="parkside", location="north_entrance"))
        with pytest.raises(LimitExceeded):
            await at.system.ask(Address("session", "demo", "9"), ScanQr(venue="parkside", location="north_entrance"))


async def test_offers_are_told_and_pushed_and_end() -> None:
    async with stage() as at:
        heard = await at.listen("venue/parkside/offers", "venue/parkside/pushes", "venue/parkside/clock")
        assert await at.system.ask(MALL, CreateOffer(offer=OFFER)) == Done()
        assert await at.system.ask(MALL, CreateOffer(offer=OFFER)) == Done()
        await at.system.open_source("demo", "parkside", "sim", first_tick=0)
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.0), (6, 1, 7.0, 19.0)), source="sim", tick=0)
        await at.system.watermark("demo", "parkside", "sim", tick=0, rows=2)
        assert (await at.system.clock("demo", "parkside")).tick == 0
        await at.system.ask(MALL, EndOffer(offer_id="tea", tick=1))
        told = await heard.all()
        kinds = [type(body) for _, body in told]
        assert kinds.count(OfferChanged) == 2
        pushes = [(place, body) for place, body in told if isinstance(body, PushBatch)]
        assert [(place.epoch, place.offset, body.tick, from_u4(body.subject)) for place, body in pushes] == [(1, 1, 0, [5])]
        assert [body.tick for _, body in told if isinstance(body, TickClosed)] == [0]
        offers = await at.system.ask(MALL, GetOffers())
        assert isinstance(offers, Offers)
        assert [offer.ends_tick for offer in offers.offers] == [1]


async def test_no_tick_is_called_closed_before_it_is_durable() -> None:
    async with stage() as at:
        heard = await at.listen("venue/parkside/clock")
        await at.system.open_source("demo", "parkside", "sim", first_tick=0)
        gate = asyncio.Event()

        async def hold(_: Sequence[Append]) -> None:
            await gate.wait()

        at.journals[0].before_commit = hold
        for tick in range(3):
            await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.0 + 2 * tick)), source="sim", tick=tick)
            await at.system.watermark("demo", "parkside", "sim", tick=tick, rows=1)
        assert await heard.all() == []
        gate.set()
        assert [body.tick for _, body in await heard.all()] == [0, 1, 2]


async def test_a_zone_counts_who_is_inside() -> None:
    async with stage() as at:
        await at.system.open_source("demo", "parkside", "sim", first_tick=0)
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 24.0), (6, 0, 7.0, 25.0), (7, 0, 7.0, 10.0)), source="sim", tick=0)
        await at.system.watermark("demo", "parkside", "sim", tick=0, rows=3)
        shop = await at.system.ask(Address("zone", "demo", "parkside:shop-00"), GetZone())
        assert shop == ZoneState(tick=0, inside=2, entries=2, exits=0, dwells=0, stayed_s=0.0, ground_m2=80.0)
        unknown = await at.system.ask(Address("zone", "demo", "parkside:attic"), GetZone())
        assert isinstance(unknown, Rejected)


async def test_stores_are_found_by_distance_with_their_offers() -> None:
    async with stage() as at:
        await at.system.ask(MALL, CreateOffer(offer=OFFER))
        found = await at.system.ask(MALL, FindStores(level=0, x_m=7.0, y_m=10.0, k=2))
        assert isinstance(found, Stores)
        assert [(s.unit_id, s.offers) for s in found.stores] == [("shop-00", ("tea",)), ("shop-01", ())]
        assert [s.distance_m for s in found.stores] == pytest.approx([10.0, np.hypot(12, 10)])


async def test_stores_are_found_by_mistyped_words_the_nearer_first_with_their_offers() -> None:
    async with stage() as at:
        await at.system.ask(MALL, CreateOffer(offer=OFFER))
        named = await at.system.ask(MALL, SearchStores(text="Shpo 01"))
        assert isinstance(named, Stores)
        assert (named.stores[0].unit_id, named.stores[0].distance_m) == ("shop-01", 0.0)
        alike = await at.system.ask(MALL, SearchStores(text="boks", level=0, x_m=7.0, y_m=10.0))
        assert isinstance(alike, Stores)
        assert [(s.unit_id, s.offers) for s in alike.stores] == [("shop-00", ("tea",)), ("shop-10", ())]
        assert alike.stores[0].distance_m == pytest.approx(10.0)
        assert await at.system.ask(MALL, SearchStores(text="?!")) == Stores(stores=())


async def test_after_a_restart_the_host_says_rewind_and_nobody_enters_twice() -> None:
    async with stage() as at:
        heard = await at.listen("venue/parkside/clock", "venue/parkside/pushes")
        await at.system.ask(MALL, CreateOffer(offer=OFFER))
        await at.system.open_source("demo", "parkside", "sim", first_tick=0)

        async def send(first: int, last: int) -> None:
            for tick in range(first, last + 1):
                await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.0)), source="sim", tick=tick)
                await at.system.watermark("demo", "parkside", "sim", tick=tick, rows=1)
                await at.settle()

        await send(0, 60)
        before = await heard.all()
        assert sum(isinstance(body, PushBatch) for _, body in before) == 1
        await at.restart()
        await at.poll(1.0)
        rewinds = [body for _, body in await heard.all() if isinstance(body, Rewind)]
        assert rewinds
        assert rewinds[0].tick == CHECKPOINT_TICKS
        assert rewinds[0].epoch == 2
        await send(rewinds[0].tick + 1, 70)
        after = await heard.all()
        assert not any(isinstance(body, PushBatch) for _, body in after), "the push of before the crash is not made again"
        state = await at.system.ask(Address("zone", "demo", "parkside:front"), GetZone())
        assert isinstance(state, ZoneState)
        assert (state.tick, state.inside, state.entries) == (70, 1, 1)


async def test_rows_of_a_late_source_are_counted_and_the_tick_closes_at_its_deadline() -> None:
    async with stage(settings=ShardSettings(host=HostSettings(deadline_s=2.0))) as at:
        await at.system.open_source("demo", "parkside", "a", first_tick=0)
        await at.system.open_source("demo", "parkside", "b", first_tick=0)
        await at.system.watermark("demo", "parkside", "a", tick=0, rows=0)
        await at.poll(1.0)
        assert (await at.system.clock("demo", "parkside")).tick == -1
        await at.poll(1.5)
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.0)), source="b", tick=0)
        clock = await at.system.clock("demo", "parkside")
        assert (clock.tick, clock.late_rows, clock.late_ticks) == (0, 1, 1)


async def test_rows_sent_again_are_not_late() -> None:
    async with stage() as at:
        await at.system.open_source("demo", "parkside", "a", first_tick=0)
        for _ in range(3):
            await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.0)), source="a", tick=0)
            await at.system.watermark("demo", "parkside", "a", tick=0, rows=1)
        clock = await at.system.clock("demo", "parkside")
        assert (clock.tick, clock.late_rows) == (0, 0)


async def test_a_free_venue_closes_a_tick_each_tenth_of_a_second() -> None:
    async with stage() as at:
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 24.0)), source=None, tick=None)
        start = (await at.system.clock("demo", "parkside")).tick
        for _ in range(5):
            await at.poll(0.1)
        clock = await at.system.clock("demo", "parkside")
        assert (clock.tick - start, clock.driven) == (5, False)
        state = await at.system.ask(Address("zone", "demo", "parkside:shop-00"), GetZone())
        assert isinstance(state, ZoneState)
        assert state.inside == 1


async def test_rows_on_a_level_that_is_not_there_are_refused() -> None:
    async with stage() as at:
        with pytest.raises(InvalidInput):
            await at.system.take("demo", "parkside", rows((5, 9, 7.0, 24.0)), source=None, tick=None)


async def test_several_shards_share_the_partitions() -> None:
    async with stage(shards=3) as at:
        for subject in range(24):
            await at.system.ask(Address("ledger", "demo", str(subject % 8)), top_up(subject, 10, subject))
        sums = [await at.system.ask(Address("ledger", "demo", str(i)), GetBooks()) for i in range(8)]
        assert [book.wallets for book in sums if isinstance(book, Books)] == [{"EUR": 30}] * 8
        used = [shard for shard in at.system.shards if shard.profile().turns > 0]
        assert len(used) > 1
        assert [p["shard"] for p in await at.system.profile()] == ["shard-0", "shard-1", "shard-2"]


async def test_a_log_that_nobody_asks_for_leaves_memory_and_comes_back_as_it_was() -> None:
    async with stage(settings=ShardSettings(passivate_s=60.0)) as at:
        await at.system.ask(LEDGER, top_up(1, 100))
        await at.poll(5.0)
        assert at.system.shards[0].profile().entities > 0
        for _ in range(9):
            await at.system.shards[0].renew()
            await at.poll(8.0)
        profile = at.system.shards[0].profile()
        assert (profile.entities, profile.passivations) == (0, 1)
        assert await balance(at) == 100
        assert codes(await at.system.ask(LEDGER, top_up(1, 100))) == ["settled"]
        assert await balance(at) == 100


async def test_a_full_shard_makes_room_by_what_was_unused_longest() -> None:
    async with stage(settings=ShardSettings(max_entities=2)) as at:
        for i in range(6):
            at.clock.advance(0.1)
            await at.system.ask(Address("session", "demo", str(i)), ScanQr(venue="parkside", location="north_entrance"), key=Key("phone", i))
            await at.settle()
        profile = at.system.shards[0].profile()
        assert profile.passivations >= 4
        assert profile.entities <= 2


class Scales:
    """A process that weighs as much as a test says."""

    def __init__(self) -> None:
        self.bytes = 0
        self.given_back = 0

    def resident_bytes(self) -> int:
        return self.bytes

    def give_back(self) -> None:
        self.given_back += 1


async def test_above_its_memory_limit_a_shard_lets_go_of_what_rests_and_of_nothing_else() -> None:
    async with stage(settings=ShardSettings(max_memory_bytes=1000)) as at:
        scales = at.system.shards[0]._memory = Scales()
        await at.system.ask(LEDGER, top_up(1, 100))
        resting = [Address("session", "demo", str(i)) for i in range(40)]
        for address in resting:
            await at.system.ask(address, ScanQr(venue="parkside", location="north_entrance"), key=Key("phone", 1))
        held = at.system.shards[0].profile().entities
        scales.bytes = 1000
        await at.poll(6.0)
        assert (at.system.shards[0].profile().entities, scales.given_back) == (held, 0), "at the limit nothing leaves"
        scales.bytes = 1001
        for _ in range(6):
            await at.system.shards[0].renew()
            await balance(at)
            await at.poll(1.0)
        profile = at.system.shards[0].profile()
        assert profile.entities == 1, "the ledger is in use, and stays"
        assert scales.given_back >= 2, "a limited number at once"
        assert await balance(at) == 100
        again = await at.system.ask(resting[0], ScanQr(venue="parkside", location="north_entrance"), key=Key("phone", 1))
        assert not isinstance(again, Rejected)


async def test_a_request_past_its_deadline_is_not_run() -> None:
    async with stage() as at:
        gate = asyncio.Event()
        read = at.journals[0].snapshot

        async def slow(tenant: str, partition: int) -> Snapshot | None:
            await gate.wait()
            return await read(tenant, partition)

        at.journals[0].snapshot = slow  # type: ignore[method-assign]
        asked = asyncio.create_task(at.system.ask(LEDGER, top_up(1, 100), deadline_s=0.5))
        patient = asyncio.create_task(at.system.ask(LEDGER, top_up(2, 10), deadline_s=30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        at.clock.advance(2.0)
        gate.set()
        with pytest.raises(Unavailable):
            await asked
        assert codes(await patient) == ["settled"]
        assert await balance(at) == 10


async def test_a_venue_that_is_gone_from_the_catalogue_leaves_the_rest_of_its_log_alone() -> None:
    async with stage() as at:
        await at.system.ask(MALL, CreateOffer(offer=OFFER))
        await at.system.open_source("demo", "parkside", "sim", first_tick=0)
        document = at.catalogue._venues.pop(("demo", "parkside"))
        at.clock.advance(40.0)
        await at.system.shards[0].renew()
        await at.restart()
        with pytest.raises(NotFound):
            await at.system.clock("demo", "parkside")
        replays = at.system.shards[0].profile().activations
        for _ in range(5):
            await at.poll(1.0)
        assert at.system.shards[0].profile().activations == replays, "it is not tried again and again"
        at.catalogue._venues["demo", "parkside"] = document
        assert (await at.system.clock("demo", "parkside")).driven


# --- the table and the shard disagree ---------------------------------------------------------------------------------


async def test_a_takeover_whose_answer_was_lost_is_owned_at_the_next_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database committed and its answer never came: the table names a shard that did not know, and nobody else would have taken the partition."""
    async with stage(shards=2) as at:
        former, heir = at.system.shards
        acquire = at.journals[1].acquire

        async def answer_lost(partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
            await acquire(partitions, owner, ttl_ms=ttl_ms)
            raise Unavailable("the connection was lost after the commit")

        with monkeypatch.context() as patched:
            patched.setattr(at.journals[1], "acquire", answer_lost)
            with pytest.raises(Unavailable):
                await heir.take([0])
        assert heir.profile().partitions == PARTITIONS // 2
        await heir.renew()
        await former.renew()
        assert (heir.profile().partitions, former.profile().partitions) == (PARTITIONS // 2 + 1, PARTITIONS // 2 - 1)


async def test_a_takeover_whose_answer_was_lost_counts_above_the_lease_that_was_lost_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a world: another shard had taken the partition, and this one took it back before it had heard of that. Neither would have served it for ever."""
    async with stage(shards=2) as at:
        first, other = at.system.shards
        acquire = at.journals[0].acquire

        async def answer_lost(partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
            await acquire(partitions, owner, ttl_ms=ttl_ms)
            raise Unavailable("the connection was lost after the commit")

        partition = next(iter(first._tenure.leases))
        await other.take([partition])
        with monkeypatch.context() as patched:
            patched.setattr(at.journals[0], "acquire", answer_lost)
            with pytest.raises(Unavailable):
                await first.take([partition])
        await first.renew()
        await other.renew()
        assert (first.profile().partitions, other.profile().partitions) == (PARTITIONS // 2, PARTITIONS // 2)


async def test_a_hand_over_that_nobody_takes_up_is_undone_after_a_lease() -> None:
    """The next owner died before it took the partition, and the table went on to name the one that had let go of it."""
    async with stage() as at:
        shard = at.system.shards[0]
        await shard.release([0])
        await shard.renew()
        assert shard.profile().partitions == PARTITIONS - 1, "the next owner has its time"
        at.clock.advance(shard.settings.lease_ttl_ms / 1000)
        await shard.renew()
        assert shard.profile().partitions == PARTITIONS

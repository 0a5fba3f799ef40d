"""What every journal promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from esplanade.core.errors import Conflict, EsplanadeError, Fenced, InvalidInput, LimitExceeded, NotFound
from esplanade.core.ids import PARTITIONS
from esplanade.storage.flush_rules import MAX_FLUSH_BYTES, MAX_TTL_MS
from esplanade.storage.journal import Append, Event, Journal, Lease, OutboxEntry, Segment, Snapshot, StoredReply

Opener = Callable[[], Awaitable[Journal]]


def event(version: int, entity: str = "mall/demo/parkside", body: bytes = b"body") -> Event:
    return Event(entity, version, "tested.v1", body)


def append(lease: Lease, position: int, *events: Event, tenant: str = "demo") -> Append:
    return Append(tenant=tenant, partition=lease.partition, epoch=lease.epoch, position=position, events=events or (event(position),))


def reply(key: bytes, *, digest: bytes = b"digest", body: bytes = b"reply", ttl_ms: int = 60_000, tenant: str = "demo") -> StoredReply:
    return StoredReply(tenant=tenant, key=key, digest=digest, reply=body, expires_unix_ms=time.time_ns() // 1_000_000 + ttl_ms)


async def lease_of(journal: Journal, partition: int = 7, owner: str = "a") -> Lease:
    return (await journal.acquire([partition], owner, ttl_ms=60_000))[0]


async def log(journal: Journal, partition: int = 7, tenant: str = "demo", after: int = 0) -> list[Segment]:
    return [segment async for segment in journal.read(tenant, partition, after=after)]


# --- leases and fencing -------------------------------------------------------------------------------------------------


async def test_the_first_owner_gets_epoch_1_and_each_other_owner_one_more(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    assert (await lease_of(a, owner="a")).epoch == 1
    assert (await lease_of(b, owner="b")).epoch == 2
    assert (await lease_of(a, owner="a")).epoch == 3


async def test_acquiring_what_one_holds_renews_it_at_the_same_epoch(journal: Journal) -> None:
    first = (await journal.acquire([1], "a", ttl_ms=1_000))[0]
    second = (await journal.acquire([1], "a", ttl_ms=60_000))[0]
    assert second.epoch == first.epoch
    assert second.expires_unix_ms > first.expires_unix_ms


async def test_acquire_answers_in_the_order_asked(journal: Journal) -> None:
    assert [lease.partition for lease in await journal.acquire([9, 3, 200], "a", ttl_ms=1_000)] == [9, 3, 200]
    assert [lease.partition for lease in await journal.leases()] == [3, 9, 200]


async def test_a_takeover_does_not_wait_for_the_lease_to_run_out(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    await a.acquire([5], "a", ttl_ms=MAX_TTL_MS)
    assert (await asyncio.wait_for(b.acquire([5], "b", ttl_ms=1_000), 20))[0].epoch == 2


async def test_renew_extends_what_is_held_and_leaves_out_what_was_lost(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    held = await a.acquire([1, 2, 3], "a", ttl_ms=1_000)
    await lease_of(b, 2, owner="b")
    renewed = await a.renew(held, ttl_ms=60_000)
    assert [(lease.partition, lease.epoch) for lease in renewed] == [(1, 1), (3, 1)]
    assert all(new.expires_unix_ms > held[0].expires_unix_ms for new in renewed)


async def test_a_former_owner_appends_nothing(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    old = await lease_of(a, owner="a")
    await a.flush([append(old, 1)])
    await lease_of(b, owner="b")
    with pytest.raises(Fenced, match="epoch 2"):
        await a.flush([append(old, 2)], [OutboxEntry("demo", "topic", b"late")], [reply(b"k" * 16)])
    assert await a.heads(7) == {"demo": 1}
    assert await a.place("demo", "topic") == (1, 0)
    assert await a.reply_of("demo", b"k" * 16) is None


async def test_a_former_owner_cannot_publish_with_an_append_of_no_events(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    old = await lease_of(a, owner="a")
    empty = Append(tenant="demo", partition=7, epoch=1, position=1, events=())
    assert len(await a.flush([empty], [OutboxEntry("demo", "topic", b"first")])) == 1
    assert await a.heads(7) == {}
    await lease_of(b, owner="b")
    with pytest.raises(Fenced):
        await a.flush([Append(tenant="demo", partition=7, epoch=old.epoch, position=1, events=())], [OutboxEntry("demo", "topic", b"second")])
    assert await a.place("demo", "topic") == (1, 1)


async def test_nobody_appends_to_a_partition_without_an_owner(journal: Journal) -> None:
    with pytest.raises(Fenced, match="no owner"):
        await journal.flush([Append(tenant="demo", partition=7, epoch=1, position=1, events=(event(1),))])


async def test_an_epoch_from_the_future_is_fenced_too(journal: Journal) -> None:
    lease = await lease_of(journal)
    with pytest.raises(Fenced):
        await journal.flush([Append(tenant="demo", partition=7, epoch=lease.epoch + 1, position=1, events=(event(1),))])


async def test_owners_who_take_over_from_each_other_while_flushing_leave_one_log(open_journal: Opener) -> None:
    """Four owners fight for one partition; whatever was acknowledged is in the log, at its place, and in the order of epochs."""
    acked: dict[int, bytes] = {}

    async def own(name: str) -> None:
        journal = await open_journal()
        for turn in range(12):
            lease = await lease_of(journal, owner=name)
            position = (await journal.heads(7)).get("demo", 0)
            try:
                for n in range(3):
                    position += 1
                    body = f"{name} {turn} {n}".encode()
                    await journal.flush([append(lease, position, event(position, body=body))])
                    assert position not in acked
                    acked[position] = body
                    await asyncio.sleep(0)
            except Fenced:
                continue

    await asyncio.gather(*(own(name) for name in "abcd"))
    segments = await log(await open_journal())
    assert {segment.position: segment.events[0].body for segment in segments} == acked
    assert [segment.position for segment in segments] == list(range(1, len(segments) + 1))
    assert [segment.epoch for segment in segments] == sorted(segment.epoch for segment in segments)


# --- the log ------------------------------------------------------------------------------------------------------------


async def test_what_was_flushed_is_read_back_in_order(journal: Journal) -> None:
    lease = await lease_of(journal)
    first = (event(1), event(1, "zone/demo/parkside:1", b""), event(2, body=bytes(range(256))))
    await journal.flush([append(lease, 1, *first)])
    await journal.flush([append(lease, 2, event(3))])
    segments = await log(journal)
    assert [(segment.tenant, segment.partition, segment.position, segment.epoch) for segment in segments] == [("demo", 7, 1, 1), ("demo", 7, 2, 1)]
    assert segments[0].events == first
    assert segments[1].events == (event(3),)
    assert 0 < segments[0].written_unix_ms <= segments[1].written_unix_ms
    assert [segment.position for segment in await log(journal, after=1)] == [2]
    assert await log(journal, after=2) == []


async def test_a_long_log_is_read_whole(journal: Journal) -> None:
    lease = await lease_of(journal)
    for position in range(1, 301):
        await journal.flush([append(lease, position)])
    assert [segment.position for segment in await log(journal)] == list(range(1, 301))


async def test_a_log_of_large_segments_is_read_whole(journal: Journal) -> None:
    lease = await lease_of(journal)
    for position in range(1, 5):
        await journal.flush([append(lease, position, event(position, body=bytes(5 * 2**20)))])
    assert [(segment.position, len(segment.events[0].body)) for segment in await log(journal)] == [(n, 5 * 2**20) for n in range(1, 5)]


@pytest.mark.parametrize("position", [1, 3, 4])
async def test_a_position_that_is_not_the_next_is_fenced(journal: Journal, position: int) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)])
    with pytest.raises(Fenced, match="the next is 2"):
        await journal.flush([append(lease, position)])
    assert await journal.heads(7) == {"demo": 1}


async def test_tenants_and_partitions_have_logs_of_their_own(journal: Journal) -> None:
    seven, eight = await journal.acquire([7, 8], "a", ttl_ms=60_000)
    await journal.flush([append(seven, 1), append(seven, 1, tenant="other"), append(eight, 1)])
    await journal.flush([append(seven, 2, tenant="other")])
    assert await journal.heads(7) == {"demo": 1, "other": 2}
    assert await journal.heads(8) == {"demo": 1}
    assert await journal.heads(9) == {}
    assert await journal.logs([9, 8, 7, 8]) == {("demo", 7): 1, ("other", 7): 2, ("demo", 8): 1}
    assert await journal.logs([9]) == await journal.logs([]) == {}
    with pytest.raises(InvalidInput, match=f"partition {PARTITIONS}"):
        await journal.logs([7, PARTITIONS])


async def test_topics_that_have_had_entries_are_found_over_all_tenants(journal: Journal) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1), append(lease, 1, tenant="other")], [OutboxEntry("demo", "t/1", b"x"), OutboxEntry("other", "t/2", b"x")])
    assert await journal.topics_used(["t/1", "t/2", "t/3"]) == {("demo", "t/1"), ("other", "t/2")}
    await journal.trim_outbox(older_than_ms=0)
    assert await journal.topics_used(["t/2", "t/3"]) == {("other", "t/2")}, "trimmed or not"
    assert await journal.topics_used([]) == set()


async def test_a_flush_happens_wholly_or_not_at_all(open_journal: Opener) -> None:
    journal = await open_journal()
    seven, eight = await journal.acquire([7, 8], "a", ttl_ms=60_000)
    await (await open_journal()).acquire([8], "b", ttl_ms=60_000)
    with pytest.raises(Fenced, match="partition 8"):
        await journal.flush([append(seven, 1), append(eight, 1)], [OutboxEntry("demo", "topic", b"x")], [reply(b"k" * 16)])
    assert await log(journal, 7) == []
    assert await journal.heads(8) == {}
    assert await journal.place("demo", "topic") == (1, 0)
    assert await journal.reply_of("demo", b"k" * 16) is None
    await journal.flush([append(seven, 1)])


async def test_an_empty_flush_does_nothing(journal: Journal) -> None:
    assert await journal.flush([]) == []


def _broken_flushes() -> list[tuple[str, type[EsplanadeError], Sequence[Append], Sequence[OutboxEntry], Sequence[StoredReply]]]:
    lease = Lease(partition=7, owner="a", epoch=1, expires_unix_ms=0)
    good = append(lease, 1)
    big = event(1, body=bytes(MAX_FLUSH_BYTES + 1))
    return [
        ("the same log twice", InvalidInput, [good, good], [], []),
        ("outbox without an append", InvalidInput, [], [OutboxEntry("demo", "topic", b"x")], []),
        ("key without an append", InvalidInput, [], [], [reply(b"k" * 16)]),
        ("the same key twice", InvalidInput, [good], [], [reply(b"k" * 16), reply(b"k" * 16)]),
        ("a version left out", InvalidInput, [append(lease, 1, event(1), event(3))], [], []),
        ("a version twice", InvalidInput, [append(lease, 1, event(1), event(1))], [], []),
        ("version 0", InvalidInput, [append(lease, 1, event(0))], [], []),
        ("position 0", InvalidInput, [append(lease, 0)], [], []),
        ("two epochs of a partition", InvalidInput, [good, Append("other", 7, 2, 1, (event(1),))], [], []),
        ("a partition out of range", InvalidInput, [Append("demo", PARTITIONS, 1, 1, (event(1),))], [], []),
        ("too many bytes", LimitExceeded, [append(lease, 1, big)], [], []),
    ]


@pytest.mark.parametrize(("error", "appends", "outbox", "keys"), [pytest.param(*case[1:], id=case[0]) for case in _broken_flushes()])
async def test_a_flush_that_breaks_a_rule_is_refused_and_changes_nothing(
    journal: Journal, error: type[EsplanadeError], appends: Sequence[Append], outbox: Sequence[OutboxEntry], keys: Sequence[StoredReply]
) -> None:
    await lease_of(journal)
    with pytest.raises(error):
        await journal.flush(appends, outbox, keys)
    assert await journal.heads(7) == {}
    assert await journal.place("demo", "topic") == (1, 0)


@pytest.mark.parametrize(("partitions", "ttl_ms"), [([-1], 1_000), ([PARTITIONS], 1_000), ([1, 1], 1_000), ([1], 0), ([1], MAX_TTL_MS + 1)])
async def test_a_lease_out_of_bounds_is_refused(journal: Journal, partitions: list[int], ttl_ms: int) -> None:
    with pytest.raises(InvalidInput):
        await journal.acquire(partitions, "a", ttl_ms=ttl_ms)
    assert await journal.leases() == []


# --- the outbox ---------------------------------------------------------------------------------------------------------


async def test_offsets_of_a_topic_count_from_1_without_gaps(journal: Journal) -> None:
    lease = await lease_of(journal)
    first = await journal.flush([append(lease, 1)], [OutboxEntry("demo", "t", b"1"), OutboxEntry("demo", "u", b"2"), OutboxEntry("demo", "t", b"3")])
    second = await journal.flush([append(lease, 2)], [OutboxEntry("demo", "t", b"4"), OutboxEntry("other", "t", b"5")])
    places = [(entry.tenant, entry.topic, entry.epoch, entry.offset, entry.body) for entry in first + second]
    assert places == [
        ("demo", "t", 1, 1, b"1"), ("demo", "u", 1, 1, b"2"), ("demo", "t", 1, 2, b"3"), ("demo", "t", 1, 3, b"4"), ("other", "t", 1, 1, b"5"),
    ]  # fmt: skip
    assert [(entry.offset, entry.body) for entry in await journal.published("demo", "t", epoch=1, after=0)] == [(1, b"1"), (2, b"3"), (3, b"4")]
    assert [entry.offset for entry in await journal.published("demo", "t", epoch=1, after=1, limit=1)] == [2]
    assert await journal.published("demo", "t", epoch=1, after=3) == []
    assert await journal.place("demo", "t") == (1, 3)


async def test_a_failed_flush_leaves_no_gap_in_the_offsets(journal: Journal) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)], [OutboxEntry("demo", "t", b"1")])
    with pytest.raises(Fenced):
        await journal.flush([append(lease, 9)], [OutboxEntry("demo", "t", b"lost")])
    assert [entry.offset for entry in await journal.flush([append(lease, 2)], [OutboxEntry("demo", "t", b"2")])] == [2]


async def test_many_owners_who_publish_on_the_same_topics_get_gapless_offsets(open_journal: Opener) -> None:
    """Topics are named in opposite orders, which would deadlock if locks were taken as they come."""

    async def publish(partition: int) -> list[tuple[str, int]]:
        journal = await open_journal()
        lease = await lease_of(journal, partition, owner=str(partition))
        topics = ["x", "y", "z"] if partition % 2 else ["z", "y", "x"]
        places = []
        for position in range(1, 21):
            published = await journal.flush([append(lease, position)], [OutboxEntry("demo", topic, b"%d" % partition) for topic in topics])
            places += [(entry.topic, entry.offset) for entry in published]
        return places

    got = [place for places in await asyncio.gather(*(publish(partition) for partition in range(4))) for place in places]
    assert sorted(got) == [(topic, offset) for topic in "xyz" for offset in range(1, 81)]


async def test_a_topic_never_used_is_at_the_beginning(journal: Journal) -> None:
    assert await journal.place("demo", "new") == (1, 0)
    assert await journal.published("demo", "new", epoch=1, after=0) == []


async def test_offsets_that_were_trimmed_can_no_longer_be_read(journal: Journal) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)], [OutboxEntry("demo", "t", b"1"), OutboxEntry("demo", "t", b"2")])
    assert await journal.trim_outbox(older_than_ms=3_600_000) == 0
    assert await journal.trim_outbox(older_than_ms=0) == 2
    await journal.flush([append(lease, 2)], [OutboxEntry("demo", "t", b"3")])
    for after in (0, 1):
        with pytest.raises(NotFound, match="begin anew"):
            await journal.published("demo", "t", epoch=1, after=after)
    assert [entry.offset for entry in await journal.published("demo", "t", epoch=1, after=2)] == [3]


@pytest.mark.parametrize(("epoch", "after"), [(2, 0), (0, 0), (1, 2), (1, -1)])
async def test_a_place_that_is_not_of_the_topics_history_is_not_found(journal: Journal, epoch: int, after: int) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)], [OutboxEntry("demo", "t", b"1")])
    with pytest.raises(NotFound):
        await journal.published("demo", "t", epoch=epoch, after=after)


async def test_a_limit_out_of_bounds_is_refused(journal: Journal) -> None:
    for limit in (0, 10_001):
        with pytest.raises(InvalidInput):
            await journal.published("demo", "t", epoch=1, after=0, limit=limit)


# --- idempotency keys ---------------------------------------------------------------------------------------------------


async def test_a_recorded_reply_is_found_by_its_tenant_and_key(journal: Journal) -> None:
    lease = await lease_of(journal)
    kept = reply(b"k" * 16)
    await journal.flush([append(lease, 1)], (), [kept])
    assert await journal.reply_of("demo", b"k" * 16) == kept
    assert await journal.reply_of("other", b"k" * 16) is None
    assert await journal.reply_of("demo", b"j" * 16) is None


async def test_a_key_recorded_by_one_owner_stops_the_flush_of_another(open_journal: Opener) -> None:
    a, b = await open_journal(), await open_journal()
    seven, eight = await lease_of(a, 7, "a"), await lease_of(b, 8, "b")
    kept = reply(b"k" * 16, body=b"first")
    await a.flush([append(seven, 1)], (), [kept])
    with pytest.raises(Conflict, match=(b"k" * 16).hex()):
        await b.flush([append(eight, 1)], [OutboxEntry("demo", "t", b"x")], [reply(b"n" * 16), reply(b"k" * 16, body=b"second")])
    assert await b.heads(8) == {}
    assert await b.place("demo", "t") == (1, 0)
    assert await b.reply_of("demo", b"n" * 16) is None
    assert await b.reply_of("demo", b"k" * 16) == kept


async def test_of_owners_who_use_one_key_at_the_same_time_one_succeeds(open_journal: Opener) -> None:
    async def use(partition: int) -> bool:
        journal = await open_journal()
        lease = await lease_of(journal, partition, owner=str(partition))
        try:
            await journal.flush([append(lease, 1)], (), [reply(b"k" * 16, body=b"%d" % partition)])
        except Conflict:
            return False
        return True

    outcomes = await asyncio.gather(*(use(partition) for partition in range(5)))
    assert sorted(outcomes) == [False] * 4 + [True]
    kept = await (await open_journal()).reply_of("demo", b"k" * 16)
    assert kept is not None
    assert kept.reply == b"%d" % outcomes.index(True)


async def test_an_expired_key_is_forgotten_and_may_be_used_again(journal: Journal) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)], (), [reply(b"k" * 16, ttl_ms=-1_000)])
    assert await journal.reply_of("demo", b"k" * 16) is None
    again = reply(b"k" * 16, body=b"again")
    await journal.flush([append(lease, 2)], (), [again])
    assert await journal.reply_of("demo", b"k" * 16) == again


async def test_expired_keys_are_dropped_and_others_kept(journal: Journal) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)], (), [reply(b"a" * 16, ttl_ms=-1_000), reply(b"b" * 16)])
    assert await journal.drop_expired_keys() == 1
    assert await journal.drop_expired_keys() == 0
    assert await journal.reply_of("demo", b"b" * 16) is not None


# --- snapshots ----------------------------------------------------------------------------------------------------------


async def test_the_newest_snapshot_is_kept_whatever_the_order_of_writing(journal: Journal) -> None:
    lease = await lease_of(journal)
    for position in (1, 2, 3):
        await journal.flush([append(lease, position)])
    assert await journal.snapshot("demo", 7) is None
    for position in (2, 3, 1):
        await journal.put_snapshot(Snapshot("demo", 7, position, b"state %d" % position))
    assert await journal.snapshot("demo", 7) == Snapshot("demo", 7, 3, b"state 3")
    assert await journal.snapshot("other", 7) is None
    assert await journal.snapshot("demo", 8) is None


@pytest.mark.parametrize("position", [0, 2])
async def test_a_snapshot_of_what_is_not_durable_is_refused(journal: Journal, position: int) -> None:
    lease = await lease_of(journal)
    await journal.flush([append(lease, 1)])
    with pytest.raises(InvalidInput, match="durable"):
        await journal.put_snapshot(Snapshot("demo", 7, position, b"state"))
    assert await journal.snapshot("demo", 7) is None


async def test_a_closed_journal_says_so_and_may_be_closed_again(open_journal: Opener) -> None:
    journal = await open_journal()
    await journal.close()
    await journal.close()
    with pytest.raises(EsplanadeError) as refused:
        await journal.leases()
    assert refused.value.code == "unavailable"

"""Reminders: never early, never lost, one effect each, whatever fails and whoever dies; what was missed while nobody was there is made up for once, with its count."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from actors import ledger_codes as c
from actors.behaviour import Context, Decision, not_understood
from actors.entity import Entity
from actors.events import EventBody, QrScanned, ReminderFired, ReminderSet, decode_event
from actors.messages import Balance, Command, Done, GetBalance, Rejected, Remind, ScanQr, TopUps, Transfers
from actors.partition_log import BEHAVIOURS
from actors.reminders import MAX_REMINDERS, DropReminder, Reminder
from actors.shard import Shard, ShardSettings
from esplanade.core.errors import EsplanadeError, Fault
from esplanade.core.ids import Address
from tests.actors.parkside import keys, u4
from tests.actors.stage import Stage, stage

BELL = Address("bell", "demo", "1")
LEDGER = Address("ledger", "demo", "0")


class Bell:
    """Sets what it is told (`location`: '<verb> <name> <due> [<period>]') and journals each ringing. Of no product; a plain behaviour for these tests."""

    def initial(self) -> dict[str, int]:
        return {}

    def venue_of(self, address: Address, command: Command) -> str | None:
        return None

    def decide(self, state: dict[str, int], command: Command, context: Context) -> Decision | Rejected:
        match command:
            case ScanQr():
                verb, name, *rest = command.location.split()
                if verb == "drop":
                    return Decision((), Done(), reminders=(DropReminder(name),))
                due_ms, period_ms = int(rest[0]), int(rest[1]) if len(rest) > 1 else 0
                return Decision((), Done(), reminders=(Reminder(name, due_ms, b"payload", period_ms, keep=verb == "keep"),))
            case Remind(payload=b"payload"):
                return Decision((QrScanned("rang", f"{command.name} {command.due_ms} {command.count} {command.now_ms}"),), Done())
            case _:
                return not_understood(command, context)

    def apply(self, state: dict[str, int], event: EventBody) -> dict[str, int]:
        if not isinstance(event, QrScanned):
            raise Fault(f"a bell has no event {type(event).__name__}")
        name, _, count, _ = event.location.split()
        state[name] = state.get(name, 0) + int(count)
        return state

    def save(self, state: dict[str, int]) -> bytes:
        return repr(sorted(state.items())).encode()

    def load(self, data: bytes) -> dict[str, int]:
        return dict(eval(data.decode()))  # noqa: S307


def with_bells(at: Stage) -> None:
    """Bells ring in this stage's shards, those of restarts too."""
    make: Callable[[int], Shard] = at._make

    def made(index: int) -> Shard:
        shard = make(index)
        shard._behaviours = {**BEHAVIOURS, "bell": Bell()}
        return shard

    at._make = made  # type: ignore[method-assign]
    for shard in at.system.shards:
        shard._behaviours = {**BEHAVIOURS, "bell": Bell()}


async def tell(at: Stage, words: str) -> None:
    assert await at.system.ask(BELL, ScanQr(venue="v", location=words)) == Done()


def rung(at: Stage) -> list[tuple[str, int, int, int]]:
    """(name, due, count, when) of every ringing in the journal."""
    bodies = [decode_event(event.type, event.body) for log in at.store.logs.values() for segment in log for event in segment.events]
    found = [body.location.split() for body in bodies if isinstance(body, QrScanned) and body.venue == "rang"]
    return [(name, int(due), int(count), int(when)) for name, due, count, when in found]


async def test_a_reminder_rings_once_at_its_time_and_not_before() -> None:
    async with stage() as at:
        with_bells(at)
        due = at.clock.unix_ms() + 500
        await tell(at, f"set tea {due}")
        await at.poll(0.4)
        assert rung(at) == []
        await at.poll(0.1)
        await at.poll(1.0)
        assert rung(at) == [("tea", due, 1, due)]
        assert at.system.shards[0].profile().reminders == 1


async def test_one_that_was_dropped_moved_or_kept_rings_as_it_was_left() -> None:
    async with stage() as at:
        with_bells(at)
        now = at.clock.unix_ms()
        await tell(at, f"set tea {now + 100}")
        await tell(at, "drop tea")
        await tell(at, "drop never-set")
        await tell(at, f"set egg {now + 100}")
        await tell(at, f"set egg {now + 300}")
        await tell(at, f"set cake {now + 100}")
        await tell(at, f"keep cake {now + 900}")
        for _ in range(4):
            await at.poll(0.1)
        assert [(name, due - now) for name, due, _, _ in rung(at)] == [("cake", 100), ("egg", 300)]


async def test_missed_rings_are_made_up_for_once_with_their_count_though_nobody_asks() -> None:
    async with stage() as at:
        with_bells(at)
        now = at.clock.unix_ms()
        await tell(at, f"set hourly {now + 1000} 1000")
        await tell(at, f"set once {now + 1500}")
        await at.poll(1.0)
        at.clock.advance(9.7)
        await at.restart()
        await at.system.shards[0].reopened()
        for _ in range(2):
            await at.poll(0.1)
        assert [(name, due - now, count) for name, due, count, _ in rung(at)] == [("hourly", 1000, 1), ("once", 1500, 1), ("hourly", 2000, 9)]
        await at.poll(0.4)
        assert rung(at)[-1][1:3] == (now + 11000, 1)


async def test_a_ring_whose_flush_failed_rings_again_and_its_effect_is_there_once() -> None:
    for where in ("before_commit", "after_commit"):
        async with stage() as at:
            with_bells(at)
            due = at.clock.unix_ms() + 100
            await tell(at, f"set tea {due}")
            at.journals[0].fail_next_flush(where)  # type: ignore[arg-type]
            for _ in range(20):
                await at.poll(0.1)
                await at.system.shards[0].renew()
            assert [ring[:3] for ring in rung(at)] == [("tea", due, 1)], where


async def test_a_log_that_has_left_memory_comes_back_for_its_reminder() -> None:
    async with stage(settings=ShardSettings(passivate_s=5.0)) as at:
        with_bells(at)
        due = at.clock.unix_ms() + 20_000
        await tell(at, f"set tea {due}")
        for _ in range(4):
            await at.system.shards[0].renew()
            await at.poll(4.0)
        assert at.system.shards[0].profile().passivations == 1
        assert at.system.shards[0].profile().logs == 0
        for _ in range(3):
            await at.system.shards[0].renew()
            await at.poll(2.1)
        assert [ring[0] for ring in rung(at)] == ["tea"]


async def test_a_takeover_that_fails_half_way_and_a_snapshot_keep_reminders() -> None:
    """Snapshots every second segment; set in one owner's time, rung in the third's."""
    async with stage(settings=ShardSettings(snapshot_segments=2)) as at:
        with_bells(at)
        due = at.clock.unix_ms() + 5000
        for i in range(9):
            await tell(at, f"set bell-{i} {due + i}")
        for _ in range(2):
            await at.restart()
            await at.system.shards[0].reopened()
            await at.poll(0.1)
        await at.poll(5.0)
        assert sorted(ring[0] for ring in rung(at)) == [f"bell-{i}" for i in range(9)]


@pytest.mark.parametrize("seed", range(5))
async def test_in_a_world_of_failures_every_reminder_rings_exactly_once_and_never_early(seed: int) -> None:
    chance = random.Random(seed)
    async with stage(shards=2, settings=ShardSettings(snapshot_segments=4, passivate_s=3.0)) as at:
        with_bells(at)
        wanted: dict[str, int] = {}
        began = at.clock.unix_ms()
        period = 700
        await at.system.ask(Address("bell", "demo", "9"), ScanQr(venue="v", location=f"keep beat {began + period} {period}"))
        for step in range(150):
            at.clock.advance(chance.random() * 0.3)
            roll = chance.random()
            if roll < 0.04:
                await at.restart(chance.randrange(2))
            elif roll < 0.14:
                at.journals[chance.randrange(2)].fail_next_flush(chance.choice(["before_commit", "after_commit"]))
            for shard in at.system.shards:
                await shard.renew()
            if step < 100 and chance.random() < 0.5:
                name, due = f"r{step}", at.clock.unix_ms() + chance.randrange(-50, 3000)
                bell = Address("bell", "demo", str(chance.randrange(6)))
                try:
                    assert await at.system.ask(bell, ScanQr(venue="v", location=f"set {name} {due}")) == Done()
                except EsplanadeError:
                    continue  # not acknowledged: it may ring or not
                wanted[name] = due
            await at.poll(chance.random() * 0.1)
        for _ in range(60):
            for shard in at.system.shards:
                await shard.renew()
            await at.poll(0.2)
        rings = rung(at)
        times = Counter(name for name, *_ in rings if name != "beat")
        assert set(times.values()) <= {1}, f"seed {seed}: rung twice: {[name for name, n in times.items() if n > 1]}"
        assert not set(wanted) - set(times), f"seed {seed}: never rung"
        assert all(when >= due for _, due, _, when in rings), f"seed {seed}: rung early"
        beats = [(due, count) for name, due, count, _ in rings if name == "beat"]
        assert beats[0][0] == began + period
        assert all(later == earlier + count * period for (earlier, count), (later, _) in itertools.pairwise(beats)), f"seed {seed}: a beat lost"


def test_limits_are_kept() -> None:
    entity = Entity(BELL, Bell())
    for i in range(MAX_REMINDERS):
        entity.turn(ScanQr(venue="v", location=f"set r{i} 5"), None, entity.context)
    with pytest.raises(Fault, match="at most 64"):
        entity.turn(ScanQr(venue="v", location="set more 5"), None, entity.context)


# --- holds of the ledger ----------------------------------------------------------------------------------------------


def hold(key: int, amount: int, expires: int, now: int) -> Transfers:
    def i8(value: int) -> bytes:
        return np.array([value], "<i8").tobytes()

    return Transfers(
        currency="EUR", now=now, op=bytes([c.OP_HOLD]), key=keys(key), debit=i8(c.WALLET << 60 | 8), credit=i8(c.OUTSIDE << 60), amount=i8(amount),
        expires=i8(expires),
    )  # fmt: skip


async def test_a_hold_expires_by_itself_through_a_restart_without_another_batch() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, TopUps(tick=0, key=keys(1), subject=u4(8), amount=u4(100), currency="EUR"))
        now = at.clock.unix_ms()
        for key, after_ms in ((2, 5000), (3, 2000), (4, 60_000)):
            await at.system.ask(LEDGER, hold(key, 10, now + after_ms, now))

        async def balance() -> Balance:
            reply = await at.system.ask(LEDGER, GetBalance(subject=8))
            assert isinstance(reply, Balance)
            return reply

        assert await balance() == Balance(balances={"EUR": 70}, held={"EUR": 30})
        await at.poll(2.0)
        assert await balance() == Balance(balances={"EUR": 80}, held={"EUR": 20})
        at.clock.advance(4.0)
        await at.restart()
        await at.system.shards[0].reopened()
        for _ in range(2):
            await at.poll(0.1)
        assert await balance() == Balance(balances={"EUR": 90}, held={"EUR": 10})
        set_for = [
            body.due_ms - now for log in at.store.logs.values() for segment in log for event in segment.events
            if isinstance(body := decode_event(event.type, event.body), ReminderSet)
        ]  # fmt: skip
        assert set_for == [5000, 2000, 5000, 60_000], "the next expiry, each time it changes"


async def test_a_hold_that_was_posted_leaves_a_reminder_that_does_nothing() -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, TopUps(tick=0, key=keys(1), subject=u4(8), amount=u4(100), currency="EUR"))
        now = at.clock.unix_ms()
        await at.system.ask(LEDGER, hold(2, 10, now + 1000, now))
        post = Transfers(
            currency="EUR", now=now, op=bytes([c.OP_POST]), key=keys(3), debit=bytes(8), credit=bytes(8), amount=bytes(8), reference=keys(2)
        )
        await at.system.ask(LEDGER, post)
        await at.poll(1.0)
        assert await at.system.ask(LEDGER, GetBalance(subject=8)) == Balance(balances={"EUR": 90})
        kinds = [decode_event(event.type, event.body) for log in at.store.logs.values() for segment in log for event in segment.events]
        assert sum(isinstance(body, ReminderFired) for body in kinds) == 1

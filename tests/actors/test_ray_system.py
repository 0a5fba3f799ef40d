"""The system on real Ray, PostgreSQL and Redis: a shard is killed under payments, and a venue under its source."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import psutil
import psycopg
import pytest

from actors.directory import Directory, shard_name
from actors.messages import LEDGERS, Balance, Books, GetBalance, GetBooks, GetZone, Payments, Reply, Settled, TopUps, ZoneState
from actors.meter import Histogram
from actors.ray_leftovers import is_alive, reclaim
from actors.ray_system import SPACING_S, ProcessHandle, RayNode, RaySystem, spawn, start_ray
from actors.requests import Ask, Refused
from actors.supervisor import Supervisor, SupervisorSettings
from actors.topics import Body, Publication, Rewind, TickClosed, channel
from esplanade.core.clock import RealClock
from esplanade.core.errors import EsplanadeError, NotFound, Unavailable
from esplanade.core.ids import PARTITIONS, Address, partition_of
from esplanade.service_config import ServiceConfig
from esplanade.storage.broker import Subscription
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.redis import RedisBroker
from simulation.phones import Air, AirSettings, Phones, PhoneSettings, survey
from spatial.positioning.model import save_model
from spatial.positioning.observed import State
from tests.actors.parkside import document, keys, rows, u2, u4, venue
from tests.services_fixtures import database_url

pytestmark = pytest.mark.services

SHARDS = 2
SPARES = 1
DECODE = msgspec.msgpack.Decoder(Publication).decode
DECODE_BODY: Callable[[bytes], Body] = msgspec.msgpack.Decoder(Body).decode


@pytest.fixture(scope="module")
def urls(postgres_server_url: str, redis_url: str) -> Iterator[tuple[str, str]]:
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE actors")
        migrate(database_url(postgres_server_url, "actors"))
        yield database_url(postgres_server_url, "actors"), redis_url
        connection.execute("DROP DATABASE actors WITH (FORCE)")


@dataclass
class Cluster:
    node: RayNode
    shards: list[ProcessHandle]
    supervisor: Supervisor | None = None


@pytest.fixture(scope="module")
def cluster(urls: tuple[str, str]) -> Iterator[Cluster]:
    node = start_ray(processes=SHARDS + SPARES)
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=SHARDS, spares=SPARES, host="127.0.0.1", gateway_port=0, api_port=0, local_sign_in=False,
        allowed_origins=(), console=None, max_connections=1, lease_ttl_s=5.0, tick_deadline_s=10.0,
    )  # fmt: skip
    try:
        yield Cluster(node, [spawn("esplanade.shard_process:ShardProcess", shard_name(i), config, i) for i in range(SHARDS + SPARES)])
        pids = node.pids()
        family = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        listening = [c.laddr for pid in pids for c in psutil.Process(pid).net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        assert listening
        assert all(address.ip.removeprefix("::ffff:") == "127.0.0.1" for address in listening), "Ray listens on loopback only"
    finally:
        node.stop()
    assert not [process for process in family if is_alive(process)], "no process of Ray outlives its node"


@pytest.fixture
async def system(cluster: Cluster, urls: tuple[str, str]) -> AsyncIterator[RaySystem]:
    """Follows the directory; a supervisor sees to it that every partition has an owner."""
    catalogue = await PostgresCatalogue.open(urls[0])
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    await catalogue.close()
    journal, broker = await PostgresJournal.open(urls[0]), await RedisBroker.open(urls[1])
    cluster.supervisor = Supervisor(
        list(cluster.shards), Directory(), journal, RealClock(), SupervisorSettings(wanted=SHARDS, spares=SPARES, lease_ttl_s=5.0)
    )  # fmt: skip
    await cluster.supervisor.start()
    made = RaySystem()
    await made.follow(journal, broker)
    yield made
    await made.stop()
    await cluster.supervisor.stop()
    await journal.close()
    await broker.close()


def owner_of(system: RaySystem, cluster: Cluster, address: Address) -> ProcessHandle:
    name = system.directory.owner_of(partition_of(address))
    return next(shard for shard in cluster.shards if shard.name == name)


async def replaced(shard: ProcessHandle, pid: int) -> None:
    """Returns when another process has taken the actor's place."""
    while True:
        try:
            if await shard.pid() != pid:
                return
        except Unavailable:
            pass
        await asyncio.sleep(0.05)


async def asked_together(system: RaySystem) -> None:
    """Zones and balances of both shards, asked in blocks (one a partition): each is answered once, and by what it asked for."""
    asks = [(Address("zone", "demo", ("parkside:front", "parkside:shop-00")[i % 2]), GetZone()) for i in range(64)]
    asks += [(Address("ledger", "demo", str(subject % LEDGERS)), GetBalance(subject=subject)) for subject in range(64)]
    found: dict[int, Reply | EsplanadeError] = {}
    all_told = asyncio.Event()

    def told(places: Sequence[int], outcomes: Sequence[Reply | EsplanadeError]) -> None:
        for place, outcome in zip(places, outcomes, strict=True):
            assert place not in found
            found[place] = outcome
        if len(found) == len(asks):
            all_told.set()

    system.ask_each_soon(asks, told, deadline_s=60)
    await all_told.wait()
    assert [type(found[place]) for place in range(len(asks))] == [ZoneState] * 64 + [Balance] * 64


async def test_a_shard_killed_under_payments_loses_nothing_acked_and_doubles_nothing_and_every_read_is_answered(
    system: RaySystem, cluster: Cluster
) -> None:
    async def books() -> list[Books]:
        found = [await system.ask(Address("ledger", "demo", str(i)), GetBooks(), deadline_s=60) for i in range(LEDGERS)]
        return [book for book in found if isinstance(book, Books)]

    subjects = list(range(64))
    for subject in subjects:
        top = TopUps(tick=0, key=keys(10**6 + subject), subject=u4(subject), amount=u4(10_000), currency="EUR")
        await system.ask(Address("ledger", "demo", str(subject % LEDGERS)), top, deadline_s=60)

    shard = owner_of(system, cluster, Address("ledger", "demo", "0"))
    pid = await shard.pid()
    acked: list[int] = []
    enough, killed = asyncio.Event(), asyncio.Event()

    async def shopper(subject: int) -> None:
        """Pays one cent at a time, each with a key of its own, retried until it is acked, until well after the kill."""
        ledger = Address("ledger", "demo", str(subject % LEDGERS))
        after = 0
        for i in range(2000):
            number = subject * 10_000 + i
            payment = Payments(tick=i, venue="parkside", key=keys(number), subject=u4(subject), unit=u2(0), amount=u4(1), currency="EUR")
            reply = await system.ask(ledger, payment, deadline_s=60)
            assert isinstance(reply, Settled)
            assert reply.result == b"\0"
            acked.append(number)
            if len(acked) == 500:
                enough.set()
            after += killed.is_set()
            if after >= 20:
                return

    async def killer() -> None:
        await enough.wait()
        reads = [asyncio.create_task(asked_together(system)) for _ in range(20)]
        await asyncio.sleep(0)  # they are queued, and the first are on their way
        os.kill(pid, signal.SIGKILL)
        killed.set()
        await asyncio.gather(replaced(shard, pid), *reads)

    await asyncio.gather(killer(), *(shopper(subject) for subject in subjects))
    assert await shard.pid() != pid
    await shard.started()
    totals = await books()
    assert sum(book.tills["EUR"] for book in totals) == len(acked) == sum(book.payments for book in totals)
    assert [book.total["EUR"] for book in totals] == [0] * LEDGERS
    profiles = await system.profile()
    assert [profile["shard"] for profile in profiles] == ["shard-0", "shard-1", "shard-2"]
    assert sum(int(str(profile["partitions"])) for profile in profiles) == PARTITIONS
    assert owner_of(system, cluster, Address("ledger", "demo", "0")) is not shard, "the spare owns what it owned; the restarted process stands by"


async def test_a_position_host_killed_rewinds_its_source_and_nobody_enters_twice(system: RaySystem, cluster: Cluster, urls: tuple[str, str]) -> None:
    owner = owner_of(system, cluster, Address("positions", "demo", "parkside"))
    async with AsyncExitStack() as stack:
        broker = await RedisBroker.open(urls[1])
        stack.push_async_callback(broker.close)
        clock = await broker.subscribe()
        stack.push_async_callback(clock.close)
        await clock.add([channel("demo", "venue/parkside/clock")])

        async def hear(subscription: Subscription) -> AsyncIterator[Body]:
            async for _, message in subscription:
                yield DECODE_BODY(DECODE(message).body)

        await system.open_source("demo", "parkside", "sim", first_tick=0)

        async def send(tick: int) -> None:
            await system.take("demo", "parkside", rows((5, 0, 7.0, 19.0)), source="sim", tick=tick)
            await system.watermark("demo", "parkside", "sim", tick=tick, rows=1)

        for tick in range(75):
            await send(tick)
        heard = hear(clock)
        async for body in heard:
            if isinstance(body, TickClosed) and body.tick == 74:
                break
        pid = await owner.pid()
        os.kill(pid, signal.SIGKILL)
        async for body in heard:
            if isinstance(body, Rewind):
                break
        assert isinstance(body, Rewind)
        assert body.tick == 50
        for tick in range(body.tick + 1, 90):
            await send(tick)
        async for body in heard:
            if isinstance(body, TickClosed) and body.tick == 89:
                break
        zone = await system.ask(Address("zone", "demo", "parkside:front"), GetZone(), deadline_s=30)
        assert isinstance(zone, ZoneState)
        assert (zone.inside, zone.entries) == (1, 1)


async def test_an_error_keeps_its_class_across_processes(system: RaySystem) -> None:
    with pytest.raises(NotFound):
        await system.clock("demo", "nowhere")


async def test_callers_that_share_calls_get_their_own_answers_in_their_order(system: RaySystem) -> None:
    """Frames of six callers at once to both shards, more than share a call; what an unknown kind is refused with names its address."""
    wanted = [[Address("nothing", "demo", f"{caller}-{i}") for i in range(40)] for caller in range(6)]
    command = GetBooks()
    asked = [system.request_many([Ask(address, command) for address in addresses], deadline_s=30) for addresses in wanted]
    for addresses, answers in zip(wanted, await asyncio.gather(*asked), strict=True):
        for address, answer in zip(addresses, answers, strict=True):
            assert isinstance(answer, Refused)
            assert (answer.code, answer.message.partition(": ")[0]) == ("not_found", str(address))


async def test_reads_that_come_one_by_one_share_frames_and_one_alone_goes_at_once(system: RaySystem) -> None:
    """A frame for each kept both processes busy with Ray's calls, and everybody waited for that."""
    n = 200
    zone, done = Address("zone", "demo", "parkside:front"), asyncio.Event()
    outcomes: list[Reply | EsplanadeError] = []

    def told(outcome: Reply | EsplanadeError) -> None:
        outcomes.append(outcome)
        if len(outcomes) == n:
            done.set()

    async def frames() -> int:
        return sum(msgspec.convert(each["answer_time"], Histogram).total for each in await system.profile())

    await system.ask(zone, GetZone(), deadline_s=30)
    before, began_s = await frames(), asyncio.get_running_loop().time()
    for _ in range(n):
        system.ask_soon(zone, GetZone(), told, deadline_s=30)
        await asyncio.sleep(0.001)
    await done.wait()
    took_s = asyncio.get_running_loop().time() - began_s
    assert [type(outcome) for outcome in outcomes] == [ZoneState] * n
    assert await frames() - before <= min(n - 1, took_s / SPACING_S + 2)


async def test_phones_are_located_by_the_shard_that_hosts_their_venue_and_again_after_its_death(
    system: RaySystem, cluster: Cluster, urls: tuple[str, str], tmp_path: Path
) -> None:
    air = Air(venue(), seed=3, settings=AirSettings(wifi_m=9.0, ble_m=8.0))
    save_model(survey(air, seed=3, spacing_m=3.0), tmp_path / "map.npz")
    catalogue = await PostgresCatalogue.open(urls[0])
    try:
        await catalogue.put_venue("demo", document(venue_id="radio"))
        with pytest.raises(NotFound, match="no radio map"):
            await system.locate("demo", "radio", Phones(air, 3).observed([]))
        assert (await catalogue.put_radio_map("demo", "radio", (tmp_path / "map.npz").read_bytes())).version == 1
    finally:
        await catalogue.close()
    phones, second = Phones(air, 3, PhoneSettings(lost=0.0, delay_s=0.0)), 0
    crowd = rows(*((subject, 0, 4.0 + subject % 30, 12.0) for subject in range(1200)))

    async def until_located(after: int) -> int:
        """Seconds of everybody standing there until nearly all have a dot."""
        nonlocal second
        async with asyncio.timeout(120):
            while True:
                second += 1
                with contextlib.suppress(
                    NotFound, Unavailable
                ):  # the map is looked for every few seconds, and the spare takes its time on a busy machine
                    answers, version = await system.locate("demo", "radio", phones.observed(phones.sense(float(second), crowd)))
                    assert version == 1
                    if second > after and (answers.state == State.LOCATED).mean() > 0.95:
                        off = np.hypot(answers.xy_m[:, 0] - crowd.x_m, answers.xy_m[:, 1] - crowd.y_m)
                        assert np.nanmedian(off) < 4
                        return second
                await asyncio.sleep(0.1)

    await until_located(2)
    owner = owner_of(system, cluster, Address("positions", "demo", "radio"))
    profile = next(each for each in await system.profile() if each["shard"] == owner.name)
    assert profile["phones"] == 1200
    os.kill(await owner.pid(), signal.SIGKILL)
    await until_located(second + 2)


async def test_a_hung_shard_loses_its_partitions_and_its_late_answers_change_nothing(system: RaySystem, cluster: Cluster) -> None:
    ledger = Address("ledger", "demo", "5")
    top = TopUps(tick=0, key=keys(77), subject=u4(5), amount=u4(50), currency="USD")
    assert isinstance(await system.ask(ledger, top, deadline_s=30), Settled)
    shard = owner_of(system, cluster, ledger)
    pid = await shard.pid()
    os.kill(pid, signal.SIGSTOP)
    pay = Payments(tick=1, venue="parkside", key=keys(78), subject=u4(5), unit=u2(0), amount=u4(20), currency="USD")
    reply = await system.ask(ledger, pay, deadline_s=60)
    assert isinstance(reply, Settled)
    assert reply.result == b"\0"
    assert owner_of(system, cluster, ledger) is not shard
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)
    books = await system.ask(ledger, GetBooks(), deadline_s=30)
    assert isinstance(books, Books)
    assert books.wallets["USD"] == 30


async def test_draining_a_shard_moves_only_its_share_while_payments_go_on(system: RaySystem, cluster: Cluster) -> None:
    assert cluster.supervisor is not None
    await cluster.supervisor.settled()
    before = {partition: system.directory.owner_of(partition) for partition in range(PARTITIONS)}
    drained = owner_of(system, cluster, Address("ledger", "demo", "1")).name
    ending = False

    async def shopper(subject: int) -> int:
        paid = 0
        while not ending:
            payment = Payments(
                tick=0, venue="parkside", key=keys(10**7 + subject * 10**5 + paid), subject=u4(subject), unit=u2(0), amount=u4(1), currency="GBP"
            )  # fmt: skip
            reply = await system.ask(Address("ledger", "demo", str(subject % LEDGERS)), payment, deadline_s=30)
            assert isinstance(reply, Settled)
            assert reply.result == b"\0"
            paid += 1
        return paid

    for subject in range(LEDGERS):
        top = TopUps(tick=0, key=keys(10**8 + subject), subject=u4(subject), amount=u4(100_000), currency="GBP")
        await system.ask(Address("ledger", "demo", str(subject)), top, deadline_s=30)
    shoppers = [asyncio.create_task(shopper(subject)) for subject in range(LEDGERS)]
    cluster.supervisor.settings.leaving.add(drained)
    await cluster.supervisor.settled()
    ending = True
    paid = await asyncio.gather(*shoppers)
    cluster.supervisor.settings.leaving.clear()
    after = {partition: system.directory.owner_of(partition) for partition in range(PARTITIONS)}
    assert drained not in after.values()
    assert all(before[partition] == drained for partition in range(PARTITIONS) if before[partition] != after[partition])
    books = [await system.ask(Address("ledger", "demo", str(i)), GetBooks(), deadline_s=30) for i in range(LEDGERS)]
    assert sum(book.tills["GBP"] for book in books if isinstance(book, Books)) == sum(paid)


def test_what_a_killed_driver_left_behind_is_reclaimed_when_its_keeper_was_killed_too() -> None:
    code = (
        "import os, signal, psutil\n"
        "from actors.ray_system import start_ray\n"
        "node = start_ray(processes=1)\n"
        "print(node.folder, *node.pids(), flush=True)\n"
        "[child.kill() for child in psutil.Process().children() if child.name() == 'sh']\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    folder, *pids = killed.stdout.split()
    family = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
    assert Path(folder) in reclaim()
    assert not Path(folder).exists()
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left

"""A running mall for tests: shards on memory drivers and the real clock, tokens for everyone, and, where sockets are allowed, a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from actors.directory import partitions_of, shard_name
from actors.local_system import LocalSystem
from actors.localiser import Localiser
from actors.messages import CreateOffer, Payments, TopUps
from actors.shard import Shard
from actors.warm_up import warm_up
from esplanade.core.clock import RealClock
from esplanade.core.errors import Unavailable
from esplanade.core.ids import Address
from esplanade.storage.memory import MemoryAudit, MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore
from gateway.answers import Answers
from gateway.auth import Signer, Verifier
from gateway.client import Client
from gateway.permissions import Role
from gateway.server import GatewayServer, GatewaySettings
from spatial.columns import PositionColumns
from spatial.offers import Offer, Within
from tests.actors.parkside import document, keys, rows, u2, u4

VENUE = "parkside"
TILL = "shop-00"


class Mall:
    """tenant `demo` with the mall `parkside` and the festival `field`; tenant `other` with a mall `elsewhere`."""

    def __init__(self, *, shards: int = 2) -> None:
        self.clock = RealClock()
        self.store = MemoryStore(self.clock)
        self.catalogue = MemoryCatalogue(self.clock)
        self.broker = MemoryBroker(MemoryHub(self.clock))
        self.journal = MemoryJournal(self.store)
        self.system = LocalSystem([])
        self.count = shards
        self.signer = Signer(b"k" * 32)
        self.verifier = Verifier(self.signer.public_key)
        self.localiser: Localiser | None = None
        self.answers: Answers | None = None
        self.audit = MemoryAudit()
        """All three of gateways started from now on."""
        self.taken: list[tuple[str | None, int | None, PositionColumns]] = []
        self._starts = 0
        self._exits = AsyncExitStack()
        self._journals: dict[int, MemoryJournal] = {}

    def _shard(self, index: int) -> Shard:
        self._starts += 1
        self._journals[index] = MemoryJournal(self.store)
        return Shard(
            name=shard_name(index), owner=f"{shard_name(index)}#{self._starts}", partitions=partitions_of(index, self.count),
            journal=self._journals[index], catalogue=self.catalogue, broker=self.broker, clock=self.clock, secret=b"s" * 32,
        )  # fmt: skip

    async def start(self) -> None:
        await asyncio.to_thread(warm_up)  # as a shard's process does, before a turn needs a kernel
        await self.catalogue.add_tenant("demo", "Demo")
        await self.catalogue.add_tenant("other", "Other")
        await self.catalogue.put_venue("demo", document())
        await self.catalogue.put_venue("demo", document("festival", "field"))
        await self.catalogue.put_venue("other", document(venue_id="elsewhere"))
        for index in range(self.count):
            self.system.shards.append(self._shard(index))
            await self.system.shards[index].start()
        await self._warm()

    async def _warm(self) -> None:
        """Have the kernels compiled (once a machine, tens of seconds), by work of another tenant, so that no answer is late for it."""
        ledger = Address("ledger", "other", "1")
        top_up = TopUps(tick=1, key=keys(1), subject=u4(1), amount=u4(10), currency="EUR")
        pay = Payments(tick=1, venue="elsewhere", key=keys(2), subject=u4(1), unit=u2(0), amount=u4(10), currency="EUR")
        offer = Offer(id="warm", unit_id=TILL, title="Warm", audience=Within(radius_m=5.0))
        for address, command in ((ledger, top_up), (ledger, pay), (Address("mall", "other", "elsewhere"), CreateOffer(offer=offer))):
            await patiently(lambda address=address, command=command: self.system.ask(address, command))  # type: ignore[misc]
        topics = {"venue/elsewhere/dots/0": 10.0, "venue/elsewhere/density/0": 10.0}
        await patiently(lambda: self.system.watch("other", "elsewhere", topics))
        await patiently(lambda: self.system.take("other", "elsewhere", rows((1, 0, 7.0, 19.5)), source=None, tick=None))
        begun = (await patiently(lambda: self.system.clock("other", "elsewhere"))).tick
        while (await patiently(lambda: self.system.clock("other", "elsewhere"))).tick < begun + 2:
            await asyncio.sleep(0.02)

    async def kill(self, index: int) -> None:
        """A shard dies where it stands and another takes its place."""
        dead = self.system.shards[index]
        await self._journals[index].close()
        self.system.shards[index] = self._shard(index)
        await self.system.shards[index].start()
        await dead.stop()

    async def stop(self) -> None:
        await self._exits.aclose()
        for shard in self.system.shards:
            await shard.stop()

    def rows(self, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns) -> None:
        """The tee."""
        self.taken.append((source, tick, columns))

    def token(self, subject: int, role: Role = "shopper", *, tenant: str = "demo", source: str | None = None, ttl_s: float = 600) -> str:
        return self.signer.issue(subject, tenant, role, source, ttl_s, self.clock.unix_ms() / 1000)

    async def gateway(self, **settings: Any) -> tuple[GatewayServer, str]:
        """A gateway on a free port of loopback, and its address."""
        server = GatewayServer(
            self.system,
            self.journal,
            self.broker,
            self.catalogue,
            self.verifier,
            self.signer,
            self.clock,
            GatewaySettings(**settings),
            self,
            self.audit,
            self.clock.unix_ms().to_bytes(8, "big"),
            localiser=self.localiser,
            answers=self.answers,
        )
        port = await server.start()
        self._exits.push_async_callback(server.stop)
        return server, f"ws://127.0.0.1:{port}/v1/ws"

    async def client(
        self, url: str, subject: int, role: Role = "shopper", *, source: str | None = None, tenant: str = "demo", ttl_s: float = 600, **more: Any
    ) -> Client:
        """A client with a token, closed at the end."""
        more.setdefault("client", f"{role}-{subject}")
        client = await Client.connect(url, token=self.token(subject, role, source=source, tenant=tenant, ttl_s=ttl_s), **more)
        self._exits.push_async_callback(client.close)
        return client

    async def guest(self, url: str, **more: Any) -> Client:
        client = await Client.connect(url, guest_of="demo", client="guest", **more)
        self._exits.push_async_callback(client.close)
        return client


T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` answers; asked again while a compiler holds the loop and the answer comes too late."""
    async with asyncio.timeout(250):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def running_mall(*, shards: int = 2) -> AsyncIterator[Mall]:
    mall = Mall(shards=shards)
    await mall.start()
    try:
        yield mall
    finally:
        await mall.stop()


async def until(true: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)

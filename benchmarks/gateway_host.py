"""A gateway in a process of its own for benchmarks: every check on, a venue, journal and broker in memory. Used by `fanout` and `connections`."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec

from actors import topics as t
from actors.local_system import LocalSystem
from esplanade.core.clock import RealClock
from esplanade.storage.journal import Append, OutboxEntry
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore
from gateway.auth import Signer, Verifier
from gateway.server import GatewayServer, GatewaySettings
from gateway.tls import Certificate
from spatial.venue import Level, Origin, Venue

SEED: Final = b"k" * 32
"""Of the key that signs tokens, so that clients can make their own."""
TENANT: Final = "bench"


T = TypeVar("T")


def run_as_served(main: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop that Ray gives the processes of a service: uvloop's, where that is installed."""
    found = importlib.util.find_spec("uvloop") is not None
    with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop if found else None) as runner:
        return runner.run(main)


class GatewayHost:
    def __init__(self, venue: str, settings: GatewaySettings | None = None, certificate: Certificate | None = None) -> None:
        self._venue = venue
        self._certificate = certificate
        self._settings = settings or GatewaySettings(max_connections=20_000)

    async def start(self) -> int:
        """Listen; returns the port."""
        clock = RealClock()
        catalogue = MemoryCatalogue(clock)
        await catalogue.add_tenant(TENANT, "Bench")
        square = ((((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0)),),)
        level = Level(id="l0", ordinal=0, name="Ground", short_name="0", outline=square)
        venue = Venue(
            id=self._venue, name="V", kind="mall", origin=Origin(lat_deg=0, lon_deg=0), levels=(level,), units=(), openings=(), occupants=()
        )
        await catalogue.put_venue(TENANT, venue.model_dump_json().encode())
        self._journal = MemoryJournal(MemoryStore(clock))
        self._broker = MemoryBroker(MemoryHub(clock))
        [lease] = await self._journal.acquire([0], "bench", ttl_ms=3_600_000)
        self._epoch = lease.epoch
        signer = Signer(SEED)
        self.server = GatewayServer(
            LocalSystem([]), self._journal, self._broker, catalogue, Verifier(signer.public_key), signer, clock, self._settings, certificate=self._certificate
        )  # fmt: skip
        return await self.server.start()

    async def publish(self, topic: str, bodies: list[t.Body]) -> None:
        """Make publications of a durable topic durable, and publish them."""
        append = Append(TENANT, 0, self._epoch, (await self._journal.heads(0)).get(TENANT, 0) + 1, ())
        entries = await self._journal.flush([append], [OutboxEntry(TENANT, topic, msgspec.msgpack.encode(body)) for body in bodies])
        await self._broker.publish(
            [
                (t.channel(TENANT, topic), msgspec.msgpack.encode(t.Publication(topic, entry.epoch, entry.offset, msgspec.msgpack.encode(body))))
                for body, entry in zip(bodies, entries, strict=True)
            ]
        )

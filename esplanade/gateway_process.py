"""What runs in the process of a gateway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from actors.localiser import Localiser, Work
from actors.ray_system import RaySystem, run_task
from actors.system import FollowingSystem
from esplanade.core import tracing
from esplanade.core.clock import RealClock
from esplanade.identities import Identities
from esplanade.ports import taking_port
from esplanade.service_config import GC_YOUNG_DOOR, ServiceConfig, begin_logs, settle_collector
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.redis import RedisBroker
from gateway.auth import Verifier
from gateway.metrics import GatewayMetrics
from gateway.server import GatewayServer, GatewaySettings
from scenarios.recording_tee import RecordingTee


def hosted(config: ServiceConfig, index: int) -> GatewayProcess:
    """Factory, run inside the process."""
    return GatewayProcess(config, RaySystem(), index, run_task)


class GatewayProcess:
    """A gateway with the recordings that were asked for."""

    def __init__(self, config: ServiceConfig, system: FollowingSystem, index: int, work: Work | None = None) -> None:
        """`work` runs localisation; without it the gateway serves none."""
        self._config = config
        self._system = system
        self._index = index
        self._work = work
        self._closers: list[PostgresJournal | PostgresCatalogue | PostgresAudit | RedisBroker | Identities] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        config = self._config
        begin_logs(f"gateway-{self._index}", config)
        tracing.start(f"gateway-{self._index}", os.environ)
        journal = await PostgresJournal.open(config.postgres_url)
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        audit = await PostgresAudit.open(config.postgres_url)
        metrics = GatewayMetrics()
        identities = await Identities.open(config, catalogue, metrics)
        self._closers = [broker, identities, catalogue, journal, audit]
        await self._system.follow(journal, broker)
        self._tee = RecordingTee()
        self._server = GatewayServer(
            self._system,
            journal,
            broker,
            catalogue,
            Verifier(identities.keys.verifying()),
            identities.keys,
            RealClock(),
            GatewaySettings(
                process=f"gateway-{self._index}",
                allowed_origins=config.allowed_origins,
                max_connections=config.max_connections,
                guests=config.guests,
                per_address_min=config.per_address_min,
            ),
            self._tee,
            audit,
            os.urandom(8),
            metrics=metrics,
            credentials=identities.credentials,
            meters=identities.meters,
            certificate=identities.certificate,
            localiser=None if self._work is None or not config.blobs else Localiser(self._work, config.blobs),
            answers=config.answers,
        )
        with taking_port("gateway", "ESPLANADE_GATEWAY_PORT", config.host, config.gateway_port):
            port = await self._server.start(config.host, config.gateway_port)
        settle_collector(GC_YOUNG_DOOR)
        return port

    async def start_recording(self, tenant: str, venue: str, folder: str) -> None:
        await asyncio.to_thread(self._tee.start, tenant, venue, Path(folder))

    async def finish_recording(self, tenant: str, venue: str) -> bytes:
        """msgpack of the recording's Manifest."""
        return msgspec.msgpack.encode(await asyncio.to_thread(self._tee.finish, tenant, venue))

    async def stop(self) -> None:
        await self._server.stop()
        await self._system.stop()
        for held in self._closers:
            await held.close()
        await asyncio.to_thread(tracing.stop)

"""What runs in the process of the API: HTTP, and the house kept."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from actors.localiser import Localiser, Work
from actors.ray_system import RaySystem, run_task
from actors.subject_export import held_about
from actors.system import FollowingSystem
from esplanade.control import Do, order
from esplanade.core.clock import RealClock
from esplanade.core.ids import PARTITIONS
from esplanade.erasure import Eraser
from esplanade.housekeeping import Housekeeper
from esplanade.identities import Identities, open_keyring
from esplanade.ports import taking_port
from esplanade.retention import Retention
from esplanade.service_config import GC_YOUNG_DOOR, RUNS, ServiceConfig, begin_logs, settle_collector
from esplanade.storage.blobs import open_blobs
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_keys import PostgresSubjectKeys, forget_destroyed_keys
from esplanade.storage.postgres_webhooks import PostgresWebhooks
from esplanade.storage.redis import RedisBroker
from gateway.api import ApiSettings, Background, PartnerKit, build_api, gateways_check, serve_api
from gateway.audit_trail import AuditTrail
from gateway.code_delivery import CodeCourier
from gateway.code_providers import Sms, Smtp, open_senders
from gateway.metrics import GatewayMetrics
from gateway.rest_users import SubjectKit
from gateway.sign_in import CodeDesk, OperatorDesk
from gateway.token_routes import Doors
from gateway.tokens import TokenDesk


def hosted(config: ServiceConfig) -> ApiProcess:
    """Factory, run inside the process."""
    return ApiProcess(config, RaySystem(), run_task)


class ApiProcess:
    """The HTTP side, and the house kept."""

    def __init__(self, config: ServiceConfig, system: FollowingSystem, work: Work | None = None) -> None:
        self._config = config
        self._system = system
        self._work = work
        self._closers: list[
            PostgresJournal | PostgresCatalogue | PostgresAudit | PostgresWebhooks | PostgresSubjectKeys | RedisBroker | Identities
        ] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        config = self._config
        begin_logs("api", config)
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        journal = await PostgresJournal.open(config.postgres_url, connections=3)  # an export reads whole logs: others must not wait for it
        audit = await PostgresAudit.open(config.postgres_url)
        webhooks = await PostgresWebhooks.open(config.postgres_url)
        keys = await PostgresSubjectKeys.open(config.postgres_url)
        metrics = GatewayMetrics()
        self._identities = identities = await Identities.open(config, catalogue, metrics)
        self._closers = [broker, identities, catalogue, journal, audit, webhooks, keys]
        self._audit = AuditTrail(audit, RealClock(), metrics, run=os.urandom(8))
        self._audit.start()
        eraser = Eraser(keys, identities.store, RealClock())

        async def forget_keys() -> None:
            await asyncio.to_thread(forget_destroyed_keys, config.postgres_url)

        self._retention = Retention(
            answers=config.answers, catalogue=catalogue, people=identities.people, audit=audit, clock=RealClock(), erase=eraser.erase,
            forget_keys=forget_keys, runs=Path(config.data_dir) / RUNS if config.data_dir else None,
        )  # fmt: skip
        self._housekeeper = Housekeeper(journal, outbox_keep_s=config.outbox_keep_s, also=self._keep_house)
        self._housekeeper.start()
        await self._system.follow(journal, broker)

        async def postgres() -> str | None:
            await catalogue.tenants()
            return None

        async def redis() -> str | None:
            await broker.get("esp:readyz")
            return None

        async def shards() -> str | None:
            owned = sum(int(str(counters["partitions"])) for counters in await self._system.profile())
            return None if owned >= PARTITIONS else f"{owned} of {PARTITIONS} partitions have an owner that answers"

        async def gateway() -> str | None:
            reader, writer = await asyncio.open_connection(config.host, config.gateway_port)
            writer.close()
            await writer.wait_closed()
            del reader
            return await gateways_check(broker, config.gateways)() if config.gateways > 1 else None

        store, vault, clock = identities.store, identities.vault, RealClock()
        await identities.credentials.start()
        if identities.meters is not None:
            identities.meters.start()
        if identities.certificate is not None:
            identities.certificate.watch()
        smtp = None if config.smtp is None else msgspec.convert(config.smtp, Smtp)
        sms = None if config.sms is None else msgspec.convert(config.sms, Sms)
        senders = await asyncio.to_thread(open_senders, smtp=smtp, sms=sms, simulated=None if config.messages is None else Path(config.messages))
        self._courier = courier = CodeCourier(senders, clock=clock, metrics=metrics, audit=self._audit)
        codes = CodeDesk(
            store=store, catalogue=catalogue, courier=courier, quota=identities.quota, vault=vault, clock=clock, audit=self._audit,
            sms_prefixes=() if sms is None else sms.prefixes, sms_per_hour=None if sms is None else sms.per_hour,
        )  # fmt: skip
        doors = Doors(
            store=store,
            credentials=identities.credentials,
            tokens=TokenDesk(
                store=store,
                catalogue=catalogue,
                issuer=identities.keys,
                credentials=identities.credentials,
                clock=clock,
                random=os.urandom,
                audit=self._audit,
            ),
            keys=identities.keys,
            codes=codes if senders else None,
            operators=await asyncio.to_thread(lambda: OperatorDesk(store=store, vault=vault, clock=clock, audit=self._audit)),
            clock=clock,
            random=os.urandom,
            guests=config.guests,
        )
        keyring = await open_keyring(keys, catalogue, config.master_key)

        async def export(tenant: str, subject: int) -> dict[str, Any]:
            held = await held_about(journal, catalogue, keyring, tenant, subject)
            return held | {"erased": await keys.erased(tenant, str(subject))}

        async def erase(tenant: str, subject: int) -> bool:
            held = await eraser.erase(tenant, subject)
            await forget_keys()
            return held

        app = build_api(
            catalogue=catalogue,
            broker=broker,
            signer=identities.keys,
            clock=RealClock(),
            settings=ApiSettings(
                ws_url=config.ws_url,
                local_sign_in=config.local_sign_in,
                public_venues=config.public_venues,
                console=Path(config.console) if config.console else None,
                console_missing="script/console could not build it when this was set up",
                per_address_min=config.per_address_min,
            ),
            checks={"postgres": postgres, "redis": redis, "shards": shards, "gateways": gateway},
            profile=self._system.profile,
            audit=self._audit,
            own_metrics=metrics,
            system=self._system,
            journal=journal,
            doors=doors,
            meters=identities.meters,
            partners=PartnerKit(
                webhooks,
                identities.vault,
                os.urandom,
                private=config.webhooks_to_private_addresses,
            ),
            scenarios=rehearsals,
            rehearsing=RehearsalDesk(Path(config.data_dir)) if config.data_dir else None,
            subjects=SubjectKit(export, erase),
            localiser=None if self._work is None or not config.blobs else Localiser(self._work, config.blobs),
            blobs=open_blobs(config.blobs) if config.blobs else None,
        )
        self._background: Background = app.state.background
        await self._background.start()
        with taking_port("API", "ESPLANADE_API_PORT", config.host, config.api_port):
            self._server = await serve_api(app, config.host, config.api_port, identities.certificate)
        settle_collector(GC_YOUNG_DOOR)
        return self._server.port

    async def _keep_house(self) -> None:
        """Drop what has run out; replace the key that signs when it is old; erase who was silent for too long."""
        identities = self._identities
        await identities.store.drop_expired(RealClock().unix_ms())
        kid = await identities.keys.rotate_if_old()
        if kid is not None:
            self._audit.note(tenant="-", who="esplanade", what="signing_key.rotate", target=kid, origin="housekeeping")
        await self._retention.one_pass()

    async def stop(self) -> None:
        await self._housekeeper.stop()
        await self._background.stop()  # event streams end, so that the server has nobody to wait for
        await self._server.stop()
        await self._courier.stop()
        await self._identities.credentials.stop()
        for watcher in (self._identities.meters, self._identities.certificate):
            if watcher is not None:
                await watcher.stop()
        await self._audit.stop()
        await self._system.stop()
        for held in self._closers:
            await held.close()


def rehearsals() -> list[dict[str, str]]:
    """The library's scenarios, as the API tells them."""
    from scenarios.spec import find_scenario, library, load_scenario

    held = [load_scenario(find_scenario(name)) for name in library()]
    return [{"name": one.name, "title": one.title, "venue": one.venue or ""} for one in held]


class RehearsalDesk:
    """Rehearsals of the service whose data directory this is, asked for over its control socket; what they wrote lies beside it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def start(self, tenant: str, scenario: str, *, venue: str | None, faults: bool) -> dict[str, Any]:
        return await self._one("rehearse", tenant=tenant, scenario=scenario, venue=venue, faults=faults)

    async def stop(self, tenant: str, run: str) -> dict[str, Any]:
        return await self._one("stop", tenant=tenant, run=run)

    async def run(self, tenant: str, run: str) -> dict[str, Any]:
        return await self._one("run", tenant=tenant, run=run)

    async def runs(self, tenant: str) -> list[dict[str, Any]]:
        return list((await order(self._data_dir, "runs", tenant=tenant)).runs)

    def describe(self, scenario: str) -> object:
        from scenarios.rehearsals import described

        return described(scenario)

    def folder(self, run: str) -> Path:
        """Of a run that `run` has found."""
        return self._data_dir / RUNS / run

    async def _one(self, do: Do, **more: Any) -> dict[str, Any]:
        [held] = (await order(self._data_dir, do, **more)).runs
        told: dict[str, Any] = held
        return told

"""Each contract test runs against the driver in memory and against the real one (marked `services`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from esplanade.core.clock import RealClock
from esplanade.storage.audit import AuditLog
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.identity import IdentityStore
from esplanade.storage.journal import Journal
from esplanade.storage.memory import (
    MemoryAudit,
    MemoryBroker,
    MemoryCatalogue,
    MemoryHub,
    MemoryJournal,
    MemoryPeople,
    MemoryStore,
    MemorySubjectKeys,
)
from esplanade.storage.memory_identity import IdentityShelf, MemoryIdentity
from esplanade.storage.memory_webhooks import MemoryWebhooks
from esplanade.storage.people import People
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_identity import PostgresIdentity
from esplanade.storage.postgres_keys import PostgresSubjectKeys
from esplanade.storage.postgres_people import PostgresPeople
from esplanade.storage.postgres_webhooks import PostgresWebhooks
from esplanade.storage.redis import RedisBroker
from esplanade.storage.sealing import SubjectKeys
from esplanade.storage.webhooks import WebhookStore
from tests.services_fixtures import postgres_server_url, postgres_url, redis_url

__all__ = ["postgres_server_url", "postgres_url", "redis_url"]

Opener = Callable[[], Awaitable[Journal]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def open_journal(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Opens journals on one store: several calls are several owners."""
    opened: list[Journal] = []
    store = MemoryStore(RealClock())
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None

    async def opener() -> Journal:
        journal: Journal = MemoryJournal(store) if url is None else await PostgresJournal.open(url)
        opened.append(journal)
        return journal

    yield opener
    for journal in opened:
        await journal.close()


@pytest.fixture
async def journal(open_journal: Opener) -> Journal:
    return await open_journal()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def catalogue(request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    if request.param == "memory":
        yield MemoryCatalogue(RealClock())
        return
    catalogue = await PostgresCatalogue.open(request.getfixturevalue("postgres_url"))
    yield catalogue
    await catalogue.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def audit_log(request: pytest.FixtureRequest) -> AsyncIterator[AuditLog]:
    if request.param == "memory":
        yield MemoryAudit()
        return
    log = await PostgresAudit.open(request.getfixturevalue("postgres_url"))
    yield log
    await log.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def subject_keys(request: pytest.FixtureRequest) -> AsyncIterator[SubjectKeys]:
    if request.param == "memory":
        yield MemorySubjectKeys()
        return
    keys = await PostgresSubjectKeys.open(request.getfixturevalue("postgres_url"))
    yield keys
    await keys.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def people(request: pytest.FixtureRequest) -> AsyncIterator[People]:
    """With the tenants `demo` and `other`."""
    if request.param == "memory":
        yield MemoryPeople(("demo", "other"))
        return
    url = request.getfixturevalue("postgres_url")
    catalogue = await PostgresCatalogue.open(url)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.add_tenant("other", "Other")
    people = await PostgresPeople.open(url)
    yield people
    await people.close()
    await catalogue.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def identities(request: pytest.FixtureRequest) -> AsyncIterator[tuple[IdentityStore, IdentityStore]]:
    """Two processes on one store, with a tenant `demo`."""
    if request.param == "memory":
        shelf = IdentityShelf({"demo", "other"})
        yield MemoryIdentity(shelf), MemoryIdentity(shelf)
        return
    url = request.getfixturevalue("postgres_url")
    catalogue = await PostgresCatalogue.open(url)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.add_tenant("other", "Other")
    stores = await PostgresIdentity.open(url), await PostgresIdentity.open(url)
    yield stores
    for held in (catalogue, *stores):
        await held.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.services)])
async def webhook_house(request: pytest.FixtureRequest) -> AsyncIterator[tuple[WebhookStore, Journal, Catalogue]]:
    """Webhooks, and the journal whose outbox they deliver."""
    if request.param == "memory":
        store = MemoryStore(RealClock())
        yield MemoryWebhooks(store), MemoryJournal(store), MemoryCatalogue(RealClock())
        return
    url = request.getfixturevalue("postgres_url")
    webhooks, journal, catalogue = await PostgresWebhooks.open(url), await PostgresJournal.open(url), await PostgresCatalogue.open(url)
    yield webhooks, journal, catalogue
    for held in (webhooks, journal, catalogue):
        await held.close()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Broker, Broker]]:
    """Two processes' brokers on one server."""
    if request.param == "memory":
        hub = MemoryHub(RealClock())
        yield MemoryBroker(hub), MemoryBroker(hub)
        return
    url = request.getfixturevalue("redis_url")
    first, second = await RedisBroker.open(url), await RedisBroker.open(url)
    yield first, second
    await first.close()
    await second.close()

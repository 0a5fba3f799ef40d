"""What the gateway knows of venues: asked for once however many want it, read again only where it has changed."""

from __future__ import annotations

import asyncio

import pytest

from esplanade.core.clock import ManualClock
from esplanade.core.errors import NotFound
from esplanade.storage.catalogue import VenueEntry
from esplanade.storage.memory import MemoryCatalogue
from gateway.venues import FRESH_S, VenueCache
from tests.actors.parkside import document


class Counted(MemoryCatalogue):
    """Counts what is read."""

    lists = documents = 0

    async def venues(self, tenant: str | None = None) -> list[VenueEntry]:
        self.lists += 1
        await asyncio.sleep(0)
        return await super().venues(tenant)

    async def venue(self, tenant: str, venue: str) -> bytes:
        self.documents += 1
        await asyncio.sleep(0)
        return await super().venue(tenant, venue)


async def test_a_hundred_who_ask_at_once_are_one_question_and_an_unchanged_document_is_not_read_again() -> None:
    """Each read it for himself once: every thirty seconds nothing went through the gateway for half a second."""
    clock = ManualClock()
    catalogue = Counted(clock)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    cache = VenueCache(catalogue, clock)
    assert len({id(facts) for facts in await asyncio.gather(*(cache.get("demo", "parkside") for _ in range(100)))}) == 1
    assert (catalogue.lists, catalogue.documents) == (1, 1)
    clock.advance(FRESH_S + 1)
    assert cache.cached("demo", "parkside") is None
    await asyncio.gather(*(cache.get("demo", "parkside") for _ in range(100)))
    assert (catalogue.lists, catalogue.documents) == (2, 1)
    await catalogue.put_venue("demo", document().replace(b'"Parkside"', b'"Parkside II"'))
    clock.advance(FRESH_S + 1)
    assert (await cache.get("demo", "parkside")).name == "Parkside II"
    assert catalogue.documents == 2
    with pytest.raises(NotFound):
        await asyncio.gather(*(cache.get("demo", "nowhere") for _ in range(3)))

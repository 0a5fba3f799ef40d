"""Gateways that die between an edit's journal entry and the catalogue: the shard puts the document there, once it is durable and nobody else has."""

from __future__ import annotations

import zlib

from actors.edited_maps import AFTER_S, AGAIN_S
from actors.messages import Edited, EditVenue, LiveEdit
from esplanade.core.ids import Address
from spatial.venue_edits import CloseUnit, OpenUnit, Relabel
from tests.actors.parkside import document
from tests.actors.stage import Stage, stage

MALL = Address("mall", "demo", "parkside")


async def edit(at: Stage, edit: LiveEdit) -> Edited:
    """The edit, journalled; the gateway that asked dies before it has told the catalogue."""
    told = await at.system.ask(MALL, EditVenue(edit=edit))
    assert isinstance(told, Edited), told
    return told


async def catalogued(at: Stage) -> str:
    return next(entry.digest for entry in await at.catalogue.venues("demo") if entry.venue == "parkside")


async def wait(at: Stage, seconds: float) -> None:
    for _ in range(round(seconds) + 2):
        for shard in at.system.shards:
            await shard.renew()
        await at.poll(1.5)


async def test_an_edit_that_its_gateway_never_published_is_put_into_the_catalogue_and_so_is_the_next() -> None:
    async with stage() as at:
        first = await edit(at, CloseUnit(unit_id="shop-00"))
        before = await catalogued(at)
        await at.poll(1.5)
        assert await catalogued(at) == before != first.digest, "it may still be on its way"
        await wait(at, AFTER_S)
        assert await catalogued(at) == first.digest
        second = await edit(at, OpenUnit(unit_id="shop-00"))
        await wait(at, AFTER_S)
        assert await catalogued(at) == second.digest


async def test_a_shard_that_dies_with_the_gateway_finds_the_edit_when_it_is_replayed() -> None:
    async with stage() as at:
        await at.system.clock("demo", "parkside")
        told = await edit(at, Relabel(unit_id="shop-00", occupant="Quetzal"))
        await at.restart()
        await wait(at, AFTER_S)
        assert await catalogued(at) == told.digest


async def test_what_was_published_is_left_alone_and_so_is_another_import() -> None:
    async with stage() as at:
        told = await edit(at, CloseUnit(unit_id="shop-00"))
        await at.catalogue.put_venue("demo", zlib.decompress(told.document))
        await wait(at, AFTER_S)
        shard = at.system.shards[0]
        assert shard._maps.put == 0
        other = document().replace(b'"name":"Parkside"', b'"name":"Parkside II"')
        entry = await at.catalogue.put_venue("demo", other)
        await wait(at, AGAIN_S)
        assert (await catalogued(at), shard._maps.put) == (entry.digest, 0)

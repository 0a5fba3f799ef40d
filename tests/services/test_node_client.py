"""The Node client of tests/peers, written from docs/protocol.md alone, against the whole stack: the real command, shards as processes, PostgreSQL and Redis."""

from __future__ import annotations

import math

import pytest

from gateway.client import Client
from spatial.venue_files import load_venue
from tests.actors.parkside import keys, u4
from tests.peers.test_node_client import node, run_client
from tests.services.stack import ROOT, Esplanade

pytestmark = pytest.mark.services

__all__ = ["node"]  # a fixture: skips with the reason where node or its packages are not to be had


async def test_a_stranger_walks_in_passes_a_shop_gets_its_offer_and_pays(service: Esplanade, node: str) -> None:
    venue = load_venue(ROOT / "scenarios" / "venues" / "parkside_mall.json")
    levels = [level.id for level in venue.levels]
    entrance = next(entrance for entrance in venue.entrances if entrance.code == "north_entrance")
    shops = {occupant.unit_id for occupant in venue.occupants}
    doors = [
        ((opening.a[0] + opening.b[0]) / 2, (opening.a[1] + opening.b[1]) / 2, opening.unit_id)
        for opening in venue.openings
        if opening.level_id == entrance.level_id and opening.unit_id in shops
    ]
    x, y, shop = min(doors, key=lambda door: math.dist(door[:2], entrance.point))
    operator = await Client.connect(service.ws, client="node-operator", token=service.token("operator"))
    offer = {"id": "node-offer", "unit_id": shop, "title": "Today only", "audience": {"type": "within", "radius_m": 5.0}}
    await operator.request("create_offer", venue=venue.id, offer=offer)
    before = await operator.request("get_books")

    async def top_up(subject: int) -> None:
        await operator.top_ups(tick=1, key=keys(4242), subject=u4(subject), amount=u4(1000), currency="EUR")

    level = str(levels.index(entrance.level_id))
    steps = await run_client(
        node, service.ws, "demo", venue.id, "north_entrance", level, f"{x:.2f}", f"{y:.2f}", shop, "250", "EUR", "msgpack", top_up=top_up
    )
    books = await operator.request("get_books")
    await operator.close()
    said = {step["step"]: step for step in steps}
    assert (said["push"]["kind"], said["push"]["title"]) == ("NEARBY", "Today only")
    assert said["paid"]["balances"] == {"EUR": 750}
    assert said["resumed"]["resumed"]
    assert (books["payments"] - before["payments"], books["total"]) == (1, {"EUR": 0})
